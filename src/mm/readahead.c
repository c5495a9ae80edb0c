/* SPDX-License-Identifier: MIT */
/*
 * Readahead: which pages to read beside the one that is wanted.
 *
 * Owns struct ra_state. Deciding (ra_sync_window, ra_async_window) happens under the map lock: plain numbers, read and
 * written without a lock, where a race costs a guess; submitting (ra_submit) happens after it is dropped. The rules:
 *   random advice       nothing
 *   sequential advice   a full window from the wanted page on
 *   on a stream's way   the stream's next window. A stream is one reader's way through the file: forwards, backwards,
 *                       or in equal steps; several go on side by side
 *   else                the wanted page alone, and a new stream begins, which is believed at its second page (in steps:
 *                       at its third)
 * What is read in steps goes into the view as soon as it has come, but for the page with the mark.
 * A window doubles each time up to WINDOW_USUAL, and beyond as long as the reader has to wait for it. Its first page
 * carries a mark: touching that submits the next one, so that a whole window is always under way. Waste and errors
 * make windows smaller for a while. One fault takes a stream one step on, however many tries it needs.
 * May call: page_cache, read, os, stats.
 */
#include "mm/mm.h"

#define WINDOW_FIRST 4u
#define WINDOW_USUAL (1u << 20) /* bytes; deeper only for those who wait */
#define WINDOW_MOST (8u << 20)
#define STEPS_FIRST 2u          /* in steps each page is a read of its own */
#define STEPS_MOST 32u
#define STEP_LONGEST 4096       /* pages; further apart are two readers */
#define SKIP_MOST 3             /* pages that a stream may leap over where its window ends */
#define FRAMES_SHARE 32         /* of the frames, for a window of each stream together: else readahead eats what it brought */
#define GROUPS_SHARE 16         /* the same where windows are of groups */
#define LEAP_MOST 4096u         /* pages that it may leap over if they are cached */
#define LIVELY 256u             /* steps of other streams, beyond which a stream rests */
#define TRUST 4096u             /* faults that a proven stream outlives a new one by */

#define ra_get(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define ra_put(field, v) __atomic_store_n(&(field), (v), __ATOMIC_RELAXED)

/* Groups are for who only reads, and whose every touch need not be seen. */
static bool may_take_groups(const struct fm_file *file)
{
	return file->pool->groups && !file->writable && !file->record;
}

static bool takes_groups(const struct fm_file *file)
{
	return may_take_groups(file) && __atomic_load_n(&file->huge, __ATOMIC_ACQUIRE) == HUGE_YES;
}

/* A stream of it has come far enough. */
static void want_groups(struct fm_file *file)
{
	uint32_t no = HUGE_NO;
	if (!may_take_groups(file) || atomic_get(&file->huge) != HUGE_NO || !atomic_cas(&file->huge, &no, (uint32_t)HUGE_WANTED))
		return;
	atomic_set(&file->mm->wants_huge, 1u);
	background_kick(file->mm);
}

static uint32_t frames_share(const struct fm_file *file)
{
	uint32_t share = file->pool->frames / GROUPS_SHARE;
	if (!may_take_groups(file))
		return file->pool->frames / FRAMES_SHARE;
	return share < GROUP_PAGES ? GROUP_PAGES : share;
}

void ra_init(struct fm_file *file, uint32_t max_bytes)
{
	uint32_t page_size = file->pool->page_size, most;
	if (!max_bytes)
		max_bytes = WINDOW_MOST;
	most = max_bytes == UINT32_MAX ? 0 : max_bytes / page_size;
	if (max_bytes != UINT32_MAX && !most)
		most = 1;
	if (most > frames_share(file))
		most = frames_share(file) + 1;
	file->ra = (struct ra_state){.max_pages = most, .most = most};
}

/* ------------------------------------------------------------------ streams */

/* Others change a stream while it is looked at: each function works on a copy, and puts that back. */
static struct ra_stream stream_get(struct ra_stream *s)
{
	return (struct ra_stream){.last = ra_get(s->last), .edge = ra_get(s->edge), .stride = ra_get(s->stride),
				  .step = ra_get(s->step), .size = ra_get(s->size), .used = ra_get(s->used)};
}

