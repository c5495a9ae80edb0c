/* SPDX-License-Identifier: MIT */
/* Regions in parts, as src/trap/parts.h has them. Address space has no limit here, so every region
 * is whole. */
#include "sim.h"
#include "trap/parts.h"

uint64_t trap_address_limit(void)
{
	return UINT64_MAX;
}

int trap_region_grow(struct view_region *region, uint64_t offset, uint64_t len)
{
	if (offset > region->len || len > region->len - offset)
		sim_fail("a mapping reaches beyond its region");
	return 0;
}

void trap_region_discard(struct view_region *region, uint64_t offset, uint64_t len)
{
	trap_discard_ours(region->trap, region->base + offset, len);
}
