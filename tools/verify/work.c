/* SPDX-License-Identifier: MIT */
/*
 * The workers of `filemap verify`. Each worker takes the next unit of the order, copies the unit
 * out of the mapping, reads the same bytes plainly, and compares. The mapping is read first: with a
 * stuck store, the mapping returns the error of its deadline, but a plain read would hang. The main
 * thread only waits, so that signals end the program at once. `lock` protects the result and
 * `running`. Everything else is atomic, or set before the workers start.
 */
#include "verify/verify.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define UNIT_BYTES      (1u << 20) /* sequential and reverse: few plain reads, and large reads */
#define UNIT_BYTES_MANY (256u << 10)
#define MANY_THREADS    8
#define PIECE_MAX_BYTES (128u << 10)
#define PROGRESS_NS     200000000ull

struct pass {
	const struct verify_job *job;
	struct order order;
	uint64_t unit_bytes, step_bytes, all_bytes;
	uint64_t piece_bytes; /* bytes copied, and pinned, at once */
	sem_t pins;           /* limits the pins, so that many threads do not run out of frames */
	_Atomic uint64_t next_turn, done_bytes;
	_Atomic uint64_t differs_at; /* UINT64_MAX: no difference */
	atomic_bool stop;
	pthread_mutex_t lock;
	pthread_cond_t all_done;
	unsigned running;
	struct verify_result result;
};

struct copy {
	char *to;
	const char *from;
	size_t len;
	bool backwards;
};

static void note_error(struct pass *pass, int error, uint64_t offset, bool in_mapping)
{
	struct verify_result *result = &pass->result;

	pthread_mutex_lock(&pass->lock);
	if (!result->error || offset < result->error_at) {
		result->error = error;
		result->error_at = offset;
		result->error_in_mapping = in_mapping;
	}
	pthread_mutex_unlock(&pass->lock);
	atomic_store(&pass->stop, true);
}

static void note_difference(struct pass *pass, uint64_t offset)
{
	uint64_t lowest = atomic_load(&pass->differs_at);

	while (offset < lowest &&
	       !atomic_compare_exchange_weak(&pass->differs_at, &lowest, offset))
		;
}

/* Called by fm_guard(), so the function only accesses memory. Each memcpy() copies one page. A
 * larger memcpy() may start with the end, and the faults would come in another order. */
static void copy_body(void *arg)
{
	const struct copy *copy = arg;
	size_t pages = copy->len / VERIFY_PAGE;

	for (size_t i = 0; i < pages; i++) {
		size_t at = (copy->backwards ? pages - 1 - i : i) * VERIFY_PAGE;

		memcpy(copy->to + at, copy->from + at, VERIFY_PAGE);
	}
}

/* Copy a piece out of the mapping. */
static int copy_piece(struct pass *pass, char *to, uint64_t offset, size_t len)
{
	const struct verify_job *job = pass->job;
	struct copy copy = {
		.to = to,
		.from = job->map + offset,
		.len = len,
		.backwards = pass->order.kind == ORDER_REVERSE,
	};
	struct fm_error fault = {.offset = offset};
	int error = 0;

	if (job->pin) {
		while (sem_wait(&pass->pins) < 0)
			;
		error = fm_pin(job->mm, copy.from, len, 0);
	}
	if (!error) {
		error = fm_guard(copy_body, &copy, &fault);
		if (job->pin)
			fm_unpin(job->mm, copy.from, len);
	}
	if (job->pin)
		sem_post(&pass->pins);
	if (error)
		note_error(pass, error, fault.offset, true);
	return error;
}

/* Copy all pieces of a unit, in the direction of the order. `len` is a multiple of VERIFY_PAGE. */
static int copy_unit(struct pass *pass, char *to, uint64_t offset, size_t len)
{
	uint64_t pieces = (len + pass->piece_bytes - 1) / pass->piece_bytes;
	int error = 0;

	for (uint64_t i = 0; i < pieces && !error; i++) {
		uint64_t piece = pass->order.kind == ORDER_REVERSE ? pieces - 1 - i : i;
		uint64_t start = piece * pass->piece_bytes;
		uint64_t rest = len - start;

		error = copy_piece(pass, to + start, offset + start,
				   rest < pass->piece_bytes ? rest : pass->piece_bytes);
	}
	return error;
}

/* Read what should be in the mapping: plain reads, and zeros after the end. */
static int read_plain(struct pass *pass, char *to, uint64_t offset, size_t len)
{
	uint64_t in_file = pass->job->size - offset;
	size_t want = in_file < len ? (size_t)in_file : len, got = 0;
	int error;

	error = fm_file_read(pass->job->file, to, want, offset, &got);
	if (!error && got != want)
		error = -EIO;
	if (error)
		note_error(pass, error, offset + got, false);
	else
		memset(to + want, 0, len - want);
	return error;
}

