/* SPDX-License-Identifier: MIT */
/* Writing all dirty pages of a range, and waiting for the writes to end. */
#ifndef FM_MM_FLUSH_RANGE_H
#define FM_MM_FLUSH_RANGE_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;

#define FOR_EVER UINT64_MAX

int range_begin(struct fm_file *file, uint64_t first, uint64_t last, unsigned how,
		uint64_t until_ns);
int range_write(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns);
uint64_t file_sync_deadline(const struct fm_file *file);
int writeback_all(struct fm_file *file);
int writeback_range(struct fm_file *file, uint64_t first, uint64_t last, bool wait);

#endif
