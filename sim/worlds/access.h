/* SPDX-License-Identifier: MIT */
/*
 * Accesses: one instruction of the program with its faults, as a processor makes them, and the
 * check of what the instruction finds.
 */
#ifndef FM_SIM_ACCESS_H
#define FM_SIM_ACCESS_H

#include "sim.h"

/* Change the bytes of one sector of a page now. `pinned`: by I/O into a pinned page. */
void access_write_sector(uint32_t f, uint32_t n, bool pinned);
/* Run one instruction that needs pages n to n + count - 1. */
void access_pages(uint32_t f, uint32_t n, uint32_t count, bool write);
/* Touch a view in a signal's handler. */
void access_on_signal(void);

#endif
