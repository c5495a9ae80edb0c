/* SPDX-License-Identifier: MIT */
/*
 * Every userfaultfd ioctl, the address space of views and frames, and the choice of features.
 * Owns struct trap. The operations on pages are signal-safe and hold no lock of ours.
 * May call: os, the kernel, registry, thread.c.
 */
#include "os/fds.h"
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/registry.h"
#include "trap/uffd_abi.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHUNK (2ull << 20) /* COPY, WRITEPROTECT and DONTNEED hold the kernel's lock for their whole range */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef PR_GET_MEMORY_MERGE
#define PR_GET_MEMORY_MERGE 68
#endif
#define MOVE_TRIES 64

static const char zeros[64 << 10] __attribute__((aligned(4096)));

const char *trap_kind_name(enum fm_trap kind)
{
	static const char *const names[] = {"default", "inline", "thread", "call"};
	return names[kind];
}

/* ------------------------------------------------------------------ opening */

static int uffd_open(int flags)
{
	long fd = os_syscall1(SYS_userfaultfd, flags);
	if (fd == -EINVAL && (flags & ABI_USER_MODE_ONLY)) /* Linux before 5.11 */
		fd = os_syscall1(SYS_userfaultfd, flags & ~ABI_USER_MODE_ONLY);
	if (fd != -EPERM)
		return (int)fd;
	int dev = os_fd_open(AT_FDCWD, "/dev/userfaultfd", O_RDWR, 0);
	if (dev < 0)
		return -EPERM;
	fd = os_syscall3(SYS_ioctl, dev, ABI_IOC_NEW, flags);
	close(dev);
	return (int)fd;
}

static int uffd_new(int flags)
{
	struct os_fds_low low;
	os_fds_low_take(&low);
	int fd = os_fd_high(uffd_open(flags));
	os_fds_low_give(&low);
	return fd;
}

static int uffd_features(int flags, uint64_t *ret_features)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = uffd_new(flags);
	if (fd < 0)
		return fd;
	long ret = os_syscall3(SYS_ioctl, fd, UFFDIO_API, &api);
	close(fd);
	if (ret < 0)
		return (int)ret;
	*ret_features = api.features;
	return 0;
}

static void say(const struct trap_options *options, const char *line)
{
	if (options->note)
		options->note(options->note_arg, line);
}

static void say_why_not(const struct trap_options *options, int err)
{
	if (err == -ENOSYS)
		say(options, "userfaultfd is not available: the kernel lacks CONFIG_USERFAULTFD, or a "
			     "seccomp filter forbids it; allow the userfaultfd system call");
	else if (err == -EPERM)
		say(options, "userfaultfd is closed to this user: allow the system call in the seccomp "
			     "filter, or give access to /dev/userfaultfd");
	else
		say(options, "userfaultfd cannot be opened");
}

/* The thread trap serves system calls too where the kernel grants it; the others need user mode alone. */
static int open_features(const struct trap_options *options, struct trap *trap, uint64_t *ret)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	if (options->kind == FM_TRAP_THREAD) {
		int err = uffd_features(flags, ret);
		if (err != -EPERM)
			return err;
		say(options, "the thread trap serves this user's own accesses only: a system call given a "
			     "cold address gets EFAULT; use fm_pin(), or set vm.unprivileged_userfaultfd=1");
	}
	trap->user_mode_only = true;
	return uffd_features(flags | ABI_USER_MODE_ONLY, ret);
}

