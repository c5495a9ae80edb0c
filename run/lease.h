/* SPDX-License-Identifier: MIT */
/*
 * Read leases: see lease.c. Numbers of leases are descriptors in the library's own table.
 * May call: os.
 */
#ifndef FM_RUN_LEASE_H
#define FM_RUN_LEASE_H

#include <stdbool.h>
#include <sys/stat.h>

/* Start the thread that hears of writers. `heard` runs in that thread, with all signals blocked,
 * after some lease was broken, and after each lease_kick(). Returns 0 or a negative errno. */
int lease_start(void (*heard)(void));
/* Call `heard` soon. Signal-safe. */
void lease_kick(void);
/* Take a read lease on the file that `fd` shows in the calling thread's table. Returns the lease,
 * or a negative errno: -EAGAIN if a program has the file open for writing, -EACCES if the file is
 * another user's. May block on the file system. */
int lease_take(int fd, const struct stat *same);
/* Tell whether a writer waits for the lease, or the lease has gone. In any thread. */
bool lease_is_broken(int lease);
/* Give a lease up: the writer goes on. In any thread. */
void lease_give(int lease);

#endif
