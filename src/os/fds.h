/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of our own, and the threads that have them: see fds.c. Results are descriptors or negative errno.
 * Signal-safe unless a comment says otherwise. May call: os.h.
 */
#ifndef FM_OS_FDS_H
#define FM_OS_FDS_H

#include "os/os.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* ---- numbers */

/* The free ones of the numbers 0 to 2, held by descriptors that can be neither read nor written, while
 * a descriptor of ours is made: what the program writes to a closed stdout must not end up in it. */
struct os_fds_low {
	int count;
	int fd[3];
};
void os_fds_low_take(struct os_fds_low *low);
void os_fds_low_give(struct os_fds_low *low);

/* Move a new descriptor to a high number; the old number is closed. A negative `fd` is passed on. */
int os_fd_high(int fd);

/* open() with a high number; O_CLOEXEC and O_NOCTTY are added. `dir_fd` as in openat(). */
int os_fd_open(int dir_fd, const char *path, int flags, mode_t mode);

/* Make a descriptor by `call`, which gives it or -1 with errno, and move it to a high number. */
#define os_fd_make(call)                                                                       \
	({                                                                                     \
		struct os_fds_low os_low;                                                      \
		os_fds_low_take(&os_low);                                                      \
		int os_made = (call);                                                          \
		os_made = os_fd_high(os_made < 0 ? -errno : os_made);                          \
		os_fds_low_give(&os_low);                                                      \
		os_made;                                                                       \
	})

/* Which file a number stands for. */
struct os_fd_id {
	uint64_t dev, ino;
};
int os_fd_id(int fd, struct os_fd_id *ret_id);
static inline struct os_fd_id os_fd_id_of(const struct statx *stx)
{
	return (struct os_fd_id){(uint64_t)stx->stx_dev_major << 32 | stx->stx_dev_minor, stx->stx_ino};
}
bool os_fd_is(int fd, const struct os_fd_id *id); /* keeps errno */

/* ---- the table of our own */

/* The table and its threads are there from the first get to the last put. Not signal-safe. */
int os_fds_get(void);
void os_fds_put(void);
/* Is there a table of our own? Where the kernel refuses one, all numbers are in the program's. */
bool os_fds_apart(void);
/* Does the calling thread have the table of our own? */
bool os_fds_own(void);

/* The number, in the table of our own, of the same open file as `fd` in the calling thread's table, which stays open. Where
 * there is no table of our own, `fd` itself. Not signal-safe. */
int os_fd_give(int fd);
/* A number in the calling thread's table for the open file that has the number `own` in our table. -EOPNOTSUPP before Linux
 * 6.9, and where a filter forbids pidfd_getfd(). */
int os_fd_fetch(int own);
/* Close a number of our table. */
void os_fd_close_own(int own);
/* In a keeper: its table is a copy of the library's, and no thread is left to be asked. */
void os_fds_be_own(void);
/* Close a number of the program's table, from a thread with either table, unless the program has put
 * another file there. Waits for a thread with the program's table; not signal-safe. -1: nothing. */
void os_fd_close_programs(int fd, const struct os_fd_id *id);

/* Run fn(arg) in a thread that has our table, and return what it returned. fn() may block. In a thread that has our table,
 * and where there is none, fn(arg) is simply called. -EAGAIN: no thread is to be had. */
long os_fds_call(long (*fn)(void *arg), void *arg);

/* The same in the holder: fn() must not wait for a store or another thread of ours. */
long os_fds_call_quick(long (*fn)(void *arg), void *arg);

/* Start a thread that has our table. errno values of pthread_create(). Not signal-safe. */
int os_fds_thread(void *ret_handle, void *(*fn)(void *arg), void *arg);

/* The calling process, which shares memory with ours (a keeper), has our table. */
void os_fds_adopt(void);

/* ---- where there is no table of our own */

/* Keep an open file, though the program closes its number: a bare thread with a table of its own has it. It is no thread of the
 * C library's, has dropped its capabilities and only waits. Not signal-safe. 0 or negative errno. */
struct os_fd_kept {
	int fd, highest;
	uint32_t state, tid;
	void *stack;
};
int os_fd_keep(struct os_fd_kept *kept, int fd);
void os_fd_keep_end(struct os_fd_kept *kept);

/* ---- bells: eventfds of our table, which any thread may ring without a number of its own */
struct os_bell {
	int fd; /* in our table; -1: none */
	uint32_t pending;
	struct os_bell *next;
};
int os_bell_open(struct os_bell *bell, int flags); /* flags of eventfd(). Not signal-safe */
void os_bell_close(struct os_bell *bell);          /* nobody rings any more. Not signal-safe */
void os_bell_ring(struct os_bell *bell);

#endif
