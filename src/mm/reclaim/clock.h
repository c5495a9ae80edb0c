/* SPDX-License-Identifier: MIT */
/* The clock over frames: eviction of pages to free their frames. */
#ifndef FM_MM_RECLAIM_CLOCK_H
#define FM_MM_RECLAIM_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct frame_pool;

uint32_t reclaim(struct frame_pool *pool, uint32_t want, bool background);

#endif
