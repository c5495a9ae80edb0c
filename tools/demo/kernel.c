/* SPDX-License-Identifier: MIT */
/*
 * The subject that maps with the kernel's mmap(): the same probes by system calls, and the
 * loads during which the kernel holds its lock.
 *
 * The kernel has one lock for the whole process. So the probes use memory that has nothing to
 * do with the slow file.
 */
#define _GNU_SOURCE
#include "command/clock.h"
#include "demo/plan.h"
#include "demo/probe.h"
#include "demo/write.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SCRATCH_BYTES (1u << 20)
#define CACHED_STEP   (64u << 10) /* a fault on a cached file brings in 16 pages */

struct kernel_subject {
	const struct round_spec *spec;
	struct load_plan plan;
	struct write_plan writes;
	unsigned char *written; /* LOAD_WRITE: the mapping that is written to */
	int write_fd;
	const volatile unsigned char *slow;
	unsigned char *scratch, *cached;
	int journal_fd;
	size_t cached_at, advised_at;
};

/* ------------------------------------------------------------------ probes */

static void kernel_probe_map(void *arg, struct round *round, struct recorder *rec)
{
	uint64_t begin = tool_now_ns();
	void *addr = mmap(NULL, DEMO_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)arg;
	if (addr == MAP_FAILED || munmap(addr, DEMO_PAGE))
		round_fail(round, "probe map-unmap: %s", strerror(errno));
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
}

static void kernel_probe_advise(void *arg, struct round *round, struct recorder *rec)
{
	struct kernel_subject *subject = arg;
	uint64_t begin = tool_now_ns();

	if (madvise(subject->scratch + subject->advised_at, DEMO_PAGE, MADV_DONTNEED))
		round_fail(round, "probe advise: %s", strerror(errno));
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
	subject->advised_at = (subject->advised_at + DEMO_PAGE) % SCRATCH_BYTES;
}

static void kernel_probe_stats(void *arg, struct round *round, struct recorder *rec)
{
	struct kernel_subject *subject = arg;
	unsigned char resident;
	uint64_t begin = tool_now_ns();

	if (mincore(subject->scratch, DEMO_PAGE, &resident))
		round_fail(round, "probe stats: %s", strerror(errno));
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
}

/* At the end of the cached file, remove its pages from the page tables. The removal waits for
 * the same lock and is recorded, too. */
static void kernel_probe_fault(void *arg, struct round *round, struct recorder *rec)
{
	struct kernel_subject *subject = arg;
	uint64_t begin = tool_now_ns();

	if (subject->cached_at == DEMO_CACHED_BYTES) {
		subject->cached_at = 0;
		if (madvise(subject->cached, DEMO_CACHED_BYTES, MADV_DONTNEED))
			round_fail(round, "probe fault: %s", strerror(errno));
	} else {
		(void)*(volatile unsigned char *)(subject->cached + subject->cached_at);
		subject->cached_at += CACHED_STEP;
	}
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
}

/* Change the last page of the range, to which nobody writes. The kernel splits the mapping and
 * joins the parts again. */
static void kernel_probe_protect(void *arg, struct round *round, struct recorder *rec)
{
	struct kernel_subject *subject = arg;
	unsigned char *page = subject->written + subject->writes.file_bytes - DEMO_PAGE;
	uint64_t begin = tool_now_ns();

	if (mprotect(page, DEMO_PAGE, PROT_READ) ||
	    mprotect(page, DEMO_PAGE, PROT_READ | PROT_WRITE))
		round_fail(round, "probe protect: %s", strerror(errno));
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
	tool_sleep_ms(1);
}

/* ------------------------------------------------------------------ loads */

static __thread sigjmp_buf touch_failed;
static __thread volatile sig_atomic_t touching;

static void on_sigbus(int signo)
{
	if (touching)
		siglongjmp(touch_failed, 1);
	signal(signo, SIG_DFL);
	raise(signo);
}

/* Touch one page and compare its bytes. Returns true if the page could be read. */
static bool touch(const volatile unsigned char *page, const unsigned char *truth, bool *ret_wrong)
{
	bool wrong;

	if (sigsetjmp(touch_failed, 1)) {
		touching = 0;
		return false;
	}
	touching = 1;
	(void)*page;
	wrong = memcmp((const void *)page, truth, DEMO_PAGE) != 0;
	touching = 0;
	*ret_wrong = wrong;
	return true;
}

