/* SPDX-License-Identifier: MIT */
/* Mappings: maps, unmaps, advises, and syncs ranges, and reports their residency. */
#ifndef FM_MM_SPACE_RANGES_H
#define FM_MM_SPACE_RANGES_H

#include "filemap.h"

#include <stddef.h>
#include <stdint.h>

struct fm_mm;
struct view;

int mm_map_range(struct view *view, uint64_t offset, size_t len,
		 const struct fm_map_options *options, void **ret_addr);
int mm_unmap_range(struct fm_mm *mm, uint64_t start, uint64_t end);
void mm_unmap_all(struct fm_mm *mm);
int mm_advise_range(struct fm_mm *mm, uint64_t start, uint64_t end, enum fm_advice advice);
int mm_sync_range(struct fm_mm *mm, uint64_t start, uint64_t end, unsigned flags);
int mm_residency_range(struct fm_mm *mm, uint64_t start, uint64_t end, unsigned char *vec);

#endif
