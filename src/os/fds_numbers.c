/* SPDX-License-Identifier: MIT */
/*
 * Numbers of descriptors: high numbers for the library, and which file a number stands for.
 * Signal-safe. May call: os.h.
 */
#include "os/fds_numbers.h"

#include "os/fds_private.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define HIGH_MOST 512 /* the library's numbers begin here at most: half of the usual limit of
			 1024 */

bool fds_number_is_free(int fd)
{
	return os_syscall3(SYS_fcntl, fd, F_GETFD, 0) == -EBADF;
}

void os_fds_low_take(struct os_fds_low *low)
{
	low->count = 0;
	for (int fd = 0; fd < FDS_LOW_END; fd++) {
		if (!fds_number_is_free(fd))
			continue;
		long taken = os_syscall4(SYS_openat, AT_FDCWD, "/", O_PATH | O_CLOEXEC, 0);
		if (taken < 0)
			return;
		if (taken >= FDS_LOW_END) { /* another thread was faster */
			os_syscall1(SYS_close, taken);
			return;
		}
		low->fd[low->count++] = (int)taken;
	}
}

void os_fds_low_give(struct os_fds_low *low)
{
	for (int i = 0; i < low->count; i++) {
		long flags = os_syscall3(SYS_fcntl, low->fd[i], F_GETFL, 0);
		if (flags >= 0 && (flags & O_PATH)) /* the program may have put its own file there */
			os_syscall1(SYS_close, low->fd[i]);
	}
	low->count = 0;
}

/* Return where the library's numbers begin: at half of the limit. The lower half is the
 * program's, which may count on low numbers (select()). */
static int high_begin(void)
{
	struct rlimit limit = {.rlim_cur = 0};
	os_syscall4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
	unsigned long half = limit.rlim_cur / 2;
	return half > HIGH_MOST ? HIGH_MOST : half < FDS_LOW_END ? FDS_LOW_END : (int)half;
}

int os_fd_high(int fd)
{
	int begin;
	long high = -EMFILE;

	if (fd < 0)
		return fd;
	begin = high_begin();
	if (fd >= begin)
		return fd;
	high = os_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, begin);
	if (high < 0 && fd >= FDS_LOW_END) /* the upper half is full */
		return fd;
	if (high < 0)
		high = os_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, FDS_LOW_END);
	os_syscall1(SYS_close, fd);
	return (int)high;
}

int os_fd_open(int dir_fd, const char *path, int flags, mode_t mode)
{
	struct os_fds_low low;
	long fd;

	os_fds_low_take(&low);
	do {
		fd = os_syscall4(SYS_openat, dir_fd, path, flags | O_CLOEXEC | O_NOCTTY, mode);
	} while (fd == -EINTR);
	fd = os_fd_high((int)fd);
	os_fds_low_give(&low);
	return (int)fd;
}

int os_fd_id(int fd, struct os_fd_id *ret_id)
{
	struct statx stx;
	long err = os_syscall5(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &stx);

	if (!err)
		*ret_id = os_fd_id_of(&stx);
	return (int)err;
}

bool os_fd_is(int fd, const struct os_fd_id *id)
{
	struct os_fd_id now = {0, 0};

	return fd >= 0 && os_fd_id(fd, &now) == 0 && now.dev == id->dev && now.ino == id->ino;
}
