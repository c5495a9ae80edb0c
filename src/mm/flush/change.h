/* SPDX-License-Identifier: MIT */
/*
 * Changes of a range of a file (truncate, punch): one at a time, and no write of the range is under
 * way. Each wait ends at `until_ns`, the caller's deadline (file_sync_deadline()).
 */
#ifndef FM_MM_FLUSH_CHANGE_H
#define FM_MM_FLUSH_CHANGE_H

#include <stdint.h>

struct fm_file;
struct page;

/* Wait for the file's present change, and begin another. Returns 0 or -ETIMEDOUT. */
int resize_begin(struct fm_file *file, uint64_t until_ns);
void resize_end(struct fm_file *file);
/* Lock a pinned page once no write of the page is under way. Blocks. Returns 0 or -ETIMEDOUT. */
int page_lock_unwritten(struct fm_file *file, struct page *page, uint64_t until_ns);
/* Begin a change: until change_end(), no page of the range is written or becomes dirty. Blocks.
 * Returns 0, or -ETIMEDOUT without a change. */
int change_begin(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns);
void change_end(struct fm_file *file);

#endif
