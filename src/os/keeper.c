/* SPDX-License-Identifier: MIT */
/*
 * The keeper's life: the keeper is started, gets files, and works when its program has ended.
 *
 * The keeper is no thread: kill -9 of the program does not reach the keeper, and neither does a
 * signal to the program's process group. The keeper has its own stack and thread-local area
 * (else it would use those of the thread that made it, which may end). It blocks all signals
 * and makes raw system calls only.
 *
 * How the keeper sees the program's end. A thread of the program, the anchor, holds one end of
 * a pipe, in a table of descriptors of its own. No forked child inherits that end, and nothing
 * that the program does to its descriptors reaches it. The anchor ends when the program does,
 * by exec() too, and not when the main thread has called pthread_exit(). Then the pipe breaks,
 * at once. The keeper waits until all other threads are gone as well: so no write that such a
 * thread has begun is still under way. Owns struct os_keeper's memory. Not signal-safe except
 * what runs in the keeper itself. May call: the kernel; clone() of the C library.
 */
#include "os/keeper.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/fds_numbers.h"
#include "os/keeper_door.h"
#include "os/keeper_process.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define ASK_SECONDS  10
#define MEMORY_BYTES (KEEPER_STACK_BYTES + KEEPER_LOCALS_BYTES + sizeof(struct keeper_memory))

/* ------------------------------------------------------------------ the anchor */

/* Run the anchor. The anchor unshares the table by close_range(), which containers allow where
 * they forbid unshare(). */
static void *anchor_main(void *arg)
{
	struct os_keeper *keeper = arg;
	unsigned keep = (unsigned)keeper->pipe[1];
	long err = os_syscall3(SYS_close_range, keep + 1, UINT_MAX, CLOSE_RANGE_UNSHARE);

	if (!err && keep)
		err = os_syscall3(SYS_close_range, 0, keep - 1, 0);
	keeper->anchor_error = (int)err;
	keeper->anchor_tid = (int)os_gettid();
	atomic_set(&keeper->anchored, 1u);
	os_futex_wake(&keeper->anchored, 1, OS_FUTEX_ANY);
	while (!err && !atomic_get(&keeper->stop))
		os_futex_wait(&keeper->stop, 0, OS_FUTEX_ANY, OS_FOREVER);
	return NULL;
}

static void anchor_stop(struct os_keeper *keeper)
{
	atomic_set(&keeper->stop, 1u);
	os_futex_wake(&keeper->stop, 1, OS_FUTEX_ANY);
	if (keeper->anchor.started)
		os_thread_join(&keeper->anchor);
}

static int anchor_start(struct os_keeper *keeper)
{
	int err = os_thread_start(&keeper->anchor, "fm-anchor", anchor_main, keeper);

	while (!err && !atomic_get(&keeper->anchored))
		os_futex_wait(&keeper->anchored, 0, OS_FUTEX_ANY, OS_FOREVER);
	return err ? err : keeper->anchor_error;
}

/* ------------------------------------------------------------------ started and stopped */

/* Close a copy of the program: the program keeps no copy. */
static void close_fd(int *fd)
{
	if (*fd >= 0)
		os_syscall1(SYS_close, *fd);
}

static void close_copies(struct os_keeper *keeper)
{
	close_fd(&keeper->pipe[0]);
	close_fd(&keeper->program_fd);
	close_fd(&keeper->task_fd);
	close_fd(&keeper->status_fd);
	close_fd(&keeper->leader_fd);
	close_fd(&keeper->control_fd);
}

/* Open the control socket, with a name that the kernel chooses. */
static int control_open(struct os_keeper *keeper)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(name);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	keeper->control_fd = fd;
	if (fd < 0 || bind(fd, (struct sockaddr *)&name, sizeof(name.sun_family)) ||
	    listen(fd, 16) || getsockname(fd, (struct sockaddr *)&name, &len))
		return -errno;
	keeper->control_len = len;
	memcpy(keeper->control, &name,
	       len < sizeof(keeper->control) ? len : sizeof(keeper->control));
	return 0;
}

