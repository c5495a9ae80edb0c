/* SPDX-License-Identifier: MIT */
/*
 * Bells: eventfds of the library's table (fds.c). Signal-safe unless a comment says otherwise.
 * May call: nothing.
 */
#ifndef FM_OS_BELLS_H
#define FM_OS_BELLS_H

#include <stdbool.h>
#include <stdint.h>

/* An eventfd of the library's table. Any thread may ring a bell without a number of its own. */
struct os_bell {
	int fd; /* in the library's table; -1: none */
	uint32_t pending;
	struct os_bell *next;
	uint64_t dev, ino; /* of `fd`, if the library has no table of its own */
};
int os_bell_open(struct os_bell *bell, int flags); /* flags of eventfd(). Not signal-safe */
void os_bell_close(struct os_bell *bell);          /* no thread rings the bell any more. Not
						      signal-safe */
void os_bell_ring(struct os_bell *bell);
/* Tell whether the bell's number still stands for a bell. If the library has no table of its own,
 * the program may have put another file there, which must be neither read nor written. Another
 * eventfd is taken for the bell. For the thread that waits for the bell. */
bool os_bell_is_there(const struct os_bell *bell);

#endif
