/* SPDX-License-Identifier: MIT */
/*
 * The clock over frames: eviction of pages to free their frames.
 *
 * Soft faults show which pages are in use, as on the VAX. The clock takes the oldest installed
 * pages out of the view and puts the pages on INACTIVE, still cached. A touch brings such a page
 * back cheaply and counts as use. A page that reaches the head of INACTIVE untouched gives up its
 * frame.
 *
 * The order of installed pages is that of S3-FIFO. Pages that only one fault has touched (YOUNG)
 * go before pages that were touched again (ACTIVE). The second touch counts in the view, on
 * INACTIVE, or soon after the eviction, which ghosts record. So a scan evicts only its own pages.
 * Pages that a stream brought leave the cache from YOUNG at once, without a second chance.
 *
 * Pages read ahead wait on AHEAD. Pages that must be written and flushed first wait on HELD, where
 * the clock does not try them in vain. Advice: pages advised as cold go first. A page advised to be
 * kept moves to ACTIVE at its first touch, and is passed over once.
 *
 * If installed pages can only be discarded (COPY), only the background thread evicts them, in the
 * same order. A pinned page stays. This file holds no lock across a kernel call, except the page
 * lock of the page at hand.
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

#define RUN_DIRECT 16u /* pages; a fault needs a single page */
#define RUN_BACKGROUND 256u
#define LET_OFF_DIRECT 64u /* pages that a fault examines before kept pages are taken, too */
#define FAILED_MOST 16u /* failed evictions until both lists are tried */

/* Evict a page that was taken from a list, or put the page on the list where it belongs. Returns
 * whether the page was evicted. */
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
		} else if (page_mark_unsaved(pool, page)) {
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
	page_unpin_quiet(pool, page); /* a page that stays must not be tried again at once */
	return freed;
}

/* Evict the oldest page of a list, or all pages of a group. Returns how many frames were freed, or
 * -1 if the list is empty. */
static int evict_some(struct frame_pool *pool, enum page_list from)
{
	uint32_t count;
	struct page *first = lru_take(pool, from, 1, &count);
	int freed = 0;

	for (uint32_t i = 0; i < count; i++)
		freed += evict_page(pool, first + i, from);
	return first ? freed : -1;
}

/* Choose the list of installed pages to take from next. As in S3-FIFO, pages not touched again, or
 * not touched yet, go first, unless they fill no more than an eighth of the frames. `in_vain` is
 * the number of pages tried without success: if the whole list may be pinned, choose the other
 * list. */
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
 * Discard the oldest pages that were installed by COPY. Returns how many frames were freed. May
 * block: waits for the kernel's lock with the page lock held, so that no new install of the page
 * can come between. The page is in the view until the discard, so no thread faults on the page.
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
		} else if (page_mark_unsaved(pool, page)) {
			;
		} else if (!page_is(page, PG_INSTALLED)) {
			lru_set(pool, page, 1, LIST_INACTIVE);
		} else if (page->advised_keep || page_is_shared(page)) {
			page->advised_keep = false;
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
 * Free up to `want` frames. Returns how many frames were freed. The caller holds no lock. Blocks
 * only on the kernel's per-region lock and, in the background, on the locks that a discard takes.
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
			 0; /* failed evictions, and installed pages tried, since a frame was freed */
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
		/* All inactive pages may be under way to a store that is stuck. Then active pages
		 * must give up frames. */
		uint32_t cold = lru_count(pool, LIST_COLD), ahead = lru_count(pool, LIST_AHEAD);
		uint32_t inactive = lru_count(pool, LIST_INACTIVE) + cold;
		if (soft && (inactive < target || failed >= inactive + ahead)) {
			bool let_off = background || looked < LET_OFF_DIRECT;
			uint32_t evicted = 0;
			uint32_t count = deactivate_run(pool, oldest_installed(pool, in_vain), run, let_off, &evicted);
			some = count > 0;
			looked += count;
			freed += evicted;
			if (evicted)
				continue;
			in_vain += count;
		}
		/* All pages on AHEAD may be pinned by faults that wait for room for dirty pages.
		 * Then try each list in turn. */
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
	if (freed < want && lru_count(pool, LIST_UNSAVED))
		writeback_urge(mm);
	return freed;
}
