/* SPDX-License-Identifier: MIT */
/* The region of addresses in which a file's pages appear. */
#ifndef FM_MM_BASE_VIEW_H
#define FM_MM_BASE_VIEW_H

#include "trap/trap.h"

#include <stdint.h>

struct fm_file;
struct fm_mm;

/* The region in which a file's pages appear. A view lives as long as its file. */
struct view {
	struct fm_mm *mm;
	struct fm_file *file;
	struct view_region region; /* the registry's part: base, len, pins */
	uint32_t unmap_seq;        /* changes with each unmap; atomic */
};

#endif
