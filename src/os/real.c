/* SPDX-License-Identifier: MIT */
/*
 * The seam, implemented with Linux. Owns nothing except the thread-local area. See os.h for the
 * contracts. May call: the kernel; libpthread and libdl where os.h says "not signal-safe".
 */
#include "os/os.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/syscall.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

/* The C library uses signal 33 to make set*id() reach all threads. Blocking signal 33 would
 * make such a call wait for a slow store, and the signal's handler takes no lock of the
 * library. All other signals are blocked, also 32, by which pthread_cancel() would unwind from
 * inside the fault path. */
#define OS_SIGNALS_BLOCKED (~(1ull << (33 - 1)))

static __thread uint64_t os_tls[OS_THREAD_LOCAL_BYTES / 8]
	__attribute__((tls_model("initial-exec")));

void *os_thread_local(void)
{
	return os_tls;
}

/* Get the thread's id, by a system call each time: a forked child has another id. */
uint32_t os_gettid(void)
{
	return (uint32_t)os_syscall1(SYS_gettid, 0);
}

uint64_t os_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * OS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t os_stamp_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return (uint64_t)ts.tv_sec * OS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / OS_NSEC_PER_SEC),
				 .tv_nsec = (long)(ns % OS_NSEC_PER_SEC)};
}

void os_sleep_until(uint64_t when_ns)
{
	struct timespec ts = timespec_of(when_ns);
	while (os_syscall4(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) ==
	       -EINTR)
		;
}

int os_futex_wait(uint32_t *word, uint32_t value, uint32_t bits, uint64_t until_ns)
{
	struct timespec ts, *timeout = NULL;
	if (until_ns != OS_FOREVER) {
		ts = timespec_of(until_ns);
		timeout = &ts;
	}
	long ret = os_syscall6(SYS_futex, OS_ARG(word), FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG,
			       OS_ARG(value), OS_ARG(timeout), 0, OS_ARG(bits));
	return ret == -ETIMEDOUT ? -ETIMEDOUT : 0;
}

void os_futex_wake(uint32_t *word, int count, uint32_t bits)
{
	os_syscall6(SYS_futex, OS_ARG(word), FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG,
		    OS_ARG(count), 0, 0, OS_ARG(bits));
}

void os_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#endif
}

/* ---- threads */

int os_thread_start(struct os_thread *thread, const char *name, os_thread_fn fn, void *arg)
{
	pthread_t handle;
	os_sigmask mask = os_signals_block();
	int err = os_fds_thread(&handle, fn, arg);
	os_signals_restore(mask);
	if (err)
		return -err;
	pthread_setname_np(handle, name);
	thread->handle = (unsigned long)handle;
	thread->started = true;
	return 0;
}

void os_thread_join(struct os_thread *thread)
{
	if (!thread->started)
		return;
	pthread_join((pthread_t)thread->handle, NULL);
	thread->started = false;
}

void os_thread_detach(struct os_thread *thread)
{
	if (thread->started)
		pthread_detach((pthread_t)thread->handle);
	thread->started = false;
}

/* Weak: a program that is linked statically has no dynamic loader, and cannot unload the
 * library. */
extern __typeof__(dlopen) dlopen __attribute__((weak));
extern __typeof__(dladdr1) dladdr1 __attribute__((weak));

void os_stay_loaded(void)
{
	struct link_map *map = NULL;
	Dl_info info;

	if (!dlopen || !dladdr1 || !dladdr1((void *)os_stay_loaded, &info, (void **)&map, RTLD_DL_LINKMAP))
		return;
	if (map && map->l_name && map->l_name[0]) /* else the library is part of the program itself */
		(void)dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

/* ---- signals */

os_sigmask os_signals_block(void)
{
	os_sigmask all = OS_SIGNALS_BLOCKED, old = 0;
	os_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(old));
	return old;
}