static int trap_open(const struct trap_options *options, struct trap *trap)
{
	uint64_t have = 0;
	int err = open_features(options, trap, &have);
	if (err) {
		say_why_not(options, err);
		return err;
	}
	uint64_t need = options->kind == FM_TRAP_THREAD ? ABI_FEATURE_THREAD_ID : ABI_FEATURE_SIGBUS;
	if ((have & need) != need) {
		say(options, "this kernel's userfaultfd lacks SIGBUS or thread ids: Linux 4.14 or later is needed");
		return -EOPNOTSUPP;
	}
	bool move = options->want_move && !options->no_move && (have & ABI_FEATURE_MOVE) &&
		    (have & ABI_FEATURE_WP);
	uint64_t want = need | (have & (ABI_FEATURE_EXACT_ADDRESS | ABI_FEATURE_WP));
	if (move)
		want |= ABI_FEATURE_MOVE;
	want |= have & ABI_FEATURE_POISON;
	struct uffdio_api api = {.api = UFFD_API, .features = want};
	trap->fd = uffd_new(O_CLOEXEC | O_NONBLOCK | (trap->user_mode_only ? ABI_USER_MODE_ONLY : 0));
	if (trap->fd < 0)
		return trap->fd;
	long ret = os_syscall3(SYS_ioctl, trap->fd, UFFDIO_API, &api);
	if (ret == 0)
		ret = os_fd_id(trap->fd, &trap->id);
	if (ret == 0)
		ret = trap->own_fd = os_fd_give(trap->fd);
	if (ret < 0)
		return (int)ret;
	if (!os_fds_apart()) {
		say(options, "the library's descriptors are in the program's table, since close_range() and unshare() are refused: "
			     "closing them ends its mappings; allow close_range() in the seccomp filter");
		ret = os_fd_keep(&trap->kept, trap->fd);
		if (ret < 0)
			return (int)ret;
	}
	trap->has_move = move;
	trap->has_wp = have & ABI_FEATURE_WP;
	trap->has_poison = have & ABI_FEATURE_POISON;
	return 0;
}

/* Address space that lies in no view. The program may have unmapped a part of one, where the kernel would put what comes next: there it
 * would be taken for the view's own. */
static char *find_place(uint64_t len)
{
	char *mem = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED || !registry_overlaps((uint64_t)(uintptr_t)mem, len))
		return mem;
	char *elsewhere = find_place(len); /* with this one taken */
	munmap(mem, len);
	return elsewhere;
}

