/* SPDX-License-Identifier: MIT */
/* End a read for each of its pages. */
#ifndef FM_MM_FILL_PAGES_H
#define FM_MM_FILL_PAGES_H

#include <stdint.h>

struct fm_file;
struct fm_mm;
struct frame_pool;
struct iovec;
struct page;

uint64_t page_bytes(struct fm_file *file, const struct page *page);
int file_changed_behind(struct fm_file *file, uint32_t epoch);
void page_end_read(struct fm_file *file, struct page *page, uint64_t bytes, int error,
		   uint32_t epoch);
void page_end_unread(struct fm_file *file, struct page *page);
void page_begin_read(struct frame_pool *pool, struct page *page);
void read_note_latency(struct fm_file *file, uint64_t ns);
int read_build_iov(struct fm_file *file, struct page **pages, uint32_t count, struct iovec *iov);
void read_count(struct fm_mm *mm, uint64_t bytes, unsigned shorts, int error);
void pages_end_read(struct fm_file *file, struct page **pages, uint32_t count,
			   uint64_t bytes, int error, uint32_t epoch);
int pages_fill(struct frame_pool *pool, struct page **pages, uint32_t count);

#endif
