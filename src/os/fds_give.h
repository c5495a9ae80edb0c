/* SPDX-License-Identifier: MIT */
/*
 * Open files from the program's table to ours and back: see fds.c. Results are descriptors or
 * negative errno. Signal-safe unless a comment says otherwise. May call: os.h.
 */
#ifndef FM_OS_FDS_GIVE_H
#define FM_OS_FDS_GIVE_H

/* The number, in the table of our own, of the same open file as `fd` in the calling thread's table,
 * which stays open. Where there is no table of our own, `fd` itself. Not signal-safe. */
int os_fd_give(int fd);
/* A number in the calling thread's table for the open file that has the number `own` in our table.
 * -EOPNOTSUPP before Linux 6.9, and where a filter forbids pidfd_getfd(). */
int os_fd_fetch(int own);
/* Close a number of our table. */
void os_fd_close_own(int own);

#endif
