/* SPDX-License-Identifier: MIT */
/*
 * Transfers of open files from the program's table to the library's and back: see fds.c.
 * Results are descriptors or negative errno. Signal-safe unless a comment says otherwise. May
 * call: os.h.
 */
#ifndef FM_OS_FDS_GIVE_H
#define FM_OS_FDS_GIVE_H

/* Get a number in the library's table for the same open file as `fd` in the calling thread's
 * table. `fd` stays open. If the library has no table of its own, returns `fd` itself. Not
 * signal-safe. */
int os_fd_give(int fd);
/* Get a number in the calling thread's table for the open file that has the number `own` in the
 * library's table. -EOPNOTSUPP before Linux 6.9, or if a filter forbids pidfd_getfd(). */
int os_fd_fetch(int own);
/* Close a number of the library's table. */
void os_fd_close_own(int own);

#endif