static void load_touch(struct kernel_subject *subject, struct round *round, unsigned index)
{
	const struct load_plan *plan = &subject->plan;

	for (unsigned t = 0; t < plan->touches && !round_over(round); t++) {
		uint64_t begin = tool_now_ns();
		bool wrong = false;
		bool read = touch(subject->slow + load_plan_offset(plan, index, t),
				  load_plan_truth(plan, index, t), &wrong);

		recorder_add(&round->reader[index], round->start_ns, begin, tool_now_ns());
		atomic_fetch_add(&round->reads, 1);
		if (!read)
			atomic_fetch_add(&round->errors, 1);
		if (wrong)
			atomic_fetch_add(&round->wrong, 1);
	}
}

/* Half of the threads map a file of the ext4. The other half write to a page of the file. */
static void load_journal(struct kernel_subject *subject, struct round *round, unsigned index)
{
	uint64_t until = round->start_ns + subject->spec->min_ns;
	volatile unsigned char *shared = mmap(NULL, DEMO_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
					      subject->journal_fd, (off_t)(index + 1) * DEMO_PAGE);

	if (shared == MAP_FAILED) {
		round_fail(round, "mmap %s: %s", subject->spec->journal_path, strerror(errno));
		return;
	}
	while (!round_over(round) && tool_now_ns() < until) {
		uint64_t begin = tool_now_ns();

		if (index % 2) {
			shared[0]++;
		} else {
			void *addr = mmap(NULL, DEMO_PAGE, PROT_READ, MAP_SHARED,
					  subject->journal_fd, 0);

			if (addr != MAP_FAILED)
				munmap(addr, DEMO_PAGE);
		}
		recorder_add(&round->reader[index], round->start_ns, begin, tool_now_ns());
		atomic_fetch_add(&round->reads, 1);
		tool_sleep_ms(5);
	}
}

/* The last thread syncs the whole mapping again and again. Each other thread writes to its own
 * pages. */
static void load_write(struct kernel_subject *subject, struct round *round, unsigned index)
{
	const struct round_spec *spec = subject->spec;
	struct write_plan *plan = &subject->writes;
	uint64_t until = round->start_ns + spec->min_ns;

	for (unsigned i = 0; !round_over(round) && tool_now_ns() < until; i++) {
		unsigned page = write_plan_page(plan, i);
		uint64_t begin = tool_now_ns();

		if (index == plan->writers) {
			if (msync(subject->written, plan->file_bytes, MS_SYNC))
				round_fail(round, "msync: %s", strerror(errno));
		} else {
			write_plan_write(plan, index, page,
					 subject->written + write_plan_offset(plan, index, page));
			round_count_access(round, index, begin, 0);
		}
		if (spec->pause_ms)
			tool_sleep_ms(spec->pause_ms);
	}
}

static void load_unmap(struct kernel_subject *subject, struct round *round, unsigned index)
{
	const struct round_spec *spec = subject->spec;
	struct write_plan *plan = &subject->writes;
	uint64_t until = round->start_ns + spec->min_ns;
	size_t len = plan->pages * DEMO_PAGE;

	while (!round_over(round) && tool_now_ns() < until) {
		uint64_t begin = tool_now_ns();
		unsigned char *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED,
					 subject->write_fd,
					 (off_t)write_plan_offset(plan, index, 0));

		if (at == MAP_FAILED) {
			round_fail(round, "mmap %s: %s", spec->path, strerror(errno));
			return;
		}
		for (unsigned page = 0; page < plan->pages; page++)
			write_plan_write(plan, index, page, at + page * DEMO_PAGE);
		if (munmap(at, len))
			round_fail(round, "munmap: %s", strerror(errno));
		round_count_access(round, index, begin, 0);
		tool_sleep_ms(spec->pause_ms);
	}
}

static void kernel_load(void *arg, struct round *round, unsigned index)
{
	struct kernel_subject *subject = arg;

	switch (subject->spec->load) {
	case LOAD_TOUCH:
		load_touch(subject, round, index);
		break;
	case LOAD_JOURNAL:
		load_journal(subject, round, index);
		break;
	case LOAD_WRITE:
		load_write(subject, round, index);
		break;
	case LOAD_UNMAP:
		load_unmap(subject, round, index);
		break;
	case LOAD_REMOTE: /* the other process needs no thread here */
		break;
	}
}

