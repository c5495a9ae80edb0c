/* SPDX-License-Identifier: MIT */
/*
 * Groups: 512 frames of 4 KiB, side by side, whose memory is one huge page. A reader that goes
 * through a file from one end to the other gets groups.
 */
#ifndef FM_MM_FRAMES_GROUP_H
#define FM_MM_FRAMES_GROUP_H

#include "os/os.h"
#include "trap/trap.h"

#include <stdbool.h>
#include <stdint.h>

struct frame_pool;
struct page;

#define GROUPS_AHEAD 8u /* groups */

#ifdef FM_SIM
#define GROUP_PAGES 4u
#else
#define GROUP_PAGES (TRAP_TOGETHER / OS_PAGE)
#endif

uint32_t group_of(const struct frame_pool *pool, const struct page *page);
uint32_t groups_for(const struct frame_pool *pool);
bool group_is_whole(const struct frame_pool *pool, const struct page *page);
struct page *group_first(const struct frame_pool *pool, const struct page *page);
bool group_is_all(const struct frame_pool *pool, const struct page *first, uint32_t count);
void group_split_locked(struct frame_pool *pool, uint32_t group);
void group_split(struct frame_pool *pool, const struct page *first, uint32_t count);
void group_park_locked(struct frame_pool *pool, struct page *page);
uint32_t groups_free(struct frame_pool *pool);
bool group_break(struct frame_pool *pool);
void group_installed(struct frame_pool *pool, const struct page *first, uint32_t count);
bool group_enough(struct frame_pool *pool);
struct page *group_take_free(struct frame_pool *pool);

#endif
