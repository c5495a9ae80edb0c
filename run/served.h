/* SPDX-License-Identifier: MIT */
/*
 * The mappings that the library serves in place of the kernel: see served.c.
 * May call: filemap.h, lease.h, next.h, settings.h, os.
 */
#ifndef FM_RUN_SERVED_H
#define FM_RUN_SERVED_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The kernel has made the mapping that the program asked for, at `shadow`. Returns the address
 * where the library serves the same bytes, or `shadow`: then the kernel serves the mapping. */
void *served_begin(void *shadow, size_t len, int prot, int flags, int fd, off_t offset);

/* Tell whether [addr, addr+len) touches a served mapping. Takes no lock. Signal-safe. */
bool served_overlaps(const void *addr, size_t len);
/* Hand all served mappings that the range touches over to the kernel. At return the program has
 * the kernel's own mappings there. */
void served_hand_over(const void *addr, size_t len, const char *why);
/* The same for all mappings; none is served from now on. */
void served_stop(const char *why);
/* Pass advice on to the library, if the range lies in one served mapping and the advice can be
 * followed there. *ret_err is 0 or a negative errno. Returns false if the mapping is to be handed
 * over. */
bool served_advise(void *addr, size_t len, int advice, int *ret_err);

/* Around a fork in this thread: the child gets the kernel's mappings. */
void served_fork_begin(void);
void served_fork_end(void);
void served_fork_child(void);

#endif
