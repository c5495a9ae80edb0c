/* SPDX-License-Identifier: MIT */
/*
 * The demonstration's measuring: recorders, the phases of a round, the probe threads of a subject,
 * the monitor process. Owns nothing that outlives a round.
 *
 * A probe loops without sleeping; between two operations it yields the processor, outside what
 * is measured, so that few operations are cut in two by the end of a time slice: there are more
 * probes than cores, and that would be measured as a stall of nobody's making. The monitor sleeps
 * for that. May call: libc. The operations come from the subjects.
 */
#define _GNU_SOURCE
#include "demo/demo.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MONITOR_PAUSE_NS 200000

const char *const demo_probe_names[PROBE_COUNT] = {
#define DEMO_X(id, name, fm, kernel) name,
	DEMO_PROBES(DEMO_X)
#undef DEMO_X
};

const char *const demo_way_names[WAY_COUNT] = {
	[WAY_CONTROL] = "control",    [WAY_FILEMAP] = "filemap",
	[WAY_HOLD] = "filemap-hold",  [WAY_KERNEL_CONTROL] = "kernel-control",
	[WAY_KERNEL] = "kernel-mmap",
};

/* ------------------------------------------------------------------ recorders */

static unsigned bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns < (1u << REC_SUB_BITS))
		return (unsigned)ns;
	shift = 63u - (unsigned)__builtin_clzll(ns) - REC_SUB_BITS;
	return ((shift + 1) << REC_SUB_BITS) +
	       (unsigned)((ns >> shift) & ((1u << REC_SUB_BITS) - 1));
}

/* The largest value of a bucket: a quantile is never told too small. */
static uint64_t bucket_top(unsigned bucket)
{
	unsigned shift = bucket >> REC_SUB_BITS;
	uint64_t low = bucket & ((1u << REC_SUB_BITS) - 1);

	if (!shift)
		return low;
	return ((low + (1u << REC_SUB_BITS) + 1) << (shift - 1)) - 1;
}

void recorder_add(struct recorder *rec, uint64_t round_start_ns, uint64_t begin_ns, uint64_t end_ns)
{
	recorder_add_less(rec, round_start_ns, begin_ns, end_ns, 0);
}

void recorder_add_less(struct recorder *rec, uint64_t round_start_ns, uint64_t begin_ns,
		       uint64_t end_ns, uint64_t processor_ns)
{
	uint64_t ns = end_ns - begin_ns;
	uint64_t slot = (end_ns - round_start_ns) / REC_SLOT_NS;
	uint64_t us = (ns + 999) / 1000;

	rec->n++;
	rec->count[bucket_of(processor_ns < ns ? ns - processor_ns : 0)]++;
	if (ns > rec->max_ns)
		rec->max_ns = ns;
	if (us > UINT32_MAX)
		us = UINT32_MAX;
	if (slot < REC_SLOTS && us > rec->slot_max_us[slot])
		rec->slot_max_us[slot] = (uint32_t)us;
}

void recorder_merge(struct recorder *into, const struct recorder *from)
{
	into->n += from->n;
	if (from->max_ns > into->max_ns)
		into->max_ns = from->max_ns;
	for (size_t i = 0; i < REC_BUCKETS; i++)
		into->count[i] += from->count[i];
	for (size_t i = 0; i < REC_SLOTS; i++) {
		if (from->slot_max_us[i] > into->slot_max_us[i])
			into->slot_max_us[i] = from->slot_max_us[i];
	}
}

uint64_t recorder_quantile(const struct recorder *rec, unsigned permille)
{
	uint64_t want = (rec->n * permille + 999) / 1000, seen = 0;

	if (!rec->n)
		return 0;
	for (unsigned i = 0; i < REC_BUCKETS; i++) {
		seen += rec->count[i];
		if (seen >= want && seen)
			return bucket_top(i) < rec->max_ns ? bucket_top(i) : rec->max_ns;
	}
	return rec->max_ns;
}

