/* SPDX-License-Identifier: MIT */
/*
 * file:PATH: a local regular file or block device. Owns two descriptors of it (os/fds.h): a buffered one, and
 * one with O_DIRECT where the file system grants it, which serves the reads and writes that are aligned for
 * it. Which one is chosen for each. Of a file that was made by opening it, also its folder's, until it is closed.
 * No lock; what changes are flags. `read`, `write`, `flush` and `version` are signal-safe. A throttled O_DIRECT preadv
 * cannot be interrupted: where a deadline matters, read through the ring.
 *
 * The two descriptors see the same bytes: before a direct read the kernel writes back what the page cache has dirty of the
 * range, before and after a direct write it drops what the cache has of it. That holds page by page. It would not where a
 * buffered write of the tail dirties a folio larger than that, and with it stale bytes of the page before it, while a direct
 * write to that page is under way (file systems on iomap before 6.6). Only readahead makes such folios here, so the
 * buffered descriptor of a file that is written by both has none.
 * May call: io.h, os.h.
 */
#include "store.h"

#include "io/io.h"
#include "os/atomic.h"
#include "os/fds.h"
#include "os/os.h"
#include "os/syscall.h"
#include "store/here.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define DIRECT_ALIGN 4096u

struct file_store {
	struct fm_store store; /* first */
	/* The descriptors: file_upgrade() changes both beside reads. Of `direct`, `own` is -1 where there is none. */
	_Atomic(struct store_here *) buffered, direct;
	struct store_here here[4]; /* the opener's two; and the writer's two, from file_upgrade() on */
	uint32_t direct_refused; /* atomic: a direct read or write gave EINVAL, leave it */
	bool lockless;           /* no read may wait for the inode's lock: see file_read_lockless() and learn_locks() */
	bool buffered_locks;     /* ...and a buffered read would take it */
	bool direct_locks;       /* ...and a direct read waits for it, also where it is asked not to wait */
	uint32_t nowait_refused; /* atomic: the file system cannot say that a direct read would wait */
	bool is_block;
	bool is_remote; /* see fs_is_remote() */
	uint64_t grain_ns; /* see stamp_grain_ns() */
	struct file_keep {
		uint32_t on;           /* atomic: a keeper has it */
		uint32_t begun, ended; /* changes by this process; atomic */
		uint64_t own_ns;       /* the latest mtime that a change by this process has left; atomic */
		uint64_t alive_ns;     /* at this time the program lived; atomic */
		uint64_t size, mtime;  /* the keeper's: as it has left the file */
	} keep;
	uint32_t name_unsynced; /* atomic: it was made by opening it, and no flush has ended well yet */
	int folder_fd;          /* then; -1: could not be opened */
};

/* ------------------------------------------------------------------ reading and writing */

static struct store_here *file_choose(struct file_store *file, const struct iovec *iov, int iov_count,
				      uint64_t offset)
{
	uint64_t bits = offset;
	struct store_here *direct = file->direct;

	if (direct->own < 0 || atomic_get(&file->direct_refused))
		return file->buffered;
	for (int i = 0; i < iov_count; i++)
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	return bits % DIRECT_ALIGN ? file->buffered : direct;
}

/* The device or file system did not like an aligned direct read or write. At the tail that may be its only
 * complaint; elsewhere, do not ask again. */
static void file_direct_refused(struct file_store *file, uint64_t offset, size_t len)
{
	if (offset + len <= store_size(&file->store))
		atomic_set(&file->direct_refused, 1);
}

typedef ssize_t (*file_transfer_fn)(struct store_here *here, const struct iovec *iov, int iov_count, uint64_t offset);

static int file_transfer(struct file_store *file, file_transfer_fn transfer, const struct iovec *iov, int iov_count,
			 uint64_t offset, size_t *ret_done)
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

/* A direct read that could not be made without waiting: it is left for now, or for good. */
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
 * A read that may be for a system call which holds the inode's lock, as write() does while it faults in what it is given. A
 * direct read wants that lock: it is asked not to wait for it, where the file system heeds that (btrfs does not). A buffered
 * read does without on some file systems, see learn_locks(); elsewhere the kernel's own fault is the only way that does.
 */
static int read_lockless_own(struct file_store *file, const struct iovec *iov, int iov_count, uint64_t offset,
			     size_t *ret_done)
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

/* A thread of the program tries by its own number what is mostly enough. */
static int file_read_lockless(struct file_store *file, const struct iovec *iov, int iov_count, uint64_t offset,
			      size_t *ret_done)
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
	return os_fds_own() || os_fds_apart() || os_fd_is(file->buffered->own, &file->buffered->id) ? error : -EBADF;
}

static int file_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	struct file_store *file = (struct file_store *)store;

	if (file->lockless)
		return file_read_lockless(file, iov, iov_count, offset, ret_done);
	return file_transfer(file, here_preadv, iov, iov_count, offset, ret_done);
}

static ssize_t write_by(struct store_here *here, const struct iovec *iov, int iov_count, uint64_t offset)
{
	int fd = here_writable(here);

	return fd < 0 ? fd : os_pwritev(fd, iov, iov_count, offset);
}

/* ------------------------------------------------------------------ for a keeper: whose change it was */

