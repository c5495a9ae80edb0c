/* SPDX-License-Identifier: MIT */
/*
 * The calls that the shim of `filemap run` stands in for. Each call first hands the served mappings
 * that it touches over to the kernel, and then goes on as it is: what it does, and what it returns,
 * is the kernel's. Only mmap() and the advice for a served mapping do more.
 * May call: served.c, next.c.
 */
#undef _FILE_OFFSET_BITS /* otherwise mmap is another name of mmap64 */
#include "next.h"
#include "served.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/shm.h>

#define SHOWN __attribute__((visibility("default")))

/* Missing in the C library that runs now, though the program calls it. */
static int missing(void)
{
	errno = ENOSYS;
	return -1;
}

static void hand_over(const void *addr, size_t len, const char *why)
{
	int saved = errno;

	if (len && served_overlaps(addr, len))
		served_hand_over(addr, len, why);
	errno = saved;
}

/* ------------------------------------------------------------------ mappings */

static void *map(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (flags & MAP_FIXED)
		hand_over(addr, len, "mmap(MAP_FIXED) over it");
	void *shadow = next_calls()->mmap(addr, len, prot, flags, fd, offset);
	if (shadow == MAP_FAILED || addr || (flags & MAP_ANONYMOUS))
		return shadow;
	return served_begin(shadow, len, prot, flags, fd, offset);
}

SHOWN void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return map(addr, len, prot, flags, fd, offset);
}

SHOWN void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
	return map(addr, len, prot, flags, fd, offset);
}

SHOWN int munmap(void *addr, size_t len)
{
	hand_over(addr, len, "munmap()");
	return next_calls()->munmap(addr, len);
}

SHOWN void *mremap(void *addr, size_t len, size_t new_len, int flags, ...)
{
	va_list list;
	void *place;

	va_start(list, flags);
	place = va_arg(list, void *); /* has a meaning only with some flags */
	va_end(list);
	hand_over(addr, len ? len : 1, "mremap()");
	if (flags & MREMAP_FIXED)
		hand_over(place, new_len, "mremap() over it");
	return next_calls()->mremap(addr, len, new_len, flags, place);
}

SHOWN int mprotect(void *addr, size_t len, int prot)
{
	hand_over(addr, len, "mprotect()");
	return next_calls()->mprotect(addr, len, prot);
}

SHOWN int pkey_mprotect(void *addr, size_t len, int prot, int pkey)
{
	hand_over(addr, len, "pkey_mprotect()");
	return next_calls()->pkey_mprotect ? next_calls()->pkey_mprotect(addr, len, prot, pkey)
					   : missing();
}

SHOWN int remap_file_pages(void *addr, size_t len, int prot, size_t pgoff, int flags)
{
	hand_over(addr, len, "remap_file_pages()");
	return next_calls()->remap_file_pages(addr, len, prot, pgoff, flags);
}

SHOWN void *shmat(int id, const void *addr, int flags)
{
	struct shmid_ds segment;

	if ((flags & SHM_REMAP) && shmctl(id, IPC_STAT, &segment) == 0)
		hand_over(addr, segment.shm_segsz, "shmat(SHM_REMAP) over it");
	return next_calls()->shmat(id, addr, flags);
}

/* ------------------------------------------------------------------ advice and locks */

/* Give advice for a served mapping. Returns false if the advice goes on to the kernel. */
static bool advise(void *addr, size_t len, int advice, int *ret_err)
{
	int saved = errno;
	bool done = len && served_overlaps(addr, len) && served_advise(addr, len, advice, ret_err);

	if (!done)
		hand_over(addr, len, "madvise()");
	errno = saved;
	return done;
}

SHOWN int madvise(void *addr, size_t len, int advice)
{
	int err;

	if (!advise(addr, len, advice, &err))
		return next_calls()->madvise(addr, len, advice);
	if (!err)
		return 0;
	errno = -err;
	return -1;
}

/* POSIX_MADV_DONTNEED does nothing in the C library. */
SHOWN int posix_madvise(void *addr, size_t len, int advice)
{
	int err;

	if (advice == POSIX_MADV_DONTNEED || !advise(addr, len, advice, &err))
		return next_calls()->posix_madvise(addr, len, advice);
	return -err;
}

SHOWN int mlock(const void *addr, size_t len)
{
	hand_over(addr, len, "mlock()");
	return next_calls()->mlock(addr, len);
}

SHOWN int mlock2(const void *addr, size_t len, unsigned flags)
{
	hand_over(addr, len, "mlock2()");
	return next_calls()->mlock2 ? next_calls()->mlock2(addr, len, flags) : missing();
}

SHOWN int mlockall(int flags)
{
	int saved = errno;

	served_stop("mlockall()");
	errno = saved;
	return next_calls()->mlockall(flags);
}

/* ------------------------------------------------------------------ forks */

SHOWN pid_t _Fork(void)
{
	if (!next_calls()->fork)
		return missing();
	served_fork_begin();
	pid_t pid = next_calls()->fork();
	int saved = errno;
	if (pid == 0)
		served_fork_child();
	else
		served_fork_end();
	errno = saved;
	return pid;
}

struct clone_call {
	int (*fn)(void *arg);
	void *arg;
};

static int clone_child(void *arg)
{
	struct clone_call call = *(struct clone_call *)arg;

	served_fork_child();
	return call.fn(call.arg);
}

SHOWN int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	struct clone_call call = {fn, arg};
	va_list list;

	va_start(list, arg);
	pid_t *parent_tid = va_arg(list, pid_t *);
	void *tls = va_arg(list, void *);
	pid_t *child_tid = va_arg(list, pid_t *);
	va_end(list);
	if (flags & CLONE_VM)
		return next_calls()->clone(fn, stack, flags, arg, parent_tid, tls, child_tid);
	served_fork_begin();
	int pid = next_calls()->clone(clone_child, stack, flags, &call, parent_tid, tls, child_tid);
	int saved = errno;
	served_fork_end();
	errno = saved;
	return pid;
}

__attribute__((constructor)) static void preload_init(void)
{
	(void)next_calls();
	pthread_atfork(served_fork_begin, served_fork_end, served_fork_child);
}
