/* SPDX-License-Identifier: MIT */
/*
 * The queue of the program: ranges that are begun together and end one by one.
 * May call: sim.h.
 */
#ifndef FM_SIM_BATCH_H
#define FM_SIM_BATCH_H

#include "sim.h"

/* Operations of the program: begin a few ranges; take ranges that have ended (true: there were
 * some). */
void do_batch(uint32_t f, uint32_t first, uint32_t last);
bool do_take(uint64_t timeout_ns);

void batch_make_queue(void);
/* All that is under way ends, or the queue goes with it. */
void batch_end_queue(void);

#endif