/* Reserved without access and given to nobody: mlockall(MCL_FUTURE) would fill anything else at once. */
static int reserve(uint64_t len, uint64_t align, bool huge, char **ret_mem)
{
	uint64_t whole = len + align;
	if (whole < len)
		return -ENOMEM;
	char *mem = find_place(whole);
	if (mem == MAP_FAILED)
		return -errno;
	char *start = (char *)(((uintptr_t)mem + align - 1) & ~(uintptr_t)(align - 1));
	if (start > mem)
		munmap(mem, (size_t)(start - mem));
	if (start + len < mem + whole)
		munmap(start + len, (size_t)(mem + whole - start - len));
	madvise(start, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	madvise(start, len, MADV_DONTFORK);
	madvise(start, len, MADV_DONTDUMP);
	madvise(start, len, MADV_UNMERGEABLE); /* merging drops the protection of what is merged */
	munlock(start, len);
	*ret_mem = start;
	return 0;
}

/* ------------------------------------------------------------------ the userfaultfd and its number */

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

/* The program has closed or replaced the number, or has another table by now. A few times there is a new one; where threads
 * have several tables, no number is right for all of them, and the others ask the holder. */
static long uffd_ioctl_lost(struct trap *trap, unsigned long what, void *arg)
{
	int fd = os_fds_apart() && atomic_get(&trap->renewals) < RENEWALS_MOST ? os_fd_fetch(trap->own_fd) : -1;
	if (fd >= 0 && !os_fd_is(fd, &trap->id)) {
		os_syscall1(SYS_close, fd);
		fd = -1;
	}
	if (fd >= 0) {
		atomic_add(&trap->renewals, 1u);
		long ret = os_syscall3(SYS_ioctl, fd, what, arg);
		atomic_set(&trap->fd, fd);
		return ret;
	}
	if (!os_fds_apart())
		return -EBADF;
	return os_fds_call_quick(call_own, &(struct uffd_call){trap, what, arg});
}

/* Does the answer need no second look? No other kind of file knows these calls. But another userfaultfd does, which wakes
 * nobody who waits for ours. */
static bool answer_is_ours(struct trap *trap, int fd, long ret)
{
	if (ret == -EBADF || ret == -ENOTTY)
		return false;
	bool plain = ret == 0 || ret == -EEXIST || ret == -EAGAIN || ret == -EBUSY;
	return (plain && trap->kind != FM_TRAP_THREAD) || os_fd_is(fd, &trap->id);
}

static long uffd_ioctl(struct trap *trap, unsigned long what, void *arg)
{
	if (os_fds_own())
		return os_syscall3(SYS_ioctl, trap->own_fd, what, arg);
	int fd = atomic_get(&trap->fd);
	long ret = os_syscall3(SYS_ioctl, fd, what, arg);
	return answer_is_ours(trap, fd, ret) ? ret : uffd_ioctl_lost(trap, what, arg);
}

static int uffd_register(struct trap *trap, const void *mem, uint64_t len, uint64_t mode)
{
	struct uffdio_register reg = {.range = {(uint64_t)(uintptr_t)mem, len}, .mode = mode};
	return (int)uffd_ioctl(trap, UFFDIO_REGISTER, &reg);
}

#define SCRATCHES 2u

static int scratch_open(struct trap *trap)
{
	char *mem;
	int err = reserve(SCRATCHES * TRAP_TOGETHER, TRAP_TOGETHER, true, &mem);
	if (!err && mprotect(mem, SCRATCHES * TRAP_TOGETHER, PROT_READ | PROT_WRITE) < 0) {
		err = -errno;
		munmap(mem, SCRATCHES * TRAP_TOGETHER);
	}
	if (err)
		return err;
	trap->scratch = mem;
	return 0;
}

static int fetched_open(struct trap *trap)
{
	char *mem;
	int err = reserve(OS_PAGE, OS_PAGE, false, &mem);
	if (err)
		return err;
	if (mprotect(mem, OS_PAGE, PROT_READ | PROT_WRITE) < 0)
		err = -errno;
	if (!err)
		err = uffd_register(trap, mem, OS_PAGE, UFFDIO_REGISTER_MODE_MISSING);
	if (err)
		munmap(mem, OS_PAGE);
	else
		trap->fetched = mem;
	return err;
}

static bool merging_is_allowed(void)
{
	return os_syscall5(SYS_prctl, PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1;
}

int trap_create(const struct trap_options *options, struct trap **ret_trap)
{
	struct trap *trap = calloc(1, sizeof(*trap));
	if (!trap)
		return -ENOMEM;
	trap->kind = options->kind;
	trap->client = options->client;
	trap->fd = trap->own_fd = trap->bell.fd = -1;
	trap->merges = merging_is_allowed(); /* what is reserved from here on opts out */
	int err = os_fds_get();
	if (err) {
		free(trap);
		return err;
	}
	err = registry_init();
	if (!err)
		err = trap_open(options, trap);
	if (!err && trap->has_move)
		err = scratch_open(trap);
	if (!err)
		err = fetched_open(trap);
	if (!err)
		err = trap_sigbus_install();
	if (!err && trap->kind == FM_TRAP_THREAD)
		err = handler_start(trap);
	if (err) {
		trap_destroy(trap);
		return err;
	}
	*ret_trap = trap;
	return 0;
}

static void opt_out(const struct view_region *region)
{
	os_syscall3(SYS_madvise, region->base, region->len, MADV_UNMERGEABLE);
}

bool trap_was_merged(struct trap *trap)
{
	if (!merging_is_allowed()) {
		atomic_set(&trap->merges, 0u);
		return false;
	}
	if (atomic_get(&trap->merges))
		return false;
	registry_each(trap, opt_out);
	for (int i = 0; i < TRAP_SLOTS_MAX; i++) {
		uint64_t start = atomic_get(&trap->slots[i].start);
		if (start)
			os_syscall3(SYS_madvise, start, atomic_get(&trap->slots[i].end) - start, MADV_UNMERGEABLE);
	}
	return true;
}

void trap_merging_noted(struct trap *trap)
{
	atomic_set(&trap->merges, 1u);
}

void trap_stop(struct trap *trap)
{
	if (trap->handler)
		handler_stop(trap);
}

#define DRAIN_NS (5 * OS_NSEC_PER_SEC)

void trap_drain(struct trap *trap)
{
	uint64_t until = os_now_ns() + DRAIN_NS;
	while (trap->handler && handler_is_busy(trap) && os_now_ns() < until)
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 4);
}

void trap_destroy(struct trap *trap)
{
	trap_stop(trap);
	telling_close(trap);
	if (trap->scratch)
		munmap(trap->scratch, SCRATCHES * TRAP_TOGETHER);
	if (trap->fetched)
		munmap(trap->fetched, OS_PAGE);
	os_bell_close(&trap->bell);
	os_fd_keep_end(&trap->kept);
	if (trap->own_fd != trap->fd)
		os_fd_close_own(trap->own_fd);
	os_fd_close_programs(trap->fd, &trap->id);
	free(trap);
	os_fds_put();
}

bool trap_serves_calls(const struct trap *trap)
{
	return trap->kind == FM_TRAP_THREAD && !trap->user_mode_only;
}

bool trap_has_move(const struct trap *trap)
{
	return trap->has_move;
}

/* ------------------------------------------------------------------ address space */

/*
 * The kernel serves MOVE and COPY under its per-region lock only where the region has its anon_vma; the first of all takes
 * mmap_lock to make one, behind another thread's stalled mmap(). So each region has its first before it is used.
 */
static int make_anon_vma(struct trap *trap, char *mem, uint64_t len)
{
	int err = trap_fill(trap, (uint64_t)(uintptr_t)mem, OS_PAGE);
	if (!err)
		/* All of the range, so that its page table goes too: else the first huge page would be split by it. */
		err = trap_discard(trap, (uint64_t)(uintptr_t)mem, len < CHUNK ? len : CHUNK);
	return err;
}

int trap_region_open(struct trap *trap, struct view_region *region, uint64_t len, uint64_t align, bool huge,
		     void *owner)
{
	char *mem;
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING;
	int err = reserve(len, align, huge && trap->has_move, &mem);
	if (err)
		return err;
	if (trap->has_wp)
		mode |= UFFDIO_REGISTER_MODE_WP;
	err = uffd_register(trap, mem, len, mode);
	/* Protected page by page where that is to be had: then a stray write is a fault of ours, told like all others. Else,
	 * and where no more memory may be writable (overcommit_memory=2), the region is, and the kernel tells it. */
	int prot = trap->has_wp ? PROT_READ | PROT_WRITE : PROT_READ;
	if (!err && mprotect(mem, len, prot) < 0)
		err = trap->has_move || mprotect(mem, len, PROT_READ) < 0 ? -errno : 0;
	if (!err)
		err = make_anon_vma(trap, mem, len);
	if (!err) {
		*region = (struct view_region){.base = (uint64_t)(uintptr_t)mem, .len = len,
					       .owner = owner, .trap = trap, .opened = true};
		err = registry_add(region);
	}
	if (err) {
		munmap(mem, len);
		region->opened = false;
	}
	return err;
}

uint64_t trap_address_limit(void)
{
	struct rlimit64 space = {RLIM64_INFINITY, 0}, data = {RLIM64_INFINITY, 0};
	os_syscall4(SYS_prlimit64, 0, RLIMIT_AS, NULL, &space);
	os_syscall4(SYS_prlimit64, 0, RLIMIT_DATA, NULL, &data);
	return space.rlim_cur < data.rlim_cur ? space.rlim_cur : data.rlim_cur; /* without a limit: all ones */
}

/* What takes a piece of a view that is the library's. */
typedef void (*piece_fn)(uint64_t addr, uint64_t len);

/* Call fn for those pieces of a range that are still the library's: for all of it, if it is, else for each half. */
static void each_ours(struct trap *trap, uint64_t addr, uint64_t len, piece_fn fn)
{
	while (len > OS_PAGE && !trap_is_ours(trap, addr, len)) {
		uint64_t half = len / 2 & ~(uint64_t)(OS_PAGE - 1);
		each_ours(trap, addr, half, fn);
		addr += half;
		len -= half;
	}
	if (len > OS_PAGE || trap_is_ours(trap, addr, len))
		fn(addr, len);
}

static void unmap_piece(uint64_t addr, uint64_t len)
{
	munmap((void *)(uintptr_t)addr, len);
}

bool trap_region_close(struct view_region *region)
{
	registry_remove(region);
	if (atomic_get(&region->pins))
		return false;
	each_ours(region->trap, region->base, region->len, unmap_piece);
	region->opened = false;
	return true;
}

/* Put [start, end) in the place of what starts at `old`; 0 is an empty place. */
static void slots_note(struct trap *trap, uint64_t old, uint64_t start, uint64_t end)
{
	for (int i = 0; i < TRAP_SLOTS_MAX; i++) {
		uint64_t here = old;
		if (atomic_cas(&trap->slots[i].start, &here, start)) {
			atomic_set(&trap->slots[i].end, end);
			return;
		}
	}
}

bool trap_in_slots(struct trap *trap, uint64_t addr)
{
	bool inside = false;
	for (int i = 0; i < TRAP_SLOTS_MAX; i++) {
		uint64_t start = atomic_get(&trap->slots[i].start);
		inside |= start && addr >= start && addr < atomic_get(&trap->slots[i].end);
	}
	return inside;
}

int trap_slots_open(struct trap *trap, uint64_t len, uint64_t align, bool huge, void **ret_mem,
		    bool *ret_registered)
{
	char *mem;
	int err = reserve(len, align, huge, &mem);
	if (err)
		return err;
	if (mprotect(mem, len, PROT_READ | PROT_WRITE) < 0)
		err = -errno;
	if (!err && trap->has_move && !huge)
		err = uffd_register(trap, mem, len, UFFDIO_REGISTER_MODE_MISSING);
	if (!err && trap->has_move && !huge)
		err = make_anon_vma(trap, mem, len);
	if (err) {
		munmap(mem, len);
		return err;
	}
	slots_note(trap, 0, (uint64_t)(uintptr_t)mem, (uint64_t)(uintptr_t)mem + len);
	*ret_mem = mem;
	*ret_registered = trap->has_move;
	return 0;
}

int trap_slots_populate(struct trap *trap, void *mem, uint64_t len)
{
	if (madvise(mem, len, MADV_POPULATE_WRITE) < 0) {
		if (errno != EINVAL)
			return -errno;
		for (uint64_t at = 0; at < len; at += OS_PAGE)
			((volatile char *)mem)[at] = 0;
	}
	return trap->has_move ? uffd_register(trap, mem, len, UFFDIO_REGISTER_MODE_MISSING) : 0;
}

void trap_slots_close(struct trap *trap, void *mem, uint64_t len)
{
	slots_note(trap, (uint64_t)(uintptr_t)mem, 0, 0);
	munmap(mem, len);
}

/* ------------------------------------------------------------------ pages */

int trap_move(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done)
{
	struct abi_move move = {.dst = dst, .src = src, .len = len};
	long ret = uffd_ioctl(trap, ABI_IOC_MOVE, &move);
	*ret_done = move.move > 0 ? (uint64_t)move.move : 0;
	return (int)ret;
}

static int copy_as(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t mode, uint64_t *ret_done)
{
	struct uffdio_copy copy = {.dst = dst, .src = src, .len = len < CHUNK ? len : CHUNK, .mode = mode};
	long ret = uffd_ioctl(trap, UFFDIO_COPY, &copy);
	*ret_done = copy.copy > 0 ? (uint64_t)copy.copy : 0;
	return (int)ret;
}

int trap_copy(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done)
{
	return copy_as(trap, dst, src, len, trap->has_wp ? UFFDIO_COPY_MODE_WP : 0, ret_done);
}

int trap_copy_writable(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done)
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
			at += OS_PAGE; /* that one is not a hole */
		else if (ret < 0 && ret != -EAGAIN)
			return (int)ret;
	}
	return 0;
}

