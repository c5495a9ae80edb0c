/* SPDX-License-Identifier: MIT */
/*
 * Flushes and changes of size of a file.
 * May call: file.h.
 */
#ifndef FM_STORE_FILE_SHAPE_H
#define FM_STORE_FILE_SHAPE_H

#include "store/file.h"

/* Operations of a store; see store.h. Only a thread of the library may call them. */
int file_store_flush(struct fm_store *store);
int file_store_submit_flush(struct fm_store *store, struct io_engine *engine,
			    struct io_request *request);
int file_store_resize(struct fm_store *store, uint64_t size_bytes);
int file_store_punch(struct fm_store *store, uint64_t offset, uint64_t len);
int file_store_reserve(struct fm_store *store, uint64_t offset, uint64_t len);

#endif
