/* SPDX-License-Identifier: MIT */
/*
 * Doors of keepers, from both sides. No process waits for a process that waits at a door: the
 * keeper learns of that process only when the keeper answers, and the keeper's end closes the
 * door. A door is believed only if the process that opened the door may write to the file, by
 * the file's mode. Otherwise any process could hold up any other. May call: the kernel.
 */
#include "os/keeper_door.h"

#include "os/fds_numbers.h"
#include "os/syscall.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SLOTS        16u
#define AGAIN_NS     (2 * OS_NSEC_PER_MSEC)
#define WAITING_MOST 128

static socklen_t door_name(const struct stat *st, unsigned slot, struct sockaddr_un *ret_name)
{
	*ret_name = (struct sockaddr_un){.sun_family = AF_UNIX};
	int len = snprintf(ret_name->sun_path + 1, sizeof(ret_name->sun_path) - 1,
			   "filemap-keeper/%llx:%llx/%u", (unsigned long long)st->st_dev,
			   (unsigned long long)st->st_ino, slot);

	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

static int door_socket(void)
{
	return os_fd_make(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

int door_open(const struct stat *st)
{
	int fd = door_socket();

	for (unsigned slot = 0; fd >= 0 && slot < SLOTS; slot++) {
		struct sockaddr_un name;
		socklen_t len = door_name(st, slot, &name);

		if (!bind(fd, (struct sockaddr *)&name, len) && !listen(fd, WAITING_MOST))
			return fd;
		if (errno != EADDRINUSE) {
			int err = -errno;
			close(fd);
			return err;
		}
	}
	if (fd < 0)
		return fd;
	close(fd);
	return -EUSERS;
}

bool door_answer_one(int door, const struct door_answer *answer)
{
	long fd = os_syscall4(SYS_accept4, door, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return false;
	os_syscall6(SYS_sendto, fd, OS_ARG(answer), sizeof(*answer), MSG_NOSIGNAL | MSG_DONTWAIT, 0,
		    0);
	os_syscall1(SYS_close, fd);
	return true;
}

void door_answer_all(int door, const struct door_answer *answer)
{
	while (door_answer_one(door, answer))
		;
}

/* ------------------------------------------------------------------ knocking */

static bool peer_has_group(int fd, const struct ucred *peer, gid_t wanted)
{
	gid_t groups[256];
	socklen_t len = sizeof(groups);

	if (peer->gid == wanted)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len))
		return false;
	for (size_t i = 0; i < len / sizeof(*groups); i++)
		if (groups[i] == wanted)
			return true;
	return false;
}

static bool peer_may_write(int fd, const struct stat *st, struct ucred *ret_peer)
{
	socklen_t len = sizeof(*ret_peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret_peer, &len))
		return false;
	return !ret_peer->uid || ret_peer->uid == geteuid() || ret_peer->uid == st->st_uid ||
	       (st->st_mode & S_IWOTH) ||
	       ((st->st_mode & S_IWGRP) && peer_has_group(fd, ret_peer, st->st_gid));
}

/* Knock: return a socket at the door. -EAGAIN: many wait there; any other error: there is no
 * door that counts. */
static int door_knock(const struct stat *st, unsigned slot, struct ucred *ret_peer)
{
	struct sockaddr_un name;
	socklen_t len = door_name(st, slot, &name);
	int fd = door_socket();

	if (fd < 0)
		return fd;
	int err = connect(fd, (struct sockaddr *)&name, len) ? -errno : 0;
	if (!err && !peer_may_write(fd, st, ret_peer))
		err = -EACCES;
	if (!err)
		return fd;
	close(fd);
	return err;
}

/* Wait for the answer. Returns 0: answered, or the keeper has gone; or -ETIMEDOUT. */
static int door_listen(int fd, uint64_t until_ns, struct door_answer *ret_answer)
{
	for (;;) {
		struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
		uint64_t now = os_now_ns(), left = until_ns > now ? until_ns - now : 0;
		int ms = left > 1000 * OS_NSEC_PER_MSEC
				 ? 1000
				 : (int)((left + OS_NSEC_PER_MSEC - 1) / OS_NSEC_PER_MSEC);
		int n = poll(&poll_fd, 1, ms);

		if (n > 0)
			break;
		if (!left)
			return -ETIMEDOUT;
	}
	if (recv(fd, ret_answer, sizeof(*ret_answer), MSG_DONTWAIT) !=
		    (ssize_t)sizeof(*ret_answer) ||
	    ret_answer->magic != DOOR_MAGIC)
		*ret_answer = (struct door_answer){0};
	return 0;
}

static int door_wait(const struct stat *st, unsigned slot, bool any, uint64_t until_ns,
		     struct os_kept_end *end)
{
	for (;;) {
		struct door_answer answer = {0};
		struct ucred peer = {0};
		int err = 0, fd = door_knock(st, slot, &peer);

		if (fd < 0 && fd != -EAGAIN)
			return 0;
		if (fd >= 0) {
			err = door_listen(fd, until_ns, &answer);
			close(fd);
		}
		if (fd >= 0 && !err && answer.state == DOOR_ENDED && (answer.lost || !end->lost))
			*end = (struct os_kept_end){(int)peer.pid, answer.error, answer.lost};
		if (fd >= 0 && !err && answer.state == DOOR_ALIVE && !any)
			return 0;
		if (err || os_now_ns() >= until_ns) {
			end->program = (int)peer.pid;
			return -ETIMEDOUT;
		}
		os_sleep_until(os_now_ns() + AGAIN_NS); /* until the door cannot be opened any more */
	}
}

int os_keepers_wait(const struct stat *st, bool any, uint64_t until_ns, struct os_kept_end *ret_end)
{
	int saved = errno, err = 0;

	*ret_end = (struct os_kept_end){0};
	for (unsigned slot = 0; !err && slot < SLOTS; slot++)
		err = door_wait(st, slot, any, until_ns, ret_end);
	errno = saved;
	return err;
}
