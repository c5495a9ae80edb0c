/* SPDX-License-Identifier: MIT */
/* The callbacks for failed writes of all open handles of a file. */
#ifndef FM_MM_BASE_HANDLES_H
#define FM_MM_BASE_HANDLES_H

#include <stdint.h>

struct fm_file;

void handles_tell(struct fm_file *cache, uint64_t offset, uint64_t len, int error);
void handles_free(struct fm_file *cache);

#endif
