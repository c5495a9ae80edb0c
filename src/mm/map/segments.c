/* SPDX-License-Identifier: MIT */
/* The table of segments: which addresses are mapped. The map lock protects the table. */
#include "mm/map/segments.h"

#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/view.h"
#include "mm/map/map_lock.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>
#include <string.h>

struct segment_table {
	void *mem;
	size_t len;
	uint64_t *starts;
	uint32_t *places, *free_next;
	struct vma *segments;
	uint32_t capacity;
};

/* Return the place of the first segment that ends after addr. */
uint32_t segment_after(struct fm_mm *mm, uint64_t addr)
{
	uint32_t low = 0, high = mm->segment_count;
	while (low < high) {
		uint32_t mid = (low + high) / 2;
		if (mm->starts[mid] <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	if (low > 0 && mm->segments[mm->segment_slots[low - 1]].end > addr)
		return low - 1;
	return low;
}

const struct vma *mm_find_vma(struct fm_mm *mm, uint64_t addr)
{
	uint32_t at = segment_after(mm, addr);
	if (at == mm->segment_count)
		return NULL;
	const struct vma *vma = &mm->segments[mm->segment_slots[at]];
	return vma->start <= addr ? vma : NULL;
}

struct vma *segment_insert(struct fm_mm *mm, uint32_t at, const struct vma *vma)
{
	mm_assert(mm->segment_count < mm->segment_capacity && mm->segment_free != NONE);
	uint32_t place = mm->segment_free, tail = mm->segment_count - at;
	mm->segment_free = mm->segment_free_next[place];
	memmove(&mm->starts[at + 1], &mm->starts[at], tail * sizeof(*mm->starts));
	memmove(&mm->segment_slots[at + 1], &mm->segment_slots[at], tail * sizeof(*mm->segment_slots));
	mm->starts[at] = vma->start;
	mm->segment_slots[at] = place;
	mm->segments[place] = *vma;
	mm->segment_count++;
	file_get(vma->view->file);
	stats_add(mm->stats, mappings, 1);
	return &mm->segments[place];
}

/* Remove the segment from the table. The caller takes over the segment's file reference. */
void segment_delete(struct fm_mm *mm, uint32_t at)
{
	uint32_t place = mm->segment_slots[at], tail = mm->segment_count - at - 1;
	memmove(&mm->starts[at], &mm->starts[at + 1], tail * sizeof(*mm->starts));
	memmove(&mm->segment_slots[at], &mm->segment_slots[at + 1], tail * sizeof(*mm->segment_slots));
	mm->segment_free_next[place] = mm->segment_free;
	mm->segment_free = place;
	mm->segment_count--;
	stats_sub(mm->stats, mappings, 1);
}

/* Split the segment at place `at` at addr. The address must lie inside the segment. */
static void segment_split(struct fm_mm *mm, uint32_t at, uint64_t addr)
{
	struct vma *vma = &mm->segments[mm->segment_slots[at]], upper = *vma;
	mm_assert(vma->start < addr && addr < vma->end);
	upper.start = addr;
	vma->end = addr;
	segment_insert(mm, at + 1, &upper);
}

/* Split the segment at addr if addr lies inside a segment. */
void segment_cut(struct fm_mm *mm, uint64_t addr)
{
	uint32_t at = segment_after(mm, addr);
	if (at < mm->segment_count && mm->starts[at] < addr)
		segment_split(mm, at, addr);
}

/* Return how many segments a change of [start, end) may add: a cut at each end, and the gaps. */
static uint32_t segments_needed(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	uint32_t first = segment_after(mm, start), last = first;
	while (last < mm->segment_count && mm->starts[last] < end)
		last++;
	return last - first + 3;
}

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

/* Replace the present table by a larger table. The caller holds the map lock exclusively. On
 * return *table describes the old memory, which belongs to the caller. */
static void table_replace(struct fm_mm *mm, struct segment_table *table)
{
	struct segment_table old = {.mem = mm->segment_mem, .len = mm->segment_mem_len};
	uint32_t count = mm->segment_count;

	for (uint32_t i = 0; i < count; i++) {
		table->starts[i] = mm->starts[i];
		table->places[i] = i;
		table->segments[i] = mm->segments[mm->segment_slots[i]];
	}
	for (uint32_t i = count; i < table->capacity; i++)
		table->free_next[i] = i + 1 < table->capacity ? i + 1 : NONE;
	mm->segments = table->segments;
	mm->starts = table->starts;
	mm->segment_slots = table->places;
	mm->segment_free_next = table->free_next;
	mm->segment_free = count < table->capacity ? count : NONE;
	mm->segment_capacity = table->capacity;
	mm->segment_mem = table->mem;
	mm->segment_mem_len = table->len;
	*table = old;
}

/* Take the map lock exclusively, with room in the table for a change of [start, end). May block.
 * Returns 0 with the lock held, or -ENOMEM without the lock. */
int segments_lock_with_room(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	for (;;) {
		struct segment_table table;
		map_lock_exclusive(mm->map);
		uint32_t needed = mm->segment_count + segments_needed(mm, start, end);
		if (needed <= mm->segment_capacity)
			return 0;
		map_unlock_exclusive(mm->map);
		int err = table_alloc(needed * 2 < 256 ? 256 : needed * 2, &table);
		if (err)
			return err;
		map_lock_exclusive(mm->map);
		if (mm->segment_capacity < table.capacity)
			table_replace(mm, &table);
		map_unlock_exclusive(mm->map);
		os_meta_free(table.mem, table.len);
	}
}

/* Return whether addr is mapped and, if `written` is set, whether the mapping may be written to.
 * Takes the map lock shared. */
bool mapping_allows(struct fm_mm *mm, uint64_t addr, bool written)
{
	map_lock_shared(mm->map);
	const struct vma *vma = mm_find_vma(mm, addr);
	bool allows = vma && (!written || vma->writable);
	map_unlock_shared(mm->map);
	return allows;
}

bool mm_range_mapped(struct fm_mm *mm, uint64_t addr)
{
	return mapping_allows(mm, addr, false);
}
