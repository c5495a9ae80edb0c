/* SPDX-License-Identifier: MIT */
/*
 * Workers: threads that call a store's `read`, `write` and `flush`, for stores that can only
 * block and for files if there is no ring. A worker is started when first needed, at most
 * workers_max. A store gets at most half of the workers (the limit of queues[QUEUE_WORK]), so
 * that a dead store leaves workers for the others. Signals are blocked in workers. engine->lock
 * protects counts and queue.
 * May call: os.h, store.h.
 */
#include "io/engine.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>

/* Handle the result of a worker's call. The request ends here if no bytes are left to transfer;
 * otherwise the I/O thread continues. */
static void worker_result(struct io_engine *engine, struct io_request *request, int error,
			  size_t bytes)
{
	bool ends = error || request->bytes_done + bytes == request->total_bytes;

	if (ends) /* before another request can take this request's place, and end */
		request->ended = atomic_add(&engine->ends, 1) + 1;
	os_lock(&engine->lock);
	queue_release(&engine->queues[QUEUE_WORK], request->work_store, request->op);
	if (!ends) {
		request->rest_error = error;
		request->rest_bytes = bytes;
		request->place = PLACE_RETURNED;
		io_list_push(&engine->returned, request);
	}
	os_unlock(&engine->lock);
	if (ends) {
		request->bytes_done += bytes;
		engine_finish(engine, request, error);
	}
	io_engine_wake(engine);
}

static struct io_request *worker_next(struct io_engine *engine)
{
	struct io_request *request;
	uint32_t word;
	bool more;

	os_lock(&engine->lock);
	while (!(request = queue_take(&engine->queues[QUEUE_WORK]))) {
		if (engine->workers_stop)
			break;
		word = atomic_get(&engine->work_word);
		engine->idle_workers++;
		os_unlock(&engine->lock);
		(void)os_futex_wait(&engine->work_word, word, OS_FUTEX_ANY, OS_FOREVER);
		os_lock(&engine->lock);
		engine->idle_workers--;
	}
	if (request)
		request->place = PLACE_WORKER;
	more = workers_wanted(engine);
	os_unlock(&engine->lock);
	if (more) /* the I/O thread starts another worker */
		io_engine_wake(engine);
	return request;
}

static int worker_serve(struct fm_store *store, struct io_request *request, size_t *ret_bytes)
{
	const struct fm_store_ops *ops = store->ops;
	uint64_t offset = request->offset + request->bytes_done;

	switch (request->op) {
	case IO_WRITE:
		return ops->write ? ops->write(store, request->rest, request->rest_count, offset, ret_bytes)
				  : -EOPNOTSUPP;
	case IO_FLUSH:
		return ops->flush ? ops->flush(store) : -EOPNOTSUPP;
	default:
		return ops->read(store, request->rest, request->rest_count, offset, ret_bytes);
	}
}

static void *worker_main(void *arg)
{
	struct io_engine *engine = arg;
	struct io_request *request;

	while ((request = worker_next(engine))) {
		size_t bytes = 0;
		int error = worker_serve(request->work_store, request, &bytes);

		assert(error <= 0);
		worker_result(engine, request, error, error ? 0 : bytes);
	}
	return NULL;
}

bool workers_wanted(struct io_engine *engine)
{
	return queue_has(&engine->queues[QUEUE_WORK]) && !engine->idle_workers &&
	       engine->workers < engine->workers_max;
}

/* Start a worker. Called in the I/O thread, or before the I/O thread runs. */
int workers_start_one(struct io_engine *engine)
{
	char name[16];
	int error;

	snprintf(name, sizeof(name), "fm-work-%u", engine->workers % 1000);
	error = os_thread_start(&engine->worker_threads[engine->workers], name, worker_main,
				engine);
	if (error)
		return error;
	os_lock(&engine->lock);
	engine->workers++;
	os_unlock(&engine->lock);
	return 0;
}

/* Let a worker call the store's operation for request->rest. Called in the I/O thread. */
void io_by_worker(struct io_engine *engine, struct io_request *request, struct fm_store *store)
{
	/* The first worker is started here, so that at least one worker exists. The I/O thread
	 * starts others when needed. */
	int error = engine->workers ? 0 : workers_start_one(engine);

	if (error) {
		io_complete(engine, request, error, 0);
		return;
	}
	os_lock(&engine->lock);
	request->work_store = store;
	queue_push(&engine->queues[QUEUE_WORK], store, request);
	if (atomic_get(&request->cancel_wanted))
		request_take_back(engine, request);
	(void)atomic_add(&engine->work_word, 1);
	os_unlock(&engine->lock);
	os_futex_wake(&engine->work_word, 1, OS_FUTEX_ANY);
}

void workers_stop(struct io_engine *engine)
{
	os_lock(&engine->lock);
	engine->workers_stop = true;
	(void)atomic_add(&engine->work_word, 1);
	os_unlock(&engine->lock);
	os_futex_wake(&engine->work_word, INT_MAX, OS_FUTEX_ANY);
	for (unsigned i = 0; i < engine->workers; i++)
		os_thread_join(&engine->worker_threads[i]);
}