static void stream_put(struct ra_stream *s, const struct ra_stream *now)
{
	ra_put(s->last, now->last);
	ra_put(s->edge, now->edge);
	ra_put(s->stride, now->stride);
	ra_put(s->step, now->step);
	ra_put(s->size, now->size);
	ra_put(s->used, now->used);
}

/* How many steps of the stream lie between its last page and this one; 0: it is not on its way. */
static uint64_t steps_to(const struct ra_stream *s, uint64_t index)
{
	int64_t stride = s->stride, ahead = (int64_t)(index - s->last), asked = (int64_t)(s->edge - s->last);

	if (!stride) /* its second page tells which way it goes */
		return ahead == 1 || ahead == -1;
	if (stride < 0) {
		stride = -stride;
		ahead = -ahead;
		asked = -asked;
	}
	if (ahead <= 0 || ahead % stride || ahead > asked + (stride == 1 ? SKIP_MOST : 0))
		return 0;
	return (uint64_t)(ahead / stride);
}

/* The stream on whose way the page is, or where it is, in *ret; NULL: there is none. */
static struct ra_stream *stream_find(struct ra_state *ra, uint64_t index, struct ra_stream *ret)
{
	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream now = stream_get(&ra->stream[i]);
		if (!now.used || (now.last != index && !steps_to(&now, index)))
			continue;
		*ret = now;
		return &ra->stream[i];
	}
	return NULL;
}

static bool is_cached(struct fm_file *file, uint64_t index)
{
	struct page_glance unused; /* no pin, whose end would call who waits for a frame */
	return page_glance(file, index, &unused);
}

/* The stream that has come to this page over others that were cached, and in the view, so that nobody heard of it; NULL: there is
 * none. */
static struct ra_stream *stream_leaping(struct fm_file *file, uint64_t index, struct ra_stream *ret)
{
	struct ra_stream *nearest = NULL;
	uint64_t shortest = LEAP_MOST + 1;

	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream now = stream_get(&file->ra.stream[i]);
		uint64_t leap = now.stride == 1 ? index - now.edge : now.edge - index;
		if (!now.used || (now.stride != 1 && now.stride != -1) || !leap || leap >= shortest)
			continue;
		shortest = leap;
		nearest = &file->ra.stream[i];
		*ret = now;
	}
	return nearest && is_cached(file, ret->edge) && is_cached(file, index - (uint64_t)ret->stride) ? nearest : NULL;
}

/* The place of the stream that moved longest ago; those that have proven themselves stay longer. */
static struct ra_stream *stream_oldest(struct ra_state *ra)
{
	struct ra_stream *oldest = &ra->stream[0];
	uint32_t clock = ra_get(ra->clock), oldest_age = 0;

	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream now = stream_get(&ra->stream[i]);
		uint32_t age = now.used ? clock - now.used + TRUST : UINT32_MAX;
		if (now.used && now.stride)
			age = age > 2 * TRUST ? age - TRUST : 1;
		if (age > oldest_age) {
			oldest = &ra->stream[i];
			oldest_age = age;
		}
	}
	return oldest;
}

/* How far it is from the nearest stream that has not found its way yet, and whether that had come as far to its place:
 * then they are one reader, in equal steps. 0: none is near. */
static int32_t step_from_nearest(struct ra_state *ra, uint64_t index, bool *ret_steady)
{
	int64_t nearest = 0;
	*ret_steady = false;
	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream now = stream_get(&ra->stream[i]);
		int64_t away = (int64_t)(index - now.last);
		if (!now.used || now.stride || away > STEP_LONGEST || away < -STEP_LONGEST)
			continue;
		if (nearest && (away < 0 ? -away : away) >= (nearest < 0 ? -nearest : nearest))
			continue;
		nearest = away;
		*ret_steady = away == now.step;
	}
	return (int32_t)nearest;
}

static struct ra_stream *stream_new(struct ra_state *ra, uint64_t index, struct ra_stream *ret)
{
	struct ra_stream *s = stream_oldest(ra);
	bool steady;
	int32_t step = step_from_nearest(ra, index, &steady);
	*ret = (struct ra_stream){.last = index, .edge = index, .step = step,
				  .stride = steady ? step : 0, .used = ra_get(ra->clock)};
	return s;
}

/* The stream has come to this page. */
static void stream_move(struct ra_state *ra, struct ra_stream *s, uint64_t index)
{
	if (!s->stride)
		s->stride = (int64_t)(index - s->last);
	s->last = index;
	s->used = ra_get(ra->clock);
}

