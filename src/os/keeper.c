/* SPDX-License-Identifier: MIT */
/*
 * A process that shares this one's memory and descriptors, and outlives it.
 *
 * It is no thread: kill -9 of the program passes it by, and so does what is sent to the program's process group. It has a
 * stack and a thread-local area of its own (else it would use those of the thread that made it, which may end), blocks all
 * signals and makes raw system calls only. It looks once a second whether the program has become another by exec(), which
 * leaves the memory to it alone.
 * Owns struct os_keeper's memory. Not signal-safe but for what runs in the keeper itself.
 * May call: the kernel; clone() of the C library.
 */
#include "os/fds.h"
#include "os/os.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define STACK_BYTES (64u << 10)
#define LOCALS_BYTES (2u << 20) /* address space; what the libraries of the program have, on either side of the pointer */
#define LOOK_NS OS_NSEC_PER_SEC
#define KCMP_VM 1
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* Nothing that a sanitizer puts in could work here: it has no state in this thread-local area. */
#define IN_KEEPER __attribute__((no_sanitize("address", "thread", "undefined")))

IN_KEEPER static bool program_is_gone(const struct os_keeper *keeper, int own)
{
	struct pollfd fds[2] = {{.fd = keeper->program_fd, .events = POLLIN}, {.fd = keeper->stop_fd, .events = POLLIN}};

	for (;;) {
		struct timespec look = {.tv_sec = LOOK_NS / OS_NSEC_PER_SEC}; /* the call leaves what is left of it there */
		fds[0].revents = fds[1].revents = 0;
		os_syscall5(SYS_ppoll, fds, 2, &look, NULL, 8);
		if (fds[1].revents)
			return false;
		if (fds[0].revents)
			return true;
		if (os_syscall5(SYS_kcmp, keeper->program, own, KCMP_VM, 0, 0) > 0)
			return true;
	}
}

IN_KEEPER static int keeper_main(void *arg)
{
	struct os_keeper *keeper = arg;
	int own = (int)os_syscall1(SYS_getpid, 0);

	os_fds_adopt();
	os_syscall1(SYS_setsid, 0);
	os_syscall5(SYS_prctl, PR_SET_NAME, "fm-keep", 0, 0, 0);
	if (program_is_gone(keeper, own))
		keeper->fn(keeper->arg);
	os_syscall1(SYS_exit_group, 0);
	return 0;
}

static void keeper_close(struct os_keeper *keeper)
{
	if (keeper->program_fd >= 0)
		os_syscall1(SYS_close, keeper->program_fd);
	if (keeper->stop_fd >= 0)
		os_syscall1(SYS_close, keeper->stop_fd);
	if (keeper->mem)
		munmap(keeper->mem, STACK_BYTES + LOCALS_BYTES);
	keeper->mem = NULL;
	keeper->pid = 0;
}

/* In a thread with the table of our own: the keeper shares that one. */
static long keeper_begin(void *of)
{
	struct os_keeper *keeper = of;
	int flags = CLONE_VM | CLONE_FILES | CLONE_SETTLS; /* and no signal at its end: wait() knows nothing of it */

	keeper->program = (int)os_syscall1(SYS_getpid, 0);
	keeper->program_fd = os_fd_high((int)os_syscall2(SYS_pidfd_open, keeper->program, 0));
	if (keeper->program_fd < 0)
		return keeper->program_fd;
	keeper->stop_fd = os_fd_make(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	void *mem = mmap(NULL, STACK_BYTES + LOCALS_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (keeper->stop_fd < 0 || mem == MAP_FAILED) {
		keeper_close(keeper);
		return -ENOMEM;
	}
	keeper->mem = mem;
	char *locals = (char *)mem + STACK_BYTES + LOCALS_BYTES / 2;
	memcpy(locals, &locals, sizeof(locals));      /* as the x86-64 convention has it: it points to itself, */
	memcpy(locals + 16, &locals, sizeof(locals)); /* twice */
	os_sigmask mask = os_signals_block();
	int pid = clone(keeper_main, (char *)mem + STACK_BYTES, flags, keeper, NULL, locals, NULL);
	int err = pid < 0 ? -errno : 0;
	os_signals_restore(mask);
	if (err) {
		keeper_close(keeper);
		return err;
	}
	keeper->pid = pid;
	return 0;
}

int os_keeper_start(struct os_keeper *keeper, void (*fn)(void *arg), void *arg)
{
	*keeper = (struct os_keeper){.fn = fn, .arg = arg, .program_fd = -1, .stop_fd = -1};
	return (int)os_fds_call_quick(keeper_begin, keeper);
}

static long keeper_end(void *of)
{
	struct os_keeper *keeper = of;
	uint64_t one = 1;
	os_syscall3(SYS_write, keeper->stop_fd, &one, sizeof(one));
	while (os_syscall4(SYS_wait4, keeper->pid, NULL, __WALL, NULL) == -EINTR)
		;
	keeper_close(keeper);
	return 0;
}

void os_keeper_stop(struct os_keeper *keeper)
{
	if (!keeper->pid)
		return;
	os_fds_call(keeper_end, keeper);
}