/* 0: there is none to be had now. */
static uint64_t scratch_take(struct trap *trap)
{
	for (uint32_t i = 0; trap->scratch && i < SCRATCHES; i++)
		if (!(__atomic_fetch_or(&trap->scratch_busy, 1u << i, __ATOMIC_ACQUIRE) >> i & 1))
			return (uint64_t)(uintptr_t)trap->scratch + i * TRAP_TOGETHER;
	return 0;
}

static void scratch_put(struct trap *trap, uint64_t scratch)
{
	uint32_t i = (uint32_t)((scratch - (uint64_t)(uintptr_t)trap->scratch) / TRAP_TOGETHER);
	__atomic_fetch_and(&trap->scratch_busy, ~(1u << i), __ATOMIC_RELEASE);
}

static int move_together(struct trap *trap, uint64_t dst, uint64_t from, uint64_t piece, uint64_t *ret_done)
{
	uint64_t at = 0, done;

	for (int tries = 0; at < TRAP_TOGETHER && tries < MOVE_TRIES; tries++) {
		int err = trap_move(trap, dst + at, from + at, piece - at % piece, &done);
		at += done;
		if (err == -EEXIST)
			at += OS_PAGE; /* that one is not a hole */
		else if (err < 0 && err != -EAGAIN)
			break;
	}
	*ret_done = at;
	return at < TRAP_TOGETHER ? -EAGAIN : 0;
}

