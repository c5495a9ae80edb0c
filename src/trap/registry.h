/* SPDX-License-Identifier: MIT */
/* The registry of regions, behind region_find() of trap.h: which region an address belongs to.
 * Only region_find() and registry_was_here() are signal-safe. */
#ifndef FM_TRAP_REGISTRY_H
#define FM_TRAP_REGISTRY_H

#include "trap/trap.h"

int registry_init(void);
/* Tell whether some region overlaps this range. */
bool registry_overlaps(uint64_t addr, uint64_t len);
/* Return the first address from `addr` on, a multiple of `align`, from which `len` bytes are in no
 * region. */
uint64_t registry_free_from(uint64_t addr, uint64_t len, uint64_t align);
/* Call fn for each region of a trap. fn may take the kernel's lock, but no lock of the
 * library. */
void registry_each(const struct trap *trap, void (*fn)(const struct view_region *region));
/* Returns 0, -ENOMEM, or -EEXIST if another region overlaps this one. */
int registry_add(struct view_region *region);
/* Take away all access to the regions of a trap for ever: no fault in these regions can be
 * served any more. */
void registry_close_all(const struct trap *trap);
/* Remove a region. Returns when no thread can find the region any more. Faults may still have the
 * region pinned: see trap_region_close(). */
void registry_remove(struct view_region *region);
/* Tell whether a recently removed region contained this address. Signal-safe. */
bool registry_was_here(uint64_t addr);

#endif
