/* SPDX-License-Identifier: MIT */
/*
 * The I/O thread gives requests to their stores, runs their timers, continues short reads and
 * writes, and calls `done`. The thread sleeps in the ring, or on a futex if there is no ring.
 * Owns the engine's memory, the `completed` list and the count of issued requests. Locks as in
 * engine.h.
 * May call: os.h, store.h; never malloc.
 */
#include "io/engine.h"

#include "os/fds.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define QUEUE_DEPTH_DEFAULT 128
#define WORKERS_DEFAULT     16
#define WORKERS_LIMIT       1024
#define ISSUE_AT_ONCE       64 /* then timers and completions are handled */
#define CANCEL_AT_ONCE      256
#define ADVANCE_AT_ONCE                                                                            \
	8 /* then new requests from these start before the rest is handled */
#define SPIN_NS             40000u

/* ------------------------------------------------------------------ giving requests to stores */

/* Return the store's function that starts this operation without blocking. NULL: a worker must
 * call the blocking operation. */
static int (*store_submit(const struct fm_store *store, enum io_op op))(struct fm_store *,
									struct io_engine *,
									struct io_request *)
{
	if (!(atomic_get(&store->caps) & FM_STORE_SUBMIT))
		return NULL;
	switch (op) {
	case IO_WRITE:
		return store->ops->submit_write;
	case IO_FLUSH:
		return store->ops->submit_flush;
	default:
		return store->ops->submit_read;
	}
}

void io_pass_on(struct io_engine *engine, struct io_request *request, struct fm_store *store)
{
	int (*submit)(struct fm_store *, struct io_engine *, struct io_request *) =
		store_submit(store, request->op);
	int error = submit ? submit(store, engine, request) : -EOPNOTSUPP;

	if (error == -EOPNOTSUPP)
		io_by_worker(engine, request, store);
	else if (error)
		io_complete(engine, request, error, 0);
}

/* Set request->rest to the part of request->iov that bytes_done leaves. */
static void request_rest(struct io_request *request)
{
	size_t skip = request->bytes_done;
	int count = 0;

	for (int i = 0; i < request->iov_count && request->total_bytes; i++) {
		struct iovec part = request->iov[i];

		if (skip >= part.iov_len) {
			skip -= part.iov_len;
			continue;
		}
		part.iov_base = (char *)part.iov_base + skip;
		part.iov_len -= skip;
		skip = 0;
		request->rest[count++] = part;
	}
	request->rest_count = count;
}

static void request_issue(struct io_engine *engine, struct io_request *request)
{
	request_rest(request);
	assert((request->rest_count > 0) == (request->op != IO_FLUSH));
	request->place = PLACE_STORE;
	io_pass_on(engine, request, request->store);
}

static void issue_new(struct io_engine *engine)
{
	for (int i = 0; i < ISSUE_AT_ONCE; i++) {
		struct io_request *request;
		size_t issued;

		os_lock(&engine->lock);
		request = queue_take(&engine->queues[QUEUE_TURN]);
		issued = engine->issued + 1;
		if (request) {
			atomic_set(&engine->issued, issued);
			request->holds_turn = true;
			request->place = PLACE_STORE;
		}
		os_unlock(&engine->lock);
		if (!request)
			return;
		if (!request->total_bytes && request->op != IO_FLUSH)
			io_complete(engine, request, 0, 0);
		else if (!timers_reserve(engine, issued))
			io_complete(engine, request, -ENOMEM, 0);
		else
			request_issue(engine, request);
	}
}

/* ------------------------------------------------------------------ what came back */

/* Tell whether a short read has reached the end of the object: such a read is no error. Nothing
 * is written past the end, so a short write has no such excuse. While the object is made shorter,
 * only the store knows its end: the end is then where a read brings no bytes. */
static bool request_at_end(const struct io_request *request)
{
	uint64_t end = request->rest_bytes ? store_reach(request->store) : store_size(request->store);

	return request->op == IO_READ && request->offset + request->bytes_done >= end;
}

/* Handle the end of the store's last call: end the request, or continue with the rest. */
static void request_advance(struct io_engine *engine, struct io_request *request)
{
	int error = request->rest_error;

	assert(request->rest_bytes <= request->total_bytes - request->bytes_done);
	request->bytes_done += request->rest_bytes;
	if (!error && request->bytes_done < request->total_bytes && !request_at_end(request)) {
		if (!request->rest_bytes)
			error = -EIO;
		else if (atomic_get(&request->cancel_wanted))
			error = -ECANCELED;
		else {
			request->shorts++;
			request_issue(engine, request);
			return;
		}
	}
	engine_finish(engine, request, error);
}

