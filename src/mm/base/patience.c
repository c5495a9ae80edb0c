/* SPDX-License-Identifier: MIT */
/* How long the end of a file or of an address space waits for a store. */
#include "mm/base/patience.h"

#include "os/os.h"

uint64_t mm_patience_ns = 10 * OS_NSEC_PER_SEC;
