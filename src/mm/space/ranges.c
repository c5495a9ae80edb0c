/* SPDX-License-Identifier: MIT */
/*
 * Mappings: maps, unmaps, advises, and syncs ranges, and reports their residency.
 *
 * Owns the segments table, protected by the map lock. Segments are disjoint and sorted. Mapping
 * bytes again raises a segment's count, so every fm_map() needs its own fm_unmap(). The table is
 * populated memory. The table grows by being replaced, outside the map lock. Each segment has a
 * reference on its file, which is put after the lock is dropped. Work on pages (taking out,
 * dropping, reading) is done in pieces after the lock is dropped, so that the lock is never held
 * long.
 */
#include "mm/space/ranges.h"

#include "filemap.h"
#include "io/io.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/view.h"
#include "mm/cache/index.h"
#include "mm/fill/ahead.h"
#include "mm/fill/request.h"
#include "mm/fill/windows.h"
#include "mm/flush/durable.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/lists.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/map/map_lock.h"
#include "mm/map/segments.h"
#include "mm/view/range.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>
#include <string.h>

#define PIECE 32 /* segments handled in one hold of the lock */

struct piece {
	struct view *view;
	uint64_t start, end;
};

int mm_map_range(struct view *view, uint64_t offset, size_t len,
		 const struct fm_map_options *options, void **ret_addr)
{
	struct fm_mm *mm = view->mm;
	uint64_t start = view->region.base + offset;
	uint64_t end = start + ((len + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1));
	struct vma fresh = {.view = view, .count = 1, .on_error = options ? options->on_error : NULL,
			    .on_error_arg = options ? options->on_error_arg : NULL,
			    .writable = options && (options->flags & FM_MAP_WRITE)};

	os_populate_stack();
	int err = segments_lock_with_room(mm, start, end);
	if (err)
		return err;
	segment_cut(mm, start);
	segment_cut(mm, end);
	uint64_t at = start;
	for (uint32_t i = segment_after(mm, start); at < end; i++) {
		if (i < mm->segment_count && mm->starts[i] == at) { /* mapped already: count one mapping more */
			struct vma *vma = &mm->segments[mm->segment_slots[i]];
			vma->count++;
			vma->writable |= fresh.writable;
			if (fresh.on_error) {
				vma->on_error = fresh.on_error;
				vma->on_error_arg = fresh.on_error_arg;
			}
			at = vma->end;
			continue;
		}
		fresh.start = at;
		fresh.end = i < mm->segment_count && mm->starts[i] < end ? mm->starts[i] : end;
		segment_insert(mm, i, &fresh);
		at = fresh.end;
	}
	map_unlock_exclusive(mm->map);
	stats_add(mm->stats, maps, 1);
	*ret_addr = (void *)(uintptr_t)start;
	return 0;
}

/* Return the first and last page of a piece. The caller holds a reference on the piece's file. */
static void piece_pages(const struct piece *piece, uint64_t *ret_first, uint64_t *ret_last)
{
	uint32_t shift = piece->view->file->pool->shift;
	*ret_first = (piece->start - piece->view->region.base) >> shift;
	*ret_last = (piece->end - 1 - piece->view->region.base) >> shift;
}

/*
 * Remove the mapped segments of [*at, end) from the table, up to PIECE segments, and move *at on.
 * Called with the map lock held exclusive, and with room in the table. Returns the number of
 * removed segments. The caller gets their file references.
 */
static uint32_t unmap_some(struct fm_mm *mm, uint64_t *at, uint64_t end, struct piece *piece)
{
	uint32_t count = 0;
	segment_cut(mm, *at);
	segment_cut(mm, end);
	uint32_t i = segment_after(mm, *at);
	while (i < mm->segment_count && mm->starts[i] < end && count < PIECE) {
		struct vma *vma = &mm->segments[mm->segment_slots[i]];
		*at = vma->end;
		if (--vma->count > 0) {
			i++;
			continue;
		}
		piece[count++] = (struct piece){vma->view, vma->start, vma->end};
		atomic_add(&vma->view->unmap_seq, 1u);
		segment_delete(mm, i);
	}
	if (count < PIECE)
		*at = end;
	return count;
}