static void advance_completed(struct io_engine *engine)
{
	struct io_request *request;

	for (int i = 0; i < ADVANCE_AT_ONCE && (request = io_list_pop(&engine->completed)); i++)
		request_advance(engine, request);
}

/* Handle the requests that other threads gave to the I/O thread. */
static void collect(struct io_engine *engine)
{
	struct io_request *request;
	struct io_list taken_back, returned;

	os_lock(&engine->lock);
	taken_back = engine->taken_back;
	returned = engine->returned;
	engine->taken_back = engine->returned = (struct io_list){NULL, NULL};
	os_unlock(&engine->lock);
	while ((request = io_list_pop(&taken_back)))
		engine_finish(engine, request, -ECANCELED);
	while ((request = io_list_pop(&returned)))
		io_complete(engine, request, request->rest_error, request->rest_bytes);
}

static void run_cancels(struct io_engine *engine)
{
	struct io_request *request;
	struct fm_store *store;
	bool with_store;

	for (int i = 0; i < CANCEL_AT_ONCE; i++) {
		os_lock(&engine->lock);
		request = cancel_pop(engine);
		with_store = false;
		if (request) {
			/* Only the I/O thread can take the request away from these two places. */
			with_store = request->place == PLACE_STORE || request->place == PLACE_RING;
			if (request->place == PLACE_QUEUE_WORK)
				request_take_back(engine, request);
		}
		os_unlock(&engine->lock);
		if (!request)
			return;
		store = with_store ? request->store : NULL;
		if (store && store->ops->cancel)
			store->ops->cancel(store, engine, request);
	}
}

/* ------------------------------------------------------------------ the thread */

static bool has_work(struct io_engine *engine)
{
	bool has;

	os_lock(&engine->lock);
	has = queue_has(&engine->queues[QUEUE_TURN]) || engine->taken_back.first ||
	      engine->returned.first || engine->cancels || engine->completed.first ||
	      workers_wanted(engine);
	os_unlock(&engine->lock);
	return has || atomic_get(&engine->rethink) ||
	       (atomic_get(&engine->stopping) && !atomic_get(&engine->requests));
}

static void sleep_without_ring(struct io_engine *engine, uint64_t until_ns)
{
	if (until_ns)
		(void)os_futex_wait(&engine->sleeping, 1, OS_FUTEX_ANY, until_ns);
}

/*
 * Spin for the next event. While many short reads are under way, the next event comes sooner than
 * a sleeping thread can be woken. The thread that brings the event would also spend a system call
 * on the wake-up. Returns true if an event has come.
 */
static bool spin(struct io_engine *engine)
{
	uint64_t begun = os_now_ns(), now = begun;

	ring_submit(engine);
	while (now < begun + SPIN_NS) {
		if (ring_has_completed(engine) || atomic_get(&engine->calls) != engine->calls_seen)
			break;
		for (int i = 0; i < 8; i++)
			os_relax();
		now = os_now_ns();
	}
	return now < begun + SPIN_NS;
}

static void note_wait(struct io_engine *engine, uint64_t ns)
{
	if (ns > 16 * SPIN_NS)
		ns = 16 * SPIN_NS;
	engine->wait_ns += ns / 8 - engine->wait_ns / 8;
}

static void engine_sleep(struct io_engine *engine)
{
	uint64_t until_ns = timers_next(engine), begun = os_now_ns();

	if (engine->ring && atomic_get(&engine->issued) && !engine->completed.first &&
	    engine->wait_ns < SPIN_NS && spin(engine))
		until_ns = 0;
	engine->calls_seen = atomic_get(&engine->calls);
	atomic_set(&engine->sleeping, 1);
	if (has_work(engine)) {
		atomic_set(&engine->sleeping, 0);
		until_ns = 0;
	}
	if (engine->ring)
		ring_turn(engine, until_ns);
	else
		sleep_without_ring(engine, until_ns);
	atomic_set(&engine->sleeping, 0);
	note_wait(engine, os_now_ns() - begun);
}

static void start_wanted_worker(struct io_engine *engine)
{
	bool wanted;

	os_lock(&engine->lock);
	wanted = workers_wanted(engine);
	os_unlock(&engine->lock);
	if (!wanted || !workers_start_one(engine))
		return;
	os_lock(&engine->lock);
	engine->workers_max = engine->workers; /* the system gives no more threads */
	engine->queues[QUEUE_WORK].room = engine->workers;
	os_unlock(&engine->lock);
}

