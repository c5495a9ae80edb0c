/* SPDX-License-Identifier: MIT */
/*
 * Support for tests that put a stand-in in the place of a store's descriptor, both in the
 * program's table and in the library's own table (os/fds.h).
 */
#ifndef FM_TESTS_OWN_FDS_H
#define FM_TESTS_OWN_FDS_H

#include "os/fds.h"
#include "os/fds_give.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OWN_FDS_END 1024

static long own_direct_dup2(void *arg)
{
	int stand_in = *(int *)arg, found = -1;

	for (int fd = 3; fd < OWN_FDS_END && found < 0; fd++) {
		int flags = fcntl(fd, F_GETFL);
		if (flags >= 0 && flags & O_DIRECT)
			found = dup2(stand_in, fd);
	}
	return found;
}

/* Replace the descriptor that has O_DIRECT by `stand_in`, in both tables. Returns the number in
 * the program's table, or -1 if no descriptor has O_DIRECT. The caller closes that number after
 * the store. */
static inline int own_direct_replace(int stand_in)
{
	int here = (int)own_direct_dup2(&stand_in), own = os_fd_give(stand_in);

	if (os_fds_apart()) {
		if (os_fds_call_quick(own_direct_dup2, &own) < 0)
			here = -1;
		os_fd_close_own(own);
	}
	return here;
}

static long own_find(void *arg)
{
	char name[64], target[256];
	ssize_t len;

	for (int fd = 3; fd < OWN_FDS_END; fd++) {
		snprintf(name, sizeof(name), "/proc/thread-self/fd/%d", fd);
		len = readlink(name, target, sizeof(target) - 1);
		if (len <= 0)
			continue;
		target[len] = '\0';
		if (!strcmp(target, arg))
			return fd;
	}
	return -1;
}

/* Return the number that the file of this path has in the library's own table, or -1. */
static inline int own_fd_of(const char *path)
{
	return (int)os_fds_call_quick(own_find, (void *)(uintptr_t)path);
}

#endif
