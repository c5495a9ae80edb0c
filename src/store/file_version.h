/* SPDX-License-Identifier: MIT */
/*
 * The size and version of a file.
 * May call: file.h.
 */
#ifndef FM_STORE_FILE_VERSION_H
#define FM_STORE_FILE_VERSION_H

#include "store/file.h"

#include <sys/stat.h>

uint64_t file_store_timestamp_ns(struct statx_timestamp t);
/* Get the least time between two different stamps of the file that `fd` stands for. */
uint64_t file_store_stamp_grain_ns(int fd, const struct stat *st);
/* Get the version of the file by the number `fd`, and which file that number stands for.
 * Returns 0 or negative errno. */
int file_store_version_by(struct file_store *file, int fd, struct os_fd_id *ret_id,
			  struct fm_store_version *ret_version);
/* The operation of a store; see store.h. */
int file_store_version(struct fm_store *store, struct fm_store_version *ret_version);

#endif
