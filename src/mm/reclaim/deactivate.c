/* SPDX-License-Identifier: MIT */
/*
 * Deactivation: take installed pages out of their views, so that a later touch shows their use.
 */
#include "mm/reclaim/deactivate.h"

#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/ghosts.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "mm/view/out.h"
#include "mm/view/run.h"
#include "mm/view/run_in.h"
#include "stats/stats.h"

/* Take a run of pages out of the view for the clock, and put them on INACTIVE. With `last`, evict
 * the pages from the cache instead. Returns how many pages, from the first on, left the view. */
static uint32_t take_out_run(struct frame_pool *pool, struct page *first, uint32_t count, bool last)
{
	struct fm_mm *mm = pool->mm;
	uint32_t went = run_take_out_some(pool, first, count);

	if (!went)
		return 0;
	for (uint32_t i = 0; i < went; i++)
		page_set(first + i, PG_SOFT, 0);
	stats_add(mm->stats, deactivations, went);
	if (!last)
		lru_set(pool, first, went, LIST_INACTIVE);
	for (uint32_t i = 0; last && i < went; i++) {
		ghost_add(pool, first + i);
		page_remove(pool, first + i);
	}
	if (last)
		stats_add(mm->stats, evictions, went);
	return went;
}

/* Take a page, and pages that follow it as a run, out of the view, or put the page on the list
 * where it belongs. The page is off its list and pinned; the function puts the pin. Returns how
 * many pages have been handled. */
static uint32_t deactivate_some(struct frame_pool *pool, struct page *page, uint32_t most,
				enum page_list from, bool let_off, uint32_t *freed)
{
	enum page_list to = from;
	uint32_t count = 1, went = 0;
	bool stuck = false, last = false;

	if (!page_trylock(page)) {
		lru_set(pool, page, 1, from);
		page_unpin(pool, page);
		return 1;
	}
	if (page_is(page, PG_GONE)) {
		to = LIST_NONE;
	} else if (page_mark_unsaved(pool, page)) {
		to = LIST_UNSAVED;
	} else if (!page_is(page, PG_INSTALLED)) {
		to = LIST_INACTIVE;
	} else if (let_off && page->advised_keep) {
		page->advised_keep = false;
		to = LIST_ACTIVE;
	} else if (!page_is_shared(page)) {
		count = run_gather_out(pool, page, most, let_off);
		/* A reader that streams through the file does not come back, or not soon. */
		last = from == LIST_YOUNG && count >= STREAM_RUN && !page->file->writable;
		went = take_out_run(pool, page, count, last);
		stuck = !went && page_take_out(&page->file->view, page, false) < 0;
		if (!went && !stuck) {
			page_set(page, PG_SOFT, 0);
			stats_add(pool->mm->stats, deactivations, 1);
			to = LIST_INACTIVE;
		}
	}
	if (to != LIST_UNSAVED && !went)
		lru_set(pool, page, 1, to);
	if (last)
		*freed += went;
	/* Release the frames in order, so that pages read into the frames form a run again. */
	page_unlock(pool, page);
	if (stuck || to == LIST_UNSAVED) /* threads that wait for a frame must not try the page now */
		page_unpin_quiet(pool, page);
	else
		page_unpin(pool, page);
	for (uint32_t i = 1; i < count; i++) {
		if (i >= went)
			lru_set(pool, page + i, 1, from);
		run_leave(pool, page + i);
	}
	return count;
}

/* Take the oldest pages of a list, up to `most`, out of the view. YOUNG pages that a stream brought
 * leave the cache, too, and are added to *freed. With `let_off`, pages advised to be kept get
 * another turn. Returns how many pages were examined; 0 means that the list is empty. */
uint32_t deactivate_run(struct frame_pool *pool, enum page_list from, uint32_t most, bool let_off,
			uint32_t *freed)
{
	uint32_t count, done = 0;
	struct page *first = lru_take(pool, from, most, &count);

	while (done < count) {
		struct page *page = first + done;
		if (!page_try_pin(page)) { /* the frame is free by now */
			done++;
			continue;
		}
		done += deactivate_some(pool, page, count - done, from, let_off, freed);
	}
	return count;
}
