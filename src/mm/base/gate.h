/* SPDX-License-Identifier: MIT */
/* A gate: threads sleep at a gate until an event that is frequent but rarely waited for. */
#ifndef FM_MM_BASE_GATE_H
#define FM_MM_BASE_GATE_H

#include "os/atomic.h"
#include "os/os.h"

#include <stdint.h>

/* A futex for events that are frequent but rarely waited for: signalling costs a system call
 * only if a thread sleeps. A waiter must read `seq` before it tests its condition. */
struct gate {
	uint32_t seq, sleepers; /* seq: futex */
};

static inline int gate_wait(struct gate *gate, uint32_t seq, uint64_t until_ns)
{
	atomic_add(&gate->sleepers, 1u);
	int err = os_futex_wait(&gate->seq, seq, OS_FUTEX_ANY, until_ns);
	atomic_sub(&gate->sleepers, 1u);
	return err;
}

static inline void gate_open(struct gate *gate)
{
	atomic_add(&gate->seq, 1u);
	if (atomic_get(&gate->sleepers))
		os_futex_wake(&gate->seq, INT32_MAX, OS_FUTEX_ANY);
}

#endif
