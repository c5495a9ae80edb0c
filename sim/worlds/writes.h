/* SPDX-License-Identifier: MIT */
/*
 * Calls on files open for writing: sync, truncate, punch, invalidate. Also the sizes that an
 * object may have.
 */
#ifndef FM_SIM_WRITES_H
#define FM_SIM_WRITES_H

#include "sim.h"

/* Operations of the program. Each checks its result. */
void do_sync(uint32_t f, uint32_t n, uint32_t m);
void do_truncate(uint32_t f);
void do_punch(uint32_t f, uint32_t n, uint32_t m);
void do_invalidate(uint32_t f, uint32_t n, uint32_t m);

#endif
