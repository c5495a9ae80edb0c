/* SPDX-License-Identifier: MIT */
/*
 * Frames: the memory of one page size, the descriptors, the free lists and the clock's queues.
 */
#ifndef FM_MM_FRAMES_POOL_H
#define FM_MM_FRAMES_POOL_H

#include "mm/base/ticket_list.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page_list.h"
#include "os/os.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fm_mm;
struct pin_set;

#define FILL_PAUSE_NS OS_NSEC_PER_MSEC

struct page *lru_take(struct frame_pool *pool, enum page_list list, uint32_t most,
		      uint32_t *ret_count);
struct page *lru_take_one(struct frame_pool *pool, enum page_list list);
uint32_t pool_spare(struct frame_pool *pool);
bool pool_under_pressure(struct frame_pool *pool);
bool pool_at_floor(struct frame_pool *pool);
bool pool_pauses(struct frame_pool *pool);
bool pool_may_fill(struct frame_pool *pool);
bool pool_evicts(struct frame_pool *pool);
struct page *frame_take(struct frame_pool *pool, bool filled);
void frame_begin(struct page *page, uint32_t flags);
void frame_free(struct frame_pool *pool, struct page *page);
void pool_wake_waiters(struct frame_pool *pool);
void page_check(struct frame_pool *pool, const struct page *page);

#endif
