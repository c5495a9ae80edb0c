/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes of a file, for file:, its calls and its keeper. May call: file.h.
 */
#ifndef FM_STORE_FILE_READ_WRITE_H
#define FM_STORE_FILE_READ_WRITE_H

#include "store/file.h"

/* Operations of a store; see store.h. Only a thread of the library may call file_store_write().
 */
int file_store_read(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
		    size_t *ret_done);
int file_store_write(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done);
int file_store_submit(struct fm_store *store, struct io_engine *engine, struct io_request *request);
void file_store_cancel(struct fm_store *store, struct io_engine *engine,
		       struct io_request *request);

#endif
