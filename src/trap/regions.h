/* SPDX-License-Identifier: MIT */
/*
 * What the trap's other files need of its address space: see regions.c.
 * May call: internal.h.
 */
#ifndef FM_TRAP_REGIONS_H
#define FM_TRAP_REGIONS_H

#include "trap/internal.h"
#include "trap/uffd.h"

/* Reserve aligned address space that lies in no view and allows no access. Returns 0 or
 * negative errno. Not signal-safe. */
int region_reserve(uint64_t len, uint64_t align, bool huge, char **ret_mem);
/* Reserve exactly [addr, addr+len) in the same way. -EEXIST: other memory is there. */
int region_reserve_at(uint64_t addr, uint64_t len, bool huge);
/* Open reserved memory of a view for the trap. Returns 0 or negative errno. */
int region_serve(struct trap *trap, char *mem, uint64_t len);
bool trap_in_slots(struct trap *trap, uint64_t addr); /* the address is in the frames' memory.
							 Signal-safe */

/* Call fn for each piece of [start, end) of a region that is the library's. The part that was
 * handed back is left out without a question: the program may have a userfaultfd there. */
void region_each_ours(struct view_region *region, uint64_t start, uint64_t end, uffd_piece_fn fn);

#endif
