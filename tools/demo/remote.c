/* SPDX-License-Identifier: MIT */
/*
 * LOAD_REMOTE: a second process reads cold pages of the subject through /proc/PID/mem.
 *
 * The kernel serves such a read from its own mmap(). From a mapping on userfaultfd, the kernel
 * serves only pages that are present: a read of an absent page fails with EIO at once, under
 * every trap (Linux 6.18). Therefore a thread of the filemap subject pins the page that the
 * reader wants. The reader waits for the pin and then reads the page in the same way as from
 * the kernel's mapping.
 */
#define _GNU_SOURCE
#include "demo/remote.h"

#include "command/clock.h"
#include "demo/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOOK_UP_NS (50 * NSEC_PER_MSEC) /* a waiter tests this often whether the round is over */

/* ------------------------------------------------------------------ the hand-over */

void handover_step(struct round *round, unsigned index, uint32_t step)
{
	uint32_t old = atomic_load(&round->handover[index]);

	/* Steps only go forward: the reader can read a page before the load thread tells that the
	 * page is pinned. */
	while (old < step &&
	       !atomic_compare_exchange_weak(&round->handover[index], &old, step))
		;
	syscall(SYS_futex, &round->handover[index], FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool handover_wait(struct round *round, unsigned index, uint32_t step)
{
	const struct timespec look_up = {.tv_nsec = LOOK_UP_NS};
	_Atomic uint32_t *word = &round->handover[index];
	uint32_t now;

	while ((now = atomic_load(word)) < step && !round_over(round))
		syscall(SYS_futex, word, FUTEX_WAIT, now, &look_up, NULL, 0);
	return now >= step;
}

/* ------------------------------------------------------------------ the reading process */

struct remote_thread {
	pthread_t thread;
	const struct round_spec *spec;
	const struct load_plan *plan;
	struct round *round;
	int fd;
	unsigned index;
};

/* Read the page of turn `t`. Under filemap, wait for the pin if the page is absent. */
static bool read_page(struct remote_thread *self, unsigned t, unsigned char *page)
{
	struct round *round = self->round;
	off_t at = (off_t)(atomic_load(&round->address) +
			   load_plan_offset(self->plan, self->index, t));

	if (pread(self->fd, page, DEMO_PAGE, at) == DEMO_PAGE)
		return true;
	atomic_store(&round->last_error, -errno);
	if (self->spec->way != WAY_FILEMAP || errno != EIO)
		return false;
	if (!handover_wait(round, self->index, HANDOVER_PINNED(t)))
		return false;
	if (pread(self->fd, page, DEMO_PAGE, at) == DEMO_PAGE)
		return true;
	atomic_store(&round->last_error, -errno);
	return false;
}

static void *remote_thread(void *arg)
{
	struct remote_thread *self = arg;
	struct round *round = self->round;
	unsigned char page[DEMO_PAGE];

	if (way_is_control(self->spec->way) ||
	    round_wait_phase(round, PHASE_MEASURE) != PHASE_MEASURE)
		return NULL;
	for (unsigned t = 0; t < self->plan->touches && !round_over(round); t++) {
		uint64_t begin = tool_now_ns();
		bool read = read_page(self, t, page);

		if (!read && round_over(round))
			break;
		recorder_add(&round->reader[self->index], round->start_ns, begin, tool_now_ns());
		handover_step(round, self->index, HANDOVER_READ(t));
		atomic_fetch_add(&round->reads, 1);
		if (!read)
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
