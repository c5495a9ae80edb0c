/* SPDX-License-Identifier: MIT */
/*
 * The bare mechanism: the least cost of a fault that is served in user space. A userfaultfd reports
 * a fault as SIGBUS in the faulting thread. The signal handler makes one ioctl, MOVE or COPY, from
 * memory that already has the bytes, and returns. For a write to a page that COPY has protected,
 * the handler makes two ioctls: MOVE out of the view to a spare place, and MOVE in again. There is
 * no look-up, no lock and no page cache. The library only fills the frames beforehand.
 */
#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Parts of the kernel's ABI that older headers lack. See ioctl_userfaultfd(2). */
#define BARE_FEATURE_WP     (1ull << 0)
#define BARE_FEATURE_SIGBUS (1ull << 7)
#define BARE_COPY_MODE_WP   (1ull << 1)
#define BARE_REGISTER_WP    (1ull << 1)
#define BARE_FEATURE_MOVE   (1ull << 16)
struct bare_move {
	uint64_t dst, src, len, mode;
	int64_t move;
};
#define BARE_IOC_MOVE _IOWR(0xAA, 0x05, struct bare_move)

static struct {
	int uffd;
	bool copy, protect, filled;
	uint64_t unit, len;
	unsigned char *frames, *view, *spare;
} bare;

static long move_page(unsigned char *to, unsigned char *from)
{
	struct bare_move move = {.dst = (uintptr_t)to, .src = (uintptr_t)from, .len = bare.unit};

	return syscall(SYS_ioctl, bare.uffd, BARE_IOC_MOVE, &move);
}

/* Serve a write to a protected page: move the page out of the view and in again, which makes the
 * page writable. Once all pages are in the view, each fault is such a write. */
static long unprotect(uint64_t offset)
{
	unsigned char *at = bare.view + offset;

	return move_page(bare.spare, at) ? -1 : move_page(at, bare.spare);
}

static long serve(uint64_t offset)
{
	struct uffdio_copy copy = {.dst = (uintptr_t)bare.view + offset,
				   .src = (uintptr_t)bare.frames + offset,
				   .len = bare.unit,
				   .mode = bare.protect ? BARE_COPY_MODE_WP : 0};

	if (bare.protect && bare.filled)
		return unprotect(offset);
	if (bare.copy)
		return syscall(SYS_ioctl, bare.uffd, UFFDIO_COPY, &copy);
	return move_page(bare.view + offset, bare.frames + offset);
}

static void on_sigbus(int signo, siginfo_t *info, void *context)
{
	uint64_t offset = (uintptr_t)info->si_addr - (uintptr_t)bare.view;
	int saved = errno;

	(void)context;
	/* A fault elsewhere, or a fault that cannot be served, ends the cell by this signal. */
	if (offset >= bare.len || serve(offset & ~(bare.unit - 1)))
		signal(signo, SIG_DFL);
	errno = saved;
}

static unsigned char *reserve(uint64_t len)
{
	unsigned char *mem = mmap(NULL, len + BENCH_HUGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		return NULL;
	mem += -(uintptr_t)mem & (BENCH_HUGE - 1);
	madvise(mem, len, bare.unit >= BENCH_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return mem;
}

/* Fill the frames with the bytes that the library's ways find in their store. */
static int fill(struct bench_run *run)
{
	struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = 16 * MIB};
	fm_mm *mm;
	fm_file *file;
	char uri[40];
	size_t got = 0;
	int error;

	snprintf(uri, sizeof(uri), "memory:%llu", (unsigned long long)bare.len);
	error = fm_mm_create(&options, &mm);
	if (error)
		return bench_why(run, "cannot create an address space: %s", strerror(-error));
	error = fm_file_open(mm, uri, NULL, &file);
	if (!error) {
		error = fm_file_read(file, bare.frames, bare.len, 0, &got);
		fm_file_close(file);
	}
	fm_mm_destroy(mm);
	return error || got != bare.len ? bench_why(run, "%s: %s", uri, strerror(-error)) : 0;
}

static int open_uffd(struct bench_run *run)
{
	struct uffdio_api api = {.api = UFFD_API, .features = BARE_FEATURE_SIGBUS};
	struct uffdio_register reg = {.range = {(uintptr_t)bare.view, bare.len},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	struct uffdio_register spare = {.range = {(uintptr_t)bare.spare, bare.unit},
					.mode = UFFDIO_REGISTER_MODE_MISSING};

	if (!bare.copy || bare.protect)
		api.features |= BARE_FEATURE_MOVE;
	if (bare.protect) {
		api.features |= BARE_FEATURE_WP;
		reg.mode |= BARE_REGISTER_WP;
	}
	bare.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);
	if (bare.uffd < 0)
		return bench_why(run, "userfaultfd: %s", strerror(errno));
	if (ioctl(bare.uffd, UFFDIO_API, &api))
		return bench_why(run, "this kernel has no %s", bare.copy ? "UFFD_FEATURE_SIGBUS"
									  : "UFFDIO_MOVE (Linux 6.8)");
	if (ioctl(bare.uffd, UFFDIO_REGISTER, &reg))
		return bench_why(run, "UFFDIO_REGISTER: %s", strerror(errno));
	if (bare.protect && ioctl(bare.uffd, UFFDIO_REGISTER, &spare))
		return bench_why(run, "UFFDIO_REGISTER: %s", strerror(errno));
	return 0;
}

static int bare_open(struct bench_run *run)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

	bare.copy = bench_ways[run->way].copy;
	bare.protect = bench_ways[run->way].protect;
	bare.unit = run->workload->unit;
	bare.len = run->range_bytes;
	bare.frames = reserve(bare.len);
	bare.view = reserve(bare.len);
	bare.spare = reserve(bare.unit);
	if (!bare.frames || !bare.view || !bare.spare)
		return bench_why(run, "out of memory");
	if (fill(run) || open_uffd(run))
		return -1;
	sigfillset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL); /* replaces the library's handler */
	run->map = bare.view;
	return 0;
}

static void bare_begin(struct bench_run *run)
{
	bare.filled = run->workload->hot;
}

static int bare_read_back(struct bench_run *run, void *to, size_t len, uint64_t offset)
{
	(void)run;
	memcpy(to, bare.view + offset, len);
	return 0;
}

const struct bench_way_ops bench_bare_ops = {
	.open = bare_open, .begin = bare_begin, .read_back = bare_read_back};
