/* SPDX-License-Identifier: MIT */
/* The version of the object behind a snapshot: whether the object has changed, and its size. */
#ifndef FM_MM_FILL_VERSION_H
#define FM_MM_FILL_VERSION_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;

int file_recheck(struct fm_file *file, uint32_t epoch, uint64_t ended);
bool file_may_grow(const struct fm_file *file);
int file_look(struct fm_file *file);
int snapshot_renew(struct fm_file *file, bool *ret_changed);
int file_recheck_after(struct fm_file *file, uint32_t epoch, uint64_t ended, int err);

#endif
