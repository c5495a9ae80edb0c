/* SPDX-License-Identifier: MIT */
/*
 * The part of file: that serves a keeper. May call: file.h.
 */
#ifndef FM_STORE_FILE_KEEP_H
#define FM_STORE_FILE_KEEP_H

#include "store/file.h"

/* Called around each change of the file by this process: a keeper must tell own changes from
 * changes by other processes. */
void file_store_change_begins(struct file_store *file);
void file_store_change_ends(struct file_store *file);

/* Operations of a store; see store.h. The last three run in the keeper. */
int file_store_keep(struct fm_store *store, struct fm_store_kept *ret_kept);
void file_store_alive(struct fm_store *store, uint64_t stamp_ns);
int file_store_keep_begin(struct fm_store *store, int fd, uint64_t until_ns, uint64_t *ret_size);
int file_store_keep_write(struct fm_store *store, int fd, const struct iovec *iov, int iov_count,
			  uint64_t offset, size_t *ret_done);
int file_store_keep_flush(struct fm_store *store, int fd);

#endif
