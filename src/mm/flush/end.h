/* SPDX-License-Identifier: MIT */
/* How a file and an address space end while they have dirty pages. */
#ifndef FM_MM_FLUSH_END_H
#define FM_MM_FLUSH_END_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct fm_mm;
struct writeback;

void writeback_close_some(struct writeback *wb, uint64_t now);
bool writeback_close(struct fm_file *file);
bool writeback_tell_late(struct fm_mm *mm);
void writeback_late(struct fm_mm *mm, bool may_wait);
void writeback_finish(struct fm_mm *mm);
void writeback_cancel(struct fm_mm *mm);

#endif