/* At least 1. */
static uint32_t lively_streams(struct ra_state *ra)
{
	uint32_t count = 0, clock = ra_get(ra->clock);
	for (int i = 0; i < RA_STREAMS; i++)
		count += ra_get(ra->stream[i].size) && clock - ra_get(ra->stream[i].used) < LIVELY;
	return count ? count : 1;
}

/* The pages of its next window; `waited`: the last one came too late. */
static uint32_t stream_grow(struct fm_file *file, struct ra_stream *s, bool waited)
{
	bool unit = s->stride == 1 || s->stride == -1;
	uint32_t most = ra_get(file->ra.most), usual = WINDOW_USUAL / file->pool->page_size;
	uint32_t share = frames_share(file) / lively_streams(&file->ra) + 1;
	uint32_t grown = s->size ? 2 * s->size : unit ? WINDOW_FIRST : STEPS_FIRST;

	if (usual < 2)
		usual = 2;
	if (unit && takes_groups(file) && share >= GROUP_PAGES / 4 && share < GROUP_PAGES)
		share = GROUP_PAGES;
	if (most > share)
		most = share;
	if (unit && takes_groups(file) && most >= GROUP_PAGES && usual < GROUP_PAGES)
		usual = GROUP_PAGES;
	if (!unit && most > STEPS_MOST)
		most = STEPS_MOST;
	if (!waited && grown > usual)
		grown = s->size > usual ? s->size : usual;
	s->size = grown < most ? grown : most;
	if (unit && 8 * s->size >= GROUP_PAGES)
		want_groups(file);
	return s->size;
}

/* ------------------------------------------------------------------ windows */

/* The last page of a window of that many pages or more, so that the next one begins with a group. */
static uint64_t group_end(uint64_t last, bool backward)
{
	return backward ? last - last % GROUP_PAGES : last - (last + 1) % GROUP_PAGES;
}

/* `count` pages in the stream's steps, the first of them at `from`, as far as the file has them, and
 * the mapping shows them. False: there are none. */
static bool window_set(struct fault *vmf, struct ra_stream *s, uint64_t from, uint32_t count)
{
	uint64_t end = file_pages(vmf->file), most = 0;
	uint64_t step = s->stride < 0 ? (uint64_t)-s->stride : (uint64_t)s->stride;

	if (end > vmf->mapped_end) /* what is not mapped is not come to */
		end = vmf->mapped_end;
	vmf->ra.count = 0;
	if (from < end && s->stride > 0) /* what would lie before the beginning is a huge number */
		most = (end - from + step - 1) / step;
	else if (from < end && from >= vmf->low)
		most = (from - vmf->low) / step + 1;
	covered_if(!most, a13_past_end);
	covered_if(from < end && count > most && s->stride < 0, a13_start_cut);
	covered_if(from < end && count > most && s->stride > 0, a13_end);
	if (count > most)
		count = (uint32_t)most;
	if (!count)
		return false;
	uint64_t last = from + (uint64_t)s->stride * (count - 1);
	if (count >= GROUP_PAGES && step == 1 && takes_groups(vmf->file)) {
		last = group_end(last, s->stride < 0);
		if (s->stride < 0 && last < vmf->low)
			last += GROUP_PAGES;
		count = (uint32_t)(s->stride < 0 ? from - last : last - from) + 1;
	}
	covered_if(!last || !from, a13_start);
	covered_if(from >> 32, a13_past_4g);
	vmf->ra = (struct ra_window){.start = s->stride < 0 ? last : from, .mark = from, .step = (uint32_t)step,
				     .count = count, .stages = !(vmf->flags & FM_FAULT_WRITE), /* it would come in protected */
				     .unmap_seq = vmf->unmap_seq, .keep = vmf->keep};
	s->edge = last + (uint64_t)s->stride;
	return true;
}

static void narrow(struct ra_state *ra, uint32_t most)
{
	uint32_t max = ra_get(ra->max_pages), least = max < WINDOW_FIRST ? max : WINDOW_FIRST;
	ra_put(ra->most, most < least ? least : most);
}