/* ------------------------------------------------------------------ phases */

void round_set_phase(struct round *round, enum phase phase)
{
	uint32_t old = atomic_load(&round->phase);

	/* Phases only go forward: a failure is not painted over. */
	while (old < phase && !atomic_compare_exchange_weak(&round->phase, &old, phase))
		;
	syscall(SYS_futex, &round->phase, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

enum phase round_wait_phase(struct round *round, enum phase phase)
{
	uint32_t now;

	while ((now = atomic_load(&round->phase)) < (uint32_t)phase)
		syscall(SYS_futex, &round->phase, FUTEX_WAIT, now, NULL, NULL, 0);
	return now;
}

void round_fail(struct round *round, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (!round->failure[0])
		vsnprintf(round->failure, sizeof(round->failure), format, args);
	va_end(args);
	round_set_phase(round, PHASE_FAILED);
}

/* ------------------------------------------------------------------ the load's plan */

int load_plan_make(const struct round_spec *spec, struct round *round, struct load_plan *ret_plan)
{
	struct load_plan plan = {.threads = spec->threads, .touches = spec->touches};
	size_t pages = (size_t)plan.threads * plan.touches;
	struct stat st;
	int fd = open(spec->truth, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st)) {
		round_fail(round, "%s: %s", spec->truth, strerror(errno));
		return -1;
	}
	plan.file_bytes = (uint64_t)st.st_size;
	plan.truth = mmap(NULL, pages * DEMO_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (plan.truth == MAP_FAILED) {
		round_fail(round, "out of memory for %zu pages", pages);
		close(fd);
		return -1;
	}
	for (unsigned i = 0; i < plan.threads; i++) {
		for (unsigned t = 0; t < plan.touches; t++) {
			off_t offset = (off_t)load_plan_offset(&plan, i, t);
			unsigned char *page = plan.truth + (i * plan.touches + t) * DEMO_PAGE;

			if (pread(fd, page, DEMO_PAGE, offset) != DEMO_PAGE) {
				round_fail(round, "%s: can't read %u bytes at %lld", spec->truth,
					   DEMO_PAGE, (long long)offset);
				close(fd);
				return -1;
			}
		}
	}
	/* The kernel's mmap() shall find nothing of it cached. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	*ret_plan = plan;
	return 0;
}

uint64_t load_plan_offset(const struct load_plan *plan, unsigned index, unsigned turn)
{
	uint64_t pages = plan->file_bytes / DEMO_PAGE;
	uint64_t step = pages / ((uint64_t)plan->threads * plan->touches);

	/* The middle of the step: read-around reaches to both sides. */
	return (((uint64_t)turn * plan->threads + index) * step + step / 2) * DEMO_PAGE;
}

const unsigned char *load_plan_truth(const struct load_plan *plan, unsigned index, unsigned turn)
{
	return plan->truth + ((size_t)index * plan->touches + turn) * DEMO_PAGE;
}

/* ------------------------------------------------------------------ the subject */

struct subject_thread {
	pthread_t thread;
	void *subject;
	const struct subject_ops *ops;
	const struct round_spec *spec;
	struct round *round;
	unsigned index; /* the probe, or the load thread */
};

static void *probe_thread(void *arg)
{
	struct subject_thread *self = arg;
	struct round *round = self->round;
	probe_fn probe = self->ops->probe[self->index];

	if (PROBE_SPECIAL & ~self->spec->probes & 1u << self->index)
		return NULL;
	if (round_wait_phase(round, PHASE_MEASURE) != PHASE_MEASURE)
		return NULL;
	while (!round_over(round)) {
		probe(self->subject, round, &round->rec[self->index]);
		sched_yield();
	}
	return NULL;
}

/* The same in both: the child only ends. */
void subject_probe_fork(void *subject, struct round *round, struct recorder *rec)
{
	uint64_t begin = tool_now_ns();
	pid_t pid = fork();

	(void)subject;
	if (!pid)
		_exit(0);
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
	if (pid < 0)
		round_fail(round, "probe fork: %s", strerror(errno));
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	tool_sleep_ms(1);
}

static void *load_thread(void *arg)
{
	struct subject_thread *self = arg;

	if (way_is_control(self->spec->way)) {
		/* Parked: the same threads over an idle store. */
		round_wait_phase(self->round, PHASE_STOP);
		return NULL;
	}
	if (round_wait_phase(self->round, PHASE_MEASURE) != PHASE_MEASURE)
		return NULL;
	if (self->spec->load == LOAD_REMOTE)
		return NULL; /* another process does it */
	self->ops->load(self->subject, self->round, self->index);
	atomic_fetch_add(&self->round->loads_done, 1);
	return NULL;
}

/* After the mappings were made and their truth was read, before anything is touched: the limits
 * shall meet the faults, not the preparation. */
static int join_cgroups(const struct round_spec *spec, struct round *round)
{
	for (size_t i = 0; i < 2; i++) {
		int fd;

		if (!spec->cgroup[i])
			continue;
		fd = open(spec->cgroup[i], O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) != 1) {
			round_fail(round, "can't join %s: %s", spec->cgroup[i], strerror(errno));
			if (fd >= 0)
				close(fd);
			return -1;
		}
		close(fd);
	}
	return 0;
}

int subject_run(const struct round_spec *spec, struct round *round)
{
	const struct subject_ops *ops =
		way_is_kernel(spec->way) ? &kernel_subject : &filemap_subject;
	static struct subject_thread threads[PROBE_INSIDE + LOAD_THREADS_MAX];
	unsigned count = PROBE_INSIDE + spec->threads, started;
	void *subject = NULL;
	char name[16];

	if (ops->open(spec, round, &subject) || join_cgroups(spec, round))
		return 1;
	for (started = 0; started < count; started++) {
		struct subject_thread *thread = &threads[started];
		bool probe = started < PROBE_INSIDE;

		*thread = (struct subject_thread){
			.subject = subject, .ops = ops, .spec = spec, .round = round};
		thread->index = probe ? started : started - PROBE_INSIDE;
		if (pthread_create(&thread->thread, NULL, probe ? probe_thread : load_thread,
				   thread)) {
			round_fail(round, "can't start thread %u", started);
			break;
		}
		/* For whoever looks at /proc/PID/task. */
		if (probe)
			snprintf(name, sizeof(name), "p-%s", demo_probe_names[started]);
		else
			snprintf(name, sizeof(name), "load-%u", thread->index);
		pthread_setname_np(thread->thread, name);
	}
	round_set_phase(round, PHASE_READY);
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i].thread, NULL);
	for (unsigned i = 0; i < spec->threads; i++)
		recorder_merge(&round->rec[PROBE_READER], &round->reader[i]);
	if (ops->close)
		ops->close(subject, round);
	return round->failure[0] ? 1 : 0;
}

