/* SPDX-License-Identifier: MIT */
/* Flushes of a file, and fm_sync(). */
#ifndef FM_MM_FLUSH_DURABLE_H
#define FM_MM_FLUSH_DURABLE_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;

bool flush_begin(struct fm_file *file);
int file_flush(struct fm_file *file);
int file_sync(struct fm_file *file, uint64_t first, uint64_t last, unsigned flags,
	      uint32_t *error_told);

#endif
