/* SPDX-License-Identifier: MIT */
/*
 * Accesses: one instruction of the program and its faults, as a processor makes them, and what
 * it may find.
 * May call: sim.h.
 */
#ifndef FM_SIM_ACCESS_H
#define FM_SIM_ACCESS_H

#include "sim.h"

void access_write_sector(uint32_t f, uint32_t n, bool pinned);
void access_pages(uint32_t f, uint32_t n, uint32_t count, bool write);
void access_on_signal(void);

#endif
