/* SPDX-License-Identifier: MIT */
/*
 * Read leases (fcntl(2), F_SETLEASE): the kernel tells before anybody writes to a file.
 *
 * A lease belongs to an open file description, and ends with its last descriptor. So the
 * description is opened in a thread that has the library's own table: the program can close and
 * replace its descriptors as it likes, and a forked child has no copy that would outlive the
 * process. The kernel tells a thread of the shim by a signal, which is blocked in that thread and
 * read by sigtimedwait(): no other thread ever gets it, whatever the program does with signals. The
 * signal only says that some lease is to be looked at. If the queue of signals is full, the kernel
 * sends SIGIO to the same thread.
 *
 * Owns the thread. May call: os.
 */
#include "lease.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/os.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>

#define LEASE_SIGNAL 58 /* a real-time signal, sent to the shim's thread only */
#define BIT(signo)   (1ull << ((signo) - 1))

static struct os_thread thread;
static uint32_t thread_tid; /* atomic; 0: the thread does not run yet */
static void (*heard_fn)(void);

static void *lease_main(void *arg)
{
	const uint64_t set = BIT(LEASE_SIGNAL) | BIT(SIGIO);
	siginfo_t info;

	(void)arg;
	os_signals_block();
	atomic_set(&thread_tid, os_gettid());
	os_futex_wake(&thread_tid, 1, OS_FUTEX_ANY);
	for (;;) {
		long got = os_syscall4(SYS_rt_sigtimedwait, &set, &info, NULL, sizeof(set));
		if (got > 0)
			heard_fn();
	}
	return NULL;
}

int lease_start(void (*heard)(void))
{
	int err;

	heard_fn = heard;
	err = os_thread_start(&thread, "fm-lease", lease_main, NULL);
	while (!err && !atomic_get(&thread_tid))
		os_futex_wait(&thread_tid, 0, OS_FUTEX_ANY, OS_FOREVER);
	return err;
}

void lease_kick(void)
{
	os_syscall3(SYS_tgkill, os_syscall1(SYS_getpid, 0), atomic_get(&thread_tid), LEASE_SIGNAL);
}

struct taking {
	int fd;
	uint32_t tid;
	const struct stat *same;
};

static long take(void *arg)
{
	const struct taking *taking = arg;
	struct f_owner_ex owner = {F_OWNER_TID, (pid_t)atomic_get(&thread_tid)};
	struct stat st;
	char path[64];
	long lease, err;

	snprintf(path, sizeof(path), "/proc/self/task/%u/fd/%d", taking->tid, taking->fd);
	lease = os_syscall4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0);
	if (lease < 0)
		return lease;
	err = fstat((int)lease, &st) ? -errno : 0;
	if (!err && (st.st_dev != taking->same->st_dev || st.st_ino != taking->same->st_ino))
		err = -ESTALE;
	if (!err)
		err = os_syscall3(SYS_fcntl, lease, F_SETSIG, LEASE_SIGNAL);
	if (!err)
		err = os_syscall3(SYS_fcntl, lease, F_SETOWN_EX, &owner);
	if (!err)
		err = os_syscall3(SYS_fcntl, lease, F_SETLEASE, F_RDLCK);
	/* F_SETLEASE makes the caller the owner if there is none; there is one already. */
	if (err < 0) {
		os_syscall1(SYS_close, lease);
		return err;
	}
	return lease;
}

int lease_take(int fd, const struct stat *same)
{
	return (int)os_fds_call(take, &(struct taking){fd, os_gettid(), same});
}

static long get(void *arg)
{
	return os_syscall3(SYS_fcntl, *(int *)arg, F_GETLEASE, 0);
}

bool lease_is_broken(int lease)
{
	return os_fds_call_quick(get, &lease) != F_RDLCK;
}

static long give(void *arg)
{
	os_syscall3(SYS_fcntl, *(int *)arg, F_SETLEASE, F_UNLCK);
	return os_syscall1(SYS_close, *(int *)arg);
}

void lease_give(int lease)
{
	os_fds_call_quick(give, &lease);
}
