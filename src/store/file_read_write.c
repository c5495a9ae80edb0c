/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes of a file: which of the file's two descriptors serves a transfer, and in
 * which thread. `read` and `write` are signal-safe. May call: io.h, os.h, file_keep.c.
 */
#include "store/file_read_write.h"

#include "io/io.h"
#include "os/atomic.h"
#include "os/fds.h"
#include "os/fds_numbers.h"
#include "os/os.h"
#include "store/file.h"
#include "store/file_keep.h"
#include "store/here.h"
#include "store/store.h"

#include <errno.h>
#include <linux/fs.h>

/* ------------------------------------------------------------------ reading and writing */

static struct store_here *file_choose(struct file_store *file, const struct iovec *iov,
				      int iov_count, uint64_t offset)
{
	uint64_t bits = offset;
	struct store_here *direct = file->direct;

	if (direct->own < 0 || atomic_get(&file->direct_refused))
		return file->buffered;
	for (int i = 0; i < iov_count; i++)
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	return bits % FILE_DIRECT_ALIGN ? file->buffered : direct;
}

/* Note that the device or file system refused an aligned direct read or write. At the tail the
 * tail may be the only reason; elsewhere, make no more direct transfers. */
static void file_direct_refused(struct file_store *file, uint64_t offset, size_t len)
{
	if (offset + len <= store_size(&file->store))
		atomic_set(&file->direct_refused, 1);
}

typedef ssize_t (*file_transfer_fn)(struct store_here *here, const struct iovec *iov, int iov_count,
				    uint64_t offset);

static int file_transfer(struct file_store *file, file_transfer_fn transfer,
			 const struct iovec *iov, int iov_count, uint64_t offset, size_t *ret_done)
{
	struct store_here *here = file_choose(file, iov, iov_count, offset);
	ssize_t n;

	for (;;) {
		n = transfer(here, iov, iov_count, offset);
		if (n == -EINVAL && here != file->buffered) {
			file_direct_refused(file, offset, store_iov_bytes(iov, iov_count));
			here = file->buffered;
		} else if (n != -EINTR) {
			break;
		}
	}
	if (n < 0)
		return (int)n;
	*ret_done = (size_t)n;
	return 0;
}

/* Note that a direct read could not be made without waiting: the store does without direct
 * reads for now, or for good. */
static void file_nowait_failed(struct file_store *file, ssize_t error, uint64_t offset, size_t len)
{
	if (error == -EINVAL)
		file_direct_refused(file, offset, len);
	else if (error == -EOPNOTSUPP)
		atomic_set(&file->nowait_refused, 1);
}

static bool is_nowait_failure(ssize_t result)
{
	return result == -EAGAIN || result == -EINVAL || result == -EOPNOTSUPP;
}

static bool file_asks_nowait(struct file_store *file, const struct store_here *here)
{
	return here != file->buffered && !file->direct_locks && !atomic_get(&file->nowait_refused);
}

/*
 * Read, possibly for a system call that holds the inode's lock, as write() does while it faults
 * in its source. A direct read wants that lock. The read is asked not to wait for the lock, if
 * the file system heeds that (btrfs does not). A buffered read takes no lock on some file
 * systems, see learn_locks(). On others only the kernel's own page fault takes no lock.
 */
static int read_lockless_own(struct file_store *file, const struct iovec *iov, int iov_count,
			     uint64_t offset, size_t *ret_done)
{
	struct store_here *here = file_choose(file, iov, iov_count, offset);
	int error;

	if (file_asks_nowait(file, here)) {
		ssize_t n = os_preadv_nowait(here->own, iov, iov_count, offset);

		if (!is_nowait_failure(n)) {
			*ret_done = n < 0 ? 0 : (size_t)n;
			return n < 0 ? (int)n : 0;
		}
		file_nowait_failed(file, n, offset, store_iov_bytes(iov, iov_count));
	}
	if (file->buffered_locks) {
		error = file_read_mapped(file->buffered->own, iov, iov_count, offset, ret_done);
		if (!error || error == -EIO || error == -EFAULT)
			return error;
	}
	ssize_t n = os_preadv(file->buffered->own, iov, iov_count, offset);

	*ret_done = n < 0 ? 0 : (size_t)n;
	return n < 0 ? (int)n : 0;
}

struct lockless_call {
	struct file_store *file;
	const struct iovec *iov;
	int iov_count;
	uint64_t offset;
	size_t *ret_done;
};

static long lockless_call(void *arg)
{
	const struct lockless_call *call = arg;

	return read_lockless_own(call->file, call->iov, call->iov_count, call->offset, call->ret_done);
}

/* Read without waiting for the inode's lock. A thread of the program first tries the number in
 * its own table, which is mostly enough. */