void trap_region_huge(struct view_region *region)
{
	os_syscall3(SYS_madvise, region->base, region->len, MADV_HUGEPAGE);
}

int trap_fill_whole(struct trap *trap, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	uint64_t scratch = len == TRAP_TOGETHER ? scratch_take(trap) : 0;
	*ret_done = 0;
	if (!scratch)
		return -EBUSY;
	/* A page table, which pieces have left there, would make small pages of it. */
	os_syscall3(SYS_madvise, scratch, TRAP_TOGETHER, MADV_DONTNEED);
	/* Not by MADV_POPULATE_WRITE, which has the kernel's mmap_lock while a page is cleared: a fault of this thread has the lock of
	 * this region alone. Where there is no huge page, a small one comes, and the MOVE finds no more. */
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
	/* In halves: then it is here that a huge page comes apart, and not in somebody's fault. */
	while (scratch && len - at >= TRAP_TOGETHER && os_syscall3(SYS_madvise, scratch, TRAP_TOGETHER, MADV_POPULATE_WRITE) == 0 &&
	       move_together(trap, dst + at, scratch, TRAP_TOGETHER / 2, &done) == 0)
		at += TRAP_TOGETHER;
	if (scratch && at < len)
		os_syscall3(SYS_madvise, scratch, TRAP_TOGETHER, MADV_DONTNEED);
	if (scratch)
		scratch_put(trap, scratch);
	return trap_fill(trap, dst + at, len - at);
}

