/* SPDX-License-Identifier: MIT */
/*
 * The phases of a round. Processes wait for a phase by a futex in shared memory.
 */
#define _GNU_SOURCE
#include "demo/round.h"

#include "command/clock.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const demo_way_names[WAY_COUNT] = {
	[WAY_CONTROL] = "control",    [WAY_FILEMAP] = "filemap",
	[WAY_HOLD] = "filemap-hold",  [WAY_KERNEL_CONTROL] = "kernel-control",
	[WAY_KERNEL] = "kernel-mmap",
};

void round_set_phase(struct round *round, enum phase phase)
{
	uint32_t old = atomic_load(&round->phase);

	/* Phases only go forward, so that a failure stays. */
	while (old < phase && !atomic_compare_exchange_weak(&round->phase, &old, phase))
		;
	syscall(SYS_futex, &round->phase, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

enum phase round_wait_phase(struct round *round, enum phase phase)
{
	uint32_t now;

	while ((now = atomic_load(&round->phase)) < (uint32_t)phase)
		syscall(SYS_futex, &round->phase, FUTEX_WAIT, now, NULL, NULL, 0);
	return now;
}

void round_fail(struct round *round, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (!round->failure[0])
		vsnprintf(round->failure, sizeof(round->failure), format, args);
	va_end(args);
	round_set_phase(round, PHASE_FAILED);
}

void round_count_access(struct round *round, unsigned index, uint64_t begin_ns, int error)
{
	recorder_add(&round->reader[index], round->start_ns, begin_ns, tool_now_ns());
	atomic_fetch_add(&round->reads, 1);
	if (!error)
		return;
	atomic_store(&round->last_error, error);
	atomic_fetch_add(&round->errors, 1);
}
