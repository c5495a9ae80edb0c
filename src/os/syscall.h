/* SPDX-License-Identifier: MIT */
/*
 * Raw system calls: no errno, no cancellation point, and no wrapper by a sanitizer or a
 * preloaded library. They return the kernel's answer, a negative errno on failure. May call:
 * the kernel.
 */
#ifndef FM_OS_SYSCALL_H
#define FM_OS_SYSCALL_H

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The headers of older C libraries lack these. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1u << 1)
#endif

#if defined(__x86_64__)
static inline long os_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static inline long os_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}
#else
static inline long os_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	int saved = errno;
	long ret = syscall(nr, a, b, c, d, e, f);
	if (ret == -1)
		ret = -errno;
	errno = saved;
	return ret;
}
#endif

#define OS_ARG(x) ((long)(x))
#define os_syscall1(nr, a) os_syscall6(nr, OS_ARG(a), 0, 0, 0, 0, 0)
#define os_syscall2(nr, a, b) os_syscall6(nr, OS_ARG(a), OS_ARG(b), 0, 0, 0, 0)
#define os_syscall3(nr, a, b, c) os_syscall6(nr, OS_ARG(a), OS_ARG(b), OS_ARG(c), 0, 0, 0)
#define os_syscall4(nr, a, b, c, d)                                                            \
	os_syscall6(nr, OS_ARG(a), OS_ARG(b), OS_ARG(c), OS_ARG(d), 0, 0)
#define os_syscall5(nr, a, b, c, d, e)                                                         \
	os_syscall6(nr, OS_ARG(a), OS_ARG(b), OS_ARG(c), OS_ARG(d), OS_ARG(e), 0)

#endif
