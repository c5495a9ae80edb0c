/* SPDX-License-Identifier: MIT */
/* Choose the pages to read beside the page that a fault wants. */
#include "mm/fill/windows.h"

#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/cache/index.h"
#include "mm/base/access.h"
#include "mm/fill/demand.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/share.h"
#include "mm/fill/streams.h"
#include "mm/frames/group.h"
#include "mm/frames/page.h"
#include "os/atomic.h"

#include <string.h>

/* Return the last page of a window of GROUP_PAGES pages or more, cut so that the next window
 * begins with a group. */
static uint64_t group_end(uint64_t last, bool backward)
{
	return backward ? last - last % GROUP_PAGES : last - (last + 1) % GROUP_PAGES;
}

/* Set reading->ra to `count` pages in the stream's steps, beginning at `from`. The window is
 * cut to the pages that the file has and the mapping shows. Returns false if no page is left. */
static bool window_cut(const struct access *access, struct reading *reading, struct ra_stream *s,
		       uint64_t from, uint32_t count)
{
	uint64_t end = file_pages(access->file), most = 0;
	uint64_t step = s->stride < 0 ? (uint64_t)-s->stride : (uint64_t)s->stride;

	if (end > access->mapped_end) /* pages that are not mapped are never reached */
		end = access->mapped_end;
	reading->ra.count = 0;
	if (from < end && s->stride > 0) /* a page before the beginning would be a huge number */
		most = (end - from + step - 1) / step;
	else if (from < end && from >= access->low)
		most = (from - access->low) / step + 1;
	if (count > most)
		count = (uint32_t)most;
	if (!count)
		return false;
	uint64_t last = from + (uint64_t)s->stride * (count - 1);
	if (count >= GROUP_PAGES && step == 1 && file_takes_groups(access->file)) {
		last = group_end(last, s->stride < 0);
		if (s->stride < 0 && last < access->low)
			last += GROUP_PAGES;
		count = (uint32_t)(s->stride < 0 ? from - last : last - from) + 1;
	}
	reading->ra = (struct ra_window){
		.start = s->stride < 0 ? last : from,
		.mark = from,
		.step = (uint32_t)step,
		.count = count,
		.stages = !(access->flags & FM_FAULT_WRITE), /* staged pages are write-protected */
		.unmap_seq = access->unmap_seq,
		.advised_keep = access->advised_keep};
	s->edge = last + (uint64_t)s->stride;
	return true;
}

static bool window_set(const struct access *access, struct reading *reading, struct ra_stream *s,
		       uint64_t from, uint32_t count)
{
	bool some = window_cut(access, reading, s, from, count);
	watched(window, (&(struct ra_asked){access, &reading->ra, s->stride, from, count}));
	return some;
}

/* Return whether the page is the first page that the stream reaches of a possible group. */
static bool enters_group(const struct fm_file *file, const struct ra_stream *s, uint64_t index,
			 uint32_t size)
{
	if (!file_takes_groups(file) || size < GROUP_PAGES)
		return false;
	return (s->stride == 1 && index % GROUP_PAGES == 0) ||
	       (s->stride == -1 && index % GROUP_PAGES == GROUP_PAGES - 1);
}

/* Choose the reads that follow a wanted page that is not cached. `reading->more` pages are
 * read together with the wanted page, and the window is reading->ra. Returns false if the
 * wanted page is read alone. Map lock held. */
bool ra_sync_window(const struct access *access, struct reading *reading)
{
	struct ra_state *ra = &access->file->reads->ra;
	struct ra_stream now;
	bool full = access->advice == FM_ADVICE_SEQUENTIAL, some = false, whole = false;

	reading->ra.count = reading->more = 0;
	if (ra_get(ra->max_pages) <= 1 || access->advice == FM_ADVICE_RANDOM)
		return false;
	ra_tick(ra);
	struct ra_stream *s = stream_find(ra, access->index, &now);
	if (!s)
		s = stream_leaping(access->file, access->index, &now);
	covered_if(s && now.last != access->index && !stream_steps_to(&now, access->index), stream_leapt);
	if (!s) {
		s = stream_new(ra, access->index, &now);
		/* A reader that begins at the start of the file will mostly continue. */
		if (!now.stride && (!access->index || full))
			now.stride = 1;
	} else if (now.last != access->index) {
		stream_move(ra, &now, access->index);
	} /* else another thread reached the page first, or the page was evicted again */
	if (now.stride) {
		stream_weigh_waste(access->file, false);
		if (full)
			now.size = ra_get(ra->most);
		uint32_t size = stream_grow(access->file, &now, now.size > 0);
		/* The page is absent, though a read may have been asked for: the stream
		 * continues from here. The window includes the page if a group may begin at
		 * the page. */
		uint64_t from = enters_group(access->file, &now, access->index, size)
					? access->index
					: access->index + (uint64_t)now.stride;
		some = window_set(access, reading, &now, from, from == access->index ? size : size - 1);
		whole = from == access->index;
	}
	stream_put(s, &now);
	if (some && now.stride == 1 && !whole && read_is_inline(access->file)) {
		reading->more = reading->ra.count / 2 < READ_INLINE_MOST - 1 ? reading->ra.count / 2
									     : READ_INLINE_MOST - 1;
		reading->ra.start += reading->more;
		reading->ra.mark += reading->more;
		reading->ra.count -= reading->more;
	}
	return some;
}

/* Decide whether a cached page starts the next window. Returns true if reading->ra is to be
 * submitted. A submission then changes something, so dropping the map lock is worthwhile. Map
 * lock held. */
bool ra_async_window(const struct access *access, struct page *page, struct reading *reading)
{
	struct ra_state *ra = &access->file->reads->ra;
	struct ra_stream now;

	covered_if(access->flags & FM_FAULT_TRIED, a7_retry_no_hit);
	if (!page_is(page, PG_MARK))
		return false;
	page_set(page, 0, PG_MARK);
	bool off = ra_get(ra->max_pages) <= 1 || access->advice == FM_ADVICE_RANDOM;
	covered_if(off, a4_mark_changes_nothing);
	if (off)
		return false;
	ra_tick(ra);
	struct ra_stream *s = stream_find(ra, page->index, &now);
	if (!s) /* the stream has been forgotten */
		s = stream_new(ra, page->index, &now);
	else if (now.last != page->index)
		stream_move(ra, &now, page->index);
	if (!now.stride)
		now.stride = 1;
	int64_t asked = (int64_t)(now.edge - now.last);
	/* the stream is new, or leapt over its edge */
	bool moved = now.stride > 0 ? asked <= 0 : asked >= 0;
	covered_if(moved, a13_window_moved);
	if (moved)
		now.edge = now.last + (uint64_t)now.stride;
	stream_weigh_waste(access->file, true);
	bool some = window_set(access, reading, &now, now.edge, stream_grow(access->file, &now, false));
	covered_if(!some, a4_mark_changes_nothing);
	stream_put(s, &now);
	return some;
}
