/* SPDX-License-Identifier: MIT */
/* A range of addresses is handed back to the program. */
#ifndef FM_MM_SPACE_RELEASE_H
#define FM_MM_SPACE_RELEASE_H

#include <stdint.h>

struct fm_mm;

int mm_release_range(struct fm_mm *mm, uint64_t start, uint64_t end);

#endif
