/* SPDX-License-Identifier: MIT */
/*
 * The operations of file: that a thread of the library carries out. May call: file.h.
 */
#ifndef FM_STORE_FILE_CALLS_H
#define FM_STORE_FILE_CALLS_H

#include "store/file.h"

/* Operations of a store; see store.h. Any thread may call them. */
int file_store_write_anywhere(struct fm_store *store, const struct iovec *iov, int iov_count,
			      uint64_t offset, size_t *ret_done);
int file_store_flush_anywhere(struct fm_store *store);
int file_store_resize_anywhere(struct fm_store *store, uint64_t size_bytes);
int file_store_punch_anywhere(struct fm_store *store, uint64_t offset, uint64_t len);
int file_store_reserve_anywhere(struct fm_store *store, uint64_t offset, uint64_t len);

#endif
