/* SPDX-License-Identifier: MIT */
/* Allocation of a frame for a page. If no frame is free, another page is evicted. */
#ifndef FM_MM_RECLAIM_GET_H
#define FM_MM_RECLAIM_GET_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct frame_pool;
struct page;

int page_add(struct fm_file *file, uint64_t index, unsigned flags, struct page **ret_page,
	     bool *ret_new);
struct page *group_take(struct frame_pool *pool, bool evict);

#endif
