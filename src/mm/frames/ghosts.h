/* SPDX-License-Identifier: MIT */
/* Ghosts: a memory of the pages that were evicted from YOUNG not long ago. */
#ifndef FM_MM_FRAMES_GHOSTS_H
#define FM_MM_FRAMES_GHOSTS_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct frame_pool;
struct page;

void ghost_add(struct frame_pool *pool, const struct page *page);
bool ghost_take(struct frame_pool *pool, const struct fm_file *file, uint64_t index, bool stream);

#endif
