/* SPDX-License-Identifier: MIT */
/* Taking a frame, and the last pin that frees a page. */
#ifndef FM_MM_FRAMES_FRAME_H
#define FM_MM_FRAMES_FRAME_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct frame_pool;
struct page;

enum page_add_flags {
	ADD_RECLAIM = 1u << 0, /* when no frame is free, take one from another page */
	ADD_HOLE = 1u << 1,    /* the frame may come without memory, see frame_alloc() */
	ADD_STREAM = 1u << 2,  /* readahead has predicted the page */
	ADD_SINGLE = 1u << 3,  /* readahead wants frames for single pages, also from groups */
};

uint32_t page_unpin_quiet(struct frame_pool *pool, struct page *page);
void page_unpin(struct frame_pool *pool, struct page *page);
struct page *frame_get(struct frame_pool *pool, unsigned flags);
struct page *frame_alloc(struct frame_pool *pool, bool fill);
void frame_drop(struct frame_pool *pool, struct page *page);
void page_drop_pins(struct fm_file *file, struct page *page);

#endif
