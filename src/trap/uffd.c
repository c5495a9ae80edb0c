/* SPDX-License-Identifier: MIT */
/*
 * Every userfaultfd ioctl, and the other calls that change or read the page tables of views and
 * frames. The operations on pages are signal-safe and hold no lock of the library.
 * May call: os, the kernel.
 */
#include "trap/uffd.h"

#include "os/fds.h"
#include "os/fds_give.h"
#include "os/fds_numbers.h"
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/parts_private.h"
#include "trap/uffd_abi.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

#define MOVE_TRIES 64

static const char zeros[64 << 10] __attribute__((aligned(4096)));

/* ------------------------------------------------------------------ the userfaultfd and its number
 */

#define RENEWALS_MOST 16u

struct uffd_call {
	struct trap *trap;
	unsigned long what;
	void *arg;
};

static long call_own(void *arg)
{
	const struct uffd_call *call = arg;
	return os_syscall3(SYS_ioctl, call->trap->own_fd, call->what, call->arg);
}

/* Tell whether the kernel has done what it was asked to do, or has found that the pages do not
 * allow it. Any userfaultfd of the process does the same to the pages. So the answer is right,
 * whatever the number stands for by now. */
static bool answer_is_plain(long ret)
{
	return ret == 0 || ret == -EEXIST || ret == -EAGAIN || ret == -EBUSY;
}

/* Repeat an ioctl after the userfaultfd's number was lost: the program has closed or replaced the
 * number, or has another descriptor table by now. `ret` is the ioctl's first answer. A limited
 * number of times the library fetches a new number. If threads have several tables, no number is
 * right for all, and the other threads ask the holder. */
static long uffd_ioctl_lost(struct trap *trap, unsigned long what, void *arg, long ret)
{
	int fd = os_fds_apart() && atomic_get(&trap->renewals) < RENEWALS_MOST
			 ? os_fd_fetch(trap->own_fd)
			 : -1;
	if (fd >= 0 && !os_fd_is(fd, &trap->id)) {
		os_syscall1(SYS_close, fd);
		fd = -1;
	}
	if (fd >= 0) {
		atomic_add(&trap->renewals, 1u);
		ret = os_syscall3(SYS_ioctl, fd, what, arg);
		atomic_set(&trap->fd, fd);
		return ret;
	}
	/* The program has closed the number since, maybe only after the call: see answer_is_plain(). */
	if (!os_fds_apart())
		return answer_is_plain(ret) ? ret : -EBADF;
	return os_fds_call_quick(call_own, &(struct uffd_call){trap, what, arg});
}

/* Tell whether the answer needs no further check. No other kind of file knows these calls. But
 * another userfaultfd does, and wakes no thread that waits for the library's. */
static bool answer_is_ours(struct trap *trap, int fd, long ret)
{
	if (ret == -EBADF || ret == -ENOTTY)
		return false;
	return (answer_is_plain(ret) && trap->kind != FM_TRAP_THREAD) || os_fd_is(fd, &trap->id);
}

static long uffd_ioctl(struct trap *trap, unsigned long what, void *arg)
{
	if (os_fds_own())
		return os_syscall3(SYS_ioctl, trap->own_fd, what, arg);
	int fd = atomic_get(&trap->fd);
	long ret = os_syscall3(SYS_ioctl, fd, what, arg);
	return answer_is_ours(trap, fd, ret) ? ret : uffd_ioctl_lost(trap, what, arg, ret);
}

int uffd_register(struct trap *trap, const void *mem, uint64_t len, uint64_t mode)
{
	struct uffdio_register reg = {.range = {(uint64_t)(uintptr_t)mem, len}, .mode = mode};
	return (int)uffd_ioctl(trap, UFFDIO_REGISTER, &reg);
}

/* ------------------------------------------------------------------ address space */

/* Call fn for each piece of a range that still belongs to the library: for the whole range if all
 * of the range does, otherwise for each half in turn. */
void uffd_each_ours(struct trap *trap, uint64_t addr, uint64_t len, uffd_piece_fn fn)
{
	while (len > OS_PAGE && !trap_is_ours(trap, addr, len)) {
		uint64_t half = len / 2 & ~(uint64_t)(OS_PAGE - 1);
		uffd_each_ours(trap, addr, half, fn);
		addr += half;
		len -= half;
	}
	if (len > OS_PAGE || trap_is_ours(trap, addr, len))
		fn(addr, len);
}

