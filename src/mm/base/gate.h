/* SPDX-License-Identifier: MIT */
/* A gate: threads sleep at it until an event that is frequent and seldom waited for. */
#ifndef FM_MM_BASE_GATE_H
#define FM_MM_BASE_GATE_H

#include "os/atomic.h"
#include "os/os.h"

#include <stdint.h>

/* What is waited for seldom and comes often: who brings it makes a system call only where somebody
 * sleeps. Who waits takes `seq` before he looks whether he has to. */
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
