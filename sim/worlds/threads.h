/* SPDX-License-Identifier: MIT */
/* The threads of the program: the next operation, and its pages. */
#ifndef FM_SIM_THREADS_H
#define FM_SIM_THREADS_H

#include "sim.h"

/* Run the fixed program of a small world. `arg` is the program's first step. */
void *small_worker(void *arg);
/* Start the i-th thread of the program. */
struct sim_thread *start_worker(uint32_t i);

#endif
