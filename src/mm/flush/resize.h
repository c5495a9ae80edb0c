/* SPDX-License-Identifier: MIT */
/*
 * A file becomes longer or shorter, gets a hole, or has its pages dropped, with faults and
 * writes of it in flight.
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
