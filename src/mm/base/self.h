/* SPDX-License-Identifier: MIT */
/* The library's state of each thread of the program. */
#ifndef FM_MM_BASE_SELF_H
#define FM_MM_BASE_SELF_H

#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct frame_pool;
struct callback;
struct guard;

struct progress { /* of a single thread; the trap keeps the struct */
	uint64_t instruction; /* hash of program counter and registers at the thread's last fault */
	struct frame_pool *pool;
	uint32_t pin_set, generation; /* pin set: place + 1, 0 none */
};

/* The library's state of a thread of the program, in os_thread_local(). */
struct thread_local_area {
	uint32_t map_held; /* map locks held: 0 or 1 */
	uint32_t finishing; /* calls of fm_mm_destroy() by the thread that still write */
	bool map_exclusive;
	uint64_t map_since_ns;
	bool plugged, unsent; /* requests are held back for io_kick(); some are held back */
	uint64_t last_instruction, last_addr; /* inline trap: to detect faults that repeat */
	uint32_t repeats;
	struct progress progress;
	struct guard *guard;
	struct callback *callbacks; /* innermost first: see mm_callback_begin() */
};

_Static_assert(sizeof(struct thread_local_area) <= OS_THREAD_LOCAL_BYTES, "thread-locals");

static inline struct thread_local_area *self(void)
{
	return os_thread_local();
}

#endif
