/* SPDX-License-Identifier: MIT */
/*
 * A store's open file as threads of the program see it: see os/fds.h for the two tables. The
 * number in the library's table is authoritative. A second number may be in the program's
 * table, so that a thread of the program can read without the help of another thread. The
 * program may close or replace that number. Bytes read by that number are valid only if the
 * number stands for the same file after the read. Signal-safe except here_open() and
 * here_close(). May call: os.
 */
#ifndef FM_STORE_HERE_H
#define FM_STORE_HERE_H

#include "os/fds_numbers.h"

#include <sys/uio.h>

struct store_here {
	int own; /* the number in the library's table; -1: none */
	int fd;  /* the number in the program's table; atomic; -1: none */
	struct os_fd_id id;
	uint32_t renewals; /* of `fd`; atomic */
};

/* Take over `fd`, of the calling thread's table. `fd` stays as the number in the program's
 * table if `stays` is set, else `fd` is closed. Returns 0 or negative errno: then `fd` is
 * closed. */
int here_open(struct store_here *here, int fd, bool stays);
void here_close(struct store_here *here);

/* Read as os_preadv() does, in any thread. */
ssize_t here_preadv(struct store_here *here, const struct iovec *iov, int iov_count,
		    uint64_t offset);

/* Get the number by which the calling thread may write: in a thread of the library, the number
 * of the library's table. -EBADF: the kernel refuses a second table, and the program has closed
 * the number or put another file there. */
int here_writable(const struct store_here *here);

#endif
