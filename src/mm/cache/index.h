/* SPDX-License-Identifier: MIT */
/*
 * The index of cached pages: look-up, insertion and removal of a page of a file.
 */
#ifndef FM_MM_CACHE_INDEX_H
#define FM_MM_CACHE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct frame_pool;
struct page;

struct page_glance {
	uint32_t state;
	uint16_t user_pins, shown;
};

typedef void (*page_fn)(struct fm_file *file, struct page *page, void *arg);

struct page *page_find(struct fm_file *file, uint64_t index);
bool page_glance(struct fm_file *file, uint64_t index, struct page_glance *ret_glance);
struct page *page_insert(struct fm_file *file, uint64_t index, struct page *fresh, unsigned flags);
void page_remove(struct frame_pool *pool, struct page *page);
uint64_t file_pages(struct fm_file *file);
void file_each_cached(struct fm_file *file, uint64_t first, uint64_t last, page_fn fn, void *arg);
bool page_is_cached(struct fm_file *file, uint64_t index);
void ra_wasted(struct fm_file *file);
void file_drop_pins(struct fm_file *file);

#endif
