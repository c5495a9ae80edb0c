/* SPDX-License-Identifier: MIT */
/*
 * The part of a region that was handed back to the program: see regions.c. The library never
 * touches this part again, whatever is mapped there. `released_end` is 0 before.
 * May call: trap.h.
 */
#ifndef FM_TRAP_RELEASE_H
#define FM_TRAP_RELEASE_H

#include "trap/trap.h"

/* Mark a part of a region as handed back. Only one part of a region can be handed back. */
void region_release(struct view_region *region, uint64_t start, uint64_t end);
/* Tell whether the address was handed back to the program. Signal-safe. */
bool region_is_released(const struct view_region *region, uint64_t addr);

#endif
