/* SPDX-License-Identifier: MIT */
/* Who owns an address; the inside of trap.h's region_find(). Not signal-safe but for region_find().
 */
#ifndef FM_TRAP_REGISTRY_H
#define FM_TRAP_REGISTRY_H

#include "trap/trap.h"

int registry_init(void);
/* Some region has a part of this range. */
bool registry_overlaps(uint64_t addr, uint64_t len);
/* Call fn for each region of a trap; it may take the kernel's lock, and nothing of ours. */
void registry_each(const struct trap *trap, void (*fn)(const struct view_region *region));
int registry_add(struct view_region *region);
/* Returns when nobody finds the region any more and its last pin is put. */
/* Take away all access to the regions of a trap, for ever: nothing can serve them any more. */
void registry_close_all(const struct trap *trap);
void registry_remove(struct view_region *region);
/* One of the last regions that were removed was here. Signal-safe. */
bool registry_was_here(uint64_t addr);

#endif