static int file_read_lockless(struct file_store *file, const struct iovec *iov, int iov_count,
			      uint64_t offset, size_t *ret_done)
{
	struct lockless_call call = {file, iov, iov_count, offset, ret_done};
	struct store_here *here = file_choose(file, iov, iov_count, offset);
	int fd = atomic_get(&here->fd), error;

	if (!os_fds_own() && os_fds_apart() && fd >= 0 && file_asks_nowait(file, here)) {
		ssize_t n = os_preadv_nowait(fd, iov, iov_count, offset);

		if (n >= 0 && os_fd_is(fd, &here->id)) {
			*ret_done = (size_t)n;
			return 0;
		}
	}
	error = (int)os_fds_call(lockless_call, &call);
	return os_fds_own() || os_fds_apart() || os_fd_is(file->buffered->own, &file->buffered->id)
		       ? error
		       : -EBADF;
}

int file_store_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	struct file_store *file = (struct file_store *)store;

	if (file->lockless)
		return file_read_lockless(file, iov, iov_count, offset, ret_done);
	return file_transfer(file, here_preadv, iov, iov_count, offset, ret_done);
}

static ssize_t write_by(struct store_here *here, const struct iovec *iov, int iov_count,
			uint64_t offset)
{
	int fd = here_writable(here);

	return fd < 0 ? fd : os_pwritev(fd, iov, iov_count, offset);
}

/* ------------------------------------------------------------------ writes; the ring */

int file_store_write(struct fm_store *store, const struct iovec *iov, int iov_count,
		      uint64_t offset, size_t *ret_done)
{
	struct file_store *file = (struct file_store *)store;

	file_store_change_begins(file);
	int error = file_transfer(file, write_by, iov, iov_count, offset, ret_done);
	file_store_change_ends(file);
	return error;
}

static int file_ring_start(struct io_engine *engine, struct io_request *request,
			   const struct store_here *here)
{
	int fd = here_writable(here);

	if (fd < 0)
		return fd;
	return request->op == IO_WRITE ? io_ring_write(engine, request, fd)
				       : io_ring_read(engine, request, fd);
}

static void file_ring_done(struct io_engine *engine, struct io_request *request, int result);

/* Start a read on the ring as file_read_lockless() does. `refused`: a direct read would have to
 * wait. */
static int file_ring_lockless(struct file_store *file, struct io_engine *engine,
			      struct io_request *request, bool refused)
{
	struct store_here *here = file_choose(file, request->rest, request->rest_count,
					      request->offset + request->bytes_done);
	bool direct = !refused && file_asks_nowait(file, here);

	if (!direct && file->buffered_locks)
		return -EOPNOTSUPP; /* a worker makes the read */
	request->ring_nowait = direct;
	return file_ring_start(engine, request, direct ? here : file->buffered);
}

static void file_ring_refused(struct file_store *file, struct io_engine *engine,
			      struct io_request *request, int error)
{
	file_nowait_failed(file, error, request->offset + request->bytes_done,
			   store_iov_bytes(request->rest, request->rest_count));
	request->ring_nowait = false;
	if (file_ring_lockless(file, engine, request, true))
		io_by_worker(engine, request, &file->store);
}

static void file_ring_done(struct io_engine *engine, struct io_request *request, int result)
{
	struct file_store *file = request->store_private[1];

	if (!os_fds_own() && !os_fd_is(request->ring_fd, &file->buffered->id))
		result = -EBADF;
	if (request->ring_nowait && is_nowait_failure(result)) {
		file_ring_refused(file, engine, request, result);
		return;
	}
	if (result == -EINVAL && request->ring_fd != file->buffered->own) {
		file_direct_refused(file, request->offset + request->bytes_done,
				    store_iov_bytes(request->rest, request->rest_count));
		result = file_ring_start(engine, request, file->buffered);
		if (!result)
			return;
	}
	io_complete(engine, request, result < 0 ? result : 0, result < 0 ? 0 : (size_t)result);
}

/* Submit a read or a write. If a keeper has the file, threads write to the file: a request of
 * the ring may outlive all threads. Such a request could then overwrite the keeper's newer
 * bytes in the same block. */
int file_store_submit(struct fm_store *store, struct io_engine *engine, struct io_request *request)
{
	struct file_store *file = (struct file_store *)store;

	if (request->op == IO_WRITE && atomic_get(&file->keep.on))
		return -EOPNOTSUPP;
	request->store_private[1] = file;
	request->ring_fn = file_ring_done;
	request->ring_async = file->is_remote;
	request->ring_nowait = false;
	if (file->lockless && request->op == IO_READ)
		return file_ring_lockless(file, engine, request, false);
	return file_ring_start(engine, request,
			       file_choose(file, request->rest, request->rest_count,
					   request->offset + request->bytes_done));
}

void file_store_cancel(struct fm_store *store, struct io_engine *engine,
			struct io_request *request)
{
	(void)store;
	io_ring_cancel(engine, request);
}