/* Windows get smaller where much of them was thrown away untouched, and recover where nothing is. */
static void weigh_waste(struct ra_state *ra, bool hit)
{
	uint32_t wasted = ra_get(ra->wasted), most = ra_get(ra->most), max = ra_get(ra->max_pages);
	if (wasted > 8 && wasted > most / 2) {
		narrow(ra, most / 2);
		ra_put(ra->wasted, 0);
	} else if (hit && wasted) {
		ra_put(ra->wasted, wasted - (wasted + 3) / 4);
	} else if (hit && most < max) {
		ra_put(ra->most, 2 * most < max ? 2 * most : max);
	}
}

void ra_wasted(struct fm_file *file)
{
	ra_put(file->ra.wasted, ra_get(file->ra.wasted) + 1);
}

static void ra_tick(struct ra_state *ra)
{
	uint32_t clock = ra_get(ra->clock) + 1;
	ra_put(ra->clock, clock ? clock : 1);
}

/* The page is the first that a stream comes to of what could be a group. */
static bool enters_group(const struct fm_file *file, const struct ra_stream *s, uint64_t index, uint32_t size)
{
	if (!takes_groups(file) || size < GROUP_PAGES)
		return false;
	return (s->stride == 1 && index % GROUP_PAGES == 0) || (s->stride == -1 && index % GROUP_PAGES == GROUP_PAGES - 1);
}

/* The wanted page is not cached: choose what follows it, `vmf->more` pages to be read with it and the window vmf->ra.
 * False: it is read alone. Map lock held. */
bool ra_sync_window(struct fault *vmf)
{
	struct ra_state *ra = &vmf->file->ra;
	struct ra_stream now;
	bool full = vmf->advice == FM_ADVICE_SEQUENTIAL, some = false, whole = false;

	vmf->ra.count = vmf->more = 0;
	if (ra_get(ra->max_pages) <= 1 || vmf->advice == FM_ADVICE_RANDOM)
		return false;
	ra_tick(ra);
	struct ra_stream *s = stream_find(ra, vmf->index, &now);
	if (!s)
		s = stream_leaping(vmf->file, vmf->index, &now);
	covered_if(s && now.last != vmf->index && !steps_to(&now, vmf->index), stream_leapt);
	if (!s) {
		s = stream_new(ra, vmf->index, &now);
		/* Who begins at the beginning will mostly go on. */
		if (!now.stride && (!vmf->index || full))
			now.stride = 1;
	} else if (now.last != vmf->index) {
		stream_move(ra, &now, vmf->index);
	} /* else another thread came here first, or it has been taken away again */
	if (now.stride) {
		weigh_waste(ra, false);
		if (full)
			now.size = ra_get(ra->most);
		uint32_t size = stream_grow(vmf->file, &now, now.size > 0);
		/* Absent though it may have been asked for: it goes on from here. With a group, if one may begin here. */
		uint64_t from = enters_group(vmf->file, &now, vmf->index, size) ? vmf->index : vmf->index + (uint64_t)now.stride;
		some = window_set(vmf, &now, from, from == vmf->index ? size : size - 1);
		whole = from == vmf->index;
	}
	stream_put(s, &now);
	if (some && now.stride == 1 && !whole && read_is_inline(vmf->file)) {
		vmf->more = vmf->ra.count / 2 < READ_INLINE_MOST - 1 ? vmf->ra.count / 2 : READ_INLINE_MOST - 1;
		vmf->ra.start += vmf->more;
		vmf->ra.mark += vmf->more;
		vmf->ra.count -= vmf->more;
	}
	return some;
}

/* The page is cached. Is it time for the next window? True: vmf->ra is to be submitted, which changes something, so that
 * dropping the lock for it is worth while. Map lock held. */
bool ra_async_window(struct fault *vmf, struct page *page)
{
	struct ra_state *ra = &vmf->file->ra;
	struct ra_stream now;

	covered_if(vmf->flags & FM_FAULT_TRIED, a7_retry_no_hit);
	if (!page_is(page, PG_MARK))
		return false;
	page_set(page, 0, PG_MARK);
	covered_if(ra_get(ra->max_pages) <= 1 || vmf->advice == FM_ADVICE_RANDOM, a4_mark_changes_nothing);
	if (ra_get(ra->max_pages) <= 1 || vmf->advice == FM_ADVICE_RANDOM)
		return false;
	ra_tick(ra);
	struct ra_stream *s = stream_find(ra, page->index, &now);
	if (!s) /* it has been forgotten */
		s = stream_new(ra, page->index, &now);
	else if (now.last != page->index)
		stream_move(ra, &now, page->index);
	if (!now.stride)
		now.stride = 1;
	int64_t asked = (int64_t)(now.edge - now.last);
	bool moved = now.stride > 0 ? asked <= 0 : asked >= 0; /* new, or it leapt over its edge */
	covered_if(moved, a13_window_moved);
	if (moved)
		now.edge = now.last + (uint64_t)now.stride;
	weigh_waste(ra, true);
	bool some = window_set(vmf, &now, now.edge, stream_grow(vmf->file, &now, false));
	covered_if(!some, a4_mark_changes_nothing);
	stream_put(s, &now);
	return some;
}

