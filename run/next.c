/* SPDX-License-Identifier: MIT */
/*
 * The calls behind the shim's own, and the calls of the library that is linked into the shim.
 *
 * A program's call goes on to the next library that has the call. A call of the library in the
 * shim goes straight to the kernel: the linker's --wrap sends it here. Otherwise the library would
 * call the shim, which waits for the library.
 * May call: libc, os/syscall.h.
 */
#undef _FILE_OFFSET_BITS /* otherwise mmap is another name of mmap64 */
#include "next.h"

#include "os/syscall.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>

static struct next next;
static uint32_t filled;

/* The result is stored as an object pointer: POSIX lets dlsym() give functions that way. */
static void fill(void *place, const char *name)
{
	*(void **)place = dlsym(RTLD_NEXT, name);
}

const struct next *next_calls(void)
{
	if (__atomic_load_n(&filled, __ATOMIC_ACQUIRE))
		return &next;
	fill(&next.mmap, "mmap");
	fill(&next.munmap, "munmap");
	fill(&next.mremap, "mremap");
	fill(&next.mprotect, "mprotect");
	fill(&next.pkey_mprotect, "pkey_mprotect");
	fill(&next.madvise, "madvise");
	fill(&next.posix_madvise, "posix_madvise");
	fill(&next.mlock, "mlock");
	fill(&next.mlock2, "mlock2");
	fill(&next.mlockall, "mlockall");
	fill(&next.remap_file_pages, "remap_file_pages");
	fill(&next.shmat, "shmat");
	fill(&next.fork, "_Fork");
	fill(&next.clone, "clone");
	__atomic_store_n(&filled, 1u, __ATOMIC_RELEASE);
	return &next;
}

/* ------------------------------------------------------------------ the library's own calls */

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mremap(void *addr, size_t len, size_t new_len, int flags, ...);
int __wrap_munmap(void *addr, size_t len);
int __wrap_mprotect(void *addr, size_t len, int prot);
int __wrap_madvise(void *addr, size_t len, int advice);
int __wrap_clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);

static long with_errno(long ret)
{
	if (ret >= 0 || ret < -4095)
		return ret;
	errno = (int)-ret;
	return -1;
}

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return (void *)with_errno(os_syscall6(SYS_mmap, (long)addr, (long)len, prot, flags, fd, offset));
}

void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return __wrap_mmap(addr, len, prot, flags, fd, offset);
}

void *__wrap_mremap(void *addr, size_t len, size_t new_len, int flags, ...)
{
	va_list list;
	void *place;

	va_start(list, flags);
	place = flags & MREMAP_FIXED ? va_arg(list, void *) : NULL;
	va_end(list);
	return (void *)with_errno(
		os_syscall6(SYS_mremap, (long)addr, (long)len, (long)new_len, flags, (long)place, 0));
}

int __wrap_munmap(void *addr, size_t len)
{
	return (int)with_errno(os_syscall2(SYS_munmap, addr, len));
}

int __wrap_mprotect(void *addr, size_t len, int prot)
{
	return (int)with_errno(os_syscall3(SYS_mprotect, addr, len, prot));
}

int __wrap_madvise(void *addr, size_t len, int advice)
{
	return (int)with_errno(os_syscall3(SYS_madvise, addr, len, advice));
}

int __wrap_clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	va_list list;

	va_start(list, arg);
	pid_t *parent_tid = va_arg(list, pid_t *);
	void *tls = va_arg(list, void *);
	pid_t *child_tid = va_arg(list, pid_t *);
	va_end(list);
	return next_calls()->clone(fn, stack, flags, arg, parent_tid, tls, child_tid);
}
