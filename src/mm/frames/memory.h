/* SPDX-License-Identifier: MIT */
/*
 * Memory for frames: functions that fill holes, make huge frames and groups, and give memory
 * back.
 */
#ifndef FM_MM_FRAMES_MEMORY_H
#define FM_MM_FRAMES_MEMORY_H

#include "mm/frames/frame_pool.h"
#include "trap/trap.h"

#include <stdbool.h>
#include <stdint.h>

struct frame_pool;
struct page;

#ifdef FM_SIM
#define FILL_PIECE 2u
#else
#define FILL_PIECE (TRAP_TOGETHER / pool->page_size)
#endif

#define GROW_AHEAD 16u /* huge frames to keep free while there is memory for more */

#define GROW_PIECE 4u /* huge frames populated at a time: takes some ms */

bool pool_fills_ahead(struct frame_pool *pool);
bool pool_fill_ahead(struct frame_pool *pool);
int frame_fill_first(struct frame_pool *pool, struct page *page);
int frame_fill(struct frame_pool *pool, struct page *page);
uint32_t pool_release_memory(struct frame_pool *pool, uint32_t frames);
bool pool_may_grow(struct frame_pool *pool);
bool pool_grow(struct frame_pool *pool, uint32_t most);
bool pool_grow_ahead(struct frame_pool *pool);
bool group_has_room(struct frame_pool *pool);
bool group_make(struct frame_pool *pool, bool only_holes);
void groups_fill_ahead(struct frame_pool *pool);

#endif
