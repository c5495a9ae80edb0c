/* SPDX-License-Identifier: MIT */
/*
 * The threads of the program: which operation comes next, and on which pages.
 * May call: sim.h.
 */
#ifndef FM_SIM_THREADS_H
#define FM_SIM_THREADS_H

#include "sim.h"

void *small_worker(void *arg);
struct sim_thread *start_worker(uint32_t i);

#endif
