/* SPDX-License-Identifier: MIT */
/* Work that is left to the background thread: the thread puts protection on and drops
 * copies. */
#ifndef FM_MM_VIEW_LATER_H
#define FM_MM_VIEW_LATER_H

#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct fm_mm;
struct frame_pool;
struct page;
struct view;

/* Queue of work for the background thread: pages to protect, and copies to drop. */
struct after_work {
	struct os_lock lock;
	uint32_t capacity, head, count;
	uint32_t passes; /* passes of the thread that have ended; atomic */
	bool overflowed;
	struct after_item {
		uint16_t pool, count;
		uint32_t page;
	} *item;
};

void after_add(struct fm_mm *mm, struct frame_pool *pool, struct page *page, uint32_t count);
bool after_work_waits(struct fm_mm *mm);
uint64_t page_addr(const struct view *view, const struct frame_pool *pool, const struct page *page);
uint64_t page_shown_bytes(struct fm_file *file, const struct page *page);
void page_drop_copy(struct fm_mm *mm, struct frame_pool *pool, struct page *page);
bool after_work_run(struct fm_mm *mm);

#endif
