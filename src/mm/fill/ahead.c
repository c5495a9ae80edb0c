/* SPDX-License-Identifier: MIT */
/* Submitting the reads that readahead has chosen. */
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

/* As if it had never been thought of. */
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
		if (err) /* no place for it */
			forget(pool, pages[i]);
		page_unpin(pool, pages[i]);
	}
	if (err)
		return;
	stats_add(file->mm->stats, ra_windows, 1);
	stats_add(file->mm->stats, ra_pages, count);
}

/* One page of a window. *ret_fresh: it is locked, and to be read. -ENOMEM: no frame is free. */
static int window_page(struct fm_file *file, const struct ra_window *window, uint64_t *mark,
		       uint64_t index, struct page **ret_page, bool *ret_fresh)
{
	int err = page_add(file, index, ADD_STREAM, ret_page, ret_fresh);
	if (err)
		return err;
	if (index == *mark) {
		/* On a page that nobody will fault on it would never be seen. */
		if (page_is(*ret_page, PG_INSTALLED) && window->mark == window->start)
			*mark += window->step;
		else
			page_set(*ret_page, PG_MARK, 0);
		covered_if(!*ret_fresh, a13_mark_on_cached);
	}
	return 0;
}

/* All of a group is to be read: into one that is whole. `run` is to work with. Returns how many
 * pages; 0: there is none to be had. */
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
	if (found) { /* some of it is cached already */
		if (likely(found != first + fresh))
			page_unpin(pool, found);
		group_split(pool, first, 1);
		for (uint32_t i = fresh; i < GROUP_PAGES; i++)
			frame_drop(pool, first + i);
	}
	return fresh;
}

/* The window goes on with a group, none of which seems to be cached. */
static bool begins_group(struct fm_file *file, uint64_t index, uint64_t end)
{
	if (index % GROUP_PAGES || index + GROUP_PAGES > end)
		return false;
	return !page_is_cached(file, index);
}

/*
 * In steps each page would be a fault of its own, and a MOVE that interrupts other processors: they
 * go into the view by themselves when they have come, by way of staging slots. Not the one with the
 * mark, which has to be touched; nor where each touch is recorded.
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

/* One page in the frame that it has, which is a hole if there is a staging slot. */
static void submit_single(struct fm_file *file, const struct ra_window *window, struct page *page,
			  char *stage)
{
	page_set(page, PG_SPEC, 0);
	if (!stage) {
		submit_run(file, &page, 1);
		return;
	}
	page->keep = window->keep;
	covered(staged_ahead);
	if (read_submit_ahead(file, page, stage, window->unmap_seq) == 0)
		stats_add(file->mm->stats, ra_pages, 1);
	else
		forget(file->pool, page);
	page_unpin(file->pool, page);
}

/* A window in steps of more than one page. */
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

/* Start reading a window, what is not cached of it, and put the mark. No lock held. Takes only
 * frames that are free; with `evict`, groups that others have. Returns the page it has come to. */
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
	uint64_t whole = file_size(file) >> file->pool->shift; /* pages: the last one may not be */
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
			if (!read_fits(run, count, &segments)) { /* the last one begins another request */
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
 * A call wants [at, end) of a view. What of it is not cached is read in large pieces, up to some
 * way beyond `at`, so that it is on its way while the first page is waited for; `ahead` is where
 * this has come to before. No lock held. Returns where it has come to now.
 */
uint64_t ra_range(struct view *view, uint64_t at, uint64_t end, uint64_t ahead)
{
	struct fm_file *file = view->file;
	struct frame_pool *pool = file->pool;
	uint64_t base = view->region.base, unit = pool->page_size, most = pool->frames / 8;
	uint64_t from = (at - base) >> pool->shift, last;

	if (end - base > view->region.len)
		end = base + view->region.len;
	last = (end - 1 - base) >> pool->shift;
	if (ahead > at + most / 2 * unit || from == last)
		return ahead;
	last = last - from < most ? last : from + most;
	if (ahead > at) {
		from = (ahead - base) >> pool->shift;
	} else if (page_is_cached(file, from)) { /* a range that is called for again and again, or
						    has been there all the while */
		return base + ((from + 1) << pool->shift);
	}
	if (from > last)
		return ahead;
	struct ra_window window = {
		.start = from, .mark = UINT64_MAX, .step = 1, .count = (uint32_t)(last - from + 1)};
	return base + (ra_submit(file, &window, false) << pool->shift);
}