/* ------------------------------------------------------------------ open */

/* Map the file that the coordinator wrote. Its cached pages count against no limit of the
 * subject. */
static int open_cached(struct kernel_subject *subject, struct round *round)
{
	int fd = open(subject->spec->cached_path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		round_fail(round, "%s: %s", subject->spec->cached_path, strerror(errno));
		return -1;
	}
	subject->cached = mmap(NULL, DEMO_CACHED_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (subject->cached == MAP_FAILED) {
		round_fail(round, "mmap %s: %s", subject->spec->cached_path, strerror(errno));
		return -1;
	}
	return 0;
}

static int open_slow(struct kernel_subject *subject, struct round *round)
{
	const struct round_spec *spec = subject->spec;
	int fd;
	void *addr;

	if (load_plan_make(spec, round, &subject->plan))
		return -1;
	fd = open(spec->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		round_fail(round, "%s: %s", spec->path, strerror(errno));
		return -1;
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	addr = mmap(NULL, subject->plan.file_bytes, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (addr == MAP_FAILED) {
		round_fail(round, "mmap %s: %s", spec->path, strerror(errno));
		return -1;
	}
	if (spec->random)
		madvise(addr, subject->plan.file_bytes, MADV_RANDOM);
	subject->slow = addr;
	atomic_store(&round->address, (uintptr_t)addr);
	return 0;
}

static int open_written(struct kernel_subject *subject, struct round *round)
{
	const struct round_spec *spec = subject->spec;

	if (write_plan_make(spec, round, &subject->writes))
		return -1;
	subject->write_fd = open(spec->path, O_RDWR | O_CLOEXEC);
	if (subject->write_fd >= 0)
		subject->written = mmap(NULL, subject->writes.file_bytes, PROT_READ | PROT_WRITE,
					MAP_SHARED, subject->write_fd, 0);
	if (subject->write_fd < 0 || subject->written == MAP_FAILED) {
		round_fail(round, "%s: %s", spec->path, strerror(errno));
		return -1;
	}
	/* With LOAD_UNMAP, each thread makes mappings of its own. */
	if (spec->load == LOAD_UNMAP)
		munmap(subject->written, subject->writes.file_bytes);
	return 0;
}

static void kernel_close(void *arg, struct round *round)
{
	struct kernel_subject *subject = arg;

	if (load_writes(subject->spec->load))
		write_plan_check(&subject->writes, subject->spec, round);
}

static int kernel_open(const struct round_spec *spec, struct round *round, void **ret_subject)
{
	static struct kernel_subject the_subject;
	struct kernel_subject *subject = &the_subject;
	struct sigaction action = {.sa_handler = on_sigbus};

	subject->spec = spec;
	subject->scratch = mmap(NULL, SCRATCH_BYTES, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (subject->scratch == MAP_FAILED) {
		round_fail(round, "out of memory");
		return -1;
	}
	if (spec->load == LOAD_JOURNAL) {
		subject->journal_fd = open(spec->journal_path, O_RDWR | O_CLOEXEC);
		if (subject->journal_fd < 0) {
			round_fail(round, "%s: %s", spec->journal_path, strerror(errno));
			return -1;
		}
	} else if (load_writes(spec->load)) {
		if (open_written(subject, round))
			return -1;
	} else if (open_slow(subject, round)) {
		return -1;
	}
	if (open_cached(subject, round))
		return -1;
	sigaction(SIGBUS, &action, NULL);
	/* Join last: the limits are for the faults, not for the preparation. */
	if (subject_join_cgroups(spec, round))
		return -1;
	*ret_subject = subject;
	return 0;
}

const struct subject_ops kernel_subject = {
	.open = kernel_open,
	.probe =
		{
			[PROBE_MAP] = kernel_probe_map,
			[PROBE_ADVISE] = kernel_probe_advise,
			[PROBE_STATS] = kernel_probe_stats,
			[PROBE_FAULT] = kernel_probe_fault,
			[PROBE_PROTECT] = kernel_probe_protect,
			[PROBE_FORK] = subject_probe_fork,
		},
	.load = kernel_load,
	.close = kernel_close,
};
