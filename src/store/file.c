/* SPDX-License-Identifier: MIT */
/*
 * file:PATH: a local regular file or block device. Owns two descriptors of it: a buffered one, and
 * one with O_DIRECT where the file system grants it, which serves the reads that are aligned for
 * it. Which one is chosen for each read. No lock; the one thing that changes is a flag. `read` and
 * `version` are signal-safe. A throttled O_DIRECT preadv cannot be interrupted: where a deadline
 * matters, read through the ring.
 * May call: io.h, os.h.
 */
#include "store.h"

#include "io/io.h"
#include "os/atomic.h"
#include "os/os.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define DIRECT_ALIGN 4096u

struct file_store {
	struct fm_store store; /* first */
	int buffered_fd;
	int direct_fd;           /* -1: none */
	uint32_t direct_refused; /* atomic: a direct read gave EINVAL, leave it */
	bool is_block;
	bool is_remote; /* see fs_is_remote() */
	uint32_t links; /* names it had when it was opened */
};

/* ------------------------------------------------------------------ reading */

static int file_choose_fd(struct file_store *file, const struct iovec *iov, int iov_count,
			  uint64_t offset)
{
	uint64_t bits = offset;

	if (file->direct_fd < 0 || atomic_get(&file->direct_refused))
		return file->buffered_fd;
	for (int i = 0; i < iov_count; i++)
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	return bits % DIRECT_ALIGN ? file->buffered_fd : file->direct_fd;
}

/* The device or file system did not like an aligned direct read. At the tail that may be its only
 * complaint; elsewhere, do not ask again. */
static void file_direct_refused(struct file_store *file, uint64_t offset, size_t len)
{
	if (offset + len <= file->store.size_bytes)
		atomic_set(&file->direct_refused, 1);
}

static int file_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	struct file_store *file = (struct file_store *)store;
	int fd = file_choose_fd(file, iov, iov_count, offset);
	ssize_t n;

	for (;;) {
		n = os_preadv(fd, iov, iov_count, offset);
		if (n == -EINVAL && fd != file->buffered_fd) {
			file_direct_refused(file, offset, store_iov_bytes(iov, iov_count));
			fd = file->buffered_fd;
		} else if (n != -EINTR) {
			break;
		}
	}
	if (n < 0)
		return (int)n;
	*ret_done = (size_t)n;
	return 0;
}

static void file_ring_done(struct io_engine *engine, struct io_request *request, int result)
{
	struct file_store *file = request->store_private[1];

	if (result == -EINVAL && request->ring_fd != file->buffered_fd) {
		file_direct_refused(file, request->offset + request->bytes_done,
				    store_iov_bytes(request->rest, request->rest_count));
		result = io_ring_read(engine, request, file->buffered_fd);
		if (!result)
			return;
	}
	io_complete(engine, request, result < 0 ? result : 0, result < 0 ? 0 : (size_t)result);
}

static int file_submit_read(struct fm_store *store, struct io_engine *engine,
			    struct io_request *request)
{
	struct file_store *file = (struct file_store *)store;

	request->store_private[1] = file;
	request->ring_fn = file_ring_done;
	request->ring_async = file->is_remote;
	return io_ring_read(engine, request,
			    file_choose_fd(file, request->rest, request->rest_count,
					   request->offset + request->bytes_done));
}

static void file_cancel(struct fm_store *store, struct io_engine *engine,
			struct io_request *request)
{
	(void)store;
	io_ring_cancel(engine, request);
}

/* ------------------------------------------------------------------ size and version */

static uint64_t timestamp_ns(struct statx_timestamp t)
{
	return (uint64_t)t.tv_sec * OS_NSEC_PER_SEC + t.tv_nsec;
}

/* A device node's times tell nothing of its bytes. A name more or less changes a file's ctime, and
 * explains it: unlinking what one has mapped is no change of its bytes. Where a server may be dead and there is a
 * deadline for that, what the kernel knows must do: asking the server could take for ever. */
static int file_version(struct fm_store *store, struct fm_store_version *ret_version)
{
	struct file_store *file = (struct file_store *)store;
	int flags = AT_EMPTY_PATH;
	struct statx stx;
	uint64_t size;
	long error;

	if (file->is_block) {
		error = os_syscall3(SYS_ioctl, file->buffered_fd, BLKGETSIZE64, &size);
		if (!error)
			*ret_version = (struct fm_store_version){size, {0, 0}};
		return (int)error;
	}
	if (file->is_remote && store->deadline_ns)
		flags |= AT_STATX_DONT_SYNC;
	error = os_syscall5(SYS_statx, file->buffered_fd, "", flags,
			    STATX_SIZE | STATX_CTIME | STATX_MTIME | STATX_NLINK, &stx);
	if (!error)
		*ret_version = (struct fm_store_version){
			stx.stx_size,
			{timestamp_ns(stx.stx_ctime), timestamp_ns(stx.stx_mtime)},
		};
	if (!error && stx.stx_nlink != file->links)
		ret_version->version[0] = store->opened.version[0];
	return (int)error;
}

/* ------------------------------------------------------------------ opening and closing */

static void file_close(struct fm_store *store)
{
	struct file_store *file = (struct file_store *)store;

	if (file->direct_fd >= 0)
		close(file->direct_fd);
	if (file->buffered_fd >= 0)
		close(file->buffered_fd);
	free(file);
}

