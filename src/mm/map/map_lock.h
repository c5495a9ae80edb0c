/* SPDX-License-Identifier: MIT */
/* The map lock: a reader-writer lock on futexes, phase-fair, instrumented. */
#ifndef FM_MM_MAP_MAP_LOCK_H
#define FM_MM_MAP_MAP_LOCK_H

#include <stdint.h>

struct fm_mm;
struct stats_page;

struct map_lock {
	uint32_t rin, rout, win, wout; /* phase-fair: see map_lock.c */
	uint64_t writer_since_ns;
	struct stats_page *stats;
};

void map_lock_shared(struct map_lock *lock);
void map_unlock_shared(struct map_lock *lock);
void map_lock_exclusive(struct map_lock *lock);
void map_unlock_exclusive(struct map_lock *lock);
/* Count in the statistics if the thread holds the map lock. A debug build then aborts, unless
 * FM_MM_HOLD_LOCK is set. Every function that can block calls might_block() first. */
void might_block(struct fm_mm *mm);

#endif
