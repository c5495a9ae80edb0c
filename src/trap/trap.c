/* SPDX-License-Identifier: MIT */
/*
 * How a trap is made and ended: the choice of features, and whether the program lets the kernel
 * merge equal pages.
 * Owns struct trap. May call: os, the kernel, uffd.c, regions.c, registry, thread.c.
 */
#include "trap/trap.h"

#include "os/bells.h"
#include "os/fds.h"
#include "os/fds_give.h"
#include "os/fds_kept.h"
#include "os/fds_numbers.h"
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/regions.h"
#include "trap/registry.h"
#include "trap/uffd.h"
#include "trap/uffd_abi.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_GET_MEMORY_MERGE
#define PR_GET_MEMORY_MERGE 68
#endif

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
		say(options, "this user may not use userfaultfd: allow the system call in the seccomp "
			     "filter, or grant access to /dev/userfaultfd");
	else
		say(options, "userfaultfd cannot be opened");
}

/* Query the features of the userfaultfd. The thread trap also serves system calls if the kernel
 * grants this; the other traps need user mode only. */
static int open_features(const struct trap_options *options, struct trap *trap, uint64_t *ret)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	if (options->kind == FM_TRAP_THREAD) {
		int err = uffd_features(flags, ret);
		if (err != -EPERM || options->silent)
			return err;
		say(options, "the thread trap serves accesses from user mode only: a system call on an "
			     "address whose page is not in the view fails with EFAULT; use fm_pin(), "
			     "or set vm.unprivileged_userfaultfd=1");
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
		say(options, "this kernel's userfaultfd lacks SIGBUS or thread ids: Linux 4.14 or "
			     "later is needed");
		return -EOPNOTSUPP;
	}
	bool move = options->want_move && !options->no_move && (have & ABI_FEATURE_MOVE) &&
		    (have & ABI_FEATURE_WP);
	/* Without signals a view is read-only memory, so that the kernel itself refuses a write. */
	if (options->silent)
		have &= ~(uint64_t)ABI_FEATURE_WP;
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
		say(options,
		    "the kernel refuses close_range() and unshare(), so the program sees the library's "
		    "descriptors, and closing these descriptors ends the mappings; allow close_range() "
		    "in the seccomp filter");
		ret = os_fd_keep(&trap->kept, trap->fd);
		if (ret < 0)
			return (int)ret;
	}
	trap->has_move = move;
	trap->has_wp = have & ABI_FEATURE_WP;
	trap->has_poison = have & ABI_FEATURE_POISON;
	return 0;
}

/* ------------------------------------------------------------------ the userfaultfd and its number
 */

static int scratch_open(struct trap *trap)
{
	char *mem;
	int err = region_reserve(UFFD_SCRATCHES * TRAP_TOGETHER, TRAP_TOGETHER, true, &mem);
	if (!err && mprotect(mem, UFFD_SCRATCHES * TRAP_TOGETHER, PROT_READ | PROT_WRITE) < 0) {
		err = -errno;
		munmap(mem, UFFD_SCRATCHES * TRAP_TOGETHER);
	}
	if (err)
		return err;
	trap->scratch = mem;
	return 0;
}

static int fetched_open(struct trap *trap)
{
	char *mem;
	int err = region_reserve(OS_PAGE, OS_PAGE, false, &mem);
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
	trap->silent = options->silent;
	trap->fd = trap->own_fd = trap->bell.fd = -1;
	trap->merges = merging_is_allowed(); /* memory reserved from now on opts out */
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
	if (!err && !trap->silent)
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
	if (atomic_get(&region->released_end)) /* it opted out when it was reserved */
		return;
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
		munmap(trap->scratch, UFFD_SCRATCHES * TRAP_TOGETHER);
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
