/* SPDX-License-Identifier: MIT */
/*
 * The size and version of a file, and how fine the file's time stamps are. Signal-safe. May
 * call: os.h.
 */
#include "store/file_version.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/fds_numbers.h"
#include "os/os.h"
#include "os/syscall.h"
#include "store/file.h"
#include "store/here.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <time.h>

/* ------------------------------------------------------------------ time stamps */

uint64_t file_store_timestamp_ns(struct statx_timestamp t)
{
	return (uint64_t)t.tv_sec * OS_NSEC_PER_SEC + t.tv_nsec;
}

/* ------------------------------------------------------------------ size and version */

/* Test whether the kernel stamps changes apart. From Linux 6.13 on the listed file systems give
 * a change a time stamp of its own if the file's time stamps were read since the change before.
 */
static bool kernel_stamps_apart(int fd)
{
	static const unsigned multigrain[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
					      TMPFS_MAGIC};
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
 * Get the time within which two changes can leave the same time stamp. A program can set mtime,
 * but not ctime. If both are whole seconds, the file system stores no more (ext4 with inodes of
 * 128 bytes, ext3). FAT stores every second second. Elsewhere the kernel stamps with a clock
 * that moves at each tick. 0: every change is told apart.
 */
uint64_t file_store_stamp_grain_ns(int fd, const struct stat *st)
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

/* Read the wall clock, by which the kernel stamps; 0 if the time is not needed. */
static uint64_t stamp_now_ns(const struct file_store *file)
{
	struct timespec now;

	if (!file->grain_ns || clock_gettime(CLOCK_REALTIME, &now))
		return 0;
	return (uint64_t)now.tv_sec * OS_NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

/* Get for how long after `now_ns` a change can still get the time stamp that the file had at
 * `now_ns`. */
static uint64_t stamp_young_ns(const struct file_store *file, uint64_t now_ns, uint64_t mtime_ns)
{
	uint64_t age = now_ns - mtime_ns;

	return now_ns >= mtime_ns && age < file->grain_ns ? file->grain_ns - age : 0;
}

/* Get the size and mtime. ctime also moves with chmod(), chown(), link(), rename(), setxattr()
 * and an overlay's copy-up, none of which changes a byte. A device node's times say nothing
 * about the device's bytes. If a server may be dead and there is a deadline for that, what the
 * kernel knows must suffice: asking the server could take for ever. */
int file_store_version_by(struct file_store *file, int fd, struct os_fd_id *ret_id,
			  struct fm_store_version *ret_version)
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
	/* Asking for mtime also makes the kernel stamp the next change apart. */
	error = os_syscall5(SYS_statx, fd, "", flags, STATX_SIZE | STATX_MTIME, &stx);
	if (!error)
		*ret_version = (struct fm_store_version){
			.size = stx.stx_size,
			.version = {0, file_store_timestamp_ns(stx.stx_mtime)},
			.young_ns = stamp_young_ns(file, now_ns, file_store_timestamp_ns(stx.stx_mtime)),
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

	return file_store_version_by(call->file, call->file->buffered->own, &id, call->ret_version);
}

/* Get the version. A thread of the program asks by the number in its own table, if that number
 * still stands for the store's file. */
int file_store_version(struct fm_store *store, struct fm_store_version *ret_version)
{
	struct file_store *file = (struct file_store *)store;
	struct store_here *here = atomic_get(&file->direct->fd) >= 0 ? file->direct : file->buffered;
	int fd = atomic_get(&here->fd), error;
	struct os_fd_id id;

	if (!os_fds_own() && fd >= 0) {
		error = file_store_version_by(file, fd, &id, ret_version);
		if (!error && id.dev == here->id.dev && id.ino == here->id.ino)
			return 0;
	}
	if (!os_fds_own() && !os_fds_apart())
		return -EBADF;
	return (int)os_fds_call(version_call, &(struct version_call){file, ret_version});
}
