/* SPDX-License-Identifier: MIT */
/*
 * The budget: how many bytes of memory the frames and page tables may have, and how many they
 * have.
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