static int open_all(struct os_keeper *keeper)
{
	char path[64];
	int err;

	keeper->program_fd = (int)os_syscall2(SYS_pidfd_open, keeper->program, 0);
	if (keeper->program_fd < 0)
		return keeper->program_fd;
	if (pipe2(keeper->pipe, O_CLOEXEC))
		return -errno;
	err = control_open(keeper);
	if (!err)
		err = anchor_start(keeper);
	close_fd(&keeper->pipe[1]);
	if (err)
		return err;
	keeper->task_fd = open("/proc/self/task", O_PATH | O_CLOEXEC);
	keeper->leader_fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/task/%d/status", keeper->anchor_tid);
	keeper->status_fd = open(path, O_RDONLY | O_CLOEXEC);
	return 0;
}

/* Start the keeper's process. Returns 0, or the errno that stops the keeper. */
static int keeper_clone(struct os_keeper *keeper)
{
	char *locals = (char *)keeper->mem + KEEPER_STACK_BYTES + KEEPER_LOCALS_BYTES / 2;

	memcpy(locals, &locals,
	       sizeof(locals)); /* the x86-64 convention: the area points to itself, */
	memcpy(locals + 16, &locals, sizeof(locals)); /* twice */
	os_sigmask mask = os_signals_block();
	/* No signal at the keeper's end: wait() knows nothing of the keeper. */
	int pid = clone(keeper_main, (char *)keeper->mem + KEEPER_STACK_BYTES, CLONE_VM | CLONE_SETTLS,
			keeper, NULL, locals, NULL);
	int err = pid < 0 ? -errno : 0;
	os_signals_restore(mask);
	keeper->pid = err ? 0 : pid;
	while (!err && !atomic_get(&keeper->ready)) {
		os_futex_wait(&keeper->ready, 0, OS_FUTEX_ANY,
			      os_now_ns() + 100 * OS_NSEC_PER_MSEC);
		if (!atomic_get(&keeper->ready) &&
		    os_syscall4(SYS_wait4, pid, NULL, __WALL | WNOHANG, NULL) == pid) {
			keeper->pid = 0;
			return -ECHILD; /* the keeper has been killed */
		}
	}
	if (!err && atomic_get(&keeper->ready) != KEEPER_READY)
		err = (int)atomic_get(&keeper->ready);
	return err;
}

static void keeper_end(struct os_keeper *keeper)
{
	anchor_stop(keeper);
	while (keeper->pid && os_syscall4(SYS_wait4, keeper->pid, NULL, __WALL, NULL) == -EINTR)
		;
	keeper->pid = 0;
}

void os_keeper_free(struct os_keeper *keeper)
{
	if (keeper->mem)
		munmap(keeper->mem, MEMORY_BYTES);
	keeper->mem = NULL;
}

static int keeper_start(struct os_keeper *keeper, void (*fn)(void *arg), void *arg, int also_fd)
{
	*keeper = (struct os_keeper){.fn = fn, .also_fd = also_fd,
				     .arg = arg,
				     .pipe = {-1, -1},
				     .program_fd = -1,
				     .task_fd = -1,
				     .status_fd = -1,
				     .leader_fd = -1,
				     .pagemap_fd = -1,
				     .control_fd = -1};
	keeper->program = (int)os_syscall1(SYS_getpid, 0);
	void *mem = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return -ENOMEM;
	struct keeper_memory *memory =
		(struct keeper_memory *)(void *)((char *)mem + KEEPER_STACK_BYTES + KEEPER_LOCALS_BYTES);
	keeper->mem = mem;
	keeper->file = memory->file;
	keeper->rights = &memory->rights;
	for (uint32_t i = 0; i < OS_KEPT_MAX; i++)
		keeper->file[i].fd = keeper->file[i].door = -1;
	struct os_fds_low low;
	os_fds_low_take(&low);
	int err = open_all(keeper);
	if (!err)
		err = keeper_clone(keeper);
	close_copies(keeper);
	os_fds_low_give(&low);
	if (err) {
		keeper_end(keeper);
		os_keeper_free(keeper);
	}
	return err;
}

static void keeper_stop(struct os_keeper *keeper)
{
	if (keeper->pid)
		keeper_end(keeper);
}

/* ------------------------------------------------------------------ files */

