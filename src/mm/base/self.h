/* SPDX-License-Identifier: MIT */
/* What a thread of the program remembers. */
#ifndef FM_MM_BASE_SELF_H
#define FM_MM_BASE_SELF_H

#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct frame_pool;
struct guard;

struct progress { /* one thread's, kept by the trap */
	uint64_t instruction; /* program counter and registers at its last fault, mixed */
	struct frame_pool *pool;
	uint32_t keeper, generation; /* keeper: place + 1, 0 none */
};

/* What a thread of the program remembers: in os_thread_local(). */
struct thread_local_area {
	uint32_t map_held; /* map locks held: 0 or 1 */
	uint32_t finishing; /* calls of fm_mm_destroy() that the thread is inside, and that still write */
	bool map_exclusive;
	uint64_t map_since_ns;
	bool plugged, unsent; /* requests are kept for io_kick(); there are some */
	uint64_t last_instruction, last_addr; /* inline trap: see fault_repeats() */
	uint32_t repeats;
	struct progress progress;
	struct guard *guard;
};

_Static_assert(sizeof(struct thread_local_area) <= OS_THREAD_LOCAL_BYTES, "thread-locals");

static inline struct thread_local_area *self(void)
{
	return os_thread_local();
}

#endif
