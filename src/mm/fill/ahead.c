/* SPDX-License-Identifier: MIT */
/* Submit the reads that readahead has chosen. */
#include "mm/fill/ahead.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/submit.h"
#include "mm/base/view.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/request.h"
#include "mm/fill/share.h"
#include "mm/fill/streams.h"
#include "mm/fill/windows.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "mm/frames/staging.h"
#include "mm/map/map_lock.h"
#include "mm/reclaim/get.h"
#include "mm/view/page_tables.h"
#include "os/atomic.h"
#include "stats/stats.h"

/* Drop a fresh page that cannot be read, as if readahead had never chosen the page. */
static void forget(struct frame_pool *pool, struct page *page)
{
	page_set(page, 0, PG_SPEC | PG_MARK);
	page_remove(pool, page);
	page_unlock(pool, page);
}

static void submit_run(struct fm_file *file, struct page **pages, uint32_t count)
{
	struct frame_pool *pool = file->pool;
	if (!count)
		return;
	int err = read_submit(file, pages, count, true);
	for (uint32_t i = 0; i < count; i++) {
		if (err) /* no request is free for the pages */
			forget(pool, pages[i]);
		page_unpin(pool, pages[i]);
	}
	if (err)
		return;
	stats_add(file->mm->stats, ra_windows, 1);
	stats_add(file->mm->stats, ra_pages, count);
}

/* Add a single page of a window to the index. *ret_fresh tells that the page is new: the page
 * is then locked and must be read. Returns -ENOMEM if no frame is free. */
static int window_page(struct fm_file *file, const struct ra_window *window, uint64_t *mark,
		       uint64_t index, struct page **ret_page, bool *ret_fresh)
{
	int err = page_add(file, index, ADD_STREAM, ret_page, ret_fresh);
	if (err)
		return err;
	if (index == *mark) {
		/* A mark is never seen on a page that is in the view, because no thread faults
		 * on that page. */
		if (page_is(*ret_page, PG_INSTALLED) && window->mark == window->start)
			*mark += window->step;
		else
			page_set(*ret_page, PG_MARK, 0);
		covered_if(!*ret_fresh, a13_mark_on_cached);
	}
	return 0;
}

/* Read a whole group of pages into a whole group of frames. `run` is a work area. Returns the
 * number of pages submitted; 0 if no group of frames is free. */
static uint32_t submit_group(struct fm_file *file, uint64_t index, uint64_t mark, uint32_t most,
			     bool evict, struct page **run)
{
	struct frame_pool *pool = file->pool;
	struct page *first = group_take(pool, evict), *found = NULL;
	uint32_t count = 0, fresh = 0;

	if (!first)
		return 0;
	for (; fresh < GROUP_PAGES; fresh++) {
		found = page_insert(file, index + fresh, first + fresh, ADD_STREAM);
		if (found)
			break;
		page_set(first + fresh, PG_SPEC, 0);
		if (index + fresh == mark)
			page_set(first + fresh, PG_MARK, 0);
	}
	for (uint32_t i = 0; i < fresh; i++) {
		run[count++] = first + i;
		if (count == most || i + 1 == fresh) {
			submit_run(file, run, count);
			count = 0;
		}
	}
	covered_if(found, group_cached_inside);
	if (found) { /* a page of the group is cached already */
		if (likely(found != first + fresh))
			page_unpin(pool, found);
		group_split(pool, first, 1);
		for (uint32_t i = fresh; i < GROUP_PAGES; i++)
			frame_drop(pool, first + i);
	}
	return fresh;
}

/* Return whether the window continues with a whole group that does not seem to be cached. */
static bool begins_group(struct fm_file *file, uint64_t index, uint64_t end)
{
	if (index % GROUP_PAGES || index + GROUP_PAGES > end)
		return false;
	return !page_is_cached(file, index);
}

/*
 * Get a staging slot for a page of a window in steps; NULL if the page gets no slot. In steps,
 * each page would cost a fault and a MOVE that interrupts other processors. So these pages go
 * into the view without a fault as soon as they are read, by way of staging slots. The page
 * with the mark gets no slot, because the mark only works when the page is touched. A file
 * whose touches are all recorded gets no slots either.
 */
static char *stage_for(struct fm_file *file, const struct ra_window *window, uint64_t mark,
		       uint64_t index)
{
	if (index == mark || !window->stages || file->reads->record || pool_pauses(file->pool) ||
	    pt_behind(file->mm) || (index + 1) << file->pool->shift > file_size(file))
		return NULL;
	if (!lru_count(file->pool, LIST_HOLES))
		return NULL;
	return stage_take(file->pool, false);
}

/* Submit the read of a single page into the frame that the page has. If there is a staging
 * slot, the frame is a hole. */
static void submit_single(struct fm_file *file, const struct ra_window *window, struct page *page,
			  char *stage)
{
	page_set(page, PG_SPEC, 0);
	if (!stage) {
		submit_run(file, &page, 1);
		return;
	}
	page->advised_keep = window->advised_keep;
	covered(staged_ahead);
	if (read_submit_ahead(file, page, stage, window->unmap_seq) == 0)
		stats_add(file->mm->stats, ra_pages, 1);
	else
		forget(file->pool, page);
	page_unpin(file->pool, page);
}

