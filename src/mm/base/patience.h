/* SPDX-License-Identifier: MIT */
/* How long the end of a file or of an address space waits for a store. */
#ifndef FM_MM_BASE_PATIENCE_H
#define FM_MM_BASE_PATIENCE_H

#include <stdint.h>

extern uint64_t mm_patience_ns;

#endif
