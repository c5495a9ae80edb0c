/* SPDX-License-Identifier: MIT */
/*
 * Accesses: one instruction of the program and its faults, as a processor makes them, and what
 * it may find.
 * May call: sim.h.
 */
#ifndef FM_SIM_ACCESS_H
#define FM_SIM_ACCESS_H

#include "sim.h"

/* The bytes of one sector of a page change, now. `pinned`: by I/O into a pinned page. */
void access_write_sector(uint32_t f, uint32_t n, bool pinned);
/* One instruction that needs pages n to n + count - 1. */
void access_pages(uint32_t f, uint32_t n, uint32_t count, bool write);
/* A signal's handler touches a view. */
void access_on_signal(void);

#endif
