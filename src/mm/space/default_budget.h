/* SPDX-License-Identifier: MIT */
/*
 * The default budget of an address space, for a program that sets none. The budget is a part of
 * the memory of the machine or of the process's cgroup.
 */
#ifndef FM_MM_SPACE_DEFAULT_BUDGET_H
#define FM_MM_SPACE_DEFAULT_BUDGET_H

#include <stdint.h>

uint64_t default_budget(void);

#endif
