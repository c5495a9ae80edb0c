/* SPDX-License-Identifier: MIT */
/* Pages that the kernel has merged with equal pages (KSM). */
#ifndef FM_MM_CACHE_MERGED_H
#define FM_MM_CACHE_MERGED_H

struct fm_mm;

void writeback_look_for_merging(struct fm_mm *mm);

#endif
