/* SPDX-License-Identifier: MIT */
/*
 * The piece of address space that all simulated memory is taken from.
 * May call: nothing.
 */
#ifndef FM_SIM_MEMORY_H
#define FM_SIM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define ARENA 0x100000000000ull
#define ARENA_BYTES (16ull << 20)

/* Take memory; the run fails when there is no more. */
void *memory_take(size_t len, size_t align);
/* All of it is free again. Returns how many bytes had been taken. */
uint64_t memory_reset(void);

#endif
