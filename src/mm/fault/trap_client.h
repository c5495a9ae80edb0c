/* SPDX-License-Identifier: MIT */
/* The functions that the traps call. */
#ifndef FM_MM_FAULT_TRAP_CLIENT_H
#define FM_MM_FAULT_TRAP_CLIENT_H

#include "trap/trap.h"

extern const struct trap_client fault_trap_client;

#endif
