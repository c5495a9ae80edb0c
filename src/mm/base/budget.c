/* SPDX-License-Identifier: MIT */
/*
 * The budget: the limit, in bytes, on the memory of frames and page tables, and the count of
 * the bytes in use.
 */
#include "mm/base/budget.h"

#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "os/atomic.h"
#include "stats/stats.h"

bool mm_try_charge(struct fm_mm *mm, uint64_t bytes)
{
	uint64_t old = atomic_get(&mm->charged_bytes);
	do {
		if (old + bytes > mm->budget_bytes)
			return false;
	} while (!atomic_cas(&mm->charged_bytes, &old, old + bytes));
	stats_put(mm->stats, charged_bytes, old + bytes);
	return true;
}

void mm_charge(struct fm_mm *mm, uint64_t bytes)
{
	uint64_t old = atomic_add(&mm->charged_bytes, bytes);
	stats_put(mm->stats, charged_bytes, old + bytes);
}

void mm_uncharge(struct fm_mm *mm, uint64_t bytes)
{
	uint64_t old = atomic_sub(&mm->charged_bytes, bytes);
	mm_assert(old >= bytes);
	stats_put(mm->stats, charged_bytes, old - bytes);
}
