/* SPDX-License-Identifier: MIT */
/* Runs leave the view together: neighbouring pages of a file whose frames are
 * neighbours. */
#ifndef FM_MM_VIEW_RUN_H
#define FM_MM_VIEW_RUN_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct fm_mm;
struct frame_pool;
struct page;

#define RUN_TRIES 20
/* bytes that one page table covers, and at most one call of pt_get() */
#define PT_BYTES (2ull << 20)

bool run_is_of(struct page *page, const struct fm_file *file, uint64_t index);
void run_leave(struct frame_pool *pool, struct page *page);
bool run_join(struct fm_file *file, struct page *page, uint64_t index, uint32_t mask,
	      uint32_t flags);
uint32_t run_move(struct fm_mm *mm, uint64_t dst, uint64_t src, uint32_t count, struct page *leaves,
		  int *ret_err);
uint32_t run_gather_out(struct frame_pool *pool, struct page *first, uint32_t most, bool let_off);
uint32_t run_take_out_some(struct frame_pool *pool, struct page *first, uint32_t count);
uint32_t take_out_together(struct fm_file *file, struct page *first, uint32_t most, uint32_t flags,
			   uint32_t never);

#endif
