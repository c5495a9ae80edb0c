/* SPDX-License-Identifier: MIT */
/*
 * References to files. A fault handler may put the last reference, so the file goes onto a list
 * that the background thread empties.
 */
#ifndef FM_MM_BASE_REFS_H
#define FM_MM_BASE_REFS_H

#include <stdbool.h>

struct fm_file;

void file_get(struct fm_file *file);
bool file_try_get(struct fm_file *file);
void file_push(struct fm_file **list, struct fm_file *file);
void file_put(struct fm_file *file);

#endif
