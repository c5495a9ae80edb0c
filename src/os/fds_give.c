/* SPDX-License-Identifier: MIT */
/*
 * Transfers of open files from table to table: see fds.c. May call: fds.c, os.h.
 */
#include "os/fds_give.h"

#include "os/fds.h"
#include "os/fds_numbers.h"
#include "os/fds_private.h"
#include "os/os.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#define PIDFD_OF_THREAD O_EXCL /* Linux 6.9 */

struct giving {
	struct fds *fds;
	int fd;
	uint32_t tid;
	struct os_fd_id id;
};

/* Get the file that the thread `tid` has at number `fd`. Runs in the holder. Before Linux 6.9
 * the call reads only the main thread's table, which is mostly the same table. */
static int pull(uint32_t tid, int fd)
{
	long got, pidfd = os_syscall2(SYS_pidfd_open, tid, PIDFD_OF_THREAD);

	if (pidfd < 0)
		pidfd = os_syscall2(SYS_pidfd_open, os_syscall1(SYS_getpid, 0), 0);
	if (pidfd < 0)
		return (int)pidfd;
	got = os_syscall3(SYS_pidfd_getfd, pidfd, fd, 0);
	os_syscall1(SYS_close, pidfd);
	return (int)got;
}

static long take_pulled(void *arg)
{
	struct giving *giving = arg;
	int got = pull(giving->tid, giving->fd);

	if (got >= 0 && !os_fd_is(got, &giving->id)) {
		os_syscall1(SYS_close, got);
		got = -EBADF;
	}
	return got;
}

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int))];
};

/* Take the descriptor that the caller has sent. Runs in the holder. Messages that other
 * processes may have sent to the name are thrown away. */
static long take_sent(void *arg)
{
	struct giving *giving = arg;
	union control control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	int got = -EBADF;

	while (os_syscall3(SYS_recvmsg, giving->fds->post, &message,
			   MSG_CMSG_CLOEXEC | MSG_DONTWAIT) > 0) {
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);
		if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
			memcpy(&got, CMSG_DATA(head), sizeof(got));
		if (got >= 0 && os_fd_is(got, &giving->id))
			return got;
		if (got >= 0)
			os_syscall1(SYS_close, got);
		got = -EBADF;
		message.msg_controllen = sizeof(control);
	}
	return got;
}

/* Give the descriptor by a message. The socket is new, so that its number cannot be another
 * file's. `making` allows one giver at a time: the holder would throw another giver's message
 * away. */
static int give_by_message(struct fds *fds, struct giving *giving)
{
	union control control = {.bytes = {0}};
	char byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_name = &fds->post_name,
				 .msg_namelen = fds->post_name_len,
				 .msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	os_sigmask mask = os_signals_block();
	int from = fds->post < 0 ? -EBADF : os_fd_make(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	long own = -EBADF;

	control.align = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					 .cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(&control.align), &giving->fd, sizeof(int));
	os_lock(&fds->making);
	if (from >= 0 && os_syscall3(SYS_sendmsg, from, &message, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		own = fds_holder_call(fds, take_sent, giving);
	os_unlock(&fds->making);
	if (from >= 0)
		os_syscall1(SYS_close, from);
	os_signals_restore(mask);
	return (int)own;
}

int os_fd_give(int fd)
{
	struct fds *fds = fds_now();
	struct giving giving = {.fds = fds, .fd = fd, .tid = os_gettid()};
	int err, own;

	if (fd < 0 || !os_fds_apart())
		return fd;
	if (os_fds_own())
		return (int)os_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, FDS_LOW_END);
	err = os_fd_id(fd, &giving.id);
	if (err)
		return err;
	own = (int)fds_holder_call(fds, take_pulled, &giving);
	if (own < 0 && own != -EMFILE)
		own = give_by_message(fds, &giving);
	return own;
}

int os_fd_fetch(int own)
{
	struct fds *fds = fds_now();
	struct os_fds_low low;
	long got, pidfd;

	if (!os_fds_apart())
		return -EOPNOTSUPP;
	os_fds_low_take(&low);
	pidfd = os_syscall2(SYS_pidfd_open, fds->holder_tid, PIDFD_OF_THREAD);
	got = pidfd < 0 ? pidfd : os_syscall3(SYS_pidfd_getfd, pidfd, own, 0);
	if (pidfd >= 0)
		os_syscall1(SYS_close, pidfd);
	got = os_fd_high((int)got);
	os_fds_low_give(&low);
	return got < 0 ? -EOPNOTSUPP : (int)got;
}

long fds_close_one(void *arg)
{
	return os_syscall1(SYS_close, (long)(intptr_t)arg);
}

void os_fd_close_own(int own)
{
	if (own < 0)
		return;
	if (os_fds_apart())
		fds_holder_call(fds_now(), fds_close_one, (void *)(intptr_t)own);
	else
		os_syscall1(SYS_close, own);
}
