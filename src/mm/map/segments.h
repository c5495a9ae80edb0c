/* SPDX-License-Identifier: MIT */
/* The table of segments: which addresses are mapped. The map lock protects the table. */
#ifndef FM_MM_MAP_SEGMENTS_H
#define FM_MM_MAP_SEGMENTS_H

#include "filemap.h"

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;
struct view;

/* A segment. Segments are disjoint and sorted by address. A second mapping of the same bytes
 * raises `count`. The map lock protects segments. */
struct vma {
	uint64_t start, end;
	struct view *view;
	uint32_t count;
	uint16_t advice; /* on readahead */
	bool advised_keep; /* FM_ADVICE_KEEP */
	bool writable;   /* FM_MAP_WRITE */
	fm_error_fn on_error;
	void *on_error_arg;
};

uint32_t segment_after(struct fm_mm *mm, uint64_t addr);
const struct vma *mm_find_vma(struct fm_mm *mm, uint64_t addr);
struct vma *segment_insert(struct fm_mm *mm, uint32_t at, const struct vma *vma);
void segment_delete(struct fm_mm *mm, uint32_t at);
void segment_cut(struct fm_mm *mm, uint64_t addr);
int segments_lock_with_room(struct fm_mm *mm, uint64_t start, uint64_t end);
bool mapping_allows(struct fm_mm *mm, uint64_t addr, bool written);
bool mm_range_mapped(struct fm_mm *mm, uint64_t addr);

#endif