static void *engine_main(void *arg)
{
	struct io_engine *engine = arg;

	/* The ring belongs to the thread that submits to it. */
	engine->ring_error = engine->no_uring ? -EOPNOTSUPP : ring_open(engine);
	atomic_set(&engine->started, 1);
	os_futex_wake(&engine->started, 1, OS_FUTEX_ANY);
	while (!atomic_get(&engine->stopping) || atomic_get(&engine->requests)) {
		collect(engine);
		issue_new(engine);
		timers_run(engine);
		advance_completed(engine);
		run_cancels(engine);
		advance_completed(engine);
		start_wanted_worker(engine);
		engine_sleep(engine);
		advance_completed(engine);
	}
	ring_close(engine);
	return NULL;
}

/* ------------------------------------------------------------------ made and unmade */

/* Note in one line why there is no ring, and the remedy. */
static void note_no_ring(const struct io_engine *engine, const struct io_engine_options *options)
{
	const char *what_to_do = "see dmesg";
	char line[256];

	switch (engine->ring_error) {
	case -EPERM:
	case -EACCES:
		what_to_do = "allow io_uring in the container's seccomp profile, or set the sysctl "
			     "kernel.io_uring_disabled to 0";
		break;
	case -ENOSYS:
		what_to_do = "use a kernel with io_uring (5.6 or later), or allow io_uring in the "
			     "container's seccomp profile";
		break;
	case -ENOMEM:
		what_to_do = "raise the limit of locked memory (ulimit -l)";
		break;
	case -EMFILE:
	case -ENFILE:
		what_to_do = "raise the limit of open files (ulimit -n)";
		break;
	}
	if (engine->no_uring)
		snprintf(line, sizeof(line),
			 "io_uring is switched off: up to %u threads read and write instead",
			 engine->workers_max);
	else
		snprintf(line, sizeof(line),
			 "io_uring cannot be used (%s): up to %u threads read and write instead; %s",
			 strerror(-engine->ring_error), engine->workers_max, what_to_do);
	if (options->note)
		options->note(options->note_arg, line);
}

/* Free the engine. Called when no thread is left that could wake the I/O thread. */
static void engine_free(struct io_engine *engine)
{
	os_bell_close(&engine->bell);
	os_meta_free(engine->timers, engine->timers_room * sizeof(*engine->timers));
	os_meta_free(engine->worker_threads,
		     engine->workers_room * sizeof(*engine->worker_threads));
	os_meta_free(engine, sizeof(*engine));
	os_fds_put();
}

static void engine_limits(struct io_engine *engine, const struct io_engine_options *options)
{
	unsigned depth = options->queue_depth ? options->queue_depth : QUEUE_DEPTH_DEFAULT;
	unsigned workers = options->workers_max ? options->workers_max : WORKERS_DEFAULT;
	unsigned share;

	if (workers > WORKERS_LIMIT)
		workers = WORKERS_LIMIT;
	share = workers > 1 ? workers / 2 : 1;
	engine->workers_max = engine->workers_room = workers;
	queue_init(&engine->queues[QUEUE_TURN], QUEUE_TURN, depth, depth - depth / 4, 0);
	queue_init(&engine->queues[QUEUE_WORK], QUEUE_WORK, share, share - share / 4, workers);
}

static void engine_stop(struct io_engine *engine)
{
	atomic_set(&engine->stopping, 1);
	io_engine_wake(engine);
	os_thread_join(&engine->thread);
	workers_stop(engine);
}

int io_engine_create(const struct io_engine_options *options, struct io_engine **ret_engine)
{
	static const struct io_engine_options defaults;
	struct io_engine *engine = os_meta_alloc(sizeof(*engine));
	int error = -ENOMEM;

	if (!engine)
		return -ENOMEM;
	error = os_fds_get();
	if (error) {
		os_meta_free(engine, sizeof(*engine));
		return error;
	}
	error = -ENOMEM;
	if (!options)
		options = &defaults;
	engine->bell.fd = -1;
	engine->no_uring = options->no_uring;
	engine_limits(engine, options);
	engine->worker_threads =
		os_meta_alloc(engine->workers_room * sizeof(*engine->worker_threads));
	if (!engine->worker_threads || !timers_reserve(engine, 1))
		goto out_free;
	error = os_thread_start(&engine->thread, "fm-io", engine_main, engine);
	if (error)
		goto out_free;
	while (!atomic_get(&engine->started))
		(void)os_futex_wait(&engine->started, 0, OS_FUTEX_ANY, OS_FOREVER);
	if (!engine->ring)
		note_no_ring(engine, options);
	*ret_engine = engine;
	return 0;

out_free:
	engine_free(engine);
	return error;
}

void io_engine_destroy(struct io_engine *engine)
{
	if (!engine)
		return;
	engine_stop(engine);
	engine_free(engine);
}
