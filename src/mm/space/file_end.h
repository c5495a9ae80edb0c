/* SPDX-License-Identifier: MIT */
/* Ends a file: the background thread begins the end, and the closer thread completes the end. */
#ifndef FM_MM_SPACE_FILE_END_H
#define FM_MM_SPACE_FILE_END_H

struct fm_file;
struct fm_mm;

void file_free(struct fm_file *file);
int closer_start(struct fm_mm *mm);
void closer_stop(struct fm_mm *mm);
void file_reap(struct fm_mm *mm);

#endif
