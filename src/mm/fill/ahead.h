/* SPDX-License-Identifier: MIT */
/* Submit the reads that readahead has chosen. */
#ifndef FM_MM_FILL_AHEAD_H
#define FM_MM_FILL_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct ra_window;
struct view;

uint64_t ra_submit(struct fm_file *file, const struct ra_window *window, bool evict);
uint64_t ra_range(struct view *view, uint64_t at, uint64_t end, uint64_t ahead);

#endif
