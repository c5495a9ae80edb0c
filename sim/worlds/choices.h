/* SPDX-License-Identifier: MIT */
/*
 * What the seed makes of the machine and of the program: each choice of a run, before it
 * begins.
 * May call: sim.h.
 */
#ifndef FM_SIM_CHOICES_H
#define FM_SIM_CHOICES_H

#include "sim.h"

/* Each makes its part of the run's choices from the seed. */
void choose_machine(void);
void choose_program(void);
uint64_t choose_readahead(void);

#endif
