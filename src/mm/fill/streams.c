/* SPDX-License-Identifier: MIT */
/*
 * Readahead streams: recognise the readers of a file and choose the size of their windows.
 *
 * Owns struct ra_state. ra_sync_window() and ra_async_window() decide under the map lock.
 * ra_state holds plain numbers, which are read and written without a lock: a race only costs
 * a wrong guess. ra_submit() submits after the map lock is dropped.
 *
 * The rules. With random advice, nothing is read ahead. With sequential advice, a full window
 * is read from the wanted page on. On a stream's way, the stream's next window is read.
 * Otherwise the wanted page is read alone, and a new stream begins.
 *
 * A stream is the way of a single reader through the file: forwards, backwards, or in equal
 * steps. Several streams run side by side. A new stream is believed at its second page, or in
 * steps at its third page. Pages that are read in steps go into the view as soon as they are
 * read, unless the page has the mark.
 *
 * A window doubles each time up to WINDOW_USUAL, and beyond as long as the reader must wait
 * for the window. The first page of a window carries a mark: touching the mark submits the
 * next window. So a whole window is always under way. Waste and errors make windows smaller
 * for a while. A fault moves a stream a single step, however many tries the fault needs.
 */
#include "mm/fill/streams.h"

#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/index.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/share.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "os/atomic.h"

#include <string.h>

#define WINDOW_FIRST 4u
#define WINDOW_USUAL (1u << 20) /* bytes; larger only for readers that wait */
#define WINDOW_MOST (8u << 20)
#define STEPS_FIRST 2u          /* in steps, each page is a read of its own */
#define STEPS_MOST 32u
#define STEP_LONGEST 4096       /* pages; touches further apart are two readers */
#define SKIP_MOST 3             /* pages that a stream may leap over where its window ends */
#define FRAMES_SHARE                                                                               \
	32 /* of the frames, for a window of each stream together: else readahead evicts its own   \
	      pages */
#define GROUPS_SHARE 16         /* as FRAMES_SHARE, for windows of groups */
#define LEAP_MOST 4096u         /* cached pages that a stream may leap over */
#define LIVELY 256u             /* steps of other streams, beyond which a stream rests */
#define TRUST 4096u             /* faults by which a proven stream outlives a new stream */

/* Return whether the file may have groups: only a file that is only read, and whose touches
 * need not all be seen. */
static bool may_take_groups(const struct fm_file *file)
{
	return file->pool->groups && !file->writable && !file->reads->record;
}

bool file_takes_groups(const struct fm_file *file)
{
	return may_take_groups(file) && __atomic_load_n(&file->reads->huge, __ATOMIC_ACQUIRE) == HUGE_YES;
}

/* Ask for groups, because a stream of the file has come far enough. */
static void want_groups(struct fm_file *file)
{
	uint32_t no = HUGE_NO;
	if (!may_take_groups(file) || atomic_get(&file->reads->huge) != HUGE_NO ||
	    !atomic_cas(&file->reads->huge, &no, (uint32_t)HUGE_WANTED))
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
	file->reads->ra = (struct ra_state){.max_pages = most, .most = most};
}

/* Copy a stream. Other threads change a stream meanwhile, so each function works on a copy and
 * puts the copy back. */
static struct ra_stream stream_get(struct ra_stream *s)
{
	return (struct ra_stream){.last = ra_get(s->last),
				  .edge = ra_get(s->edge),
				  .stride = ra_get(s->stride),
				  .step = ra_get(s->step),
				  .size = ra_get(s->size),
				  .used = ra_get(s->used)};
}

void stream_put(struct ra_stream *s, const struct ra_stream *now)
{
	ra_put(s->last, now->last);
	ra_put(s->edge, now->edge);
	ra_put(s->stride, now->stride);
	ra_put(s->step, now->step);
	ra_put(s->size, now->size);
	ra_put(s->used, now->used);
}

/* Return how many steps of the stream lie between its last page and this page; 0: the page is
 * not on the stream's way. */
uint64_t stream_steps_to(const struct ra_stream *s, uint64_t index)
{
	int64_t stride = s->stride, ahead = (int64_t)(index - s->last),
		asked = (int64_t)(s->edge - s->last);

	if (!stride) /* the second page of a stream tells its direction */
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

/* Find the stream that is at the page, or whose way leads to the page. Stores a copy in *ret.
 * Returns NULL if no stream is found. */
struct ra_stream *stream_find(struct ra_state *ra, uint64_t index, struct ra_stream *ret)
{
	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream now = stream_get(&ra->stream[i]);
		if (!now.used || (now.last != index && !stream_steps_to(&now, index)))
			continue;
		*ret = now;
		return &ra->stream[i];
	}
	return NULL;
}

/* Find the stream that has leapt to this page over pages that were cached and in the view.
 * Such pages cause no fault, so the stream did not move. Stores a copy in *ret. Returns NULL
 * if no stream is found. */