static uint64_t timestamp_ns(struct statx_timestamp t)
{
	return (uint64_t)t.tv_sec * OS_NSEC_PER_SEC + t.tv_nsec;
}

static int keep_look(int fd, uint64_t *ret_size, uint64_t *ret_mtime)
{
	struct statx stx;
	long error = os_syscall5(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_SIZE | STATX_MTIME, &stx);

	if (!error) {
		*ret_size = stx.stx_size;
		*ret_mtime = timestamp_ns(stx.stx_mtime);
	}
	return (int)error;
}

static void later_of(uint64_t *word, uint64_t value)
{
	uint64_t old = atomic_get(word);

	while (old < value && !atomic_cas(word, &old, value))
		;
}

/* Around each change of the file by this process: one that has begun and not ended may have changed it at any time. */
static void change_begins(struct file_store *file)
{
	if (atomic_get(&file->keep.on))
		atomic_add(&file->keep.begun, 1u);
}

static void change_ends(struct file_store *file)
{
	uint64_t size, mtime;

	if (!atomic_get(&file->keep.on))
		return;
	if (!keep_look(file->buffered->own, &size, &mtime))
		later_of(&file->keep.own_ns, mtime);
	later_of(&file->keep.alive_ns, os_stamp_ns());
	atomic_add(&file->keep.ended, 1u);
}

static int file_write(struct fm_store *store, const struct iovec *iov, int iov_count,
		      uint64_t offset, size_t *ret_done)
{
	struct file_store *file = (struct file_store *)store;

	change_begins(file);
	int error = file_transfer(file, write_by, iov, iov_count, offset, ret_done);
	change_ends(file);
	return error;
}

static int file_ring_start(struct io_engine *engine, struct io_request *request, const struct store_here *here)
{
	int fd = here_writable(here);

	if (fd < 0)
		return fd;
	return request->op == IO_WRITE ? io_ring_write(engine, request, fd)
				       : io_ring_read(engine, request, fd);
}

static void file_ring_done(struct io_engine *engine, struct io_request *request, int result);

/* As file_read_lockless(). `refused`: a direct read would have to wait. */
static int file_ring_lockless(struct file_store *file, struct io_engine *engine, struct io_request *request, bool refused)
{
	struct store_here *here = file_choose(file, request->rest, request->rest_count, request->offset + request->bytes_done);
	bool direct = !refused && file_asks_nowait(file, here);

	if (!direct && file->buffered_locks)
		return -EOPNOTSUPP; /* a worker's */
	request->ring_nowait = direct;
	return file_ring_start(engine, request, direct ? here : file->buffered);
}

static void file_ring_refused(struct file_store *file, struct io_engine *engine, struct io_request *request, int error)
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

/* Reads and writes. A keeper's file is written to by threads: a request of the ring may outlive them all, and would then meet
 * the keeper's newer bytes on its way to the same block. */
static int file_submit(struct fm_store *store, struct io_engine *engine, struct io_request *request)
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

static void file_cancel(struct fm_store *store, struct io_engine *engine,
			struct io_request *request)
{
	(void)store;
	io_ring_cancel(engine, request);
}

/* ------------------------------------------------------------------ making it durable */

/*
 * Which descriptors have to be flushed for an error to be seen. The kernel keeps the errors of write-back in the inode's page
 * cache (errseq_t), and tells each to every descriptor that was open by then, once, whichever descriptor the bytes were
 * written by. Both are open for as long as anything is written, a direct write tells its own error at once, and one that the
 * file system turned into a buffered write leaves its error in that same page cache. So the buffered descriptor sees all there
 * is, and asking the other too would tell the same error a second time, maybe to a flush that it does not belong to.
 * Not so on a remote file system: FUSE passes fsync() on for the one handle that it was called with, NFS has errors
 * of its own beside those of the page cache, and a server may keep a handle's bytes and errors until then. There
 * both are flushed, always; the first error counts.
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

/* The file is new: make the name that it has in its folder durable too. Where the folder may not be read it cannot be
 * opened: then all of the file system. Some file systems cannot sync a folder, and need not. */
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

static int file_flush(struct fm_store *store)
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

/* One request, one descriptor: what takes more is a worker's, as is what may block the thread that submits. */
static int file_submit_flush(struct fm_store *store, struct io_engine *engine, struct io_request *request)
{
	struct file_store *file = (struct file_store *)store;

	if (file_flushes_both(file) || atomic_get(&file->name_unsynced))
		return -EOPNOTSUPP;
	request->ring_async = false;
	return io_ring_flush(engine, request, here_writable(file->buffered));
}

/* ------------------------------------------------------------------ its shape */

static int file_resize(struct fm_store *store, uint64_t size_bytes)
{
	struct file_store *file = (struct file_store *)store;
	long error;

	if (file->is_block)
		return -EOPNOTSUPP;
	if (size_bytes > INT64_MAX)
		return -EFBIG;
	change_begins(file);
	do {
		error = os_syscall2(SYS_ftruncate, here_writable(file->buffered), size_bytes);
	} while (error == -EINTR);
	change_ends(file);
	return (int)error;
}

