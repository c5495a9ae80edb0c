/* SPDX-License-Identifier: MIT */
/*
 * Opens files and frame pools. file_end.c ends files: the last reference may be put by a fault
 * handler, so the background thread and then the closer thread do that work.
 */
#ifndef FM_MM_SPACE_FILE_OPEN_H
#define FM_MM_SPACE_FILE_OPEN_H

#include <stdint.h>

struct fm_file;
struct fm_file_options;
struct fm_mm;
struct frame_pool;

int pool_open(struct fm_mm *mm, uint32_t page_size, struct frame_pool **ret_pool);
void pool_close(struct frame_pool *pool);
int file_open(struct fm_mm *mm, const char *uri, int fd, const struct fm_file_options *options,
	      struct fm_file **ret_file);
int file_open_private(struct fm_file *base, struct fm_file **ret_file);

#endif
