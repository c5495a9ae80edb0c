/* SPDX-License-Identifier: MIT */
/*
 * Numbers of descriptors, and which file a number stands for. Results are descriptors or negative
 * errno. Signal-safe unless a comment says otherwise. May call: os.h.
 */
#ifndef FM_OS_FDS_NUMBERS_H
#define FM_OS_FDS_NUMBERS_H

#include "os/os.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* The free numbers among 0 to 2, held by descriptors that can be neither read nor written while
 * the library makes a descriptor. Otherwise the new descriptor could get such a number, and the
 * program's writes to a closed stdout would go into the descriptor's file. */
struct os_fds_low {
	int count;
	int fd[3];
};
void os_fds_low_take(struct os_fds_low *low);
void os_fds_low_give(struct os_fds_low *low);

/* Move a new descriptor to a high number and close the old number. A negative `fd` is passed
 * on. */
int os_fd_high(int fd);

/* Open a file as openat() does, with a high number; O_CLOEXEC and O_NOCTTY are added. `dir_fd`
 * as in openat(). */
int os_fd_open(int dir_fd, const char *path, int flags, mode_t mode);

/* Make a descriptor by `call`, which gives a descriptor or -1 with errno, and move the
 * descriptor to a high number. */
#define os_fd_make(call)                                                                       \
	({                                                                                     \
		struct os_fds_low os_low;                                                      \
		os_fds_low_take(&os_low);                                                      \
		int os_made = (call);                                                          \
		os_made = os_fd_high(os_made < 0 ? -errno : os_made);                          \
		os_fds_low_give(&os_low);                                                      \
		os_made;                                                                       \
	})

/* The file that a number stands for. */
struct os_fd_id {
	uint64_t dev, ino;
};
int os_fd_id(int fd, struct os_fd_id *ret_id);
static inline struct os_fd_id os_fd_id_of(const struct statx *stx)
{
	return (struct os_fd_id){(uint64_t)stx->stx_dev_major << 32 | stx->stx_dev_minor, stx->stx_ino};
}
bool os_fd_is(int fd, const struct os_fd_id *id); /* keeps errno */

#endif