static int file_allocate(struct file_store *file, int mode, uint64_t offset, uint64_t len)
{
	long error;

	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return -EFBIG;
	change_begins(file);
	do {
		error = os_syscall4(SYS_fallocate, here_writable(file->buffered), mode, offset, len);
	} while (error == -EINTR);
	change_ends(file);
	return (int)error;
}

#define ZEROS_BYTES (64u << 10)
#define ZEROS_AT_ONCE 16
static const char zeros[ZEROS_BYTES] __attribute__((aligned(DIRECT_ALIGN)));

/* Not beyond the end: that would make it longer. */
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
			if (n % DIRECT_ALIGN && n > DIRECT_ALIGN)
				n -= n % DIRECT_ALIGN;
			if (n % DIRECT_ALIGN && count)
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

static int file_punch(struct fm_store *store, uint64_t offset, uint64_t len)
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

/* A block device has its space. */
static int file_reserve(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct file_store *file = (struct file_store *)store;

	return file->is_block || !len ? 0 : file_allocate(file, FALLOC_FL_KEEP_SIZE, offset, len);
}

/* ------------------------------------------------------------------ the keeper's part */

struct keep_call {
	struct file_store *file;
	struct fm_store_kept *ret_kept;
};

static long keep_call(void *arg)
{
	const struct keep_call *call = arg;
	struct file_store *file = call->file;

	if (fstat(file->buffered->own, &call->ret_kept->st))
		return -errno;
	call->ret_kept->fd = file->buffered->own;
	atomic_set(&file->keep.on, 1u);
	change_begins(file);
	change_ends(file);
	return 0;
}

static int file_keep(struct fm_store *store, struct fm_store_kept *ret_kept)
{
	struct keep_call call = {(struct file_store *)store, ret_kept};

	return (int)os_fds_call(keep_call, &call);
}

static void file_alive(struct fm_store *store, uint64_t stamp_ns)
{
	later_of(&((struct file_store *)store)->keep.alive_ns, stamp_ns);
}

/*
 * Whether somebody has changed the file since the program's end. What others have done while it lived does not count, nor what
 * it did itself: a change is another's if it came after the last one by the program, and after the last sign that the program
 * lived. A change by the program that was under way at its end cannot be told from another's: then it is taken for that.
 * A device has no times that tell.
 *
 * A lease makes everybody wait from here on who opens the file. The kernel gives one to the file's owner while nobody else has
 * the file open. Somebody who has may be a successor that is about to write: for a while he is given the chance, and then seen.
 */
static int file_keep_begin(struct fm_store *store, int fd, uint64_t until_ns, uint64_t *ret_size)
{
	struct file_store *file = (struct file_store *)store;
	struct file_keep *keep = &file->keep;
	uint64_t size, mtime;

	*ret_size = UINT64_MAX;
	if (file->is_block)
		return 0;
	long lease = os_syscall3(SYS_fcntl, fd, F_SETLEASE, F_WRLCK);
	int error = keep_look(fd, &keep->size, &keep->mtime);
	*ret_size = keep->size;
	if (!error && keep->begun == keep->ended && keep->mtime > keep->own_ns && keep->mtime >= keep->alive_ns)
		return -ESTALE;
	while (!error && (lease == -EAGAIN || lease == -EBUSY) && os_now_ns() < until_ns) {
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
		lease = os_syscall3(SYS_fcntl, fd, F_SETLEASE, F_WRLCK);
		error = keep_look(fd, &size, &mtime);
		if (!error && (size != keep->size || mtime != keep->mtime))
			return -ESTALE;
	}
	return error;
}

/* By the buffered descriptor alone: what the program has pinned may change while it is written, which a direct write would pass
 * on as two states of one block, and file systems with checksums would find no sum for. */
static int file_keep_write(struct fm_store *store, int fd, const struct iovec *iov, int iov_count, uint64_t offset,
			   size_t *ret_done)
{
	struct file_store *file = (struct file_store *)store;
	struct file_keep *keep = &file->keep;
	uint64_t size, mtime;
	int error = file->is_block ? 0 : keep_look(fd, &size, &mtime);

	if (!error && !file->is_block && (size != keep->size || mtime != keep->mtime))
		return -ESTALE;
	if (error)
		return error;
	ssize_t n = os_pwritev(fd, iov, iov_count, offset);
	if (!file->is_block) /* also where it failed */
		error = keep_look(fd, &keep->size, &keep->mtime);
	if (n < 0)
		return (int)n;
	*ret_done = (size_t)n;
	return error;
}

/* A name that is new is made durable by fsync() of the file on what file systems there are for it. */
static int file_keep_flush(struct fm_store *store, int fd)
{
	struct file_store *file = (struct file_store *)store;
	long error;

	do {
		error = os_syscall1(atomic_get(&file->name_unsynced) ? SYS_fsync : SYS_fdatasync, fd);
	} while (error == -EINTR);
	return (int)error;
}

/* ------------------------------------------------------------------ size and version */

/* From Linux 6.13 on these file systems give a change a time stamp of its own whenever somebody has
 * asked for the file's time stamps since the change before it. */
