/* SPDX-License-Identifier: MIT */
/*
 * The budget, the clock over frames, waits for a free frame, and the background thread.
 *
 * Soft faults tell use, as on the VAX: the clock takes the oldest installed pages out of the view
 * and puts them on INACTIVE, still cached. A touch brings one back cheaply and counts as use; one
 * that reaches the head of INACTIVE untouched gives its frame. Which installed pages are next is as
 * in S3-FIFO: those that one fault has touched (YOUNG) before those that somebody came back to
 * (ACTIVE), in the view, on INACTIVE, or not long after their eviction, which ghosts tell. So a
 * scan pushes out itself; what a stream brought goes from YOUNG at once, without a second chance.
 * What is read ahead waits on AHEAD; what has to be written and flushed first, on HELD, where
 * nobody looks at it in vain. Advice: what was called cold goes first; a page to be kept comes to
 * ACTIVE by its first touch, and is passed over once. Where installed pages can only be discarded
 * (COPY), the background thread alone evicts them, in the same order. A pinned page stays. Nothing
 * here holds a lock across a kernel call but the page lock of the page at hand.
 */
#include "mm/reclaim/clock.h"

#include "filemap.h"
#include "mm/base/bell.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/cache/merged.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/ghosts.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "mm/map/map_lock.h"
#include "mm/reclaim/deactivate.h"
#include "mm/view/out.h"
#include "os/atomic.h"
#include "stats/stats.h"

#define RUN_DIRECT 16u /* pages; a fault wants one */
#define RUN_BACKGROUND 256u
#define LET_OFF_DIRECT 64u /* pages that a fault looks at before it passes over none any more */
#define FAILED_MOST 16u /* evictions, until both lists are tried */

/* A page that was taken from a list: give its frame back, or put it where it belongs. */
static bool evict_page(struct frame_pool *pool, struct page *page, enum page_list from)
{
	bool freed = false;

	if (!page_try_pin(page))
		return false;
	if (!page_trylock(page)) {
		lru_set(pool, page, 1, from);
	} else {
		if (page_is(page, PG_GONE)) {
			;
		} else if (page_hold(pool, page)) {
			;
		} else if (page_is(page, PG_INSTALLED)) {
			lru_set(pool, page, 1, LIST_ACTIVE);
		} else if (page_is_shared(page)) {
			covered(a5_carried_over_reclaim);
			lru_set(pool, page, 1, from);
		} else {
			if (!page_is(page, PG_HOT | PG_SPEC | PG_ERROR))
				ghost_add(pool, page);
			page_remove(pool, page);
			stats_add(pool->mm->stats, evictions, 1);
			freed = true;
		}
		page_unlock(pool, page);
	}
	page_unpin_quiet(pool, page); /* one that stays is not to be tried again at once */
	return freed;
}

/* Give the frame of the oldest page of INACTIVE or AHEAD back, or of all of a group. How many; -1:
 * the list is empty. */
static int evict_some(struct frame_pool *pool, enum page_list from)
{
	uint32_t count;
	struct page *first = lru_take(pool, from, 1, &count);
	int freed = 0;

	for (uint32_t i = 0; i < count; i++)
		freed += evict_page(pool, first + i, from);
	return first ? freed : -1;
}

/* S3-FIFO: what nobody came back to, or has come to yet, makes way first, but for an eighth. After
 * `in_vain` pages that did not, all of that list may be pinned: then the other's. */
static enum page_list oldest_installed(struct frame_pool *pool, uint32_t in_vain)
{
	uint32_t young = lru_count(pool, LIST_YOUNG), cold = lru_count(pool, LIST_COLD_SHOWN);
	if (cold && in_vain <= cold)
		return LIST_COLD_SHOWN;
	bool many = young + lru_count(pool, LIST_AHEAD) > pool->frames / 8 && young > pool->frames / 64;
	enum page_list list = many || !lru_count(pool, LIST_ACTIVE) ? LIST_YOUNG : LIST_ACTIVE;
	enum page_list other = list == LIST_YOUNG ? LIST_ACTIVE : LIST_YOUNG;
	return in_vain > lru_count(pool, list) && lru_count(pool, other) ? other : list;
}

static uint32_t installed_count(struct frame_pool *pool)
{
	return lru_count(pool, LIST_YOUNG) + lru_count(pool, LIST_ACTIVE) +
	       lru_count(pool, LIST_COLD_SHOWN);
}

