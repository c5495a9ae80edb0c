/* SPDX-License-Identifier: MIT */
/* Ghosts: a memory of the pages that were evicted from YOUNG not long ago. */
#include "mm/frames/ghosts.h"

#include "mm/base/file.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"

#define STREAM_PIECE_SHIFT 7 /* pages, 512 KiB: pages of a run are kept or dropped together */
/*
 * A page that is evicted without a second touch leaves a mark, its ghost, for a while. If the
 * page is read again, the ghost shows that the page is worth more than a page that is read only
 * once. A ghost has 16 bits for one or two frames, and its place is a hash of the page. Nine
 * bits tell the page, seven bits the time, counted in evictions. A newer page overwrites an
 * older page's ghost. A mistake costs only a wrong guess.
 */
#define GHOST_MOMENTS 128u
#define GHOST_LINE 32u

static uint64_t ghost_hash(const struct fm_file *file, uint64_t index)
{
	uint64_t hash = (index + ((uintptr_t)file >> 6) * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
	return hash ^ hash >> 29;
}

/* Return the place of a page's ghost. The ghosts of neighbours lie in one line of the processor's
 * cache. */
static uint16_t *ghost_at(const struct frame_pool *pool, const struct fm_file *file, uint64_t index)
{
	return &pool->ghosts[(ghost_hash(file, index / GHOST_LINE) * GHOST_LINE +
			      index % GHOST_LINE) &
			     pool->ghost_mask];
}

/* Return the present time, in moments. `frames` evictions take half as many moments as seven bits
 * can tell apart. */
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
 * Return whether the page was evicted not long ago, and therefore should stay now. For a page
 * that a stream reads, only a quarter of the file's pieces stay, a different quarter each time.
 * If a loop covers more pages than there is memory for, keeping all pages would evict just the
 * pages that come next. As with Bimodal Insertion (Qureshi et al., ISCA 2007) most cached pages
 * stay, and some pages pass by.
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
