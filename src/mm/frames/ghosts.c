/* SPDX-License-Identifier: MIT */
/* Ghosts: a memory of the pages that were evicted from YOUNG not long ago. */
#include "mm/frames/ghosts.h"

#include "mm/base/file.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"

#define STREAM_PIECE_SHIFT 7 /* pages, 512 KiB: runs share their fate */
/*
 * Pages that were evicted without anybody having come back to them leave a mark for a while, by
 * which they are known should they be read again: they are then worth more than what passes by
 * once. 16 bits for one or two frames, by a hash of the page: nine of them tell the page, seven the
 * time, in evictions; a newer page takes an older one's place. A mistake costs a guess.
 */
#define GHOST_MOMENTS 128u
#define GHOST_LINE 32u

static uint64_t ghost_hash(const struct fm_file *file, uint64_t index)
{
	uint64_t hash = (index + ((uintptr_t)file >> 6) * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
	return hash ^ hash >> 29;
}

/* Neighbours lie in one line of the processor's cache. */
static uint16_t *ghost_at(const struct frame_pool *pool, const struct fm_file *file, uint64_t index)
{
	return &pool->ghosts[(ghost_hash(file, index / GHOST_LINE) * GHOST_LINE +
			      index % GHOST_LINE) &
			     pool->ghost_mask];
}

/* Of `frames` evictions there are half as many moments as can be told. */
static uint32_t ghost_moment(const struct frame_pool *pool)
{
	return __atomic_load_n(&pool->ghost_clock, __ATOMIC_RELAXED) /
	       (pool->frames / (GHOST_MOMENTS / 2) + 1) % GHOST_MOMENTS;
}

void ghost_add(struct frame_pool *pool, const struct page *page)
{
	uint64_t hash = ghost_hash(page->file, page->index);
	__atomic_fetch_add(&pool->ghost_clock, 1, __ATOMIC_RELAXED);
	__atomic_store_n(ghost_at(pool, page->file, page->index),
			 (uint16_t)((hash >> 55) * GHOST_MOMENTS + ghost_moment(pool)), __ATOMIC_RELAXED);
}

/*
 * Was it evicted not long ago, and is it to stay therefore? Where a stream brings it only one piece
 * of the file in four is, each time another: if what a loop goes over is more than there is memory
 * for, all of it would push out just what comes next. As with Bimodal Insertion (Qureshi et al.,
 * ISCA 2007) most of what is cached stays, and some passes by.
 */
bool ghost_take(struct frame_pool *pool, const struct fm_file *file, uint64_t index, bool stream)
{
	uint64_t hash = ghost_hash(file, index);
	uint32_t ghost = __atomic_load_n(ghost_at(pool, file, index), __ATOMIC_RELAXED);
	if (ghost / GHOST_MOMENTS != hash >> 55 ||
	    (ghost_moment(pool) - ghost) % GHOST_MOMENTS > GHOST_MOMENTS / 2)
		return false;
	return !stream ||
	       ((ghost_hash(file, index >> STREAM_PIECE_SHIFT) >> 32) + ghost % GHOST_MOMENTS / 4) %
			       4 ==
		       0;
}