static bool kernel_stamps_apart(int fd)
{
	static const unsigned multigrain[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC};
	struct utsname name;
	struct statfs fs;
	unsigned major, minor;

	if (uname(&name) || sscanf(name.release, "%u.%u", &major, &minor) != 2 || fstatfs(fd, &fs))
		return false;
	if (major < 6 || (major == 6 && minor < 13))
		return false;
	for (size_t i = 0; i < sizeof(multigrain) / sizeof(multigrain[0]); i++)
		if ((unsigned)fs.f_type == multigrain[i])
			return true;
	return false;
}

/*
 * Two changes within this time can leave the same time stamp. A program can set mtime, but not ctime: where both
 * are whole seconds, the file system stores no more (ext4 with inodes of 128 bytes, ext3). FAT stores every second second.
 * Elsewhere the kernel stamps with a clock that moves at each tick. 0: every change is told apart.
 */
static uint64_t stamp_grain_ns(int fd, const struct stat *st)
{
	struct timespec tick = {0, 10000000};
	struct statfs fs;

	(void)clock_getres(CLOCK_REALTIME_COARSE, &tick);
	if (fstatfs(fd, &fs) == 0 && fs.f_type == MSDOS_SUPER_MAGIC)
		return 2 * OS_NSEC_PER_SEC + (uint64_t)tick.tv_nsec;
	if (!st->st_mtim.tv_nsec && !st->st_ctim.tv_nsec)
		return OS_NSEC_PER_SEC + (uint64_t)tick.tv_nsec;
	return kernel_stamps_apart(fd) ? 0 : (uint64_t)tick.tv_nsec;
}

/* The wall clock, by which the kernel stamps; 0 where it is not needed. */
static uint64_t stamp_now_ns(const struct file_store *file)
{
	struct timespec now;

	if (!file->grain_ns || clock_gettime(CLOCK_REALTIME, &now))
		return 0;
	return (uint64_t)now.tv_sec * OS_NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

/* For how long after `now_ns` a change can still get the time stamp that the file had by then. */
static uint64_t stamp_young_ns(const struct file_store *file, uint64_t now_ns, uint64_t mtime_ns)
{
	uint64_t age = now_ns - mtime_ns;

	return now_ns >= mtime_ns && age < file->grain_ns ? file->grain_ns - age : 0;
}

/* The size and mtime. ctime moves with chmod(), chown(), link(), rename(), setxattr() and an overlay's copy-up, too, none of
 * which changes a byte. A device node's times tell nothing of its bytes. Where a server may be dead and there is a
 * deadline for that, what the kernel knows must do: asking the server could take for ever. */
static int version_by(struct file_store *file, int fd, struct os_fd_id *ret_id, struct fm_store_version *ret_version)
{
	int flags = AT_EMPTY_PATH;
	uint64_t size, now_ns = stamp_now_ns(file); /* before the time stamp is asked for */
	struct statx stx;
	long error;

	if (file->is_block) {
		error = os_syscall3(SYS_ioctl, fd, BLKGETSIZE64, &size);
		if (!error)
			*ret_version = (struct fm_store_version){.size = size};
		return error ? (int)error : os_fd_id(fd, ret_id);
	}
	if (file->is_remote && file->store.deadline_ns)
		flags |= AT_STATX_DONT_SYNC;
	/* Asking for mtime is also what has the kernel stamp the next change apart. */
	error = os_syscall5(SYS_statx, fd, "", flags, STATX_SIZE | STATX_MTIME, &stx);
	if (!error)
		*ret_version = (struct fm_store_version){
			.size = stx.stx_size,
			.version = {0, timestamp_ns(stx.stx_mtime)},
			.young_ns = stamp_young_ns(file, now_ns, timestamp_ns(stx.stx_mtime)),
		};
	if (!error)
		*ret_id = os_fd_id_of(&stx);
	return (int)error;
}

struct version_call {
	struct file_store *file;
	struct fm_store_version *ret_version;
};

static long version_call(void *arg)
{
	const struct version_call *call = arg;

	struct os_fd_id id;

	return version_by(call->file, call->file->buffered->own, &id, call->ret_version);
}

/* A thread of the program asks by a number of its own, if that is still ours. */
static int file_version(struct fm_store *store, struct fm_store_version *ret_version)
{
	struct file_store *file = (struct file_store *)store;
	struct store_here *here = atomic_get(&file->direct->fd) >= 0 ? file->direct : file->buffered;
	int fd = atomic_get(&here->fd), error;
	struct os_fd_id id;

	if (!os_fds_own() && fd >= 0) {
		error = version_by(file, fd, &id, ret_version);
		if (!error && id.dev == here->id.dev && id.ino == here->id.ino)
			return 0;
	}
	if (!os_fds_own() && !os_fds_apart())
		return -EBADF;
	return (int)os_fds_call(version_call, &(struct version_call){file, ret_version});
}

/* ------------------------------------------------------------------ calls by threads of the program */

/* All that changes the file is done by a thread of ours: its number cannot have become another file's. */
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

	return file_write(call->store, call->iov, call->iov_count, call->offset, call->ret_done);
}

static int file_write_anywhere(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
			       size_t *ret_done)
{
	return (int)os_fds_call(write_call, &(struct file_call){store, iov, iov_count, offset, 0, ret_done});
}

static long flush_call(void *arg)
{
	return file_flush(arg);
}

static int file_flush_anywhere(struct fm_store *store)
{
	return (int)os_fds_call(flush_call, store);
}

