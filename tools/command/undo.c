/* SPDX-License-Identifier: MIT */
/*
 * The list of what a verb set up on the machine. A process of its own, the keeper, holds the list.
 * The keeper undoes entries on request, from the newest to the oldest. The keeper undoes all
 * entries when its socket closes, so also when the coordinator is killed. The keeper ignores the
 * terminal's signals and starts no process.
 *
 * A process that inherits the coordinator's end of the socket would keep the keeper waiting. So
 * each child of the coordinator calls undo_child() first.
 */
#define _GNU_SOURCE
#include "command/undo.h"

#include "command/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNDO_MAX      512
#define UNDO_WAIT_MS  10000
#define UNDO_SLICE_MS 50

struct undo_message {
	enum undo_kind kind;
	bool run; /* not an entry: a request to undo down to `mark` */
	unsigned mark;
	pid_t pid;
	struct fuse_control *control; /* in shared memory, made before the keeper was started */
	char path[300], text[64];
};

struct undo_entry {
	struct undo_message message;
	int pidfd;
};

struct undo {
	int fd;
	pid_t keeper;
	unsigned count;
};

/* ------------------------------------------------------------------ the keeper */

static void complain(int *complaints, const char *what, const char *path, int error)
{
	fprintf(stderr, "filemap: cannot undo a change: %s %s: %s\n", what, path, strerror(error));
	(*complaints)++;
}

static void calm(struct fuse_control *control)
{
	atomic_store(&control->read_delay_ms, 0);
	atomic_store(&control->write_delay_ms, 0);
	atomic_store(&control->read_error, 0);
}

/* Thaw the file system of a directory. Errors are ignored: EINVAL says that the file system is not
 * frozen. */
static void thaw(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	ioctl(fd, FITHAW, 0);
	close(fd);
}

/* Release what may block a process that must end: a slow store, a stopped server, a frozen file
 * system. A process that waits for one of these cannot be killed, and a file system on one of these
 * cannot be unmounted. */
static void relieve(const struct undo_entry *entries, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const struct undo_message *message = &entries[i].message;

		if (message->kind == UNDO_CALM)
			calm(message->control);
		else if (message->kind == UNDO_THAW)
			thaw(message->path);
		else if (message->kind == UNDO_KILL && entries[i].pidfd >= 0)
			syscall(SYS_pidfd_send_signal, entries[i].pidfd, SIGCONT, NULL, 0);
	}
}

/* Kill a process and wait for its end. The entries up to `count`, including `entry`, are still to
 * be undone. */
static void undo_kill(struct undo_entry *entries, unsigned count, struct undo_entry *entry,
		      int *complaints)
{
	struct pollfd poll_fd = {.fd = entry->pidfd, .events = POLLIN};
	unsigned ms = 0;

	if (entry->pidfd < 0)
		return;
	syscall(SYS_pidfd_send_signal, entry->pidfd, SIGCONT, NULL, 0);
	syscall(SYS_pidfd_send_signal, entry->pidfd, SIGKILL, NULL, 0);
	/* The killed process may have frozen or stopped something again just before the signal. */
	while (poll(&poll_fd, 1, UNDO_SLICE_MS) != 1 && ms < UNDO_WAIT_MS) {
		relieve(entries, count);
		ms += UNDO_SLICE_MS;
	}
	if (ms >= UNDO_WAIT_MS) {
		char pid[24];

		snprintf(pid, sizeof(pid), "%d", (int)entry->message.pid);
		complain(complaints, "end process", pid, ETIMEDOUT);
	}
	close(entry->pidfd);
}

/* Unmount. A mount stays busy for a moment after its last user was killed. */
static void undo_umount(const char *path, int *complaints)
{
	for (unsigned ms = 0; ms < 2000; ms += 20) {
		if (!umount2(path, UMOUNT_NOFOLLOW) || errno == EINVAL || errno == ENOENT)
			return;
		if (errno != EBUSY)
			break;
		tool_sleep_ms(20);
	}
	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW))
		complain(complaints, "umount", path, errno);
}

/* Remove a directory or a cgroup. A cgroup stays busy until its last thread has ended. */
static void undo_rmdir(const char *path, int *complaints)
{
	for (unsigned ms = 0; ms < 3000; ms += 20) {
		if (!rmdir(path) || errno == ENOENT)
			return;
		if (errno != EBUSY)
			break;
		tool_sleep_ms(20);
	}
	complain(complaints, "rmdir", path, errno);
}

static void undo_loop(const char *path, int *complaints)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	/* ENXIO: the device detached itself when its last mount went away (autoclear). */
	if (ioctl(fd, LOOP_CLR_FD, 0) && errno != ENXIO)
		complain(complaints, "detach", path, errno);
	close(fd);
}

static void undo_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0) {
		/* A failure is ignored: the removal of a cgroup lifts the cgroup's limit as
		 * well. */
	}
	close(fd);
}

