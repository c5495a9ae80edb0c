/* SPDX-License-Identifier: MIT */
/* The sweep after an unmap: dirty pages that are still in the view are taken out. */
#ifndef FM_MM_FLUSH_SWEEP_H
#define FM_MM_FLUSH_SWEEP_H

#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct writeback;

#define SWEEP_SOON_NS (2 * OS_NSEC_PER_MSEC)

void write_to_recheck(struct writeback *wb);
bool files_sweep(struct writeback *wb, uint64_t now);

#endif
