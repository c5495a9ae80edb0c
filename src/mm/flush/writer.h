/* SPDX-License-Identifier: MIT */
/*
 * The write-back of dirty pages: requests, fm_sync(), flushes, and the thread that writes in the
 * background.
 */
#ifndef FM_MM_FLUSH_WRITER_H
#define FM_MM_FLUSH_WRITER_H

struct fm_file;
struct fm_mm;

int writeback_open(struct fm_mm *mm);
void writeback_stop(struct fm_mm *mm);
void writeback_free(struct fm_mm *mm);
int file_prepare_writing(struct fm_file *file);

#endif