static void undo_one(struct undo_entry *entries, unsigned count, struct undo_entry *entry,
		     int *complaints)
{
	const char *path = entry->message.path;

	switch (entry->message.kind) {
	case UNDO_KILL:
		undo_kill(entries, count, entry, complaints);
		break;
	case UNDO_UMOUNT:
		undo_umount(path, complaints);
		break;
	case UNDO_LOOP:
		undo_loop(path, complaints);
		break;
	case UNDO_UNLINK:
		if (unlink(path) && errno != ENOENT)
			complain(complaints, "unlink", path, errno);
		break;
	case UNDO_RMDIR:
		undo_rmdir(path, complaints);
		break;
	case UNDO_WRITE:
		undo_write(path, entry->message.text);
		break;
	case UNDO_THAW:
		thaw(path);
		break;
	case UNDO_CALM:
		calm(entry->message.control);
		break;
	}
}

static int undo_down_to(struct undo_entry *entries, unsigned *count, unsigned mark)
{
	int complaints = 0;

	relieve(entries, *count);
	while (*count > mark) {
		(*count)--;
		undo_one(entries, *count + 1, &entries[*count], &complaints);
	}
	return complaints;
}

static void keeper_run(int fd) __attribute__((noreturn));
static void keeper_run(int fd)
{
	static struct undo_entry entries[UNDO_MAX];
	struct undo_message message;
	unsigned count = 0;
	int complaints;

	for (;;) {
		ssize_t got = recv(fd, &message, sizeof(message), 0);
		int answer = 0;

		if (got < 0 && errno == EINTR)
			continue;
		if (got != (ssize_t)sizeof(message))
			break;
		if (message.run) {
			answer = undo_down_to(entries, &count, message.mark);
		} else if (count == UNDO_MAX) {
			answer = -ENOSPC;
		} else {
			entries[count] = (struct undo_entry){.message = message, .pidfd = -1};
			if (message.kind == UNDO_KILL)
				entries[count].pidfd = (int)syscall(SYS_pidfd_open, message.pid, 0);
			count++;
		}
		if (send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			break;
	}
	complaints = undo_down_to(entries, &count, 0);
	_exit(complaints ? 1 : 0);
}

/* ------------------------------------------------------------------ the coordinator's side */

int undo_start(struct undo **ret_undo)
{
	static struct undo the_undo;
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		int error = -errno;

		close(pair[0]);
		close(pair[1]);
		return error;
	}
	if (!pid) {
		/* Leave the session of the terminal, and ignore the signals that end the
		 * coordinator. */
		setsid();
		signal(SIGINT, SIG_IGN);
		signal(SIGTERM, SIG_IGN);
		signal(SIGHUP, SIG_IGN);
		signal(SIGPIPE, SIG_IGN);
		close(pair[0]);
		keeper_run(pair[1]);
	}
	close(pair[1]);
	the_undo = (struct undo){.fd = pair[0], .keeper = pid};
	*ret_undo = &the_undo;
	return 0;
}

static int undo_call(struct undo *undo, const struct undo_message *message)
{
	ssize_t got;
	int answer;

	if (send(undo->fd, message, sizeof(*message), MSG_NOSIGNAL) < 0)
		return -errno;
	do
		got = recv(undo->fd, &answer, sizeof(answer), 0);
	while (got < 0 && errno == EINTR);
	return got == (ssize_t)sizeof(answer) ? answer : -EPIPE;
}

static int undo_append(struct undo *undo, const struct undo_message *message)
{
	int error = undo_call(undo, message);

	if (!error)
		undo->count++;
	return error;
}

int undo_add(struct undo *undo, enum undo_kind kind, pid_t pid, const char *path, const char *text)
{
	struct undo_message message = {.kind = kind, .pid = pid};

	if (path && strlen(path) >= sizeof(message.path))
		return -ENAMETOOLONG;
	snprintf(message.path, sizeof(message.path), "%s", path ? path : "");
	snprintf(message.text, sizeof(message.text), "%s", text ? text : "");
	return undo_append(undo, &message);
}

int undo_add_calm(struct undo *undo, struct fuse_control *control)
{
	struct undo_message message = {.kind = UNDO_CALM, .control = control};

	return undo_append(undo, &message);
}

unsigned undo_mark(const struct undo *undo)
{
	return undo->count;
}

int undo_to(struct undo *undo, unsigned mark)
{
	struct undo_message message = {.run = true, .mark = mark};
	int answer;

	if (mark >= undo->count)
		return 0;
	answer = undo_call(undo, &message);
	undo->count = mark;
	/* Reap the killed processes, which are children of the coordinator. */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return answer;
}

void undo_end(struct undo *undo)
{
	undo_to(undo, 0);
	close(undo->fd);
	waitpid(undo->keeper, NULL, 0);
}

void undo_child(struct undo *undo)
{
	close(undo->fd);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
}
