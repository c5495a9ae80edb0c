/* SPDX-License-Identifier: MIT */
/* What parts.c does for the other files of src/trap: see parts.h. */
#ifndef FM_TRAP_PARTS_PRIVATE_H
#define FM_TRAP_PARTS_PRIVATE_H

#include "trap/trap.h"

/* Tell whether a region of this length is to be reserved in parts from the beginning: it is a
 * large share of what the process may have. */
bool parts_are_wanted(uint64_t len);
/* Make *region as `as`, at addresses that this function chooses, and add the region to the
 * registry. No part is open. Returns 0 or negative errno. */
int parts_open(struct view_region *region, const struct view_region *as, bool huge);
void parts_close(struct view_region *region);
void parts_huge(struct view_region *region); /* see trap_region_huge() */

/* Call fn for each run of open parts of [offset, offset+len); for the whole range if the region
 * is not in parts. */
typedef void (*parts_fn)(void *arg, uint64_t addr, uint64_t len);
void parts_each(const struct view_region *region, uint64_t offset, uint64_t len, parts_fn fn,
		void *arg);

#endif