static long resize_call(void *arg)
{
	const struct file_call *call = arg;

	return file_resize(call->store, call->len);
}

static int file_resize_anywhere(struct fm_store *store, uint64_t size_bytes)
{
	return (int)os_fds_call(resize_call, &(struct file_call){.store = store, .len = size_bytes});
}

static long punch_call(void *arg)
{
	const struct file_call *call = arg;

	return file_punch(call->store, call->offset, call->len);
}

static int file_punch_anywhere(struct fm_store *store, uint64_t offset, uint64_t len)
{
	return (int)os_fds_call(punch_call, &(struct file_call){.store = store, .offset = offset, .len = len});
}

static long reserve_call(void *arg)
{
	const struct file_call *call = arg;

	return file_reserve(call->store, call->offset, call->len);
}

static int file_reserve_anywhere(struct fm_store *store, uint64_t offset, uint64_t len)
{
	return (int)os_fds_call(reserve_call, &(struct file_call){.store = store, .offset = offset, .len = len});
}

/* ------------------------------------------------------------------ opening and closing */

/* By dev and inode of what was opened: whatever its name, or the name's next file, is. On overlayfs a file that is copied up
 * gets another inode, and so another identity. */
static void file_identify(struct file_store *file, const struct stat *st)
{
	file->store.id = S_ISBLK(st->st_mode)
				 ? (struct fm_store_id){.kind = FM_STORE_ID_BLOCK, .device = st->st_rdev}
				 : (struct fm_store_id){.kind = FM_STORE_ID_INODE, .device = st->st_dev, .inode = st->st_ino};
}

static int lock_fd(int fd, short type, int *ret_holder)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	int error = errno == EACCES ? -EAGAIN : -errno;
	*ret_holder = -1;
	if (error == -EAGAIN && !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK)
		*ret_holder = (int)lock.l_pid;
	return error;
}

struct lock_call {
	struct file_store *file;
	bool exclusive;
	int *ret_holder;
};

/* The lock belongs to an open file description. After file_upgrade() the reader's lock is still
 * that of its former one, and would be in the writer's way. */
static long lock_call(void *arg)
{
	const struct lock_call *call = arg;
	struct file_store *file = call->file;
	int former = file->buffered == &file->here[0] ? -1 : file->here[0].own, error, ignored;

	if (former >= 0)
		(void)lock_fd(former, F_UNLCK, &ignored);
	error = lock_fd(file->buffered->own, call->exclusive ? F_WRLCK : F_RDLCK, call->ret_holder);
	if (error && former >= 0)
		(void)lock_fd(former, F_RDLCK, &ignored);
	return error;
}

static int file_lock(struct fm_store *store, bool exclusive, int *ret_holder)
{
	struct lock_call call = {(struct file_store *)store, exclusive, ret_holder};

	return (int)os_fds_call(lock_call, &call);
}

/* The writer's descriptors in the place of the reader's, which stay open: a thread may be about to
 * use them. */
static int file_upgrade(struct fm_store *store, struct fm_store *writer)
{
	struct file_store *file = (struct file_store *)store, *from = (struct file_store *)writer;

	file->here[2] = from->here[0];
	file->here[3] = from->here[1];
	file->buffered = &file->here[2];
	file->direct = &file->here[3];
	file->folder_fd = from->folder_fd;
	atomic_set(&file->name_unsynced, atomic_get(&from->name_unsynced));
	for (int i = 0; i < 2; i++)
		from->here[i].own = from->here[i].fd = -1;
	from->folder_fd = -1;
	atomic_or(&store->caps, writer->caps);
	return 0;
}

static void file_close(struct fm_store *store)
{
	struct file_store *file = (struct file_store *)store;

	for (size_t i = 0; i < sizeof(file->here) / sizeof(file->here[0]); i++)
		here_close(&file->here[i]);
	if (file->folder_fd >= 0)
		os_fd_close_own(file->folder_fd);
	free(file);
	os_fds_put();
}

