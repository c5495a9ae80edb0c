/* SPDX-License-Identifier: MIT */
/*
 * What the trap's other files need of the userfaultfd: see uffd.c. Signal-safe.
 * May call: internal.h.
 */
#ifndef FM_TRAP_UFFD_H
#define FM_TRAP_UFFD_H

#include "trap/internal.h"

/* COPY, WRITEPROTECT and DONTNEED hold the kernel's lock for their whole range. So each call is
 * limited to this many bytes. */
#define UFFD_CHUNK (2ull << 20)
/* Pieces of memory to be filled and moved from; each has a bit in trap.scratch_busy. */
#define UFFD_SCRATCHES 2u

/* Register a range with the trap's userfaultfd. Returns 0 or negative errno. */
int uffd_register(struct trap *trap, const void *mem, uint64_t len, uint64_t mode);
bool uffd_has_poison(const struct trap *trap); /* Linux 6.6 */
int uffd_poison(struct trap *trap, uint64_t addr, uint64_t len);

/* A function that is given a piece of a view that still belongs to the library. */
typedef void (*uffd_piece_fn)(uint64_t addr, uint64_t len);
/* Call fn() for each piece of a view's range that still belongs to the library. */
void uffd_each_ours(struct trap *trap, uint64_t addr, uint64_t len, uffd_piece_fn fn);

#endif