struct ra_stream *stream_leaping(struct fm_file *file, uint64_t index, struct ra_stream *ret)
{
	struct ra_stream *nearest = NULL;
	uint64_t shortest = LEAP_MOST + 1;

	for (int i = 0; i < RA_STREAMS; i++) {
		struct ra_stream now = stream_get(&file->reads->ra.stream[i]);
		uint64_t leap = now.stride == 1 ? index - now.edge : now.edge - index;
		if (!now.used || (now.stride != 1 && now.stride != -1) || !leap || leap >= shortest)
			continue;
		shortest = leap;
		nearest = &file->reads->ra.stream[i];
		*ret = now;
	}
	return nearest && page_is_cached(file, ret->edge) &&
			       page_is_cached(file, index - (uint64_t)ret->stride)
		       ? nearest
		       : NULL;
}

/* Return the place of the stream that moved longest ago. Streams that have proven themselves
 * stay longer. */
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

/* Return how far the page is from the nearest stream that has no direction yet; 0: no such
 * stream is near. *ret_steady tells that the nearest stream had come as far to its own place.
 * Then both streams are a single reader, in equal steps. */
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

struct ra_stream *stream_new(struct ra_state *ra, uint64_t index, struct ra_stream *ret)
{
	struct ra_stream *s = stream_oldest(ra);
	bool steady;
	int32_t step = step_from_nearest(ra, index, &steady);
	*ret = (struct ra_stream){.last = index, .edge = index, .step = step,
				  .stride = steady ? step : 0, .used = ra_get(ra->clock)};
	return s;
}

/* Move the stream to this page. */
void stream_move(struct ra_state *ra, struct ra_stream *s, uint64_t index)
{
	if (!s->stride)
		s->stride = (int64_t)(index - s->last);
	s->last = index;
	s->used = ra_get(ra->clock);
}

/* Return the number of streams that moved lately, at least 1. */
static uint32_t lively_streams(struct ra_state *ra)
{
	uint32_t count = 0, clock = ra_get(ra->clock);
	for (int i = 0; i < RA_STREAMS; i++)
		count += ra_get(ra->stream[i].size) && clock - ra_get(ra->stream[i].used) < LIVELY;
	return count ? count : 1;
}

/* Grow the stream's window. `waited`: the last window came too late. Returns the number of
 * pages of the next window. */
uint32_t stream_grow(struct fm_file *file, struct ra_stream *s, bool waited)
{
	bool unit = s->stride == 1 || s->stride == -1;
	uint32_t most = ra_get(file->reads->ra.most), usual = WINDOW_USUAL / file->pool->page_size;
	uint32_t share = frames_share(file) / lively_streams(&file->reads->ra) + 1;
	uint32_t grown = s->size ? 2 * s->size : unit ? WINDOW_FIRST : STEPS_FIRST;

	if (usual < 2)
		usual = 2;
	if (unit && file_takes_groups(file) && share >= GROUP_PAGES / 4 && share < GROUP_PAGES)
		share = GROUP_PAGES;
	if (most > share)
		most = share;
	if (unit && file_takes_groups(file) && most >= GROUP_PAGES && usual < GROUP_PAGES)
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

static void narrow(struct ra_state *ra, uint32_t most)
{
	uint32_t max = ra_get(ra->max_pages), least = max < WINDOW_FIRST ? max : WINDOW_FIRST;
	ra_put(ra->most, most < least ? least : most);
}

/* Make windows smaller if many of their pages were thrown away untouched. Let windows recover
 * if no page is wasted. */
void stream_weigh_waste(struct fm_file *file, bool hit)
{
	struct ra_state *ra = &file->reads->ra;
	uint32_t wasted = ra_get(file->dirt->wasted), most = ra_get(ra->most), max = ra_get(ra->max_pages);
	if (wasted > 8 && wasted > most / 2) {
		narrow(ra, most / 2);
		ra_put(file->dirt->wasted, 0);
	} else if (hit && wasted) {
		ra_put(file->dirt->wasted, wasted - (wasted + 3) / 4);
	} else if (hit && most < max) {
		ra_put(ra->most, 2 * most < max ? 2 * most : max);
	}
}

void ra_tick(struct ra_state *ra)
{
	uint32_t clock = ra_get(ra->clock) + 1;
	ra_put(ra->clock, clock ? clock : 1);
}

/* Grow the window of the stream at `index`: a fault waits for a page that was read ahead, so
 * the windows come too late. */
void ra_late(struct fm_file *file, uint64_t index)
{
	struct ra_stream now, *s = stream_find(&file->reads->ra, index, &now);
	if (!s || !now.stride || !now.size)
		return;
	stream_grow(file, &now, true);
	ra_put(s->size, now.size);
}

/* Make windows smaller for a while, because a read of several pages failed. */
void ra_shrink(struct fm_file *file)
{
	narrow(&file->reads->ra, ra_get(file->reads->ra.most) / 4);
}