int mm_unmap_range(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	struct piece piece[PIECE];
	uint64_t at = start;

	os_populate_stack();
	while (at < end) {
		int err = segments_lock_with_room(mm, at, end);
		if (err)
			return err;
		uint32_t count = unmap_some(mm, &at, end, piece);
		map_unlock_exclusive(mm->map);
		for (uint32_t i = 0; i < count; i++) {
			uint64_t first, last;
			piece_pages(&piece[i], &first, &last);
			file_take_out(piece[i].view->file, first, last);
			file_put(piece[i].view->file);
		}
	}
	stats_add(mm->stats, unmaps, 1);
	return 0;
}

/* Forget all mappings, for mm_destroy(). The pages go with their files. */
void mm_unmap_all(struct fm_mm *mm)
{
	bool more = true;
	while (more) {
		struct view *view = NULL;
		map_lock_exclusive(mm->map);
		if (mm->segment_count) {
			view = mm->segments[mm->segment_slots[mm->segment_count - 1]].view;
			atomic_add(&view->unmap_seq, 1u);
			segment_delete(mm, mm->segment_count - 1);
		}
		map_unlock_exclusive(mm->map);
		more = view != NULL;
		if (view)
			file_put(view->file);
	}
}

/* Set the advice of the mapped parts of [start, end). Sets *ret_gap if a part is not mapped. */
static int advise_behaviour(struct fm_mm *mm, uint64_t start, uint64_t end, enum fm_advice advice,
			    bool *ret_gap)
{
	int err = segments_lock_with_room(mm, start, end);
	if (err)
		return err;
	segment_cut(mm, start);
	segment_cut(mm, end);
	uint64_t at = start;
	for (uint32_t i = segment_after(mm, start);
	     i < mm->segment_count && mm->starts[i] < end; i++) {
		struct vma *vma = &mm->segments[mm->segment_slots[i]];
		*ret_gap |= vma->start != at;
		if (advice == FM_ADVICE_KEEP)
			vma->advised_keep = true;
		else
			vma->advice = (uint16_t)advice;
		if (advice == FM_ADVICE_NORMAL)
			vma->advised_keep = false;
		at = vma->end;
	}
	*ret_gap |= at < end;
	map_unlock_exclusive(mm->map);
	return 0;
}

/*
 * Return up to PIECE mapped pieces of [*at, end), each with a file reference, and move *at on.
 * Sets *ret_gap if a part between the pieces is not mapped. Takes the map lock shared.
 */
static uint32_t pieces_of(struct fm_mm *mm, uint64_t *at, uint64_t end, struct piece *piece,
			  bool *ret_gap)
{
	uint32_t count = 0;

	map_lock_shared(mm->map);
	for (uint32_t i = segment_after(mm, *at);
	     i < mm->segment_count && mm->starts[i] < end && count < PIECE; i++) {
		struct vma *vma = &mm->segments[mm->segment_slots[i]];
		*ret_gap |= vma->start > *at;
		piece[count] = (struct piece){vma->view, vma->start > *at ? vma->start : *at,
					      vma->end < end ? vma->end : end};
		file_get(vma->view->file);
		*at = piece[count++].end;
	}
	if (count < PIECE) {
		*ret_gap |= *at < end;
		*at = end;
	}
	map_unlock_shared(mm->map);
	return count;
}

static void willneed(const struct piece *piece)
{
	struct fm_file *file = piece->view->file;
	uint64_t first, last,
		window = file->pool->page_size > OS_PAGE ? IO_SEGMENTS_MAX : 4 * READ_PAGES_MAX;
	piece_pages(piece, &first, &last);
	if (last >= file_pages(file))
		last = file_pages(file) - 1;
	/* Read no more than fits: later pages would evict the first pages. */
	if (last - first >= file->pool->frames / 2)
		last = first + file->pool->frames / 2;
	for (; first <= last && last != UINT64_MAX; first += window) {
		while (lru_count(file->pool, LIST_FREE) < window &&
		       pool_grow(file->pool, (uint32_t)window)) /* this call may grow the pool, a fault may not */
			;
		uint64_t size = last - first + 1 < window ? last - first + 1 : window;
		ra_submit(file, &(struct ra_window){.start = first, .mark = UINT64_MAX, .step = 1,
						   .count = (uint32_t)size}, false);
	}
}