/* ------------------------------------------------------------------ pages */

int trap_move(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done)
{
	struct abi_move move = {.dst = dst, .src = src, .len = len};
	long ret = uffd_ioctl(trap, ABI_IOC_MOVE, &move);
	*ret_done = move.move > 0 ? (uint64_t)move.move : 0;
	return (int)ret;
}

static int copy_as(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t mode,
		   uint64_t *ret_done)
{
	struct uffdio_copy copy = {
		.dst = dst, .src = src, .len = len < UFFD_CHUNK ? len : UFFD_CHUNK, .mode = mode};
	long ret = uffd_ioctl(trap, UFFDIO_COPY, &copy);
	*ret_done = copy.copy > 0 ? (uint64_t)copy.copy : 0;
	return (int)ret;
}

int trap_copy(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done)
{
	return copy_as(trap, dst, src, len, trap->has_wp ? UFFDIO_COPY_MODE_WP : 0, ret_done);
}

int trap_copy_writable(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		       uint64_t *ret_done)
{
	return copy_as(trap, dst, src, len, 0, ret_done);
}

int trap_fill(struct trap *trap, uint64_t dst, uint64_t len)
{
	uint64_t at = 0;
	while (at < len) {
		uint64_t step = len - at < sizeof(zeros) ? len - at : sizeof(zeros);
		struct uffdio_copy copy = {.dst = dst + at, .src = (uint64_t)(uintptr_t)zeros, .len = step};
		long ret = uffd_ioctl(trap, UFFDIO_COPY, &copy);
		if (copy.copy > 0)
			at += (uint64_t)copy.copy;
		if (ret == -EEXIST)
			at += OS_PAGE; /* this page is not a hole */
		else if (ret < 0 && ret != -EAGAIN)
			return (int)ret;
	}
	return 0;
}

/* Take a scratch piece. Returns 0 if none is free now. */
static uint64_t scratch_take(struct trap *trap)
{
	for (uint32_t i = 0; trap->scratch && i < UFFD_SCRATCHES; i++)
		if (!(__atomic_fetch_or(&trap->scratch_busy, 1u << i, __ATOMIC_ACQUIRE) >> i & 1))
			return (uint64_t)(uintptr_t)trap->scratch + i * TRAP_TOGETHER;
	return 0;
}

static void scratch_put(struct trap *trap, uint64_t scratch)
{
	uint32_t i = (uint32_t)((scratch - (uint64_t)(uintptr_t)trap->scratch) / TRAP_TOGETHER);
	__atomic_fetch_and(&trap->scratch_busy, ~(1u << i), __ATOMIC_RELEASE);
}

static int move_together(struct trap *trap, uint64_t dst, uint64_t from, uint64_t piece,
			 uint64_t *ret_done)
{
	uint64_t at = 0, done;

	for (int tries = 0; at < TRAP_TOGETHER && tries < MOVE_TRIES; tries++) {
		int err = trap_move(trap, dst + at, from + at, piece - at % piece, &done);
		at += done;
		if (err == -EEXIST)
			at += OS_PAGE; /* this page is not a hole */
		else if (err < 0 && err != -EAGAIN)
			break;
	}
	*ret_done = at;
	return at < TRAP_TOGETHER ? -EAGAIN : 0;
}

void trap_region_huge(struct view_region *region)
{
	parts_huge(region); /* the kernel passes over what is not reserved */
	os_syscall3(SYS_madvise, region->base, region->len, MADV_HUGEPAGE);
}

int trap_fill_whole(struct trap *trap, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	uint64_t scratch = len == TRAP_TOGETHER ? scratch_take(trap) : 0;
	*ret_done = 0;
	if (!scratch)
		return -EBUSY;
	/* Free the page table that pieces have left there: with a page table, small pages would
	 * come. */
	os_syscall3(SYS_madvise, scratch, TRAP_TOGETHER, MADV_DONTNEED);
	/* Not by MADV_POPULATE_WRITE, which holds the kernel's mmap_lock while a page is cleared:
	 * a fault of this thread holds the lock of this region only. If there is no huge page, a
	 * small page comes, and the MOVE finds no further pages. */
	*(volatile char *)(uintptr_t)scratch = 0;
	int err = move_together(trap, dst, scratch, TRAP_TOGETHER, ret_done);
	if (err < 0)
		os_syscall3(SYS_madvise, scratch, TRAP_TOGETHER, MADV_DONTNEED);
	scratch_put(trap, scratch);
	return err;
}

