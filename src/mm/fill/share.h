/* SPDX-License-Identifier: MIT */
/* Limit how many requests and frames the reads of a single file may use. */
#ifndef FM_MM_FILL_SHARE_H
#define FM_MM_FILL_SHARE_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;

bool read_is_inline(const struct fm_file *file);
bool read_inline_begin(struct fm_file *file, uint32_t *more);
void read_inline_end(struct fm_file *file, uint32_t count);
int read_wait_for_room(struct fm_file *file, uint64_t until_ns);
uint32_t read_requests_most(const struct fm_file *file);
bool read_has_room(struct fm_file *file, bool may_wait);

#endif
