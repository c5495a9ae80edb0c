/* SPDX-License-Identifier: MIT */
/*
 * An open file that is kept when the library has no table of its own. May call: nothing.
 */
#ifndef FM_OS_FDS_KEPT_H
#define FM_OS_FDS_KEPT_H

#include <stdint.h>

/* Keep an open file when the program closes its number: a bare thread with its own table has
 * the file. The thread is no thread of the C library, has dropped its capabilities and only
 * waits. Not signal-safe. Returns 0 or negative errno. */
struct os_fd_kept {
	int fd, highest;
	uint32_t state, tid;
	void *stack;
};
int os_fd_keep(struct os_fd_kept *kept, int fd);
void os_fd_keep_end(struct os_fd_kept *kept);

#endif
