/* SPDX-License-Identifier: MIT */
/*
 * The table of descriptors of our own, and the threads that have it: see fds.c. Signal-safe unless
 * a comment says otherwise. May call: os.h.
 */
#ifndef FM_OS_FDS_H
#define FM_OS_FDS_H

#include "os/os.h"

#include <stdbool.h>

struct os_fd_id;

/* The table and its threads are there from the first get to the last put. Not signal-safe. */
int os_fds_get(void);
void os_fds_put(void);
/* Is there a table of our own? Where the kernel refuses one, all numbers are in the program's. */
bool os_fds_apart(void);
/* Does the calling thread have the table of our own? */
bool os_fds_own(void);

/* In a keeper: its table is a copy of the library's, and no thread is left to be asked. */
void os_fds_be_own(void);
/* Close a number of the program's table, from a thread with either table, unless the program has
 * put another file there. Waits for a thread with the program's table; not signal-safe. -1:
 * nothing. */
void os_fd_close_programs(int fd, const struct os_fd_id *id);

/* Run fn(arg) in a thread that has our table, and return what it returned. fn() may block. In a
 * thread that has our table, and where there is none, fn(arg) is simply called. -EAGAIN: no thread
 * is to be had. */
long os_fds_call(long (*fn)(void *arg), void *arg);

/* The same in the holder: fn() must not wait for a store or another thread of ours. */
long os_fds_call_quick(long (*fn)(void *arg), void *arg);

/* Start a thread that has our table. errno values of pthread_create(). Not signal-safe. */
int os_fds_thread(void *ret_handle, void *(*fn)(void *arg), void *arg);

/* The calling process, which shares memory with ours (a keeper), has our table. */
void os_fds_adopt(void);

#endif
