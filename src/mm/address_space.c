/* SPDX-License-Identifier: MIT */
/*
 * Mappings: the table of segments, map, unmap, advise, residency.
 *
 * Owns the segments table, protected by the map lock. Segments are disjoint and sorted; mapping bytes again raises
 * a segment's count, so that every fm_map() wants its fm_unmap(). The table is populated memory; it grows by being
 * replaced, outside the lock. Each segment has a reference on its file, put after the lock is dropped; work on pages
 * (taking out, dropping, reading) is done after the lock is dropped, in pieces, so that the lock is never held long.
 * May call: page_cache, readahead, os, stats.
 */
#include "mm/mm.h"

#define PIECE 32 /* segments handled in one hold of the lock */

/* ------------------------------------------------------------------ the table; map lock */

/* The place of the first segment that ends after addr. */
static uint32_t segment_after(struct fm_mm *mm, uint64_t addr)
{
	uint32_t low = 0, high = mm->segment_count;
	while (low < high) {
		uint32_t mid = (low + high) / 2;
		if (mm->starts[mid] <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	if (low > 0 && mm->segments[mm->places[low - 1]].end > addr)
		return low - 1;
	return low;
}

const struct vma *mm_find_vma(struct fm_mm *mm, uint64_t addr)
{
	uint32_t at = segment_after(mm, addr);
	if (at == mm->segment_count)
		return NULL;
	const struct vma *vma = &mm->segments[mm->places[at]];
	return vma->start <= addr ? vma : NULL;
}

static struct vma *segment_insert(struct fm_mm *mm, uint32_t at, const struct vma *vma)
{
	mm_assert(mm->segment_count < mm->segment_capacity && mm->segment_free != NONE);
	uint32_t place = mm->segment_free, tail = mm->segment_count - at;
	mm->segment_free = mm->segment_free_next[place];
	memmove(&mm->starts[at + 1], &mm->starts[at], tail * sizeof(*mm->starts));
	memmove(&mm->places[at + 1], &mm->places[at], tail * sizeof(*mm->places));
	mm->starts[at] = vma->start;
	mm->places[at] = place;
	mm->segments[place] = *vma;
	mm->segment_count++;
	file_get(vma->view->file);
	stats_add(mm->stats, mappings, 1);
	return &mm->segments[place];
}

/* The segment's file reference is left to the caller. */
static void segment_delete(struct fm_mm *mm, uint32_t at)
{
	uint32_t place = mm->places[at], tail = mm->segment_count - at - 1;
	memmove(&mm->starts[at], &mm->starts[at + 1], tail * sizeof(*mm->starts));
	memmove(&mm->places[at], &mm->places[at + 1], tail * sizeof(*mm->places));
	mm->segment_free_next[place] = mm->segment_free;
	mm->segment_free = place;
	mm->segment_count--;
	stats_sub(mm->stats, mappings, 1);
}

/* Cut the segment at a place in two at addr, which lies inside it. */
static void segment_split(struct fm_mm *mm, uint32_t at, uint64_t addr)
{
	struct vma *vma = &mm->segments[mm->places[at]], upper = *vma;
	mm_assert(vma->start < addr && addr < vma->end);
	upper.start = addr;
	vma->end = addr;
	segment_insert(mm, at + 1, &upper);
}

/* Make addr a boundary if it lies inside a segment. */
static void segment_cut(struct fm_mm *mm, uint64_t addr)
{
	uint32_t at = segment_after(mm, addr);
	if (at < mm->segment_count && mm->starts[at] < addr)
		segment_split(mm, at, addr);
}

/* How many segments a change of [start, end) may add: one cut at each end, and the gaps. */
static uint32_t segments_needed(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	uint32_t first = segment_after(mm, start), last = first;
	while (last < mm->segment_count && mm->starts[last] < end)
		last++;
	return last - first + 3;
}

/* ------------------------------------------------------------------ growing; no lock held */

struct segment_table {
	void *mem;
	size_t len;
	uint64_t *starts;
	uint32_t *places, *free_next;
	struct vma *segments;
	uint32_t capacity;
};

static int table_alloc(uint32_t capacity, struct segment_table *ret_table)
{
	size_t each = sizeof(uint64_t) + 2 * sizeof(uint32_t) + sizeof(struct vma);
	struct segment_table t = {.len = capacity * each, .capacity = capacity};
	t.mem = os_meta_alloc(t.len);
	if (!t.mem)
		return -ENOMEM;
	t.segments = t.mem;
	t.starts = (uint64_t *)(t.segments + capacity);
	t.places = (uint32_t *)(t.starts + capacity);
	t.free_next = t.places + capacity;
	*ret_table = t;
	return 0;
}

/* Put a larger table in place of the present one. Map lock exclusive; the old memory is the caller's. */
static void table_replace(struct fm_mm *mm, struct segment_table *table)
{
	struct segment_table old = {.mem = mm->segment_mem, .len = mm->segment_mem_len};
	uint32_t count = mm->segment_count;

	for (uint32_t i = 0; i < count; i++) {
		table->starts[i] = mm->starts[i];
		table->places[i] = i;
		table->segments[i] = mm->segments[mm->places[i]];
	}
	for (uint32_t i = count; i < table->capacity; i++)
		table->free_next[i] = i + 1 < table->capacity ? i + 1 : NONE;
	mm->segments = table->segments;
	mm->starts = table->starts;
	mm->places = table->places;
	mm->segment_free_next = table->free_next;
	mm->segment_free = count < table->capacity ? count : NONE;
	mm->segment_capacity = table->capacity;
	mm->segment_mem = table->mem;
	mm->segment_mem_len = table->len;
	*table = old;
}

/* Take the lock exclusive with room for a change of [start, end). -ENOMEM: not taken. */
static int lock_with_room(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	for (;;) {
		struct segment_table table;
		map_lock_exclusive(&mm->map);
		uint32_t needed = mm->segment_count + segments_needed(mm, start, end);
		if (needed <= mm->segment_capacity)
			return 0;
		map_unlock_exclusive(&mm->map);
		int err = table_alloc(needed * 2 < 256 ? 256 : needed * 2, &table);
		if (err)
			return err;
		map_lock_exclusive(&mm->map);
		if (mm->segment_capacity < table.capacity)
			table_replace(mm, &table);
		map_unlock_exclusive(&mm->map);
		os_meta_free(table.mem, table.len);
	}
}

/* ------------------------------------------------------------------ map */

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
	int err = lock_with_room(mm, start, end);
	if (err)
		return err;
	segment_cut(mm, start);
	segment_cut(mm, end);
	uint64_t at = start;
	for (uint32_t i = segment_after(mm, start); at < end; i++) {
		if (i < mm->segment_count && mm->starts[i] == at) { /* mapped already: once more */
			struct vma *vma = &mm->segments[mm->places[i]];
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
	map_unlock_exclusive(&mm->map);
	stats_add(mm->stats, maps, 1);
	*ret_addr = (void *)(uintptr_t)start;
	return 0;
}

/* ------------------------------------------------------------------ pieces of a range */

struct piece {
	struct view *view;
	uint64_t start, end;
};

/* Work on a piece's pages, with a reference on its file. */
static void piece_pages(const struct piece *piece, uint64_t *ret_first, uint64_t *ret_last)
{
	uint32_t shift = piece->view->file->pool->shift;
	*ret_first = (piece->start - piece->view->region.base) >> shift;
	*ret_last = (piece->end - 1 - piece->view->region.base) >> shift;
}

/* ------------------------------------------------------------------ unmap */

/* Remove what is mapped of [*at, end), up to PIECE segments. Returns how many were taken off the table, with their
 * file references; *at moves on. Map lock exclusive, with room. */
static uint32_t unmap_some(struct fm_mm *mm, uint64_t *at, uint64_t end, struct piece *piece)
{
	uint32_t count = 0;
	segment_cut(mm, *at);
	segment_cut(mm, end);
	uint32_t i = segment_after(mm, *at);
	while (i < mm->segment_count && mm->starts[i] < end && count < PIECE) {
		struct vma *vma = &mm->segments[mm->places[i]];
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
		int err = lock_with_room(mm, at, end);
		if (err)
			return err;
		uint32_t count = unmap_some(mm, &at, end, piece);
		map_unlock_exclusive(&mm->map);
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

/* For mm_destroy(): forget all mappings; the pages go with their files. */
void mm_unmap_all(struct fm_mm *mm)
{
	bool more = true;
	while (more) {
		struct view *view = NULL;
		map_lock_exclusive(&mm->map);
		if (mm->segment_count) {
			view = mm->segments[mm->places[mm->segment_count - 1]].view;
			atomic_add(&view->unmap_seq, 1u);
			segment_delete(mm, mm->segment_count - 1);
		}
		map_unlock_exclusive(&mm->map);
		more = view != NULL;
		if (view)
			file_put(view->file);
	}
}

/* It is mapped; and where it is `written`, which is to say that it can be written to there, that is allowed. */
bool mm_range_allows(struct fm_mm *mm, uint64_t addr, bool written)
{
	map_lock_shared(&mm->map);
	const struct vma *vma = mm_find_vma(mm, addr);
	bool allows = vma && (!written || vma->writable);
	map_unlock_shared(&mm->map);
	return allows;
}

bool mm_range_mapped(struct fm_mm *mm, uint64_t addr)
{
	return mm_range_allows(mm, addr, false);
}

/* ------------------------------------------------------------------ advise */

/* Set the advice of what is mapped; *ret_gap: not all of it was. */
static int advise_behaviour(struct fm_mm *mm, uint64_t start, uint64_t end, enum fm_advice advice,
			    bool *ret_gap)
{
	int err = lock_with_room(mm, start, end);
	if (err)
		return err;
	segment_cut(mm, start);
	segment_cut(mm, end);
	uint64_t at = start;
	for (uint32_t i = segment_after(mm, start);
	     i < mm->segment_count && mm->starts[i] < end; i++) {
		struct vma *vma = &mm->segments[mm->places[i]];
		*ret_gap |= vma->start != at;
		if (advice == FM_ADVICE_KEEP)
			vma->keep = true;
		else
			vma->advice = (uint16_t)advice;
		if (advice == FM_ADVICE_NORMAL)
			vma->keep = false;
		at = vma->end;
	}
	*ret_gap |= at < end;
	map_unlock_exclusive(&mm->map);
	return 0;
}

/* Up to PIECE mapped pieces of [*at, end), each with a file reference. *ret_gap: something between them was not mapped. */
static uint32_t pieces_of(struct fm_mm *mm, uint64_t *at, uint64_t end, struct piece *piece,
			  bool *ret_gap)
{
	uint32_t count = 0;

	map_lock_shared(&mm->map);
	for (uint32_t i = segment_after(mm, *at);
	     i < mm->segment_count && mm->starts[i] < end && count < PIECE; i++) {
		struct vma *vma = &mm->segments[mm->places[i]];
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
	map_unlock_shared(&mm->map);
	return count;
}

static void willneed(const struct piece *piece)
{
	struct fm_file *file = piece->view->file;
	uint64_t first, last, window = file->pool->page_size > OS_PAGE ? IO_SEGMENTS_MAX : 4 * READ_PAGES_MAX;
	piece_pages(piece, &first, &last);
	if (last >= file_pages(file))
		last = file_pages(file) - 1;
	/* No more than fits: what comes later would push out what came first. */
	if (last - first >= file->pool->frames / 2)
		last = first + file->pool->frames / 2;
	for (; first <= last && last != UINT64_MAX; first += window) {
		while (lru_count(file->pool, LIST_FREE) < window && pool_grow(file->pool, (uint32_t)window)) /* not a fault: it may */
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
				file_keep(piece[i].view->file, first, last);
			else if (advice == FM_ADVICE_COLD)
				file_cool(piece[i].view->file, first, last);
			else
				file_invalidate(piece[i].view->file, first, last);
			file_put(piece[i].view->file);
		}
	}
	return gap ? -ENOMEM : 0;
}

/* ------------------------------------------------------------------ sync */

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

/* ------------------------------------------------------------------ residency */

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