static const struct fm_store_ops file_ops = {
	.name = "file",
	.read = file_read,
	.submit_read = file_submit_read,
	.cancel = file_cancel,
	.version = file_version,
	.close = file_close,
};

/* What is there, if it is not what can be mapped; NULL: fine. */
static const char *kind_refused(mode_t mode, int *ret_error)
{
	if (S_ISREG(mode) || S_ISBLK(mode))
		return NULL;
	*ret_error = S_ISDIR(mode) ? -EISDIR : -ENODEV;
	if (S_ISDIR(mode))
		return "a directory";
	if (S_ISCHR(mode))
		return "a character device";
	if (S_ISFIFO(mode))
		return "a fifo";
	if (S_ISSOCK(mode))
		return "a socket";
	return "not a file";
}

/* Whether a server's silence could block the thread that only starts a read: on FUSE, io_uring asks
 * the server first whether the file can be polled. These are known not to. */
static bool fs_is_remote(int fd)
{
	static const unsigned local[] = {
		EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,       BTRFS_SUPER_MAGIC,
		F2FS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC,
	};
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return true;
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
		if ((unsigned)fs.f_type == local[i])
			return false;
	return true;
}

/* Without touching the access time where we may ask for that. */
static int open_quietly(const char *path, int flags)
{
	int fd = open(path, flags | O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NOATIME);

	if (fd < 0 && errno == EPERM)
		fd = open(path, flags | O_RDONLY | O_CLOEXEC | O_NOCTTY);
	return fd;
}

/* O_NONBLOCK: should it have become a fifo since it was looked at, do not wait for its writer. The
 * flag goes away again, since it would make the ring give EAGAIN. With a lease on the file it is
 * refused. */
static int open_buffered(const char *path)
{
	int fd = open_quietly(path, O_NONBLOCK);

	if (fd < 0 && errno == EWOULDBLOCK)
		return open_quietly(path, 0);
	if (fd >= 0)
		(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fd;
}

/* A second descriptor of the very same file, or -1. */
static int open_direct(const char *path, const struct stat *same)
{
	int fd = open_quietly(path, O_DIRECT | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || st.st_dev != same->st_dev || st.st_ino != same->st_ino) {
		close(fd);
		return -1;
	}
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fd;
}

static int file_parameters(const char *parameters, bool *ret_direct, char *error_text,
			   size_t error_text_len)
{
	const char *cursor = parameters;
	char key[64], value[64];
	int error = 0;

	while (store_next_parameter(&cursor, key, sizeof(key), value, sizeof(value), &error)) {
		if (strcmp(key, "direct"))
			return store_say(-EINVAL, error_text, error_text_len,
					 "file:…: unknown parameter '%s'; known are direct, "
					 "deadline",
					 key);
		if (strcmp(value, "0") && strcmp(value, "1"))
			return store_say(-EINVAL, error_text, error_text_len,
					 "file:…: bad direct '%s': write 0 or 1", value);
		*ret_direct = value[0] == '1';
	}
	return error ? store_say(error, error_text, error_text_len, "file:…: bad parameter '%s'",
				 cursor)
		     : 0;
}

/* Open the descriptors; on failure file_close() clears up. */
static int file_open_fds(struct file_store *file, const char *path, bool direct, char *error_text,
			 size_t error_text_len)
{
	const char *refused = NULL;
	struct stat st;
	int error = 0;

	if (stat(path, &st)) {
		error = -errno;
	} else {
		refused = kind_refused(st.st_mode, &error);
		if (!refused) {
			file->buffered_fd = open_buffered(path);
			if (file->buffered_fd < 0 || fstat(file->buffered_fd, &st))
				error = -errno;
			else
				refused = kind_refused(st.st_mode, &error);
		}
	}
	if (refused)
		return store_say(error, error_text, error_text_len,
				 "%s: is %s: give a regular file or a block device", path, refused);
	if (!error) {
		file->is_block = S_ISBLK(st.st_mode);
		file->links = (uint32_t)st.st_nlink;
		file->is_remote = !file->is_block && fs_is_remote(file->buffered_fd);
		if (direct)
			file->direct_fd = open_direct(path, &st);
		error = file_version(&file->store, &file->store.opened);
	}
	if (error)
		return store_say(error, error_text, error_text_len, "%s: %s", path,
				 strerror(-error));
	file->store.size_bytes = file->store.opened.size;
	return 0;
}

int store_file_open(const char *path, unsigned flags, const char *parameters, char *error_text,
		    size_t error_text_len, struct fm_store **ret_store)
{
	struct file_store *file;
	bool direct = true;
	int error = file_parameters(parameters, &direct, error_text, error_text_len);

	(void)flags;
	if (error)
		return error;
	if (!*path)
		return store_say(-EINVAL, error_text, error_text_len,
				 "file: without a path: write file:PATH");
	file = calloc(1, sizeof(*file));
	if (!file)
		return store_say(-ENOMEM, error_text, error_text_len, "%s: %s", path,
				 strerror(ENOMEM));
	file->store.ops = &file_ops;
	file->store.caps = FM_STORE_READ_INLINE | FM_STORE_SUBMIT;
	file->buffered_fd = file->direct_fd = -1;
	error = file_open_fds(file, path, direct, error_text, error_text_len);
	if (error) {
		file_close(&file->store);
		return error;
	}
	*ret_store = &file->store;
	return 0;
}
