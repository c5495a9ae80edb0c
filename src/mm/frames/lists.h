/* SPDX-License-Identifier: MIT */
/* The lists of a pool that its pages are on. The pool lock protects them. */
#ifndef FM_MM_FRAMES_LISTS_H
#define FM_MM_FRAMES_LISTS_H

#include "mm/frames/page_list.h"

#include <stdint.h>

struct frame_pool;
struct page;

uint32_t page_id(const struct frame_pool *pool, const struct page *page);
void queue_unlink(struct frame_pool *pool, struct page *page);
void queue_append(struct frame_pool *pool, struct page *page, enum page_list list);
void lru_set(struct frame_pool *pool, struct page *first, uint32_t count, enum page_list list);
void lru_move(struct frame_pool *pool, struct page *page, enum page_list from, enum page_list to);
struct page *lru_take_last(struct frame_pool *pool, enum page_list list);
uint32_t lru_count(struct frame_pool *pool, enum page_list list);

#endif
