/* SPDX-License-Identifier: MIT */
/* See here.h. No lock: `fd` and `renewals` are atomic, the rest is set once. May call: os. */
#include "store/here.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/fds_give.h"
#include "os/os.h"
#include "os/syscall.h"

#include <errno.h>

#define RENEWALS_MOST 8u /* if threads have several tables, no number is right for all of them */

int here_open(struct store_here *here, int fd, bool stays)
{
	int err;

	*here = (struct store_here){.own = -1, .fd = -1};
	err = os_fd_id(fd, &here->id);
	if (!err) {
		here->own = os_fd_give(fd);
		err = here->own < 0 ? here->own : 0;
	}
	if (!err && (stays || !os_fds_apart()))
		here->fd = fd;
	else
		os_syscall1(SYS_close, fd);
	return err;
}

void here_close(struct store_here *here)
{
	os_fd_close_programs(here->fd, &here->id);
	here->fd = -1;
	if (os_fds_apart())
		os_fd_close_own(here->own);
	here->own = -1;
}

struct here_read {
	struct store_here *here;
	const struct iovec *iov;
	int iov_count;
	uint64_t offset;
};

static long read_own(void *arg)
{
	const struct here_read *read = arg;

	return os_preadv(read->here->own, read->iov, read->iov_count, read->offset);
}

/* Make a number in the program's table that replaces a lost number, or is the first number
 * there. */
static int renew(struct store_here *here)
{
	int fd = -1;

	if (atomic_get(&here->renewals) < RENEWALS_MOST)
		fd = os_fd_fetch(here->own);
	if (fd >= 0 && !os_fd_is(fd, &here->id)) {
		os_syscall1(SYS_close, fd);
		fd = -1;
	}
	if (fd < 0)
		return -1;
	atomic_add(&here->renewals, 1u);
	atomic_set(&here->fd, fd);
	return fd;
}

ssize_t here_preadv(struct store_here *here, const struct iovec *iov, int iov_count,
		    uint64_t offset)
{
	struct here_read read = {here, iov, iov_count, offset};
	int fd = os_fds_own() ? here->own : atomic_get(&here->fd);
	ssize_t n;

	if (os_fds_own())
		return os_preadv(here->own, iov, iov_count, offset);
	for (int tries = 0; tries < 2; tries++) {
		if (fd < 0)
			fd = renew(here);
		if (fd < 0)
			break;
		n = os_preadv(fd, iov, iov_count, offset);
		if (n != -EBADF && os_fd_is(fd, &here->id))
			return n;
		fd = -1;
	}
	return os_fds_apart() ? os_fds_call(read_own, &read) : -EBADF;
}

int here_writable(const struct store_here *here)
{
	return os_fds_own() || os_fd_is(here->own, &here->id) ? here->own : -EBADF;
}
