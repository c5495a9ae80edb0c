/* SPDX-License-Identifier: MIT */
/* Batches of dirty pages, in the order in which the pages are written. */
#ifndef FM_MM_FLUSH_BATCH_H
#define FM_MM_FLUSH_BATCH_H

#include "mm/flush/request.h"

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct frame_pool;
struct page;

struct batch {
	uint32_t id[BATCH], count;
};

bool batch_is_in(const struct page *page, const struct fm_file *file, uint64_t first,
		 uint64_t last);
bool batch_next(struct frame_pool *pool, uint64_t *bits, struct fm_file *file, uint64_t first,
		uint64_t last, uint32_t *at, struct batch *batch);

#endif
