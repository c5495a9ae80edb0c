/* SPDX-License-Identifier: MIT */
/*
 * What the trap's other files need of the userfaultfd: see uffd.c. Signal-safe.
 * May call: internal.h.
 */
#ifndef FM_TRAP_UFFD_H
#define FM_TRAP_UFFD_H

#include "trap/internal.h"

/* COPY, WRITEPROTECT and DONTNEED hold the kernel's lock for their whole range. */
#define UFFD_CHUNK (2ull << 20)
/* Pieces of memory to be filled and moved from; a bit each in trap.scratch_busy. */
#define UFFD_SCRATCHES 2u

/* Register a range with the trap's userfaultfd. 0 or negative errno. */
int uffd_register(struct trap *trap, const void *mem, uint64_t len, uint64_t mode);
bool uffd_has_poison(const struct trap *trap); /* Linux 6.6 */
int uffd_poison(struct trap *trap, uint64_t addr, uint64_t len);

/* What takes a piece of a view that is the library's. */
typedef void (*uffd_piece_fn)(uint64_t addr, uint64_t len);
/* Call fn() for those pieces of a range of a view that are still the library's. */
void uffd_each_ours(struct trap *trap, uint64_t addr, uint64_t len, uffd_piece_fn fn);

#endif
