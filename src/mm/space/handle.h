/* SPDX-License-Identifier: MIT */
/* Handles and objects: the process has one page cache for each object. */
#ifndef FM_MM_SPACE_HANDLE_H
#define FM_MM_SPACE_HANDLE_H

#include <stdbool.h>

struct fm_file;

void objects_forget(void);
void object_leave(struct fm_file *file);
void object_ending(struct fm_file *file);
void object_settled(struct fm_file *file);
void handle_close(struct fm_file *handle);
int object_enter(struct fm_file *fresh, bool write, struct fm_file **ret_handle);

#endif
