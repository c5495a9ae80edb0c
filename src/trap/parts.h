/* SPDX-License-Identifier: MIT */
/*
 * Regions in parts. A process with a limit on its address space may open files that are larger
 * than the limit. The region of such a file has an address range, of which nothing is reserved
 * at first. Each part is reserved when fm_map() first wants an address in that part.
 */
#ifndef FM_TRAP_PARTS_H
#define FM_TRAP_PARTS_H

#include "trap/trap.h"

/* The least process limit on address space and on writable memory; UINT64_MAX: no limit. */
uint64_t trap_address_limit(void);

/* Reserve the parts of the region that [offset, offset+len) touches, and open them for the
 * trap. Not for the fault path: takes the kernel's mmap_lock. Returns 0, -EEXIST if the program
 * has put its own memory there, or another negative errno such as -ENOMEM. */
int trap_region_grow(struct view_region *region, uint64_t offset, uint64_t len);
/* As trap_discard_ours(), for the reserved parts of [offset, offset+len) of a region, and never in
 * the part that was handed back (release.h). */
void trap_region_discard(struct view_region *region, uint64_t offset, uint64_t len);

#endif
