/* SPDX-License-Identifier: MIT */
/*
 * The workers of `filemap verify --write`. In the first pass, each worker takes the next page of
 * the order and writes the pattern to the page. In the second pass, each worker takes the next
 * piece of the file. The worker compares the pattern with a plain read of the store and with the
 * mapping. The main thread only waits, so that signals end the program at once. `lock` protects the
 * result and `running`. Everything else is atomic, or set before the workers start.
 */
#include "verify/write.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE        4096u
#define PIECE_BYTES (256u << 10)
#define PROGRESS_NS 200000000

struct pattern_pass {
	const struct verify_pattern *job;
	bool write;
	struct order order;
	uint64_t unit_bytes;
	sem_t pins; /* limits the pins, so that many threads do not run out of frames */
	_Atomic uint64_t next_turn, done_bytes;
	atomic_bool stop;
	pthread_mutex_t lock;
	pthread_cond_t all_done;
	unsigned running;
	struct verify_found found;
};

struct copy {
	char *to;
	const char *from;
	size_t len;
};

/* Fill a buffer with the pattern. `offset` is a multiple of 8. */
static void pattern_fill(uint64_t seed, uint64_t offset, char *to, size_t len)
{
	for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t word = ((offset + i) / 8 + 1) * 0x9e3779b97f4a7c15ull ^ seed;

		word ^= word >> 29;
		word *= 0xbf58476d1ce4e5b9ull;
		memcpy(to + i, &word, len - i < sizeof(word) ? len - i : sizeof(word));
	}
}

static void note_error(struct pattern_pass *pass, int error, uint64_t offset, bool in_mapping)
{
	struct verify_found *found = &pass->found;

	pthread_mutex_lock(&pass->lock);
	if (!found->error || offset < found->error_at) {
		found->error = error;
		found->error_at = offset;
		found->error_in_mapping = in_mapping;
	}
	pthread_mutex_unlock(&pass->lock);
	atomic_store(&pass->stop, true);
}

/* Called by fm_guard(), so the function only accesses memory. */
static void copy_body(void *arg)
{
	const struct copy *copy = arg;

	for (size_t at = 0; at < copy->len; at += PAGE)
		memcpy(copy->to + at, copy->from + at, copy->len - at < PAGE ? copy->len - at : PAGE);
}

/* Copy into the mapping in the first pass, and out of the mapping in the second pass. */
static int copy_mapped(struct pattern_pass *pass, char *buffer, uint64_t offset, size_t len)
{
	const struct verify_pattern *job = pass->job;
	struct copy copy = {.to = buffer, .from = job->map + offset, .len = len};
	struct fm_error fault = {.offset = offset};
	int error = 0;

	if (pass->write)
		copy = (struct copy){.to = job->map + offset, .from = buffer, .len = len};
	if (job->pin) {
		while (sem_wait(&pass->pins) < 0)
			;
		error = fm_pin(job->mm, job->map + offset, len, pass->write ? FM_WRITE : 0);
	}
	if (!error) {
		error = fm_guard(copy_body, &copy, &fault);
		if (job->pin)
			fm_unpin(job->mm, job->map + offset, len);
	}
	if (job->pin)
		sem_post(&pass->pins);
	if (error)
		note_error(pass, error, fault.offset, true);
	return error;
}

static void note_wrong(struct pattern_pass *pass, const char *is, const char *should,
		       uint64_t offset, size_t len, uint64_t *count)
{
	if (!memcmp(is, should, len))
		return;
	pthread_mutex_lock(&pass->lock);
	for (size_t at = 0; at < len; at += PAGE) {
		size_t part = len - at < PAGE ? len - at : PAGE, i = 0;

		if (!memcmp(is + at, should + at, part))
			continue;
		(*count)++;
		while (is[at + i] == should[at + i])
			i++;
		if (offset + at + i < pass->found.wrong_at)
			pass->found.wrong_at = offset + at + i;
	}
	pthread_mutex_unlock(&pass->lock);
}

static int read_plain(struct pattern_pass *pass, char *to, uint64_t offset, size_t len)
{
	size_t got = 0;
	int error = fm_file_read(pass->job->file, to, len, offset, &got);

	if (!error && got != len)
		error = -EIO;
	if (error)
		note_error(pass, error, offset + got, false);
	return error;
}

