/* SPDX-License-Identifier: MIT */
/*
 * The descriptors of a file, opened and checked: the kind of file, and which locks its file
 * system takes. May call: os.h, file_version.c.
 */
#include "store/file_open.h"

#include "os/fds.h"
#include "os/fds_give.h"
#include "os/fds_numbers.h"
#include "os/keeper.h"
#include "os/os.h"
#include "os/syscall.h"
#include "store/file.h"
#include "store/file_version.h"
#include "store/here.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Identify the store by device and inode of the opened file: the file's name, and a later file
 * of that name, do not matter. On overlayfs a file that is copied up gets another inode, and so
 * another identity. */
void file_store_identify(struct file_store *file, const struct stat *st)
{
	file->store.id = S_ISBLK(st->st_mode)
				 ? (struct fm_store_id){.kind = FM_STORE_ID_BLOCK, .device = st->st_rdev}
				 : (struct fm_store_id){.kind = FM_STORE_ID_INODE, .device = st->st_dev, .inode = st->st_ino};
}

/* Name the kind of file if such a file cannot be mapped; NULL: the kind can be mapped. */
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
	return "neither a file nor a device";
}

/*
 * Find out which reads of the file take its inode's lock. For file systems that are not listed,
 * the worst is assumed: overlayfs passes reads on to another file system, NFS and Ceph take the
 * lock for every read. FUSE takes the lock for no read.
 */
static void learn_locks(struct file_store *file, int fd)
{
	static const struct {
		unsigned type;
		bool buffered_locks, direct_locks;
	} known[] = {
		{EXT4_SUPER_MAGIC, false, false}, {XFS_SUPER_MAGIC, true, false},
		{F2FS_SUPER_MAGIC, false, false}, {BTRFS_SUPER_MAGIC, false, true},
		{TMPFS_MAGIC, false, false},
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

/* Test whether a silent server could block the thread that only starts a read. On FUSE,
 * io_uring first asks the server whether the file can be polled. The listed file systems are
 * known not to block. */
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

/* Open a file without touching the access time, if the kernel permits that. `flags` has
 * O_RDONLY or O_RDWR. Returns a descriptor or negative errno. */
static int open_quietly(const char *path, int flags)
{
	int fd = os_fd_open(AT_FDCWD, path, flags | O_NOATIME, 0);

	if (fd == -EPERM)
		fd = os_fd_open(AT_FDCWD, path, flags, 0);
	return fd;
}

/* Open the buffered descriptor. O_NONBLOCK: if the file has become a fifo since the check,
 * open() does not wait for the fifo's writer. The flag is removed after the open, because it
 * would make the ring give EAGAIN. With a lease on the file, an open with O_NONBLOCK is
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

/* Open a second descriptor of the very same file; -1 on failure. */
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

/* Open the folder in which a file that was just made has its name, wherever symbolic links
 * lead. -1: the folder may not be read, or the file is no longer there. */
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

void file_store_opened_close(struct opened *opened)
{
	int fds[] = {opened->buffered, opened->direct, opened->folder};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			os_syscall1(SYS_close, fds[i]);
}

/* Return the number of the library's table below which a file may have two numbers; above, a
 * file must do with one. */
static int numbers_for_two(void)
{
	struct rlimit limit = {.rlim_cur = 1024};

	(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur / 4 > INT_MAX ? INT_MAX : (int)(limit.rlim_cur / 4);
}

/* Move the descriptors into the library's table. One number stays in the program's table: the
 * number by which a page is read. Descriptors that are taken over are gone from `opened`. */
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
		file->folder_fd = os_fd_give(opened->folder); /* on failure, a flush syncs the file system */
		if (apart)
			os_syscall1(SYS_close, opened->folder);
		opened->folder = -1;
	}
	return error;
}

/* Make the file that does not exist, unless another process makes it first. O_EXCL detects
 * that, but does not follow a dangling symbolic link, as open() does. Returns 0 if the file
 * exists. */
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

/* Describe an error in words. For a file to be written to, the words help more than those of
 * strerror(). */
static const char *open_trouble(int error, unsigned flags)
{
	if (flags & FM_STORE_OPEN_WRITE) {
		switch (error) {
		case -EROFS:
			return "is on a read-only file system: cannot be opened for writing";
		case -EACCES:
			return "permission denied: opening for writing needs read and write permission";
		case -EPERM:
			return "is immutable or append-only, or sealed: cannot be opened for writing";
		case -ETXTBSY:
			return "is a running program or a swap file: cannot be opened for writing";
		}
	}
	return strerror(-error);
}

/* Test for a file of size 0 that has bytes. Files below /proc are such regular files: the
 * kernel makes the bytes as they are read. Such a file cannot be mapped, and must not be taken
 * for an empty file. */
static bool has_no_size(int fd, const struct stat *st)
{
	struct stat again;
	char byte;

	if (!S_ISREG(st->st_mode) || st->st_size || pread(fd, &byte, 1, 0) != 1)
		return false;
	return !fstat(fd, &again) && !again.st_size; /* else another process has just written to the
							file */
}

#define KEEPER_WAIT_NS (30 * OS_NSEC_PER_SEC)
#define KEEPER_AT_WORK                                                                             \
	"%s: the keeper process (FM_KEEP) of process %d, which has ended, is still writing dirty " \
	"pages; try again later, or call fm_keeper_wait()"

/* Wait for keepers before the file is opened: a keeper may have a lease, which would block
 * open(). */
static int wait_for_keepers(struct file_store *file, const struct stat *st)
{
	return os_keepers_wait(st, false, os_now_ns() + KEEPER_WAIT_NS, &file->store.kept);
}

/* Open the descriptors, in the calling thread's table. */
int file_store_open_fds(struct file_store *file, struct opened *opened, const char *path,
			unsigned flags, bool direct, char *error_text, size_t error_text_len)
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
		return store_say(-EBUSY, error_text, error_text_len, KEEPER_AT_WORK, path,
				 file->store.kept.program);
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
				 "%s: has bytes but reports a size of 0, like files under /proc; copy the "
				 "file, and open the copy", path);
	if (!error) {
		file->is_block = S_ISBLK(st.st_mode);
		file_store_identify(file, &st);
		file->is_remote = !file->is_block && fs_is_remote(opened->buffered);
		file->grain_ns = file_store_stamp_grain_ns(opened->buffered, &st);
		if (flags & FM_STORE_OPEN_LOCKLESS)
			learn_locks(file, opened->buffered);
		if (direct)
			opened->direct = open_direct(path, access_mode, &st);
		if (opened->direct >= 0 && access_mode == O_RDWR)
			(void)posix_fadvise(opened->buffered, 0, 0, POSIX_FADV_RANDOM);
		error = file_store_version_by(file, opened->buffered, &id, &file->store.opened);
	}
	/* Another thread may close all numbers meanwhile, and put another file there: then the
	 * descriptor is not that of the named file. */
	if (!error && !given &&
	    (stat(path, &named) || fstat(opened->buffered, &st) || named.st_dev != st.st_dev ||
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
