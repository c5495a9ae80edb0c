/* SPDX-License-Identifier: MIT */
/*
 * Atomics on state words. All are seq_cst, and all are defined here, so that the simulator can
 * make each atomic a scheduling point. Statistics are the exception: they are relaxed
 * (stats.h). May call: nothing.
 */
#ifndef FM_OS_ATOMIC_H
#define FM_OS_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

#ifdef FM_SIM
void sim_point_at(const void *word, bool writes);
#define FM_POINT(p, writes) sim_point_at((const void *)(p), writes)
/* Coverage: the situation of a hazard, or an error exit. sim/cover.h names them all. */
#define covered(row)                                                                           \
	({                                                                                     \
		extern uint64_t cover_##row;                                                   \
		(void)cover_##row++;                                                           \
	})
#define covered_if(cond, row) ((cond) ? covered(row) : (void)0)
/* Let the simulator's checkers look on. */
#define watched(what, arg)                                                                     \
	({                                                                                     \
		void sim_watch_##what(const void *);                                           \
		sim_watch_##what(arg);                                                         \
	})
#else
#define FM_POINT(p, writes) ((void)0)
#define covered(row) ((void)0)
#define covered_if(cond, row) ((void)0)
#define watched(what, arg) ((void)0)
#endif

#define atomic_get(p)                                                                          \
	({                                                                                     \
		FM_POINT(p, false);                                                            \
		__atomic_load_n((p), __ATOMIC_SEQ_CST);                                        \
	})
#define atomic_set(p, v)                                                                       \
	({                                                                                     \
		FM_POINT(p, true);                                                             \
		__atomic_store_n((p), (v), __ATOMIC_SEQ_CST);                                  \
	})
/* Each of these macros returns the value from before. */
#define atomic_add(p, v)                                                                       \
	({                                                                                     \
		FM_POINT(p, true);                                                             \
		__atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST);                                \
	})
#define atomic_sub(p, v)                                                                       \
	({                                                                                     \
		FM_POINT(p, true);                                                             \
		__atomic_fetch_sub((p), (v), __ATOMIC_SEQ_CST);                                \
	})
#define atomic_or(p, v)                                                                        \
	({                                                                                     \
		FM_POINT(p, true);                                                             \
		__atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST);                                 \
	})
#define atomic_and(p, v)                                                                       \
	({                                                                                     \
		FM_POINT(p, true);                                                             \
		__atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST);                                \
	})
#define atomic_xchg(p, v)                                                                      \
	({                                                                                     \
		FM_POINT(p, true);                                                             \
		__atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST);                               \
	})
/* Returns true if *p was *expected and is now `v`; else *expected holds the value of *p. */
#define atomic_cas(p, expected, v)                                                             \
	({                                                                                     \
		FM_POINT(p, true);                                                             \
		__atomic_compare_exchange_n((p), (expected), (v), false, __ATOMIC_SEQ_CST,     \
					    __ATOMIC_SEQ_CST);                                 \
	})

#endif
