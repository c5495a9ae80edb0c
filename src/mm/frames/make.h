/* SPDX-License-Identifier: MIT */
/* Making a pool and its metadata, and taking the pool down. */
#ifndef FM_MM_FRAMES_MAKE_H
#define FM_MM_FRAMES_MAKE_H

#include <stdint.h>

struct fm_mm;
struct frame_pool;

#define POOL_STAGES_MAX 64u

#ifdef FM_SIM
#define POOL_STAGE_SHARE 16u /* pools in the simulation are small */
#else
#define POOL_STAGE_SHARE 128u /* frames for each staging slot */
#endif

int pool_create(struct fm_mm *mm, uint32_t page_size, struct frame_pool **ret_pool);
void pool_drop(struct frame_pool *pool);
void pool_destroy(struct frame_pool *pool);

#endif
