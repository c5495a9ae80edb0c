/* SPDX-License-Identifier: MIT */
/*
 * Calls of the public interface on mapped pages: fault in, pin, map, unmap, advise, residency.
 * Each call's result is checked.
 */
#ifndef FM_SIM_CALLS_H
#define FM_SIM_CALLS_H

#include "sim.h"

/* Called around each call of the public interface. Returns false if the mm is about to end: then
 * no call may begin. */
bool call_begin(const char *op);
void call_end(void);
/* Fail the run if a call on these pages, begun at step `begun`, must not end with this errno. */
void call_check(const char *what, uint32_t f, uint32_t first, uint32_t last, int err,
		uint64_t begun, bool remembered);

/* Operations of the program. Each checks its result. */
void do_fault_in(uint32_t f, uint32_t first, uint32_t last, bool nowait);
void do_pin(uint32_t f, uint32_t n);
void do_map(uint32_t f, uint32_t first, uint32_t last);
void do_unmap(uint32_t f, uint32_t first, uint32_t last);
void do_advise(uint32_t f, uint32_t first, uint32_t last, enum fm_advice advice);
void do_residency(uint32_t f, uint32_t first, uint32_t last);

#endif
