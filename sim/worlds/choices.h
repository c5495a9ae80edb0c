/* SPDX-License-Identifier: MIT */
/* The seed's choices for the machine and for the program, made before the run begins. */
#ifndef FM_SIM_CHOICES_H
#define FM_SIM_CHOICES_H

#include "sim.h"

/* Each function makes its part of the run's choices from the seed. */
void choose_machine(void);
void choose_program(void);
uint64_t choose_readahead(void);

#endif
