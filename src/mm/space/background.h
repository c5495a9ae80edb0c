/* SPDX-License-Identifier: MIT */
/* The background thread of an address space. */
#ifndef FM_MM_SPACE_BACKGROUND_H
#define FM_MM_SPACE_BACKGROUND_H

struct fm_mm;

int background_start(struct fm_mm *mm);
void background_stop(struct fm_mm *mm);
void groups_open_views(struct fm_mm *mm);

#endif
