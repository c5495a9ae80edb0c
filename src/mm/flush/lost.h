/* SPDX-License-Identifier: MIT */
/* Log messages about dirty pages that the program has thrown away. */
#ifndef FM_MM_FLUSH_LOST_H
#define FM_MM_FLUSH_LOST_H

struct fm_file;
struct writeback;

void file_tell_lost(struct fm_file *file);
void writeback_tell_lost(struct writeback *wb);

#endif
