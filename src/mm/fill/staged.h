/* SPDX-License-Identifier: MIT */
/* Staged reads: a page is read into a staging slot and moves from the slot into the view. */
#ifndef FM_MM_FILL_STAGED_H
#define FM_MM_FILL_STAGED_H

#include <stdbool.h>
#include <stdint.h>

struct frame_pool;
struct page;
struct view;

int stage_fill(struct frame_pool *pool, const char *stage);
bool staged_install(struct view *view, struct page *page, const char *stage, bool write,
		    bool may_wait, uint64_t bytes, uint32_t epoch, int *err);

#endif
