/* SPDX-License-Identifier: MIT */
/* The lists of a pool that its pages are on. The pool lock protects them. */
#ifndef FM_MM_FRAMES_LISTS_H
#define FM_MM_FRAMES_LISTS_H

#include <stdint.h>

struct frame_pool;
struct page;

/* AHEAD: not installed yet. YOUNG: installed, and touched by one fault. ACTIVE: installed, and come back to. INACTIVE: taken
 * out of the view, to see whether somebody comes back. COLD: not installed, and COLD_SHOWN: installed; both by FM_ADVICE_COLD. HELD:
 * the clock has met it dirty, or written and not flushed; it comes back when it is neither. See reclaim.c. GROUPS and
 * PARKED: free, and of a group, all of which is, or some: see group.c. */
enum page_list {
	LIST_NONE, LIST_FREE, LIST_HOLES, LIST_AHEAD, LIST_YOUNG, LIST_ACTIVE, LIST_INACTIVE, LIST_COLD, LIST_COLD_SHOWN,
	LIST_HELD, LIST_GROUPS, LIST_PARKED, LIST_COUNT
};

struct page_queue {
	uint32_t head, tail, count;
};

uint32_t page_id(const struct frame_pool *pool, const struct page *page);
void queue_unlink(struct frame_pool *pool, struct page *page);
void queue_append(struct frame_pool *pool, struct page *page, enum page_list list);
void lru_set(struct frame_pool *pool, struct page *first, uint32_t count, enum page_list list);
void lru_move(struct frame_pool *pool, struct page *page, enum page_list from, enum page_list to);
struct page *lru_take_last(struct frame_pool *pool, enum page_list list);
uint32_t lru_count(struct frame_pool *pool, enum page_list list);

#endif