static int ask(const struct os_keeper *keeper, const struct keeper_question *question,
	       const int *fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)question, sizeof(*question)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	struct timeval limit = {.tv_sec = ASK_SECONDS};
	int answer = -EPIPE, fd = os_fd_make(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));

	if (fd < 0)
		return fd;
	if (fds) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		*CMSG_FIRSTHDR(&message) =
			(struct cmsghdr){CMSG_LEN(2 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), fds, 2 * sizeof(int));
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	struct sockaddr_un name = {0};
	memcpy(&name, keeper->control, keeper->control_len);
	if (connect(fd, (struct sockaddr *)&name, keeper->control_len) ||
	    sendmsg(fd, &message, MSG_NOSIGNAL) < 0 ||
	    recv(fd, &answer, sizeof(answer), 0) != (ssize_t)sizeof(answer))
		answer = -EPIPE;
	close(fd);
	return answer;
}

static int place_take(struct os_keeper *keeper, uint32_t *ret_place)
{
	int err = -EMFILE;
	os_sigmask mask = os_signals_block();

	os_lock(&keeper->lock);
	for (uint32_t i = 0; err && i < OS_KEPT_MAX; i++)
		if (!keeper->file[i].taken) {
			keeper->file[i].taken = true;
			*ret_place = i;
			err = 0;
		}
	os_unlock(&keeper->lock);
	os_signals_restore(mask);
	return err;
}

static void place_give(struct os_keeper *keeper, uint32_t place)
{
	os_sigmask mask = os_signals_block();

	os_lock(&keeper->lock);
	keeper->file[place].taken = false;
	os_unlock(&keeper->lock);
	os_signals_restore(mask);
}

static int keeper_take(struct os_keeper *keeper, int fd, const struct stat *st, uint32_t *ret_place)
{
	struct keeper_question question = {.what = ASK_TAKE};
	int door = door_open(st);

	if (door < 0)
		return door;
	int err = place_take(keeper, &question.place);
	if (!err) {
		err = ask(keeper, &question, (int[]){fd, door});
		if (err)
			place_give(keeper, question.place);
	}
	close(door);
	*ret_place = question.place;
	return err;
}

static void keeper_forget(struct os_keeper *keeper, uint32_t place)
{
	struct keeper_question question = {.what = ASK_FORGET, .place = place};

	if (keeper->pid)
		(void)ask(keeper, &question, NULL);
	place_give(keeper, place);
}

/* ------------------------------------------------------------------ calls */

/* The arguments of a call. The library's numbers are in a table of its own (os/fds.h): each
 * call is made by a thread that has that table, and the keeper begins with a copy of that
 * table. */
struct keeper_call {
	struct os_keeper *keeper;
	void (*fn)(void *arg);
	void *arg;
	int fd;
	const struct stat *st;
	uint32_t *ret_place;
	uint32_t place;
};

static long start_call(void *arg)
{
	const struct keeper_call *call = arg;

	return keeper_start(call->keeper, call->fn, call->arg, call->fd);
}

int os_keeper_start(struct os_keeper *keeper, void (*fn)(void *arg), void *arg, int also_fd)
{
	return (int)os_fds_call(
		start_call,
		&(struct keeper_call){.keeper = keeper, .fn = fn, .arg = arg, .fd = also_fd});
}

static long stop_call(void *arg)
{
	keeper_stop(arg);
	return 0;
}

void os_keeper_stop(struct os_keeper *keeper)
{
	os_fds_call(stop_call, keeper);
}

static long take_call(void *arg)
{
	const struct keeper_call *call = arg;

	return keeper_take(call->keeper, call->fd, call->st, call->ret_place);
}

int os_keeper_take(struct os_keeper *keeper, int fd, const struct stat *st, uint32_t *ret_place)
{
	return (int)os_fds_call(take_call,
				&(struct keeper_call){.keeper = keeper, .fd = fd, .st = st, .ret_place = ret_place});
}

static long forget_call(void *arg)
{
	const struct keeper_call *call = arg;

	keeper_forget(call->keeper, call->place);
	return 0;
}

void os_keeper_forget(struct os_keeper *keeper, uint32_t place)
{
	os_fds_call(forget_call, &(struct keeper_call){.keeper = keeper, .place = place});
}