/*
 * Installed by COPY: the oldest pages are discarded. The kernel's lock is waited for with the
 * page's lock held, so that no new install of the page can come between; until the discard has
 * happened the page is in the view, so that nobody faults on it.
 */
static uint32_t discard_active(struct frame_pool *pool, uint32_t want)
{
	uint32_t freed = 0, count, in_vain = 0, scan = 2 * installed_count(pool);
	while (freed < want && scan--) {
		struct page *page = lru_take(pool, oldest_installed(pool, in_vain++), 1, &count);
		if (!page)
			break;
		if (!page_try_pin(page))
			continue;
		if (!page_trylock(page)) {
			lru_set(pool, page, 1, LIST_ACTIVE);
			page_unpin(pool, page);
			continue;
		}
		if (page_is(page, PG_GONE)) {
			;
		} else if (page_hold(pool, page)) {
			;
		} else if (!page_is(page, PG_INSTALLED)) {
			lru_set(pool, page, 1, LIST_INACTIVE);
		} else if (page->keep || page_is_shared(page)) {
			page->keep = false;
			lru_set(pool, page, 1, LIST_ACTIVE);
		} else {
			page_take_out(&page->file->view, page, true);
			page_remove(pool, page);
			freed++;
			in_vain = 0;
		}
		page_unlock(pool, page);
		page_unpin(pool, page);
	}
	stats_add(pool->mm->stats, evictions, freed);
	return freed;
}

/*
 * Free up to `want` frames. Returns how many. No lock held; blocks on nothing but the kernel's
 * per-region lock, and, in the background, on what a discard takes.
 */
uint32_t reclaim(struct frame_pool *pool, uint32_t want, bool background)
{
	struct fm_mm *mm = pool->mm;
	uint32_t freed = 0, target = pool->frames / 8 + 2, run = background ? RUN_BACKGROUND : RUN_DIRECT;
	uint32_t cached = lru_count(pool, LIST_INACTIVE) + lru_count(pool, LIST_AHEAD) +
			  lru_count(pool, LIST_COLD);
	uint32_t scan = 2 * (installed_count(pool) + cached) + 8;
	uint32_t failed = 0,
		 in_vain =
			 0; /* evictions, and installed pages looked at, since a frame was freed */
	bool soft = mm->install == FM_INSTALL_MOVE;

	might_block(mm);
	writeback_look_for_merging(mm);
	if (background)
		stats_add(mm->stats, reclaim_background, 1);
	else
		stats_add(mm->stats, reclaim_direct, 1);
	if (run > target / 2)
		run = target / 2;
	for (uint32_t looked = 0; freed < want && looked < scan; looked++) {
		bool some = false;
		/* All that is inactive may be under way to a store that is stuck: then the active
		 * pages have to give. */
		uint32_t cold = lru_count(pool, LIST_COLD), ahead = lru_count(pool, LIST_AHEAD);
		uint32_t inactive = lru_count(pool, LIST_INACTIVE) + cold;
		if (soft && (inactive < target || failed >= inactive + ahead)) {
			bool let_off = background || looked < LET_OFF_DIRECT;
			uint32_t passed_by = 0;
			uint32_t count = deactivate_run(pool, oldest_installed(pool, in_vain), run, let_off, &passed_by);
			some = count > 0;
			looked += count;
			freed += passed_by;
			if (passed_by)
				continue;
			in_vain += count;
		}
		/* What is ahead may be pinned, all of it: by faults that wait for room for dirty
		 * pages. Then each list in turn. */
		bool first = (ahead > pool->frames / 8 && failed < FAILED_MOST) || (failed & 1);
		int evicted = failed < cold ? evict_some(pool, LIST_COLD) : -1;
		if (evicted < 0)
			evicted = evict_some(pool, first ? LIST_AHEAD : LIST_INACTIVE);
		if (evicted < 0)
			evicted = evict_some(pool, first ? LIST_INACTIVE : LIST_AHEAD);
		failed = evicted > 0 ? 0 : failed + 1;
		if (evicted > 0) {
			freed += (uint32_t)evicted;
			in_vain = 0;
		}
		if (evicted < 0 && !some)
			break;
	}
	if (!soft && background && freed < want)
		freed += discard_active(pool, want - freed);
	if (freed < want && lru_count(pool, LIST_HELD))
		writeback_urge(mm);
	return freed;
}
