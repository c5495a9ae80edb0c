/* SPDX-License-Identifier: MIT */
/*
 * Who is alive, and the end of the process: see live.c.
 * May call: mm.
 */
#ifndef FM_API_LIVE_H
#define FM_API_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fm_file;
struct fm_mm;

/* In a child after fork(): nothing of the parent's is alive. Before an address space is made. */
void live_forget_parents(void);
int live_add(struct fm_mm *mm); /* -EMFILE: there are too many */
bool live_remove(struct fm_mm *mm); /* false: another thread has removed it */
/* 0; -EINVAL: NULL; -EOWNERDEAD: it has gone, or is the parent's. */
int live_mm(const struct fm_mm *mm);
int live_file(const struct fm_file *file);
/* 0 and the pages of a range; -EINVAL: it is none. Errors of live_mm(). */
int live_range(struct fm_mm *mm, const void *addr, size_t len, uint64_t *ret_start,
		       uint64_t *ret_end);

/* Another thread has called exit(), and looks at this address space just now. */
bool live_is_flushing(const struct fm_mm *mm);
/* Calls of fm_mm_destroy() that still write: one more, or one less. */
void live_finishing(int calls);
/* From here on there is something to be written at the end of the process. */
void live_watch_exit(void);
/* Write all that is dirty. With `last`, nothing of the library runs after the call. */
void api_process_ends(bool last);

#endif
