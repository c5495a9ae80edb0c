/* SPDX-License-Identifier: MIT */
/* Gathering neighbouring dirty pages into a write request. */
#ifndef FM_MM_FLUSH_GATHER_H
#define FM_MM_FLUSH_GATHER_H

#include <stdint.h>

struct fm_file;
struct page;

int write_run(struct fm_file *file, struct page *first, uint64_t last, unsigned how,
	      uint64_t until_ns);

#endif
