/* SPDX-License-Identifier: MIT */
/*
 * Flushes of a file, and changes of its size: resize, punch, reserve.
 * May call: io.h, os.h, file_keep.c.
 */
#include "store/file_shape.h"

#include "io/io.h"
#include "os/atomic.h"
#include "os/syscall.h"
#include "store/file.h"
#include "store/file_keep.h"
#include "store/here.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>

/* ------------------------------------------------------------------ making the file durable */

/*
 * Test whether both descriptors have to be flushed for an error to be seen. The kernel keeps
 * the errors of write-back in the inode's page cache (errseq_t). It reports each error once to
 * every descriptor that was open by then, whichever descriptor wrote the bytes.
 *
 * Both descriptors are open for as long as bytes are written. A direct write reports its own
 * error at once. A direct write that the file system turned into a buffered write leaves its
 * error in the same page cache. So the buffered descriptor sees all errors. Asking the direct
 * descriptor too would report the same error a second time, maybe to a flush that the error
 * does not belong to.
 *
 * A remote file system is different. FUSE passes fsync() on only for the handle of the call.
 * NFS has errors of its own beside those of the page cache. A server may keep a handle's bytes
 * and errors until the flush. There both descriptors are always flushed; the first error
 * counts.
 */
static bool file_flushes_both(const struct file_store *file)
{
	return file->is_remote && file->direct->own >= 0;
}

static int sync_fd(long how, int fd)
{
	long error;

	do {
		error = os_syscall1(how, fd);
	} while (error == -EINTR);
	return (int)error;
}

/* Make the name of a new file durable in the file's folder. If the folder may not be read, it
 * cannot be opened: then sync the whole file system. Some file systems cannot sync a folder,
 * and need not. */
static int file_flush_name(struct file_store *file)
{
	int error = file->folder_fd >= 0 ? sync_fd(SYS_fsync, file->folder_fd)
					 : sync_fd(SYS_syncfs, here_writable(file->buffered));

	if (error == -EINVAL)
		error = 0;
	if (!error)
		atomic_set(&file->name_unsynced, 0);
	return error;
}

int file_store_flush(struct fm_store *store)
{
	struct file_store *file = (struct file_store *)store;
	bool is_new = atomic_get(&file->name_unsynced);
	int error = sync_fd(is_new ? SYS_fsync : SYS_fdatasync, here_writable(file->buffered)), second;

	if (file_flushes_both(file)) {
		second = sync_fd(SYS_fdatasync, here_writable(file->direct));
		error = error ? error : second;
	}
	return !error && is_new ? file_flush_name(file) : error;
}

/* Submit a flush. A request flushes only one descriptor: a worker makes a flush that needs
 * more, and a flush that may block the submitting thread. */
int file_store_submit_flush(struct fm_store *store, struct io_engine *engine,
			    struct io_request *request)
{
	struct file_store *file = (struct file_store *)store;

	if (file_flushes_both(file) || atomic_get(&file->name_unsynced))
		return -EOPNOTSUPP;
	request->ring_async = false;
	return io_ring_flush(engine, request, here_writable(file->buffered));
}

/* ------------------------------------------------------------------ the shape of the file */

int file_store_resize(struct fm_store *store, uint64_t size_bytes)
{
	struct file_store *file = (struct file_store *)store;
	long error;

	if (file->is_block)
		return -EOPNOTSUPP;
	if (size_bytes > INT64_MAX)
		return -EFBIG;
	file_store_change_begins(file);
	do {
		error = os_syscall2(SYS_ftruncate, here_writable(file->buffered), size_bytes);
	} while (error == -EINTR);
	file_store_change_ends(file);
	return (int)error;
}

static int file_allocate(struct file_store *file, int mode, uint64_t offset, uint64_t len)
{
	long error;

	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return -EFBIG;
	file_store_change_begins(file);
	do {
		error = os_syscall4(SYS_fallocate, here_writable(file->buffered), mode, offset, len);
	} while (error == -EINTR);
	file_store_change_ends(file);
	return (int)error;
}

#define ZEROS_BYTES (64u << 10)
#define ZEROS_AT_ONCE 16
static const char zeros[ZEROS_BYTES] __attribute__((aligned(FILE_DIRECT_ALIGN)));

/* Write zeros, not beyond the end of the file: that would make the file longer. */
static int file_write_zeros(struct file_store *file, uint64_t offset, uint64_t len)
{
	uint64_t size = store_size(&file->store);
	uint64_t end = offset < size && len > size - offset ? size : offset + len;
	struct iovec iov[ZEROS_AT_ONCE];
	int error = 0;

	while (!error && offset < end && offset < size) {
		uint64_t left = end - offset;
		size_t done = 0;
		int count = 0;

		while (left && count < ZEROS_AT_ONCE) {
			size_t n = left < ZEROS_BYTES ? (size_t)left : ZEROS_BYTES;

			/* the last bytes alone, so that the others are aligned */
			if (n % FILE_DIRECT_ALIGN && n > FILE_DIRECT_ALIGN)
				n -= n % FILE_DIRECT_ALIGN;
			if (n % FILE_DIRECT_ALIGN && count)
				break;
			iov[count++] = (struct iovec){(void *)(uintptr_t)zeros, n};
			left -= n;
		}
		error = store_write_full(&file->store, iov, count, offset, &done);
		offset += done;
	}
	return error;
}

static bool cannot_allocate(int error)
{
	return error == -EOPNOTSUPP || error == -ENOSYS || error == -ENODEV;
}

int file_store_punch(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct file_store *file = (struct file_store *)store;
	uint64_t range[2] = {offset, len};
	int error;

	if (!len)
		return 0;
	error = file_allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
	if (cannot_allocate(error) && file->is_block)
		error = (int)os_syscall3(SYS_ioctl, here_writable(file->buffered), BLKZEROOUT, range);
	if (cannot_allocate(error) || (file->is_block && (error == -ENOTTY || error == -EINVAL)))
		error = file_write_zeros(file, offset, len);
	return error;
}

/* Reserve space. A block device always has its space. */
int file_store_reserve(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct file_store *file = (struct file_store *)store;

	return file->is_block || !len ? 0 : file_allocate(file, FALLOC_FL_KEEP_SIZE, offset, len);
}
