/* SPDX-License-Identifier: MIT */
/*
 * The subject with its probe threads and load threads, and the monitor process.
 *
 * A probe loops without sleeping. Between two operations the probe yields the processor,
 * outside what is measured. There are more probes than processors. Without the yield, the end
 * of a time slice would cut many operations in two, and each would look like a stall.
 */
#define _GNU_SOURCE
#include "demo/probe.h"

#include "command/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MONITOR_PAUSE_NS 200000

/* ------------------------------------------------------------------ the subject */

struct subject_thread {
	pthread_t thread;
	void *subject;
	const struct subject_ops *ops;
	const struct round_spec *spec;
	struct round *round;
	unsigned index; /* of the probe, or of the load thread */
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
		/* The same threads exist, but the store is idle. */
		round_wait_phase(self->round, PHASE_STOP);
		return NULL;
	}
	if (round_wait_phase(self->round, PHASE_MEASURE) != PHASE_MEASURE)
		return NULL;
	if (self->spec->nice && setpriority(PRIO_PROCESS, (id_t)gettid(), self->spec->nice))
		round_fail(self->round, "setpriority: %s", strerror(errno));
	self->ops->load(self->subject, self->round, self->index);
	if (self->spec->load != LOAD_REMOTE) /* the remote process counts its own threads */
		atomic_fetch_add(&self->round->loads_done, 1);
	return NULL;
}

int subject_join_cgroups(const struct round_spec *spec, struct round *round)
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

	if (ops->open(spec, round, &subject))
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

/* Read a /proc file from its beginning to its end, as a monitor does. 0 or a negative errno. */
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

/* A read of smaps needs half a millisecond of processor time. A sleep gives the monitor a new
 * time slice, and a yield does not. A read at the beginning of a slice ends within the slice,
 * and does not wait for the slices of the probes. */
static void monitor_pause(void)
{
	const struct timespec pause = {.tv_nsec = MONITOR_PAUSE_NS};

	nanosleep(&pause, NULL);
}

/* Return how long this thread has been ready to run without a processor; 0 if the kernel does
 * not tell. See the second number in Documentation/scheduler/sched-stats.rst of Linux. */
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

			/* The subject may have ended with its round. */
			if (error) {
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
