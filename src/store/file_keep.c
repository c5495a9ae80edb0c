/* SPDX-License-Identifier: MIT */
/*
 * A file that a keeper has (FM_KEEP): which process made the last change of the file, and what
 * the keeper does to the file. May call: os.h, file_version.c, file_read_write.c.
 */
#include "store/file_keep.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/os.h"
#include "os/syscall.h"
#include "store/file.h"
#include "store/file_version.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* ------------------------------------------------------------------ changes by this process */

static int keep_look(int fd, uint64_t *ret_size, uint64_t *ret_mtime)
{
	struct statx stx;
	long error = os_syscall5(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_SIZE | STATX_MTIME, &stx);

	if (!error) {
		*ret_size = stx.stx_size;
		*ret_mtime = file_store_timestamp_ns(stx.stx_mtime);
	}
	return (int)error;
}

static void later_of(uint64_t *word, uint64_t value)
{
	uint64_t old = atomic_get(word);

	while (old < value && !atomic_cas(word, &old, value))
		;
}

/* Mark the begin of a change of the file by this process. A change that has begun and not ended
 * may have changed the file at any time. */
void file_store_change_begins(struct file_store *file)
{
	if (atomic_get(&file->keep.on))
		atomic_add(&file->keep.begun, 1u);
}

void file_store_change_ends(struct file_store *file)
{
	uint64_t size, mtime;

	if (!atomic_get(&file->keep.on))
		return;
	if (!keep_look(file->buffered->own, &size, &mtime))
		later_of(&file->keep.own_ns, mtime);
	later_of(&file->keep.alive_ns, os_stamp_ns());
	atomic_add(&file->keep.ended, 1u);
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
	file_store_change_begins(file);
	file_store_change_ends(file);
	return 0;
}

int file_store_keep(struct fm_store *store, struct fm_store_kept *ret_kept)
{
	struct keep_call call = {(struct file_store *)store, ret_kept};

	return (int)os_fds_call(keep_call, &call);
}

void file_store_alive(struct fm_store *store, uint64_t stamp_ns)
{
	later_of(&((struct file_store *)store)->keep.alive_ns, stamp_ns);
}

/*
 * Test whether another process has changed the file since the program's end. Changes by other
 * processes while the program lived do not count, nor do the program's own changes. A change is
 * another's if it came after the program's last change, and after the last sign that the
 * program lived. A change by the program that was under way at the program's end cannot be told
 * from another's change, and counts as one. A device has no time stamps that tell.
 *
 * A lease makes every process wait that opens the file from here on. The kernel gives a lease
 * to the file's owner while no other process has the file open. A process that has the file
 * open may be a successor that is about to write. The keeper waits a while for such a write,
 * and then sees the change.
 */
int file_store_keep_begin(struct fm_store *store, int fd, uint64_t until_ns, uint64_t *ret_size)
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
	if (!error && keep->begun == keep->ended && keep->mtime > keep->own_ns &&
	    keep->mtime >= keep->alive_ns)
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

/* Write by the buffered descriptor alone. Pages that the program has pinned may change while
 * they are written. A direct write would pass such a change on as two states of one block, and
 * file systems with checksums would find no matching sum. */
int file_store_keep_write(struct fm_store *store, int fd, const struct iovec *iov, int iov_count,
			  uint64_t offset, size_t *ret_done)
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
	if (!file->is_block) /* also after a failed write */
		error = keep_look(fd, &keep->size, &keep->mtime);
	if (n < 0)
		return (int)n;
	*ret_done = (size_t)n;
	return error;
}

/* Flush the file in the keeper. On the existing file systems, fsync() of the file also makes
 * the file's new name durable. */
int file_store_keep_flush(struct fm_store *store, int fd)
{
	struct file_store *file = (struct file_store *)store;
	long error;

	do {
		error = os_syscall1(atomic_get(&file->name_unsynced) ? SYS_fsync : SYS_fdatasync, fd);
	} while (error == -EINTR);
	return (int)error;
}
