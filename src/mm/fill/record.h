/* SPDX-License-Identifier: MIT */
/* Recording: note which pages of a file are touched, in the order of their first touch. */
#ifndef FM_MM_FILL_RECORD_H
#define FM_MM_FILL_RECORD_H

#include <stdint.h>

struct fm_file;
struct fm_mm;
struct page;
struct record;

void record_index(struct record *record, uint64_t index);
void record_touch(struct record *record, struct page *page);
uint64_t records_save(struct fm_mm *mm);
void records_flush(struct fm_mm *mm, uint64_t until_ns);
int record_begin(struct fm_file *file);
void record_list(struct fm_file *file);
void record_end(struct fm_file *file);

#endif
