/* SPDX-License-Identifier: MIT */
/*
 * The budget of an address space whose program asks for none: part of the memory that the
 * machine, or its cgroup, has.
 */
#ifndef FM_MM_SPACE_DEFAULT_BUDGET_H
#define FM_MM_SPACE_DEFAULT_BUDGET_H

#include <stdint.h>

uint64_t default_budget(void);

#endif
