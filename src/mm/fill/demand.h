/* SPDX-License-Identifier: MIT */
/* Demand reads: reads that a fault waits for. */
#ifndef FM_MM_FILL_DEMAND_H
#define FM_MM_FILL_DEMAND_H

#include <stdint.h>

struct fm_file;
struct page;

#define READ_INLINE_MOST 64 /* pages; the page list is on a signal handler's stack */

int read_page(struct fm_file *file, struct page *page, uint32_t more);

#endif
