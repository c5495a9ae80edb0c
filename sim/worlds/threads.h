/* SPDX-License-Identifier: MIT */
/*
 * The threads of the program: which operation comes next, and on which pages.
 * May call: sim.h.
 */
#ifndef FM_SIM_THREADS_H
#define FM_SIM_THREADS_H

#include "sim.h"

/* Run a fixed program of a small world; `arg` is its first step. */
void *small_worker(void *arg);
/* Start the i-th thread of the program. */
struct sim_thread *start_worker(uint32_t i);

#endif