static int write_protect(struct trap *trap, uint64_t addr, uint64_t len, uint64_t most, uint64_t mode)
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
	return write_protect(trap, addr, len, CHUNK, UFFDIO_WRITEPROTECT_MODE_WP);
}

int trap_unprotect(struct trap *trap, uint64_t addr, uint64_t len)
{
	return write_protect(trap, addr, len, CHUNK, 0);
}

int trap_protect_huge(struct trap *trap, uint64_t addr, uint64_t len)
{
	return write_protect(trap, addr, len, TRAP_HUGE_TOGETHER, UFFDIO_WRITEPROTECT_MODE_WP);
}

/* CONTINUE is never right for anonymous memory, and EINVAL says so; first the kernel looks whether the range lies in one area that
 * is registered, and ENOENT says that it does not. */
int trap_descriptor(const struct trap *trap)
{
	return trap->own_fd;
}

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
	each_ours(trap, addr, len, discard_piece);
}

int trap_discard(struct trap *trap, uint64_t addr, uint64_t len)
{
	(void)trap;
	for (uint64_t at = 0; at < len; at += CHUNK) {
		uint64_t step = len - at < CHUNK ? len - at : CHUNK;
		long ret = os_syscall3(SYS_madvise, addr + at, step, MADV_DONTNEED);
		if (ret == -EINVAL) /* some of it is locked (Linux 5.18) */
			ret = os_syscall3(SYS_madvise, addr + at, step, MADV_DONTNEED_LOCKED);
		if (ret < 0)
			return (int)ret;
	}
	return 0;
}

/* By the calling thread's own number: the main thread may have ended, and then getpid() names nobody who has memory. */
static long read_own(void *to, uint64_t addr, size_t len)
{
	struct iovec local = {to, len}, remote = {(void *)(uintptr_t)addr, len};
	return os_syscall6(SYS_process_vm_readv, os_gettid(), (long)&local, 1, (long)&remote, 1, 0);
}

/* Also what the program has made unreadable by mprotect(). */
static long read_forced(void *to, uint64_t addr, size_t len)
{
	long fd = os_syscall4(SYS_openat, AT_FDCWD, (long)"/proc/thread-self/mem", O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	long got = os_syscall4(SYS_pread64, fd, to, len, addr);
	os_syscall1(SYS_close, fd);
	return got;
}

/* Where process_vm_readv() is forbidden: the userfaultfd copies the page to a place of its own, whose memory then moves on. */
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
	/* The kernel reads the set before it finds that there is no such operation. */
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

#define PAGEMAP_THERE (3ull << 62) /* present, or swapped out (Linux: Documentation/admin-guide/mm/pagemap.rst) */

/* mincore() says of what has been swapped out that it is not there. Only the page map tells, which takes three calls. */
bool trap_has_bytes(uint64_t addr)
{
	uint64_t entry = 0;

	if (trap_present(addr) != 0)
		return true;
	if (!trap_has_swap())
		return false;
	long fd = os_syscall4(SYS_openat, AT_FDCWD, (long)"/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC, 0);
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