void os_signals_restore(os_sigmask mask)
{
	os_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

/* ---- memory */

static size_t page_round(size_t len)
{
	return (len + OS_PAGE - 1) & ~(size_t)(OS_PAGE - 1);
}

static void populate_write(char *mem, size_t len)
{
	if (os_syscall3(SYS_madvise, mem, len, MADV_POPULATE_WRITE) == 0)
		return;
	for (size_t i = 0; i < len; i += OS_PAGE)
		*(volatile char *)(mem + i) = 0;
}

void *os_meta_alloc(size_t len)
{
	len = page_round(len);
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return NULL;
	madvise(mem, len, MADV_NOHUGEPAGE);
	/* A forked child has the address range and not the bytes. A child's new object must not
	 * lie where an object of the parent was, and be taken for that object. Nothing is
	 * copied, so the parent's pages stay writable without a fault. */
	madvise(mem, len, MADV_WIPEONFORK);
	populate_write(mem, len);
	return mem;
}

void os_meta_free(void *mem, size_t len)
{
	if (mem)
		munmap(mem, page_round(len));
}

static int populate_object(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size;
	uintptr_t self = (uintptr_t)data;
	bool ours = false;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + ph->p_vaddr;
		if (ph->p_type == PT_LOAD && self >= start && self < start + ph->p_memsz)
			ours = true;
	}
	for (int i = 0; ours && i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		if (ph->p_type != PT_LOAD)
			continue;
		uintptr_t start = (info->dlpi_addr + ph->p_vaddr) & ~(uintptr_t)(OS_PAGE - 1);
		uintptr_t end = page_round(info->dlpi_addr + ph->p_vaddr + ph->p_memsz);
		madvise((void *)start, end - start, MADV_POPULATE_READ);
		if (ph->p_flags & PF_W)
			madvise((void *)start, end - start, MADV_POPULATE_WRITE);
	}
	return ours;
}

void os_populate_self(void)
{
	dl_iterate_phdr(populate_object, (void *)(uintptr_t)&os_populate_self);
	os_now_ns(); /* the vDSO's page */
}

__attribute__((noinline)) void os_populate_stack(void)
{
	volatile char below[2048];
	below[0] = 0;
	below[sizeof(below) / 2] = 0;
	below[sizeof(below) - 1] = 0;
}

ssize_t os_preadv(int fd, const struct iovec *iov, int iov_count, uint64_t offset)
{
	ssize_t ret;
	do {
		ret = os_syscall5(SYS_preadv, fd, iov, iov_count, (unsigned long)offset, 0);
	} while (ret == -EINTR);
	return ret;
}

ssize_t os_preadv_nowait(int fd, const struct iovec *iov, int iov_count, uint64_t offset)
{
	ssize_t ret;
	do {
		ret = os_syscall6(SYS_preadv2, fd, OS_ARG(iov), iov_count,
				  OS_ARG((unsigned long)offset), 0, RWF_NOWAIT);
	} while (ret == -EINTR);
	return ret;
}

ssize_t os_pwritev(int fd, const struct iovec *iov, int iov_count, uint64_t offset)
{
	ssize_t ret;
	do {
		ret = os_syscall5(SYS_pwritev, fd, iov, iov_count, (unsigned long)offset, 0);
	} while (ret == -EINTR);
	return ret;
}

/* ---- small lock */

bool os_trylock(struct os_lock *lock)
{
	uint32_t free = 0;
	return atomic_cas(&lock->word, &free, 1u);
}

void os_lock(struct os_lock *lock)
{
	for (int spin = 0; spin < 100; spin++) {
		if (os_trylock(lock))
			return;
		os_relax();
	}
	while (atomic_xchg(&lock->word, 2u) != 0)
		os_futex_wait(&lock->word, 2, OS_FUTEX_ANY, OS_FOREVER);
}

void os_unlock(struct os_lock *lock)
{
	if (atomic_xchg(&lock->word, 0u) == 2)
		os_futex_wake(&lock->word, 1, OS_FUTEX_ANY);
}
