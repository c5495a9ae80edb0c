/* SPDX-License-Identifier: MIT */
/* The piece of address space from which the simulator takes all simulated memory. */
#ifndef FM_SIM_MEMORY_H
#define FM_SIM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define ARENA 0x100000000000ull
#define ARENA_BYTES (16ull << 20)

/* Take memory. The run fails if too little is left. */
void *memory_take(size_t len, size_t align);
/* Free all memory. Returns how many bytes had been taken. */
uint64_t memory_reset(void);

#endif
