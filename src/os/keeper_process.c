/* SPDX-License-Identifier: MIT */
/*
 * The keeper's own process: the code that it runs from its beginning to its end. See keeper.c.
 * Owns nothing. Raw system calls only; no sanitizer, no thread-locals. May call: the kernel,
 * keeper_door.c, keeper_rights.c.
 */
#include "os/keeper_process.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/keeper.h"
#include "os/keeper_door.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define FOLLOW_NS    OS_NSEC_PER_SEC

#define LOOK_NS      OS_NSEC_PER_MSEC
#define EXEC_NS      (200 * OS_NSEC_PER_MSEC)

/* A sanitizer's code could not work here: the sanitizer has no state in this thread-local area.
 */
#define IN_KEEPER __attribute__((no_sanitize("address", "thread", "undefined")))

/* ------------------------------------------------------------------ the program's end */

IN_KEEPER static bool readable(int fd, uint64_t wait_ns)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	struct timespec wait = {.tv_nsec = (long)wait_ns};

	return os_syscall5(SYS_ppoll, &poll_fd, 1, &wait, NULL, 8) > 0;
}

IN_KEEPER static bool program_ends(const struct os_keeper *keeper)
{
	return readable(keeper->pipe[0], 0) || readable(keeper->program_fd, 0);
}

/* Test whether the program has become another program by exec(), which waits for the end of all
 * threads but one. The new program may have more threads by the time of the test. Then the test
 * tells it from a program that is being killed by its main thread, which lives on. */
IN_KEEPER static bool is_another_program(const struct os_keeper *keeper, uint64_t waited_ns)
{
	struct statx st;
	bool one_left =
		keeper->task_fd >= 0 &&
		!os_syscall5(SYS_statx, keeper->task_fd, "", AT_EMPTY_PATH, STATX_NLINK, &st) &&
		st.stx_nlink == 2 + 1;

	if (one_left || waited_ns < EXEC_NS)
		return one_left;
	return keeper->leader_fd < 0 || keeper_leader_lives(keeper->rights, keeper->leader_fd);
}

IN_KEEPER static void wait_for_threads(const struct os_keeper *keeper)
{
	uint64_t since = os_now_ns();

	while (!readable(keeper->program_fd, LOOK_NS) &&
	       !is_another_program(keeper, os_now_ns() - since))
		;
}

/* ------------------------------------------------------------------ questions */

/* Receive two descriptors: the file, and the file's door. */
IN_KEEPER static int receive(int from, struct keeper_question *ret_question, int *ret_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = {ret_question, sizeof(*ret_question)};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	long len = os_syscall3(SYS_recvmsg, from, &message, 0);
	struct cmsghdr *head = len > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	int *fds = head ? (int *)(void *)CMSG_DATA(head) : NULL;

	ret_fds[0] = ret_fds[1] = -1;
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
	    head->cmsg_len == CMSG_LEN(2 * sizeof(int))) {
		ret_fds[0] = fds[0];
		ret_fds[1] = fds[1];
	}
	if (len != (long)sizeof(*ret_question) || ret_question->place >= OS_KEPT_MAX)
		return -EINVAL;
	return ret_question->what == ASK_TAKE && ret_fds[0] < 0 ? -EMFILE : 0;
}

IN_KEEPER static void let_go(struct os_kept *file)
{
	if (file->fd >= 0)
		os_syscall1(SYS_close, file->fd);
	if (file->door >= 0)
		os_syscall1(SYS_close, file->door);
	file->fd = file->door = -1;
}

IN_KEEPER static void answer_program(struct os_keeper *keeper)
{
	struct keeper_question question;
	struct ucred peer = {0};
	socklen_t peer_len = sizeof(peer);
	long from = os_syscall4(SYS_accept4, keeper->control_fd, NULL, NULL, SOCK_CLOEXEC);
	int fds[2];

	if (from < 0)
		return;
	os_syscall5(SYS_getsockopt, from, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len);
	if (peer.pid == keeper->program) {
		int err = receive((int)from, &question, fds);
		if (!err) {
			let_go(&keeper->file[question.place]);
			keeper->file[question.place].fd = fds[0];
			keeper->file[question.place].door = fds[1];
		}
		os_syscall6(SYS_sendto, from, OS_ARG(&err), sizeof(err), MSG_NOSIGNAL, 0, 0);
	}
	os_syscall1(SYS_close, from);
}

/* List all descriptors to watch. Returns how many are watched: no more than are open, because
 * the kernel has a limit for the number. */
IN_KEEPER static uint32_t list_all(const struct os_keeper *keeper, struct keeper_memory *memory)
{
	uint32_t count = KEEPER_FIRST_DOOR;

	memory->poll[0] = (struct pollfd){.fd = keeper->program_fd, .events = POLLIN};
	memory->poll[1] = (struct pollfd){.fd = keeper->pipe[0], .events = POLLIN};
	memory->poll[2] = (struct pollfd){.fd = keeper->control_fd, .events = POLLIN};
	for (uint32_t i = 0; i < OS_KEPT_MAX; i++)
		if (keeper->file[i].door >= 0) {
			memory->place[count] = (uint16_t)i;
			memory->poll[count++] =
				(struct pollfd){.fd = keeper->file[i].door, .events = POLLIN};
		}
	return count;
}