/* Write or compare one unit. `buffer` has room for two units. */
static int one_unit(struct pattern_pass *pass, char *buffer, uint64_t offset)
{
	const struct verify_pattern *job = pass->job;
	uint64_t rest = job->size - offset, pin = job->pin ? job->page_size : pass->unit_bytes;
	size_t len = rest < pass->unit_bytes ? (size_t)rest : (size_t)pass->unit_bytes;
	char *is = buffer + pass->unit_bytes;
	int error = 0;

	pattern_fill(job->seed, offset, buffer, len);
	if (!pass->write) {
		error = read_plain(pass, is, offset, len);
		if (!error)
			note_wrong(pass, is, buffer, offset, len, &pass->found.plain_wrong);
	}
	for (size_t at = 0; !error && at < len; at += pin)
		error = copy_mapped(pass, (pass->write ? buffer : is) + at, offset + at,
				    len - at < pin ? len - at : pin);
	if (!error && !pass->write)
		note_wrong(pass, is, buffer, offset, len, &pass->found.mapped_wrong);
	atomic_fetch_add(&pass->done_bytes, error ? 0 : len);
	return error;
}

static void *worker(void *arg)
{
	struct pattern_pass *pass = arg;
	char *buffer = aligned_alloc(PAGE, 2 * pass->unit_bytes);
	uint64_t turn;

	if (!buffer)
		note_error(pass, -ENOMEM, 0, false);
	while (!atomic_load(&pass->stop) &&
	       (turn = atomic_fetch_add(&pass->next_turn, 1)) < pass->order.count)
		if (one_unit(pass, buffer, order_unit(&pass->order, turn) * pass->unit_bytes))
			break;
	free(buffer);
	pthread_mutex_lock(&pass->lock);
	if (--pass->running == 0)
		pthread_cond_signal(&pass->all_done);
	pthread_mutex_unlock(&pass->lock);
	return NULL;
}

/* ------------------------------------------------------------------ a pass */

static void wait_all(struct pattern_pass *pass)
{
	const struct verify_pattern *job = pass->job;
	struct timespec until;

	pthread_mutex_lock(&pass->lock);
	while (pass->running) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += PROGRESS_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (pthread_cond_timedwait(&pass->all_done, &pass->lock, &until) == ETIMEDOUT && job->progress) {
			pthread_mutex_unlock(&pass->lock);
			job->progress(pass->write ? "writing" : "reading back", atomic_load(&pass->done_bytes),
				      job->size);
			pthread_mutex_lock(&pass->lock);
		}
	}
	pthread_mutex_unlock(&pass->lock);
}

static int run_workers(struct pattern_pass *pass)
{
	unsigned threads = pass->job->threads, started;
	pthread_t *thread = calloc(threads, sizeof(*thread));
	int error = thread ? 0 : -ENOMEM;

	pass->running = threads;
	for (started = 0; !error && started < threads; started += !error)
		error = -pthread_create(&thread[started], NULL, worker, pass);
	if (error) {
		atomic_store(&pass->stop, true);
		pthread_mutex_lock(&pass->lock);
		pass->running -= threads - started;
		pthread_mutex_unlock(&pass->lock);
	}
	wait_all(pass);
	while (started--)
		pthread_join(thread[started], NULL);
	free(thread);
	return error;
}

static int run_pass(const struct verify_pattern *job, bool write, struct verify_found *ret_found)
{
	struct pattern_pass pass = {.job = job, .write = write, .lock = PTHREAD_MUTEX_INITIALIZER};
	uint64_t pins = job->budget_bytes / 4 / job->page_size;
	pthread_condattr_t attr;
	int error;

	/* The first pass writes page by page, so that the order is an order of pages. The second
	 * pass compares larger pieces, from the beginning on. */
	pass.unit_bytes = job->page_size;
	if (!write && pass.unit_bytes < PIECE_BYTES)
		pass.unit_bytes = PIECE_BYTES;
	order_make(&pass.order, write ? job->order : ORDER_SEQUENTIAL,
		   (job->size + pass.unit_bytes - 1) / pass.unit_bytes);
	pass.found.wrong_at = UINT64_MAX;
	sem_init(&pass.pins, 0, pins < 1 ? 1 : pins > 1024 ? 1024 : (unsigned)pins);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pass.all_done, &attr);
	error = run_workers(&pass);
	if (!error) {
		*ret_found = pass.found;
		ret_found->bytes = atomic_load(&pass.done_bytes);
	}
	pthread_cond_destroy(&pass.all_done);
	pthread_condattr_destroy(&attr);
	sem_destroy(&pass.pins);
	return error;
}

int verify_pattern_write(const struct verify_pattern *job, struct verify_found *ret_found)
{
	return run_pass(job, true, ret_found);
}

int verify_pattern_find(const struct verify_pattern *job, struct verify_found *ret_found)
{
	return run_pass(job, false, ret_found);
}
