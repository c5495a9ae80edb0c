/* SPDX-License-Identifier: MIT */
/*
 * The calls behind the shim's own: those of the C library, or of another preloaded library.
 * May call: libc.
 */
#ifndef FM_RUN_NEXT_H
#define FM_RUN_NEXT_H

#include <stddef.h>
#include <sys/types.h>

struct next {
	void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
	int (*munmap)(void *addr, size_t len);
	void *(*mremap)(void *addr, size_t len, size_t new_len, int flags, ...);
	int (*mprotect)(void *addr, size_t len, int prot);
	int (*pkey_mprotect)(void *addr, size_t len, int prot, int pkey);
	int (*madvise)(void *addr, size_t len, int advice);
	int (*posix_madvise)(void *addr, size_t len, int advice);
	int (*mlock)(const void *addr, size_t len);
	int (*mlock2)(const void *addr, size_t len, unsigned flags);
	int (*mlockall)(int flags);
	int (*remap_file_pages)(void *addr, size_t len, int prot, size_t pgoff, int flags);
	void *(*shmat)(int id, const void *addr, int flags);
	pid_t (*fork)(void);
	int (*clone)(int (*fn)(void *), void *stack, int flags, void *arg, ...);
};

/* The table; filled at the first use. A call that is missing in an older C library is NULL. */
const struct next *next_calls(void);

#endif
