/* SPDX-License-Identifier: MIT */
/* Creates and destroys address spaces. */
#ifndef FM_MM_SPACE_MM_H
#define FM_MM_SPACE_MM_H

struct fm_mm;
struct fm_mm_options;

int mm_create(const struct fm_mm_options *options, struct fm_mm **ret_mm);
void mm_finish(struct fm_mm *mm);
int mm_destroy(struct fm_mm *mm);

#endif
