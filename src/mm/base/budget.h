/* SPDX-License-Identifier: MIT */
/*
 * The budget: the limit, in bytes, on the memory of frames and page tables, and the count of
 * the bytes in use.
 */
#ifndef FM_MM_BASE_BUDGET_H
#define FM_MM_BASE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;

bool mm_try_charge(struct fm_mm *mm, uint64_t bytes);
void mm_charge(struct fm_mm *mm, uint64_t bytes);
void mm_uncharge(struct fm_mm *mm, uint64_t bytes);

#endif
