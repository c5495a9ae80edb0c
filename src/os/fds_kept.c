/* SPDX-License-Identifier: MIT */
/*
 * An open file that is kept when the library has no table of its own: a bare thread has a copy
 * of the program's table. May call: os.h; clone() of the C library.
 */
#include "os/fds_kept.h"

#include "os/atomic.h"
#include "os/os.h"
#include "os/syscall.h"

#include <dirent.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>

#define KEPT_STACK (32u << 10)
#define KEPT_READY 1u
#define KEPT_END   2u
#define KEPT_HIGHEST 65536

/* For a thread that is not the C library's: the thread has no thread-locals, and a sanitizer
 * does not know of the thread. */
#define BARE __attribute__((no_sanitize("address", "thread", "undefined")))

/* Run the bare thread. clone() without CLONE_FILES gives the thread a copy of the program's
 * table, even if unshare() is forbidden. */
BARE static int kept_main(void *arg)
{
	struct os_fd_kept *kept = arg;
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};

	for (int fd = 0; fd <= kept->highest; fd++)
		if (fd != kept->fd)
			os_syscall1(SYS_close, fd);
	os_syscall2(SYS_capset, &head, none);
	__atomic_store_n(&kept->state, KEPT_READY, __ATOMIC_SEQ_CST);
	os_syscall6(SYS_futex, OS_ARG(&kept->state), FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
	while (__atomic_load_n(&kept->state, __ATOMIC_SEQ_CST) != KEPT_END)
		os_syscall6(SYS_futex, OS_ARG(&kept->state), FUTEX_WAIT_PRIVATE, KEPT_READY, 0, 0, 0);
	return 0;
}

static int highest_number(void)
{
	struct rlimit limit = {.rlim_cur = 1024};
	DIR *dir = opendir("/proc/thread-self/fd");
	struct dirent *entry;
	int highest = -1;

	while (dir && (entry = readdir(dir)))
		if (atoi(entry->d_name) > highest)
			highest = atoi(entry->d_name);
	if (dir)
		closedir(dir);
	if (highest >= 0)
		return highest;
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur > KEPT_HIGHEST ? KEPT_HIGHEST : (int)limit.rlim_cur;
}

int os_fd_keep(struct os_fd_kept *kept, int fd)
{
	int flags = CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
		    CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
	os_sigmask mask;
	int tid;

	*kept = (struct os_fd_kept){.fd = fd, .highest = highest_number()};
	kept->stack = os_meta_alloc(KEPT_STACK);
	if (!kept->stack)
		return -ENOMEM;
	mask = os_signals_block();
	tid = clone(kept_main, (char *)kept->stack + KEPT_STACK, flags, kept, &kept->tid, NULL,
		    &kept->tid);
	os_signals_restore(mask);
	if (tid < 0) {
		os_meta_free(kept->stack, KEPT_STACK);
		kept->stack = NULL;
		return -EAGAIN;
	}
	while (atomic_get(&kept->state) != KEPT_READY)
		os_futex_wait(&kept->state, 0, OS_FUTEX_ANY, OS_FOREVER);
	return 0;
}

void os_fd_keep_end(struct os_fd_kept *kept)
{
	if (!kept->stack)
		return;
	atomic_set(&kept->state, KEPT_END);
	os_futex_wake(&kept->state, 1, OS_FUTEX_ANY);
	while (atomic_get(&kept->tid)) /* the kernel clears `tid`, and its wake does not reach a
					  process-private wait */
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 20);
	os_meta_free(kept->stack, KEPT_STACK);
	kept->stack = NULL;
}