/* Submit a window in steps of more than one page. Returns the index that the window has
 * reached. */
static uint64_t submit_steps(struct fm_file *file, const struct ra_window *window)
{
	uint64_t end = file_pages(file), mark = window->mark, index = window->start;
	bool held = requests_hold(file->mm);
	int err = 0;

	for (uint32_t i = 0; i < window->count && index < end && read_has_room(file, false);
	     i++, index += window->step) {
		struct page *page;
		bool fresh = false;
		char *stage = stage_for(file, window, mark, index);
		err = stage ? page_add(file, index, ADD_STREAM | ADD_HOLE, &page, &fresh)
			    : window_page(file, window, &mark, index, &page, &fresh);
		if (stage && (!fresh || !page_is(page, PG_HOLE))) {
			stage_put(file->pool, stage);
			stage = NULL;
		}
		if (err)
			break;
		if (fresh)
			submit_single(file, window, page, stage);
		else
			page_unpin(file->pool, page);
	}
	if (held)
		requests_send(file->mm);
	return index;
}

/* Start reading the pages of a window that are not cached, and set the mark. Called with no
 * lock held. Takes only free frames; with `evict`, also groups of frames that other pages use.
 * Returns the index that the window has reached. */
uint64_t ra_submit(struct fm_file *file, const struct ra_window *window, bool evict)
{
	struct page *run[READ_PAGES_MAX];
	uint32_t count = 0, segments = 0, most = read_pages_most(file->pool, window->count);
	uint64_t end = file_pages(file), mark = window->mark, index = window->start;

	might_block(file->mm);
	if (atomic_get(&file->reads->changed) || atomic_get(&file->mm->dying))
		return index;
	if (window->step > 1)
		return submit_steps(file, window);
	bool groups = file_takes_groups(file);
	/* whole pages: the last page of the file may be partial */
	uint64_t whole = file_size(file) >> file->pool->shift;
	if (whole > window->start + window->count)
		whole = window->start + window->count;
	for (uint32_t i = 0; i < window->count && index < end && read_has_room(file, false); i++) {
		struct page *page;
		bool fresh = false;
		if (groups && begins_group(file, index, whole)) {
			submit_run(file, run, count);
			count = segments = 0;
			uint32_t done = submit_group(file, index, mark, most, evict, run);
			if (done) {
				index += done;
				i += done - 1;
				continue;
			}
			groups = false;
		}
		if (window_page(file, window, &mark, index, &page, &fresh) < 0)
			break;
		index++;
		covered_if(!fresh && count, a13_cached_inside);
		if (fresh) {
			page_set(page, PG_SPEC, 0);
			run[count++] = page;
			/* the last page begins another request */
			if (!read_fits(run, count, &segments)) {
				submit_run(file, run, count - 1);
				run[0] = page;
				count = segments = 1;
			}
		} else {
			page_unpin(file->pool, page);
		}
		if (!fresh || count == most) {
			submit_run(file, run, count);
			count = segments = 0;
		}
	}
	submit_run(file, run, count);
	return index;
}

/*
 * Read ahead for a call that wants [at, end) of a view. The pages that are not cached are read
 * in large pieces, up to some distance beyond `at`. So these pages are under way while the
 * call waits for the first page. `reach` is the call's own, zeroed when the call begins.
 * Called with no lock held.
 *
 * A page that readahead has passed may be missing from the cache: its request was aborted
 * because a fault waited too long, or the page was evicted. The rest of that piece is then
 * read again in one piece, not page by page. Each such loss halves the pieces of this call: in
 * a range that keeps losing its reads, the call soon waits for single pages alone.
 */
void ra_range(struct view *view, uint64_t at, uint64_t end, struct ra_reach *reach)
{
	struct fm_file *file = view->file;
	struct frame_pool *pool = file->pool;
	uint64_t base = view->region.base, unit = pool->page_size;
	uint64_t from = (at - base) >> pool->shift, last, most;

	if (end - base > view->region.len)
		end = base + view->region.len;
	last = (end - 1 - base) >> pool->shift;
	if (reach->ahead > at && from != last && !page_is_cached(file, from)) {
		reach->ahead = 0;
		reach->losses++;
	}
	most = reach->losses < 32 ? (pool->frames / 8) >> reach->losses : 0;
	if (!most || reach->ahead > at + most / 2 * unit || from == last)
		return;
	last = last - from < most ? last : from + most;
	if (reach->ahead > at) {
		from = (reach->ahead - base) >> pool->shift;
	} else if (page_is_cached(file, from)) { /* called for again, or always cached */
		reach->ahead = base + ((from + 1) << pool->shift);
		return;
	}
	if (from > last)
		return;
	struct ra_window window = {
		.start = from, .mark = UINT64_MAX, .step = 1, .count = (uint32_t)(last - from + 1)};
	reach->ahead = base + (ra_submit(file, &window, false) << pool->shift);
}