int trap_fill_together(struct trap *trap, uint64_t dst, uint64_t len)
{
	uint64_t at = 0, done, scratch = scratch_take(trap);
	/* The MOVE goes in halves: so the huge page is split here, and not in a fault of the
	 * program. */
	while (scratch && len - at >= TRAP_TOGETHER &&
	       os_syscall3(SYS_madvise, scratch, TRAP_TOGETHER, MADV_POPULATE_WRITE) == 0 &&
	       move_together(trap, dst + at, scratch, TRAP_TOGETHER / 2, &done) == 0)
		at += TRAP_TOGETHER;
	if (scratch && at < len)
		os_syscall3(SYS_madvise, scratch, TRAP_TOGETHER, MADV_DONTNEED);
	if (scratch)
		scratch_put(trap, scratch);
	return trap_fill(trap, dst + at, len - at);
}

static int write_protect(struct trap *trap, uint64_t addr, uint64_t len, uint64_t most,
			 uint64_t mode)
{
	for (uint64_t at = 0; at < len;) {
		uint64_t step = len - at < most ? len - at : most;
		struct uffdio_writeprotect wp = {.range = {addr + at, step}, .mode = mode};
		long ret = uffd_ioctl(trap, UFFDIO_WRITEPROTECT, &wp);
		if (ret == -EAGAIN)
			continue;
		if (ret < 0)
			return (int)ret;
		at += step;
	}
	return 0;
}

int trap_protect(struct trap *trap, uint64_t addr, uint64_t len)
{
	return write_protect(trap, addr, len, UFFD_CHUNK, UFFDIO_WRITEPROTECT_MODE_WP);
}

int trap_unprotect(struct trap *trap, uint64_t addr, uint64_t len)
{
	return write_protect(trap, addr, len, UFFD_CHUNK, 0);
}

int trap_protect_huge(struct trap *trap, uint64_t addr, uint64_t len)
{
	return write_protect(trap, addr, len, TRAP_HUGE_TOGETHER, UFFDIO_WRITEPROTECT_MODE_WP);
}

int trap_descriptor(const struct trap *trap)
{
	return trap->own_fd;
}

/* Ask by CONTINUE, which is never valid for anonymous memory: EINVAL says so. First the kernel
 * checks that the range lies in one registered area. ENOENT says that the range does not. */
bool trap_is_ours(struct trap *trap, uint64_t addr, uint64_t len)
{
	long ret;

	do {
		struct abi_continue question = {.range = {addr, len}};
		ret = uffd_ioctl(trap, ABI_IOC_CONTINUE, &question);
	} while (ret == -EAGAIN); /* the kernel is changing the mappings */
	return ret != -ENOENT;
}

bool trap_any_foreign(struct trap *trap, uint64_t addr, uint64_t len)
{
	while (!trap_is_ours(trap, addr, len)) {
		uint64_t half = len / 2 & ~(uint64_t)(OS_PAGE - 1);
		if (!half || trap_any_foreign(trap, addr, half))
			return true;
		addr += half;
		len -= half;
	}
	return false;
}

static void discard_piece(uint64_t addr, uint64_t len)
{
	trap_discard(NULL, addr, len);
}

void trap_discard_ours(struct trap *trap, uint64_t addr, uint64_t len)
{
	uffd_each_ours(trap, addr, len, discard_piece);
}

int trap_discard(struct trap *trap, uint64_t addr, uint64_t len)
{
	(void)trap;
	for (uint64_t at = 0; at < len; at += UFFD_CHUNK) {
		uint64_t step = len - at < UFFD_CHUNK ? len - at : UFFD_CHUNK;
		long ret = os_syscall3(SYS_madvise, addr + at, step, MADV_DONTNEED);
		if (ret == -EINVAL) /* some of the range is locked (Linux 5.18) */
			ret = os_syscall3(SYS_madvise, addr + at, step, MADV_DONTNEED_LOCKED);
		if (ret < 0)
			return (int)ret;
	}
	return 0;
}

