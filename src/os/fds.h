/* SPDX-License-Identifier: MIT */
/*
 * The library's table of descriptors, and the threads that have that table: see fds.c.
 * Signal-safe unless a comment says otherwise. May call: os.h.
 */
#ifndef FM_OS_FDS_H
#define FM_OS_FDS_H

#include "os/os.h"

#include <stdbool.h>

struct os_fd_id;

/* The table and its threads exist from the first get to the last put. Not signal-safe. */
int os_fds_get(void);
void os_fds_put(void);
/* Does the library have a table of its own? If the kernel refuses a second table, all numbers
 * are in the program's table. */
bool os_fds_apart(void);
/* Does the calling thread have the library's table? */
bool os_fds_own(void);

/* In a keeper: mark the keeper as having the library's table. The keeper's table is a copy of
 * that table, and no thread is left that could serve a request. */
void os_fds_be_own(void);
/* Close a number of the program's table, from a thread with either table, unless the program
 * has put another file there. Waits for a thread with the program's table; not signal-safe. If
 * `fd` is -1, does nothing. */
void os_fd_close_programs(int fd, const struct os_fd_id *id);

/* Run fn(arg) in a thread that has the library's table, and return the result of fn(). fn() may
 * block. In a thread that has the library's table, and if the library has no table of its own,
 * simply call fn(arg). -EAGAIN: no thread can be started. */
long os_fds_call(long (*fn)(void *arg), void *arg);

/* Do the same in the holder: fn() must not wait for a store or for another thread of the
 * library. */
long os_fds_call_quick(long (*fn)(void *arg), void *arg);

/* Start a thread that has the library's table. Returns errno values of pthread_create(). Not
 * signal-safe. */
int os_fds_thread(void *ret_handle, void *(*fn)(void *arg), void *arg);

/* Mark the calling process, which shares the program's memory (a keeper), as having the
 * library's table. */
void os_fds_adopt(void);

#endif
