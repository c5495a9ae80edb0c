/* SPDX-License-Identifier: MIT */
/* The queue of the program (fm_queue): ranges that begin together and end one by one. */
#ifndef FM_SIM_BATCH_H
#define FM_SIM_BATCH_H

#include "sim.h"

/* Operations of the program: begin a few ranges; take ended ranges (returns true if there were
 * any). */
void do_batch(uint32_t f, uint32_t first, uint32_t last);
bool do_take(uint64_t timeout_ns);

void batch_make_queue(void);
/* Wait until all ranges have ended, or destroy the queue with ranges in the queue. */
void batch_end_queue(void);

#endif
