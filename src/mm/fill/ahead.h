/* SPDX-License-Identifier: MIT */
/* Submit the reads that readahead has chosen. */
#ifndef FM_MM_FILL_AHEAD_H
#define FM_MM_FILL_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct ra_window;
struct view;

/* How far readahead has come for one call on a range of many pages. */
struct ra_reach {
	uint64_t ahead;  /* reads have begun up to this address; 0: none */
	uint32_t losses; /* pieces whose pages were lost before the call reached them */
};

uint64_t ra_submit(struct fm_file *file, const struct ra_window *window, bool evict);
void ra_range(struct view *view, uint64_t at, uint64_t end, struct ra_reach *reach);

#endif
