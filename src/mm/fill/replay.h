/* SPDX-License-Identifier: MIT */
/* Hot sets: read the pages that an earlier run touched first, before this run asks for the
 * pages. */
#ifndef FM_MM_FILL_REPLAY_H
#define FM_MM_FILL_REPLAY_H

#include "mm/base/mm.h"

#include <stdbool.h>

struct fm_file;

void replayer_stop(struct fm_mm *mm);
int file_hotset(struct fm_file *file, const char *path);
int replay_ask(struct fm_file *file);
void replay_begin(struct fm_file *file);
void replay_unlist(struct fm_file *file) /* files_lock */;
void replay_end(struct fm_file *file);

#endif