/* ------------------------------------------------------------------ the monitor */

/* One read of a /proc file from its beginning to its end, as a monitor does it. 0 or -errno. */
static int read_whole(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -errno;
	while ((got = read(fd, buffer, size)) > 0)
		;
	close(fd);
	return got < 0 ? -errno : 0;
}

/* A read of smaps is half a millisecond of work. Who begins it at the beginning of a time slice is
 * not cut in two at the slice's end, to wait for all the probes' slices: a yield gives no new
 * slice, a sleep does. */
static void monitor_pause(void)
{
	const struct timespec pause = {.tv_nsec = MONITOR_PAUSE_NS};

	nanosleep(&pause, NULL);
}

/* How long this thread has been ready to run and had no processor, so far; 0 where the kernel does
 * not tell. The second number: Documentation/scheduler/sched-stats.rst of Linux. */
static uint64_t processor_wait_ns(int schedstat)
{
	unsigned long long wait_ns = 0;
	char text[96];
	ssize_t got = schedstat < 0 ? -1 : pread(schedstat, text, sizeof(text) - 1, 0);

	if (got <= 0)
		return 0;
	text[got] = 0;
	return sscanf(text, "%*s %llu", &wait_ns) == 1 ? wait_ns : 0;
}

int monitor_run(pid_t pid, struct round *round)
{
	static const char *const files[] = {"cmdline", "smaps", "maps"};
	static char buffer[64 * 1024];
	char path[3][64];
	int schedstat = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; i < 3; i++)
		snprintf(path[i], sizeof(path[i]), "/proc/%d/%s", (int)pid, files[i]);
	if (round_wait_phase(round, PHASE_MEASURE) != PHASE_MEASURE)
		return 0;
	while (!round_over(round)) {
		monitor_pause();
		for (unsigned i = 0; i < 3; i++) {
			uint64_t before = processor_wait_ns(schedstat), begin = tool_now_ns();
			int error = read_whole(path[i], buffer, sizeof(buffer));
			uint64_t end = tool_now_ns();

			if (error) { /* the subject may have ended with its round */
				for (int wait = 0; wait < 100 && !round_over(round); wait++)
					tool_sleep_ms(10);
				if (round_over(round))
					return 0;
				round_fail(round, "monitor: %s: %s", path[i], strerror(-error));
				return 1;
			}
			recorder_add_less(&round->rec[PROBE_INSIDE + i], round->start_ns, begin, end,
					  processor_wait_ns(schedstat) - before);
			sched_yield();
		}
	}
	return 0;
}

