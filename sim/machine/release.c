/* SPDX-License-Identifier: MIT */
/*
 * Parts of regions that are handed back to the program. The simulated programs do not call
 * fm_release() yet, so a part is only noted, and the rest of the machine does not know of it.
 * May call: nothing.
 */
#include "sim.h"
#include "trap/release.h"

void region_release(struct view_region *region, uint64_t start, uint64_t end)
{
	region->released_start = start;
	region->released_end = end;
}

bool region_is_released(const struct view_region *region, uint64_t addr)
{
	return addr >= region->released_start && addr < region->released_end;
}
