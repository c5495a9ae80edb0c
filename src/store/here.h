/* SPDX-License-Identifier: MIT */
/*
 * A store's open file as threads of the program see it: see os/fds.h for the two tables. The number
 * in the table of our own is the one that counts; beside it there may be one in the program's
 * table, so that a thread of the program can read without another thread's help. The program may
 * close or replace that number: what was read by it is believed only if the number stands for the
 * same file after the read. Signal-safe but for here_open() and here_close(). May call: os.
 */
#ifndef FM_STORE_HERE_H
#define FM_STORE_HERE_H

#include "os/fds_numbers.h"

#include <sys/uio.h>

struct store_here {
	int own; /* the number in our table; -1: none */
	int fd;  /* and in the program's; atomic; -1: none */
	struct os_fd_id id;
	uint32_t renewals; /* of `fd`; atomic */
};

/* Take over `fd`, of the calling thread's table. It stays as the number in the program's table if
 * `stays`, else it is closed. 0 or negative errno: then `fd` is closed. */
int here_open(struct store_here *here, int fd, bool stays);
void here_close(struct store_here *here);

/* As os_preadv(), in any thread. */
ssize_t here_preadv(struct store_here *here, const struct iovec *iov, int iov_count,
		    uint64_t offset);

/* The number by which the calling thread may write: in a thread of ours, ours. -EBADF: the kernel
 * refuses us a table, and the program has closed the number or put another file there. */
int here_writable(const struct store_here *here);

#endif