/* ------------------------------------------------------------------ /proc/PID/mem */

struct remote_thread {
	pthread_t thread;
	const struct round_spec *spec;
	const struct load_plan *plan;
	struct round *round;
	int fd;
	unsigned index;
};

static void *remote_thread(void *arg)
{
	struct remote_thread *self = arg;
	struct round *round = self->round;
	unsigned char page[DEMO_PAGE];

	if (way_is_control(self->spec->way) ||
	    round_wait_phase(round, PHASE_MEASURE) != PHASE_MEASURE)
		return NULL;
	for (unsigned t = 0; t < self->plan->touches && !round_over(round); t++) {
		uint64_t offset = load_plan_offset(self->plan, self->index, t);
		uint64_t begin = tool_now_ns();
		ssize_t got = pread(self->fd, page, sizeof(page),
				    (off_t)(atomic_load(&round->address) + offset));

		recorder_add(&round->reader[self->index], round->start_ns, begin, tool_now_ns());
		atomic_fetch_add(&round->reads, 1);
		if (got != (ssize_t)sizeof(page))
			atomic_fetch_add(&round->errors, 1);
		else if (memcmp(page, load_plan_truth(self->plan, self->index, t), sizeof(page)))
			atomic_fetch_add(&round->wrong, 1);
	}
	atomic_fetch_add(&round->loads_done, 1);
	return NULL;
}

int remote_run(const struct round_spec *spec, pid_t pid, struct round *round)
{
	static struct remote_thread threads[LOAD_THREADS_MAX];
	struct load_plan plan;
	unsigned started;
	char path[64];
	int fd;

	if (load_plan_make(spec, round, &plan))
		return 1;
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		round_fail(round, "%s: %s", path, strerror(errno));
		return 1;
	}
	for (started = 0; started < spec->threads; started++) {
		threads[started] = (struct remote_thread){
			.spec = spec, .plan = &plan, .fd = fd, .round = round, .index = started};
		if (pthread_create(&threads[started].thread, NULL, remote_thread,
				   &threads[started])) {
			round_fail(round, "can't start thread %u", started);
			break;
		}
	}
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i].thread, NULL);
	close(fd);
	return 0;
}