int mm_advise_range(struct fm_mm *mm, uint64_t start, uint64_t end, enum fm_advice advice)
{
	struct piece piece[PIECE];
	bool gap = false;

	stats_add(mm->stats, advises, 1);
	os_populate_stack();
	if (advice <= FM_ADVICE_SEQUENTIAL || advice == FM_ADVICE_KEEP) {
		int err = advise_behaviour(mm, start, end, advice, &gap);
		if (err || advice != FM_ADVICE_KEEP)
			return err ? err : gap ? -ENOMEM : 0;
	}
	for (uint64_t at = start; at < end;) {
		uint32_t count = pieces_of(mm, &at, end, piece, &gap);
		for (uint32_t i = 0; i < count; i++) {
			uint64_t first, last;
			piece_pages(&piece[i], &first, &last);
			if (advice == FM_ADVICE_WILLNEED)
				willneed(&piece[i]);
			else if (advice == FM_ADVICE_KEEP)
				file_favour(piece[i].view->file, first, last);
			else if (advice == FM_ADVICE_COLD)
				file_cool(piece[i].view->file, first, last);
			else
				file_invalidate(piece[i].view->file, first, last);
			file_put(piece[i].view->file);
		}
	}
	return gap ? -ENOMEM : 0;
}

int mm_sync_range(struct fm_mm *mm, uint64_t start, uint64_t end, unsigned flags)
{
	struct piece piece[PIECE];
	bool gap = false;
	int ret = 0;

	os_populate_stack();
	for (uint64_t at = start; at < end;) {
		uint32_t count = pieces_of(mm, &at, end, piece, &gap);
		for (uint32_t i = 0; i < count; i++) {
			uint64_t first, last;
			piece_pages(&piece[i], &first, &last);
			int err = file_sync(piece[i].view->file, first, last, flags, &piece[i].view->file->error_told);
			ret = ret ? ret : err;
			file_put(piece[i].view->file);
		}
	}
	return ret ? ret : gap ? -ENOMEM : 0;
}

static unsigned char resident_bits(const struct page_glance *page, uint64_t piece)
{
	if (!(page->state & PG_UPTODATE))
		return 0;
	return (unsigned char)(FM_RESIDENT_CACHED | (page->user_pins ? FM_RESIDENT_PINNED : 0) |
			       ((page->state & PG_INSTALLED) && piece < page->shown ? FM_RESIDENT_MAPPED : 0));
}

static void piece_residency(const struct piece *piece, unsigned char *vec)
{
	struct fm_file *file = piece->view->file;
	uint64_t base = piece->view->region.base, pieces = file->pool->page_size / OS_PAGE;
	uint64_t first = (piece->start - base) / OS_PAGE, end = (piece->end - base) / OS_PAGE;
	uint64_t file_end = (file_size(file) + OS_PAGE - 1) / OS_PAGE;
	struct page_glance page;
	bool cached = false;

	for (uint64_t i = first; i < end && i < file_end; i++) {
		if (i == first || i % pieces == 0)
			cached = page_glance(file, i / pieces, &page);
		if (cached)
			vec[i - first] = resident_bits(&page, i % pieces);
	}
}

int mm_residency_range(struct fm_mm *mm, uint64_t start, uint64_t end, unsigned char *vec)
{
	struct piece piece[PIECE];
	bool gap = false;

	memset(vec, 0, (end - start) / OS_PAGE);
	os_populate_stack();
	for (uint64_t at = start; at < end;) {
		uint32_t count = pieces_of(mm, &at, end, piece, &gap);
		for (uint32_t i = 0; i < count; i++) {
			piece_residency(&piece[i], vec + (piece[i].start - start) / OS_PAGE);
			file_put(piece[i].view->file);
		}
	}
	return gap ? -ENOMEM : 0;
}
