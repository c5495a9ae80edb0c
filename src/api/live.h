/* SPDX-License-Identifier: MIT */
/*
 * The address spaces that are alive, and the end of the process: see live.c.
 * May call: mm.
 */
#ifndef FM_API_LIVE_H
#define FM_API_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fm_file;
struct fm_mm;

/* Forget the parent's objects in a child after fork(): none of these objects is alive there.
 * Called before an address space is made. */
void live_forget_parents(void);
int live_add(struct fm_mm *mm); /* -EMFILE: there are too many address spaces */
bool live_remove(struct fm_mm *mm); /* false: another thread has removed the address space */
/* Returns 0; -EINVAL for NULL; -EOWNERDEAD if the object has gone, or is the parent's. */
int live_mm(const struct fm_mm *mm);
int live_file(const struct fm_file *file);
/* Get the pages of a range. Returns 0; -EINVAL if the range is invalid; errors of live_mm(). */
int live_range(struct fm_mm *mm, const void *addr, size_t len, uint64_t *ret_start,
		       uint64_t *ret_end);

/* Tell whether another thread has called exit(), and is handling this address space just now. */
bool live_is_flushing(const struct fm_mm *mm);
/* Change the count of fm_mm_destroy() calls that still write: 1 adds a call, -1 removes a
 * call. */
void live_finishing(int calls);
/* Have the dirty pages and recordings written at the end of the process, from this call on. */
void live_watch_exit(void);
/* Write all dirty pages. With `last`, no code of the library runs after the call. */
void api_process_ends(bool last);

#endif
