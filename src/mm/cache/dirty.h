/* SPDX-License-Identifier: MIT */
/* Dirty pages: the transitions between clean, dirty, being written, and waiting for a flush. */
#ifndef FM_MM_CACHE_DIRTY_H
#define FM_MM_CACHE_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct frame_pool;
struct page;

void page_mark_dirty(struct frame_pool *pool, struct page *page);
bool page_is_unsaved(struct frame_pool *pool, const struct page *page);
bool page_mark_unsaved(struct frame_pool *pool, struct page *page);
bool page_clear_dirty(struct frame_pool *pool, struct page *page);
void page_write_begin(struct frame_pool *pool, struct page *page, bool keep_dirty);
void page_flush_end(struct frame_pool *pool, struct page *page, uint64_t *bits, bool failed);
void page_write_stored(struct frame_pool *pool, struct page *page);
void page_write_end(struct frame_pool *pool, struct page *page, int error, uint32_t flush_failures);
void page_flushing(struct frame_pool *pool, struct page *page);
void page_drop_dirty(struct frame_pool *pool, struct page *page);
void file_write_failed(struct fm_file *file, int error);
void file_lost_page(struct fm_file *file, uint64_t index);

#endif
