/* SPDX-License-Identifier: MIT */
/*
 * Making a file longer or shorter, punching holes, and dropping pages, while faults and writes of
 * the file are in flight.
 */
#ifndef FM_MM_FLUSH_RESIZE_H
#define FM_MM_FLUSH_RESIZE_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;

int file_truncate(struct fm_file *file, uint64_t size);
int file_punch(struct fm_file *file, uint64_t offset, uint64_t len);
int file_refresh(struct fm_file *file, bool *ret_changed);
int file_invalidate_range(struct fm_file *file, uint64_t offset, uint64_t len);
int file_drop(struct fm_file *file, uint64_t offset, uint64_t len);
int file_reserve(struct fm_file *file, uint64_t offset, uint64_t len);

#endif