IN_KEEPER static void wait_for_something(struct os_keeper *keeper, struct pollfd *fds,
					 uint32_t count)
{
	struct timespec follow = {.tv_sec = FOLLOW_NS / OS_NSEC_PER_SEC};
	bool follows = keeper->status_fd >= 0 && keeper_has_rights(keeper->rights);

	os_syscall5(SYS_ppoll, fds, count, follows ? &follow : NULL, NULL, 8);
	if (follows)
		keeper_follow_rights(keeper->rights, keeper->status_fd);
}

/* Serve until the program has ended. A process that has knocked before the end is told that the
 * program lives: the keeper first looks at a door, then at the program. */
IN_KEEPER static void watch(struct os_keeper *keeper, struct keeper_memory *memory)
{
	static const struct door_answer alive = {.magic = DOOR_MAGIC, .state = DOOR_ALIVE};

	for (;;) {
		uint32_t count = list_all(keeper, memory);
		wait_for_something(keeper, memory->poll, count);
		if (program_ends(keeper))
			return;
		for (uint32_t i = KEEPER_FIRST_DOOR; i < count; i++)
			if (memory->poll[i].revents & POLLIN)
				door_answer_one(keeper->file[memory->place[i]].door, &alive);
		if (memory->poll[2].revents & POLLIN)
			answer_program(keeper);
	}
}

IN_KEEPER static void tell_the_end(struct os_keeper *keeper)
{
	for (uint32_t i = 0; i < OS_KEPT_MAX; i++) {
		struct os_kept *file = &keeper->file[i];
		struct door_answer answer = {DOOR_MAGIC, DOOR_ENDED, file->lost, file->error};
		if (file->door >= 0)
			door_answer_all(file->door, &answer);
	}
}

/* ------------------------------------------------------------------ the keeper's start */

/* Close all descriptors except the listed ones. */
IN_KEEPER static int close_others(const int *keep, int count)
{
	unsigned from = 0;

	for (;;) {
		int next = -1;
		for (int i = 0; i < count; i++)
			if (keep[i] >= 0 && (unsigned)keep[i] >= from &&
			    (next < 0 || keep[i] < next))
				next = keep[i];
		long err = next < 0 || (unsigned)next > from
				   ? os_syscall3(SYS_close_range, from,
						 next < 0 ? UINT_MAX : (unsigned)next - 1, 0)
				   : 0;
		if (next < 0 || err)
			return (int)err;
		from = (unsigned)next + 1;
	}
}

IN_KEEPER static int be_ready(struct os_keeper *keeper)
{
	const int keep[] = {keeper->program_fd, keeper->pipe[0],   keeper->task_fd,
			    keeper->status_fd,  keeper->leader_fd, keeper->also_fd, keeper->control_fd};
	int err = close_others(keep, sizeof(keep) / sizeof(*keep));
	struct rlimit most;

	/* A file takes two descriptors; the limit is the keeper's alone. */
	if (!os_syscall4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &most)) {
		most.rlim_cur = most.rlim_max;
		os_syscall4(SYS_prlimit64, 0, RLIMIT_NOFILE, &most, NULL);
	}
	keeper->pagemap_fd = (int)os_syscall4(SYS_openat, AT_FDCWD, OS_ARG("/proc/self/pagemap"),
					      O_RDONLY | O_CLOEXEC, 0);
	return err ? err : keeper_drop_rights(keeper->rights);
}

IN_KEEPER int keeper_main(void *arg)
{
	struct os_keeper *keeper = arg;
	struct keeper_memory *memory =
		(struct keeper_memory *)(void *)((char *)keeper->mem + KEEPER_STACK_BYTES + KEEPER_LOCALS_BYTES);

	os_fds_be_own(); /* no thread of the program is left that could serve the library's numbers */
	os_syscall1(SYS_setsid, 0);
	os_syscall5(SYS_prctl, PR_SET_NAME, "fm-keep", 0, 0, 0);
	int err = be_ready(keeper);
	atomic_set(&keeper->ready, err ? (uint32_t)err : KEEPER_READY);
	os_futex_wake(&keeper->ready, 1, OS_FUTEX_ANY);
	if (!err) {
		watch(keeper, memory);
		if (!atomic_get(&keeper->stop)) {
			wait_for_threads(keeper);
			keeper->fn(keeper->arg);
			tell_the_end(keeper);
		}
	}
	os_syscall1(SYS_exit_group, 0);
	return 0;
}

bool os_keeper_swapped(const struct os_keeper *keeper, uint64_t addr)
{
	uint64_t entry = 0;
	long got = os_syscall4(SYS_pread64, keeper->pagemap_fd, &entry, sizeof(entry),
			       addr / OS_PAGE * sizeof(entry));

	return got == (long)sizeof(entry) && entry >> 62; /* present, or swapped out */
}
