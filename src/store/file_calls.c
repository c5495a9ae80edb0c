/* SPDX-License-Identifier: MIT */
/*
 * Writes, flushes and changes of size that threads of the program ask for: a thread of the
 * library makes them (os/fds.h). May call: os/fds.h, file_read_write.c, file_shape.c.
 */
#include "store/file_calls.h"

#include "os/fds.h"
#include "store/file_read_write.h"
#include "store/file_shape.h"
#include "store/store.h"

/* The arguments of a call that changes the file. A thread of the library makes every such call:
 * its number cannot have become another file's number. */
struct file_call {
	struct fm_store *store;
	const struct iovec *iov;
	int iov_count;
	uint64_t offset, len;
	size_t *ret_done;
};

static long write_call(void *arg)
{
	const struct file_call *call = arg;

	return file_store_write(call->store, call->iov, call->iov_count, call->offset, call->ret_done);
}

int file_store_write_anywhere(struct fm_store *store, const struct iovec *iov, int iov_count,
			      uint64_t offset, size_t *ret_done)
{
	return (int)os_fds_call(write_call,
				&(struct file_call){store, iov, iov_count, offset, 0, ret_done});
}

static long flush_call(void *arg)
{
	return file_store_flush(arg);
}

int file_store_flush_anywhere(struct fm_store *store)
{
	return (int)os_fds_call(flush_call, store);
}

static long resize_call(void *arg)
{
	const struct file_call *call = arg;

	return file_store_resize(call->store, call->len);
}

int file_store_resize_anywhere(struct fm_store *store, uint64_t size_bytes)
{
	return (int)os_fds_call(resize_call, &(struct file_call){.store = store, .len = size_bytes});
}

static long punch_call(void *arg)
{
	const struct file_call *call = arg;

	return file_store_punch(call->store, call->offset, call->len);
}

int file_store_punch_anywhere(struct fm_store *store, uint64_t offset, uint64_t len)
{
	return (int)os_fds_call(punch_call,
				&(struct file_call){.store = store, .offset = offset, .len = len});
}

static long reserve_call(void *arg)
{
	const struct file_call *call = arg;

	return file_store_reserve(call->store, call->offset, call->len);
}

int file_store_reserve_anywhere(struct fm_store *store, uint64_t offset, uint64_t len)
{
	return (int)os_fds_call(reserve_call,
				&(struct file_call){.store = store, .offset = offset, .len = len});
}
