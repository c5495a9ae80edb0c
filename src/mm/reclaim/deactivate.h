/* SPDX-License-Identifier: MIT */
/*
 * Deactivation: take installed pages out of their views, so that a later touch shows their use.
 */
#ifndef FM_MM_RECLAIM_DEACTIVATE_H
#define FM_MM_RECLAIM_DEACTIVATE_H

#include "mm/frames/page_list.h"

#include <stdbool.h>
#include <stdint.h>

struct frame_pool;

uint32_t deactivate_run(struct frame_pool *pool, enum page_list from, uint32_t most, bool let_off,
			uint32_t *freed);

#endif