static const struct fm_store_ops file_ops = {
	.name = "file",
	.read = file_read,
	.submit_read = file_submit,
	.cancel = file_cancel,
	.version = file_version,
	.write = file_write_anywhere,
	.submit_write = file_submit,
	.flush = file_flush_anywhere,
	.submit_flush = file_submit_flush,
	.resize = file_resize_anywhere,
	.punch = file_punch_anywhere,
	.reserve = file_reserve_anywhere,
	.upgrade = file_upgrade,
	.lock = file_lock,
	.keep = file_keep,
	.alive = file_alive,
	.keep_begin = file_keep_begin,
	.keep_write = file_keep_write,
	.keep_flush = file_keep_flush,
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

/*
 * Which reads of the file take its inode's lock. Of file systems that are not listed nothing is known, and the worst is
 * assumed: overlayfs passes on to some other, NFS and Ceph take the lock for every read. FUSE takes it for none.
 */
static void learn_locks(struct file_store *file, int fd)
{
	static const struct {
		unsigned type;
		bool buffered_locks, direct_locks;
	} known[] = {
		{EXT4_SUPER_MAGIC, false, false}, {XFS_SUPER_MAGIC, true, false}, {F2FS_SUPER_MAGIC, false, false},
		{BTRFS_SUPER_MAGIC, false, true}, {TMPFS_MAGIC, false, false},
	};
	struct statfs fs;
	struct statx stx;

	file->lockless = file->buffered_locks = file->direct_locks = true;
	if (fstatfs(fd, &fs) || statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &stx))
		return;
	if ((unsigned)fs.f_type == FUSE_SUPER_MAGIC)
		file->lockless = false;
	if (S_ISBLK(stx.stx_mode) || stx.stx_attributes & STATX_ATTR_DAX)
		return;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if ((unsigned)fs.f_type == known[i].type) {
			file->buffered_locks = known[i].buffered_locks;
			file->direct_locks = known[i].direct_locks;
		}
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

/* Without touching the access time where we may ask for that. `flags` has O_RDONLY or O_RDWR. A descriptor or
 * negative errno. */
static int open_quietly(const char *path, int flags)
{
	int fd = os_fd_open(AT_FDCWD, path, flags | O_NOATIME, 0);

	if (fd == -EPERM)
		fd = os_fd_open(AT_FDCWD, path, flags, 0);
	return fd;
}

/* O_NONBLOCK: should it have become a fifo since it was looked at, do not wait for its writer. The
 * flag goes away again, since it would make the ring give EAGAIN. With a lease on the file it is
 * refused. */
static int open_buffered(const char *path, int access_mode)
{
	int fd = open_quietly(path, access_mode | O_NONBLOCK);

	if (fd == -EWOULDBLOCK)
		return open_quietly(path, access_mode);
	if (fd >= 0)
		(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fd;
}

/* A second descriptor of the very same file, or -1. */
static int open_direct(const char *path, int access_mode, const struct stat *same)
{
	int fd = open_quietly(path, access_mode | O_DIRECT | O_NONBLOCK);
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

/* The folder in which a file that was just made has its name, wherever symbolic links have led. -1: it may not be read, or
 * the file is there no more. */
static int open_folder(const char *path, const struct stat *made)
{
	char *real = realpath(path, NULL), *slash = real ? strrchr(real, '/') : NULL;
	struct stat st;
	int fd = -1;

	if (slash) {
		*slash = '\0';
		fd = os_fd_open(AT_FDCWD, slash == real ? "/" : real, O_RDONLY | O_DIRECTORY, 0);
		if (fd >= 0 && (fstatat(fd, slash + 1, &st, AT_SYMLINK_NOFOLLOW) || st.st_dev != made->st_dev ||
				st.st_ino != made->st_ino)) {
			close(fd);
			fd = -1;
		}
	}
	free(real);
	return fd;
}

/* What the opening thread has opened, in its own table; -1: not. */
struct opened {
	int buffered, direct, folder;
};

static void opened_close(struct opened *opened)
{
	int fds[] = {opened->buffered, opened->direct, opened->folder};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			os_syscall1(SYS_close, fds[i]);
}

/* Numbers of our table below which a file may have two; above, one must do. */
static int numbers_for_two(void)
{
	struct rlimit limit = {.rlim_cur = 1024};

	(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur / 4 > INT_MAX ? INT_MAX : (int)(limit.rlim_cur / 4);
}

/* Into the table of our own. One number stays in the program's: the one by which a page is read. What it has taken over is
 * gone from `opened`. */
static int file_settle(struct file_store *file, struct opened *opened)
{
	bool apart = os_fds_apart();
	int error;

	if (opened->direct >= 0) {
		error = here_open(file->direct, opened->direct, true);
		opened->direct = -1;
		if (error || (apart && file->direct->own >= numbers_for_two()))
			here_close(file->direct);
	}
	error = here_open(file->buffered, opened->buffered, file->direct->own < 0);
	opened->buffered = -1;
	if (!error && opened->folder >= 0) {
		file->folder_fd = os_fd_give(opened->folder); /* else the file system is synced */
		if (apart)
			os_syscall1(SYS_close, opened->folder);
		opened->folder = -1;
	}
	return error;
}

/* It does not exist: make it, unless somebody else is faster. O_EXCL tells that, but does not follow a symbolic link to
 * nothing, as open() does. 0: it is there. */
static int file_make(struct file_store *file, struct opened *opened, const char *path)
{
	int fd = os_fd_open(AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL, 0666);
	struct stat st;

	if (fd == -EEXIST) {
		if (!stat(path, &st))
			return 0;
		fd = os_fd_open(AT_FDCWD, path, O_RDWR | O_CREAT, 0666);
	}
	if (fd < 0)
		return fd;
	opened->buffered = fd;
	file->name_unsynced = 1;
	if (!fstat(fd, &st))
		opened->folder = open_folder(path, &st);
	return 0;
}

/* What went wrong, in words that help more than strerror()'s where it was to be written to. */
static const char *open_trouble(int error, unsigned flags)
{
	if (flags & FM_STORE_OPEN_WRITE) {
		switch (error) {
		case -EROFS:
			return "is on a read-only file system: cannot be opened for writing";
		case -EACCES:
			return "permission denied: opening for writing wants read and write permission";
		case -EPERM:
			return "is immutable or append-only, or sealed: cannot be opened for writing";
		case -ETXTBSY:
			return "is a program that is being run, or in use as swap: cannot be opened for writing";
		}
	}
	return strerror(-error);
}

/* Files below /proc are regular files of size 0 that have bytes all the same: the kernel makes the
 * bytes as they are read. Such a file cannot be mapped, and must not be taken for an empty one. */
static bool has_no_size(int fd, const struct stat *st)
{
	struct stat again;
	char byte;

	if (!S_ISREG(st->st_mode) || st->st_size || pread(fd, &byte, 1, 0) != 1)
		return false;
	return !fstat(fd, &again) && !again.st_size; /* else somebody has written to it just now */
}

#define KEEPER_WAIT_NS (30 * OS_NSEC_PER_SEC)
#define KEEPER_AT_WORK "%s: the keeper (FM_KEEP) of process %d, which has ended, still writes what was dirty: try again, or fm_keeper_wait()"

/* Before it is opened: a keeper may have a lease, which would block open(). */
static int wait_for_keepers(struct file_store *file, const struct stat *st)
{
	return os_keepers_wait(st, false, os_now_ns() + KEEPER_WAIT_NS, &file->store.kept);
}

/* Open the descriptors, in the calling thread's table. */
static int file_open_fds(struct file_store *file, struct opened *opened, const char *path, unsigned flags, bool direct,
			 char *error_text, size_t error_text_len)
{
	int access_mode = flags & FM_STORE_OPEN_WRITE ? O_RDWR : O_RDONLY;
	bool may_make = flags & FM_STORE_OPEN_CREATE;
	const char *refused = NULL;
	struct os_fd_id id;
	struct stat st, named;
	int error = 0;

	bool given = opened->buffered >= 0; /* by fd_open() */

	if (given ? fstat(opened->buffered, &st) : stat(path, &st))
		error = -errno;
	else if (wait_for_keepers(file, &st))
		return store_say(-EBUSY, error_text, error_text_len, KEEPER_AT_WORK, path, file->store.kept.program);
	if (error == -ENOENT && may_make) {
		error = file_make(file, opened, path);
		if (!error && stat(path, &st))
			error = -errno;
	}
	if (!error) {
		refused = kind_refused(st.st_mode, &error);
		if (!refused) {
			if (opened->buffered < 0)
				opened->buffered = open_buffered(path, access_mode);
			if (opened->buffered < 0)
				error = opened->buffered;
			else if (fstat(opened->buffered, &st))
				error = -errno;
			else
				refused = kind_refused(st.st_mode, &error);
		}
	}
	if (refused)
		return store_say(error, error_text, error_text_len,
				 "%s: is %s: give a regular file or a block device", path, refused);
	if (!error && has_no_size(opened->buffered, &st))
		return store_say(-ENODEV, error_text, error_text_len,
				 "%s: has bytes and no size, as files below /proc: copy it, and give the copy",
				 path);
	if (!error) {
		file->is_block = S_ISBLK(st.st_mode);
		file_identify(file, &st);
		file->is_remote = !file->is_block && fs_is_remote(opened->buffered);
		file->grain_ns = stamp_grain_ns(opened->buffered, &st);
		if (flags & FM_STORE_OPEN_LOCKLESS)
			learn_locks(file, opened->buffered);
		if (direct)
			opened->direct = open_direct(path, access_mode, &st);
		if (opened->direct >= 0 && access_mode == O_RDWR)
			(void)posix_fadvise(opened->buffered, 0, 0, POSIX_FADV_RANDOM);
		error = version_by(file, opened->buffered, &id, &file->store.opened);
	}
	/* Another thread may close all numbers meanwhile, and put another file there: then it is not the named one. */
	if (!error && !given && (stat(path, &named) || fstat(opened->buffered, &st) || named.st_dev != st.st_dev ||
		       named.st_ino != st.st_ino))
		error = -ESTALE;
	if (!error)
		error = file_settle(file, opened);
	if (error)
		return store_say(error, error_text, error_text_len, "%s: %s", path,
				 open_trouble(error, flags));
	file->store.size_bytes = file->store.opened.size;
	return 0;
}

/* On failure `error_text` says why. */
static int file_alloc(unsigned flags, const char *name, char *error_text, size_t error_text_len,
		      struct file_store **ret_file)
{
	struct file_store *file = calloc(1, sizeof(*file));
	int error;

	if (!file)
		return store_say(-ENOMEM, error_text, error_text_len, "%s: %s", name, strerror(ENOMEM));
	error = os_fds_get();
	if (error) {
		free(file);
		return store_say(error, error_text, error_text_len, "%s: no thread for its descriptors: %s", name,
				 strerror(-error));
	}
	file->store.ops = &file_ops;
	file->store.caps = FM_STORE_READ_INLINE | FM_STORE_SUBMIT;
	if (flags & FM_STORE_OPEN_WRITE)
		file->store.caps |= FM_STORE_WRITE | FM_STORE_KEEPS;
	file->buffered = &file->here[0];
	file->direct = &file->here[1];
	for (size_t i = 0; i < sizeof(file->here) / sizeof(file->here[0]); i++)
		file->here[i].own = file->here[i].fd = -1;
	file->folder_fd = -1;
	*ret_file = file;
	return 0;
}

int store_file_open(const char *path, unsigned flags, const char *parameters, char *error_text,
		    size_t error_text_len, struct fm_store **ret_store)
{
	struct opened opened = {-1, -1, -1};
	struct file_store *file;
	bool direct = true;
	int error = file_parameters(parameters, &direct, error_text, error_text_len);

	if (error)
		return error;
	if (!*path)
		return store_say(-EINVAL, error_text, error_text_len,
				 "file: without a path: write file:PATH");
	error = file_alloc(flags, path, error_text, error_text_len, &file);
	if (error)
		return error;
	error = file_open_fds(file, &opened, path, flags, direct, error_text, error_text_len);
	if (error) {
		opened_close(&opened);
		file_close(&file->store);
		return error;
	}
	*ret_store = &file->store;
	return 0;
}

/* ------------------------------------------------------------------ by descriptor */

/* Why a descriptor cannot be used as it is; NULL: it can. */
static const char *fd_refused(int fd, int status, unsigned flags, int *ret_error)
{
	bool write = flags & FM_STORE_OPEN_WRITE;
	int seals = write ? fcntl(fd, F_GET_SEALS) : -1;

	*ret_error = status & O_PATH ? -EBADF : -EACCES;
	if (status & O_PATH)
		return "is open with O_PATH, which allows no reading";
	if ((status & O_ACCMODE) == O_WRONLY)
		return "is open for writing only: pages have to be read, too";
	if (write && (status & O_ACCMODE) != O_RDWR)
		return "is open for reading only: FM_FILE_WRITE wants O_RDWR";
	*ret_error = -EPERM;
	if (seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
		return "is sealed against writing";
	*ret_error = 0;
	return NULL;
}

/* The program's open file description, for it cannot be opened anew: the file's permissions forbid that, or there is no
 * /proc. Its status flags are the program's, and stay as they are. */
static int fd_share(int fd, int status, unsigned flags, int *ret_fd, const char **ret_why)
{
	*ret_why = NULL;
	if ((flags & FM_STORE_OPEN_WRITE) && (status & O_APPEND))
		*ret_why = "has O_APPEND, by which pwrite() appends, and the file cannot be opened anew";
	if (status & (O_DIRECT | O_NONBLOCK))
		*ret_why = "has O_DIRECT or O_NONBLOCK, and the file cannot be opened anew without";
	if (*ret_why)
		return -EINVAL;
	*ret_fd = os_fd_make(fcntl(fd, F_DUPFD_CLOEXEC, 3));
	return *ret_fd < 0 ? *ret_fd : 0;
}

/* The store's own open file description of the file that `fd` shows: the program's offset and status flags have nothing to do
 * with it. By the calling thread's table of descriptors, which may be its own. */
static int fd_open(struct file_store *file, struct opened *opened, int fd, const char *name, unsigned flags,
		   char *error_text, size_t error_text_len)
{
	int status = fcntl(fd, F_GETFL), error = 0;
	struct fm_store_id same;
	struct stat wanted;
	char path[64];
	const char *why;

	if (status < 0 || fstat(fd, &wanted))
		return store_say(-errno, error_text, error_text_len, "descriptor %d: %s", fd, strerror(errno));
	file_identify(file, &wanted);
	same = file->store.id;
	why = fd_refused(fd, status, flags, &error);
	if (why)
		return store_say(error, error_text, error_text_len, "descriptor %d (%s) %s", fd, name, why);
	snprintf(path, sizeof(path), "/proc/self/task/%d/fd/%d", (int)gettid(), fd);
	error = file_open_fds(file, opened, path, flags, true, error_text, error_text_len);
	if (!error)
		return file->store.id.device != same.device || file->store.id.inode != same.inode ? -EBADF : 0;
	if (opened->buffered >= 0 || (error != -EACCES && error != -EPERM && error != -ENOENT && error != -ETXTBSY))
		return error;
	error = fd_share(fd, status, flags, &opened->buffered, &why);
	if (why)
		return store_say(error, error_text, error_text_len, "descriptor %d (%s) %s", fd, name, why);
	return error ? error : file_open_fds(file, opened, path, flags, true, error_text, error_text_len);
}

int store_open_fd(int fd, const char *name, unsigned flags, char *error_text, size_t error_text_len, struct fm_store **ret_store)
{
	struct opened opened = {-1, -1, -1};
	struct file_store *file;
	int error = file_alloc(flags, name, error_text, error_text_len, &file);

	if (error)
		return error;
	error = fd_open(file, &opened, fd, name, flags, error_text, error_text_len);
	if (error) {
		opened_close(&opened);
		file_close(&file->store);
		return error;
	}
	*ret_store = &file->store;
	return 0;
}

/* "file:PATH", by what the kernel knows of the descriptor: for words, and for lists of hot sets. */
void store_fd_name(int fd, char *name, size_t name_len)
{
	char link[64], path[PATH_MAX];
	size_t used;
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/task/%d/fd/%d", (int)gettid(), fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		len = snprintf(path, sizeof(path), "descriptor %d", fd);
	path[len] = 0;
	used = (size_t)snprintf(name, name_len, "file:");
	for (const char *at = path; *at && used + 4 < name_len; at++)
		used += (size_t)snprintf(name + used, name_len - used, strchr("%?", *at) ? "%%%02X" : "%c", (unsigned char)*at);
}