static void compare_unit(struct pass *pass, char *mapped, char *plain, uint64_t offset)
{
	uint64_t end = offset + pass->unit_bytes, size = pass->job->size;
	size_t len, i = 0;

	if (end > size)
		end = (size + VERIFY_PAGE - 1) & ~(uint64_t)(VERIFY_PAGE - 1);
	len = (size_t)(end - offset);
	if (copy_unit(pass, mapped, offset, len) || read_plain(pass, plain, offset, len))
		return;
	if (memcmp(mapped, plain, len) != 0) {
		while (mapped[i] == plain[i])
			i++;
		note_difference(pass, offset + i);
	}
	atomic_fetch_add(&pass->done_bytes, end > size ? size - offset : len);
}

static void *worker(void *arg)
{
	struct pass *pass = arg;
	size_t buffer_len = pass->unit_bytes;
	char *buffer = aligned_alloc(VERIFY_PAGE, 2 * buffer_len);
	uint64_t turn, offset;

	if (!buffer)
		note_error(pass, -ENOMEM, 0, false);
	while (!atomic_load(&pass->stop) &&
	       (turn = atomic_fetch_add(&pass->next_turn, 1)) < pass->order.count) {
		offset = order_unit(&pass->order, turn) * pass->step_bytes;
		/* Only an offset below the first difference still matters. */
		if (offset < atomic_load(&pass->differs_at))
			compare_unit(pass, buffer, buffer + buffer_len, offset);
	}
	free(buffer);
	pthread_mutex_lock(&pass->lock);
	if (--pass->running == 0)
		pthread_cond_signal(&pass->all_done);
	pthread_mutex_unlock(&pass->lock);
	return NULL;
}

static void plan(struct pass *pass, const struct verify_job *job)
{
	uint64_t unit = job->page_size, step, piece, count, pins;

	if (job->order == ORDER_SEQUENTIAL || job->order == ORDER_REVERSE) {
		unit = job->threads > MANY_THREADS ? UNIT_BYTES_MANY : UNIT_BYTES;
		if (unit < job->page_size)
			unit = job->page_size;
	} else if (job->order == ORDER_STRIDED) {
		unit = VERIFY_PAGE;
	}
	step = job->order == ORDER_STRIDED ? job->stride : unit;
	count = (job->size + step - 1) / step;
	/* The pieces of all threads together take a quarter of the budget, but at least a page
	 * each. */
	piece = job->budget_bytes / 4 / job->threads / job->page_size * job->page_size;
	if (piece > PIECE_MAX_BYTES)
		piece = PIECE_MAX_BYTES;
	if (piece < job->page_size)
		piece = job->page_size;
	pins = job->budget_bytes / 2 / piece;

	order_make(&pass->order, job->order, count);
	pass->job = job;
	pass->unit_bytes = unit;
	pass->step_bytes = step;
	pass->piece_bytes = piece < unit ? piece : unit;
	pass->all_bytes = job->order == ORDER_STRIDED ? count * unit : job->size;
	sem_init(&pass->pins, 0, pins < 1 ? 1 : pins > 1024 ? 1024 : (unsigned)pins);
	atomic_store(&pass->differs_at, UINT64_MAX);
}

static void wait_all(struct pass *pass)
{
	struct timespec until;

	pthread_mutex_lock(&pass->lock);
	while (pass->running) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += PROGRESS_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (pthread_cond_timedwait(&pass->all_done, &pass->lock, &until) == ETIMEDOUT &&
		    pass->job->progress) {
			pthread_mutex_unlock(&pass->lock);
			pass->job->progress(atomic_load(&pass->done_bytes), pass->all_bytes);
			pthread_mutex_lock(&pass->lock);
		}
	}
	pthread_mutex_unlock(&pass->lock);
}

static int run_workers(struct pass *pass, pthread_t *thread)
{
	unsigned started;
	int error = 0;

	pass->running = pass->job->threads;
	for (started = 0; started < pass->job->threads; started++) {
		error = -pthread_create(&thread[started], NULL, worker, pass);
		if (error)
			break;
	}
	if (error) {
		atomic_store(&pass->stop, true);
		pthread_mutex_lock(&pass->lock);
		pass->running -= pass->job->threads - started;
		pthread_mutex_unlock(&pass->lock);
	}
	wait_all(pass);
	while (started--)
		pthread_join(thread[started], NULL);
	return error;
}

int verify_run(const struct verify_job *job, struct verify_result *ret_result)
{
	struct pass pass = {.lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t *thread = calloc(job->threads, sizeof(*thread));
	pthread_condattr_t attr;
	int error;

	if (!thread)
		return -ENOMEM;
	plan(&pass, job);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pass.all_done, &attr);
	error = run_workers(&pass, thread);
	if (!error) {
		*ret_result = pass.result;
		ret_result->bytes = atomic_load(&pass.done_bytes);
		ret_result->differs_at = atomic_load(&pass.differs_at);
		ret_result->differs = ret_result->differs_at != UINT64_MAX;
	}
	pthread_cond_destroy(&pass.all_done);
	pthread_condattr_destroy(&attr);
	sem_destroy(&pass.pins);
	free(thread);
	return error;
}
