/* SPDX-License-Identifier: MIT */
/*
 * Bells: eventfds of the library's table (fds.c). Signal-safe unless a comment says otherwise.
 * May call: nothing.
 */
#ifndef FM_OS_BELLS_H
#define FM_OS_BELLS_H

#include <stdint.h>

/* An eventfd of the library's table. Any thread may ring a bell without a number of its own. */
struct os_bell {
	int fd; /* in the library's table; -1: none */
	uint32_t pending;
	struct os_bell *next;
};
int os_bell_open(struct os_bell *bell, int flags); /* flags of eventfd(). Not signal-safe */
void os_bell_close(struct os_bell *bell);          /* no thread rings the bell any more. Not
						      signal-safe */
void os_bell_ring(struct os_bell *bell);

#endif