/* Read memory of the process by the calling thread's own number. The main thread may have ended,
 * and then getpid() names no task with memory. */
static long read_own(void *to, uint64_t addr, size_t len)
{
	struct iovec local = {to, len}, remote = {(void *)(uintptr_t)addr, len};
	return os_syscall6(SYS_process_vm_readv, os_gettid(), (long)&local, 1, (long)&remote, 1, 0);
}

/* Read memory, even memory that the program has made unreadable by mprotect(). */
static long read_forced(void *to, uint64_t addr, size_t len)
{
	long fd = os_syscall4(SYS_openat, AT_FDCWD, (long)"/proc/thread-self/mem",
			      O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	long got = os_syscall4(SYS_pread64, fd, to, len, addr);
	os_syscall1(SYS_close, fd);
	return got;
}

/* Read a page if process_vm_readv() is forbidden. The userfaultfd copies the page to `fetched`,
 * from where memcpy() copies the bytes to `to`. Then the place is emptied. Takes fetch_lock. */
static long read_by_copy(struct trap *trap, void *to, uint64_t addr)
{
	uint64_t place = (uint64_t)(uintptr_t)trap->fetched, done;

	os_lock(&trap->fetch_lock);
	int err = copy_as(trap, place, addr, OS_PAGE, 0, &done);
	if (!err)
		memcpy(to, trap->fetched, OS_PAGE);
	os_syscall3(SYS_madvise, place, OS_PAGE, MADV_DONTNEED);
	os_unlock(&trap->fetch_lock);
	return err ? err : (long)OS_PAGE;
}

int trap_fetch(struct trap *trap, uint64_t slot, uint64_t addr)
{
	void *to = (void *)(uintptr_t)slot;
	long ret = read_own(to, addr, OS_PAGE);

	if (ret != OS_PAGE && ret != -EFAULT && ret < 0)
		ret = read_by_copy(trap, to, addr);
	if (ret != OS_PAGE && trap_has_bytes(addr))
		ret = read_forced(to, addr, OS_PAGE);
	return ret == OS_PAGE ? 0 : -EFAULT;
}

bool trap_readable(uint64_t addr)
{
	/* The kernel reads the set before the kernel finds that the operation is invalid. */
	return os_syscall4(SYS_rt_sigprocmask, ~0, addr & ~7ull, NULL, 8) != -EFAULT;
}

int trap_present(uint64_t addr)
{
	unsigned char vec = 0;
	long ret = os_syscall3(SYS_mincore, addr & ~(uint64_t)(OS_PAGE - 1), OS_PAGE, &vec);
	return ret < 0 ? (int)ret : vec & 1;
}

bool trap_has_swap(void)
{
	struct sysinfo info;
	return os_syscall1(SYS_sysinfo, &info) == 0 && info.totalswap;
}

#define PAGEMAP_THERE                                                                              \
	(3ull << 62) /* present, or swapped out (Linux: Documentation/admin-guide/mm/pagemap.rst)  \
		      */

/* Tell whether the page is present or swapped out. mincore() reports a swapped-out page as
 * absent. Only the page map tells the difference, which takes three calls. */
bool trap_has_bytes(uint64_t addr)
{
	uint64_t entry = 0;

	if (trap_present(addr) != 0)
		return true;
	if (!trap_has_swap())
		return false;
	long fd = os_syscall4(SYS_openat, AT_FDCWD, (long)"/proc/thread-self/pagemap",
			      O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	long got = os_syscall4(SYS_pread64, fd, &entry, sizeof(entry), addr / OS_PAGE * sizeof(entry));
	os_syscall1(SYS_close, fd);
	return got == sizeof(entry) && (entry & PAGEMAP_THERE);
}

void trap_wake(struct trap *trap, uint64_t addr, uint64_t len)
{
	struct uffdio_range range = {addr, len};
	if (trap->kind == FM_TRAP_THREAD)
		uffd_ioctl(trap, UFFDIO_WAKE, &range);
}

bool uffd_has_poison(const struct trap *trap)
{
	return trap->has_poison;
}

int uffd_poison(struct trap *trap, uint64_t addr, uint64_t len)
{
	struct abi_poison poison = {.start = addr, .len = len};
	return (int)uffd_ioctl(trap, ABI_IOC_POISON, &poison);
}
