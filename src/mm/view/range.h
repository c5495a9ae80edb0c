/* SPDX-License-Identifier: MIT */
/* Calls on all cached pages of a range: the pages are taken out, kept, cooled or
 * forgotten. */
#ifndef FM_MM_VIEW_RANGE_H
#define FM_MM_VIEW_RANGE_H

#include <stdint.h>

struct fm_file;

void file_take_out(struct fm_file *file, uint64_t first, uint64_t last);
void file_favour(struct fm_file *file, uint64_t first, uint64_t last);
void file_cool(struct fm_file *file, uint64_t first, uint64_t last);
void file_forget(struct fm_file *file);
void file_invalidate(struct fm_file *file, uint64_t first, uint64_t last);

#endif