/* A fault waits for a page that was read ahead: its stream's windows come too late. */
void ra_late(struct fm_file *file, uint64_t index)
{
	struct ra_stream now, *s = stream_find(&file->ra, index, &now);
	if (!s || !now.stride || !now.size)
		return;
	stream_grow(file, &now, true);
	ra_put(s->size, now.size);
}

/* ------------------------------------------------------------------ submitting */

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
static int window_page(struct fm_file *file, const struct ra_window *window, uint64_t *mark, uint64_t index,
		       struct page **ret_page, bool *ret_fresh)
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

/* All of a group is to be read: into one that is whole. `run` is to work with. Returns how many pages; 0: there is none to be had. */
static uint32_t submit_group(struct fm_file *file, uint64_t index, uint64_t mark, uint32_t most, bool evict, struct page **run)
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
	return !is_cached(file, index);
}

/*
 * In steps each page would be a fault of its own, and a MOVE that interrupts other processors: they go into the view by themselves
 * when they have come, by way of staging slots. Not the one with the mark, which has to be touched; nor where each touch is
 * recorded.
 */
static char *stage_for(struct fm_file *file, const struct ra_window *window, uint64_t mark, uint64_t index)
{
	if (index == mark || !window->stages || file->record || pool_pauses(file->pool) || pt_behind(file->mm) ||
	    (index + 1) << file->pool->shift > file_size(file))
		return NULL;
	if (!lru_count(file->pool, LIST_HOLES))
		return NULL;
	return stage_take(file->pool, false);
}

/* One page in the frame that it has, which is a hole if there is a staging slot. */
static void submit_single(struct fm_file *file, const struct ra_window *window, struct page *page, char *stage)
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

	for (uint32_t i = 0; i < window->count && index < end && read_has_room(file, false); i++, index += window->step) {
		struct page *page;
		bool fresh = false;
		char *stage = stage_for(file, window, mark, index);
		err = stage ? page_add(file, index, ADD_STREAM | ADD_HOLE, &page, &fresh) : window_page(file, window, &mark, index, &page, &fresh);
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

/* Start reading a window, what is not cached of it, and put the mark. No lock held. Takes only frames that are free; with
 * `evict`, groups that others have.
 * Returns the page it has come to. */
uint64_t ra_submit(struct fm_file *file, const struct ra_window *window, bool evict)
{
	struct page *run[READ_PAGES_MAX];
	uint32_t count = 0, segments = 0, most = read_pages_most(file->pool, window->count);
	uint64_t end = file_pages(file), mark = window->mark, index = window->start;

	might_block(file->mm);
	if (atomic_get(&file->changed) || atomic_get(&file->mm->dying))
		return index;
	if (window->step > 1)
		return submit_steps(file, window);
	bool groups = takes_groups(file);
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
 * A call wants [at, end) of a view. What of it is not cached is read in large pieces, up to some way beyond `at`, so that
 * it is on its way while the first page is waited for; `ahead` is where this has come to before. No lock held. Returns
 * where it has come to now.
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
	} else if (is_cached(file, from)) { /* a range that is called for again and again, or has been there all the while */
		return base + ((from + 1) << pool->shift);
	}
	if (from > last)
		return ahead;
	struct ra_window window = {.start = from, .mark = UINT64_MAX, .step = 1, .count = (uint32_t)(last - from + 1)};
	return base + (ra_submit(file, &window, false) << pool->shift);
}

/* A read of several pages failed: be careful for a while. */
void ra_shrink(struct fm_file *file)
{
	narrow(&file->ra, ra_get(file->ra.most) / 4);
}
