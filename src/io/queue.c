/* SPDX-License-Identifier: MIT */
/*
 * The order of requests: demand before speculation, and within each priority the stores in turn.
 * So a slow or dead store delays only its own requests. Owns the queues and the lists through
 * which other threads reach the I/O thread; engine->lock protects all of them.
 * io_submit, io_promote and io_cancel are signal-safe: they allocate nothing and take only that
 * lock.
 * May call: os.h.
 */
#include "io/engine.h"

#include <assert.h>
#include <errno.h>

/* ------------------------------------------------------------------ lists */

void io_list_push(struct io_list *list, struct io_request *request)
{
	request->next = NULL;
	if (list->last)
		list->last->next = request;
	else
		list->first = request;
	list->last = request;
}

struct io_request *io_list_pop(struct io_list *list)
{
	struct io_request *request = list->first;

	if (request) {
		list->first = request->next;
		if (!list->first)
			list->last = NULL;
		request->next = NULL;
	}
	return request;
}

/* ------------------------------------------------------------------ turns of stores */

void queue_init(struct io_queue *queue, enum io_queue_index index, uint32_t demand,
		uint32_t speculative, uint32_t room)
{
	*queue = (struct io_queue){.index = index, .limit = {demand, speculative}, .room = room};
}

static void turn_add(struct io_queue *queue, struct io_store_queue *waiting, int priority)
{
	waiting->next[priority] = NULL;
	waiting->prev[priority] = queue->last[priority];
	if (queue->last[priority])
		queue->last[priority]->next[priority] = waiting;
	else
		queue->first[priority] = waiting;
	queue->last[priority] = waiting;
	waiting->has_turn[priority] = true;
}

static void turn_remove(struct io_queue *queue, struct io_store_queue *waiting, int priority)
{
	struct io_store_queue *next = waiting->next[priority], *prev = waiting->prev[priority];

	if (prev)
		prev->next[priority] = next;
	else
		queue->first[priority] = next;
	if (next)
		next->prev[priority] = prev;
	else
		queue->last[priority] = prev;
	waiting->has_turn[priority] = false;
}

/* Put a store into the line of turns, or remove the store. A store is in line exactly if a
 * request waits and the store may have more requests under way. So an empty queue keeps no
 * pointer to a store that may be closed next. */
static void turn_update(struct io_queue *queue, struct io_store_queue *waiting)
{
	for (int priority = IO_DEMAND; priority <= IO_SPECULATIVE; priority++) {
		bool wants = waiting->first[priority] && waiting->busy < queue->limit[priority];

		if (wants && !waiting->has_turn[priority])
			turn_add(queue, waiting, priority);
		else if (!wants && waiting->has_turn[priority])
			turn_remove(queue, waiting, priority);
	}
}

/* ------------------------------------------------------------------ one store's queue */

static void waiting_append(struct io_store_queue *waiting, struct io_request *request)
{
	int priority = request->priority;

	request->next = NULL;
	request->prev = waiting->last[priority];
	if (waiting->last[priority])
		waiting->last[priority]->next = request;
	else
		waiting->first[priority] = request;
	waiting->last[priority] = request;
}

static void waiting_unlink(struct io_store_queue *waiting, struct io_request *request)
{
	int priority = request->priority;

	if (request->prev)
		request->prev->next = request->next;
	else
		waiting->first[priority] = request->next;
	if (request->next)
		request->next->prev = request->prev;
	else
		waiting->last[priority] = request->prev;
	request->next = request->prev = NULL;
}

void queue_push(struct io_queue *queue, struct fm_store *store, struct io_request *request)
{
	struct io_store_queue *waiting = &store->queue[queue->index];

	request->place = queue->index == QUEUE_TURN ? PLACE_QUEUE_TURN : PLACE_QUEUE_WORK;
	atomic_set(&request->state, IO_QUEUED);
	waiting_append(waiting, request);
	turn_update(queue, waiting);
}

/*
 * Return the first request of a store that may take one of the room's places, or NULL. Of stores
 * that die in succession, each leaves as many places as the store takes. Writes leave some places
 * to reads of the same store: a write may wait for a lock held by a system call that waits for
 * such a read.
 */
static struct io_request *waiting_next(const struct io_queue *queue,
				       const struct io_store_queue *waiting, int priority)
{
	struct io_request *request = waiting->first[priority];

	if (!queue->room)
		return request;
	if (queue->busy >= queue->room || (waiting->busy && waiting->busy >= queue->room - queue->busy))
		return NULL;
	if (waiting->busy_writes && waiting->busy_writes >= queue->limit[IO_SPECULATIVE])
		while (request && request->op != IO_READ)
			request = request->next;
	return request;
}

/* Find the store whose turn has come, among the stores that may have a turn. */
static struct io_request *turn_next(const struct io_queue *queue, int priority,
				    struct io_store_queue **ret_waiting)
{
	struct io_store_queue *waiting = queue->first[priority];
	struct io_request *request = NULL;

	for (; waiting && !(request = waiting_next(queue, waiting, priority));
	     waiting = waiting->next[priority])
		;
	*ret_waiting = waiting;
	return request;
}

/* Take the next request to serve. The request is under way from now on, until queue_release().
 * Returns NULL if no request may start. */
struct io_request *queue_take(struct io_queue *queue)
{
	int priority = IO_DEMAND;
	struct io_store_queue *waiting;
	struct io_request *request = turn_next(queue, priority, &waiting);

	if (!request) {
		priority = IO_SPECULATIVE;
		request = turn_next(queue, priority, &waiting);
	}
	if (!request)
		return NULL;
	assert(atomic_get(&request->state) == IO_QUEUED);
	waiting_unlink(waiting, request);
	atomic_set(&request->state, IO_ISSUED);
	waiting->busy++;
	waiting->busy_writes += request->op != IO_READ;
	queue->busy++;
	turn_remove(queue, waiting, priority); /* to the end of the line */
	turn_update(queue, waiting);
	return request;
}

void queue_release(struct io_queue *queue, struct fm_store *store, enum io_op op)
{
	struct io_store_queue *waiting = &store->queue[queue->index];

	assert(waiting->busy > 0 && queue->busy > 0);
	waiting->busy--;
	waiting->busy_writes -= op != IO_READ;
	queue->busy--;
	turn_update(queue, waiting);
}

/* Return the queue that a request waits in, and the store's part of this queue. */
static struct io_queue *request_queue(struct io_engine *engine, struct io_request *request,
				      struct io_store_queue **ret_waiting)
{
	bool is_work = request->place == PLACE_QUEUE_WORK;
	struct fm_store *store = is_work ? request->work_store : request->store;
	enum io_queue_index index = is_work ? QUEUE_WORK : QUEUE_TURN;

	assert(is_work || request->place == PLACE_QUEUE_TURN);
	*ret_waiting = &store->queue[index];
	return &engine->queues[index];
}

/* Take a request out of its queue. The I/O thread then ends the request with -ECANCELED. */
void request_take_back(struct io_engine *engine, struct io_request *request)
{
	struct io_store_queue *waiting;
	struct io_queue *queue = request_queue(engine, request, &waiting);

	waiting_unlink(waiting, request);
	turn_update(queue, waiting);
	request->place = PLACE_TAKEN_BACK;
	atomic_set(&request->state, IO_ISSUED);
	io_list_push(&engine->taken_back, request);
}

/* ------------------------------------------------------------------ cancels of issued requests */

void cancel_list(struct io_engine *engine, struct io_request *request)
{
	request->cancel_prev = NULL;
	request->cancel_next = engine->cancels;
	if (engine->cancels)
		engine->cancels->cancel_prev = request;
	engine->cancels = request;
	request->cancel_listed = true;
}

void cancel_forget(struct io_engine *engine, struct io_request *request)
{
	if (!request->cancel_listed)
		return;
	if (request->cancel_prev)
		request->cancel_prev->cancel_next = request->cancel_next;
	else
		engine->cancels = request->cancel_next;
	if (request->cancel_next)
		request->cancel_next->cancel_prev = request->cancel_prev;
	request->cancel_listed = false;
}

struct io_request *cancel_pop(struct io_engine *engine)
{
	struct io_request *request = engine->cancels;

	if (request)
		cancel_forget(engine, request);
	return request;
}

/* ------------------------------------------------------------------ for submitters */

/* Wake the I/O thread. The I/O thread sets `sleeping` before its last look for work, and a thread
 * that brings work reads `sleeping` afterwards. So at least one of the two threads sees the
 * other. */
void io_engine_wake(struct io_engine *engine)
{
	atomic_add(&engine->calls, 1u);
	if (!atomic_get(&engine->sleeping) || !atomic_xchg(&engine->sleeping, 0))
		return;
	if (engine->bell.fd >= 0)
		os_bell_ring(&engine->bell);
	else
		os_futex_wake(&engine->sleeping, 1, OS_FUTEX_ANY);
}

static void request_reset(struct io_request *request)
{
	request->error = 0;
	request->bytes_done = 0;
	request->ended = UINT64_MAX;
	request->shorts = 0;
	atomic_set(&request->cancel_wanted, false);
	request->rest_count = 0;
	request->rest_error = 0;
	request->rest_bytes = 0;
	request->total_bytes = 0;
	for (int i = 0; i < request->iov_count && request->op != IO_FLUSH; i++)
		request->total_bytes += request->iov[i].iov_len;
	request->holds_turn = false;
	request->work_store = NULL;
	request->cancel_listed = false;
	request->ring_fd = -1;
	request->ring_async = false;
	request->ring_nowait = false;
	request->ring_tries = 0;
	request->ring_fn = NULL;
	request->timer_slot = 0;
	request->store_private[0] = request->store_private[1] = NULL;
}

void io_submit_later(struct io_engine *engine, struct io_request *request)
{
	assert(atomic_get(&request->state) == IO_IDLE || atomic_get(&request->state) == IO_DONE);
	assert(request->store && request->done);
	assert(request->iov_count >= 0 && request->iov_count <= IO_SEGMENTS_MAX);
	assert(request->priority == IO_DEMAND || request->priority == IO_SPECULATIVE);
	assert(request->op == IO_READ || request->op == IO_WRITE || request->op == IO_FLUSH);
	request_reset(request);
	(void)atomic_add(&engine->requests, 1);
	os_lock(&engine->lock);
	queue_push(&engine->queues[QUEUE_TURN], request->store, request);
	os_unlock(&engine->lock);
}

void io_kick(struct io_engine *engine)
{
	io_engine_wake(engine);
}

void io_submit(struct io_engine *engine, struct io_request *request)
{
	io_submit_later(engine, request);
	io_kick(engine);
}

void io_promote(struct io_engine *engine, struct io_request *request)
{
	struct io_store_queue *waiting;
	struct io_queue *queue;
	bool is_work = false;

	os_lock(&engine->lock);
	if (atomic_get(&request->state) == IO_QUEUED && request->priority == IO_SPECULATIVE) {
		queue = request_queue(engine, request, &waiting);
		waiting_unlink(waiting, request);
		request->priority = IO_DEMAND;
		waiting_append(waiting, request);
		turn_update(queue, waiting);
		is_work = queue->index == QUEUE_WORK;
	}
	os_unlock(&engine->lock);
	if (is_work) { /* demand may start where speculation had to wait: an idle worker should
			  look */
		(void)atomic_add(&engine->work_word, 1);
		os_futex_wake(&engine->work_word, 1, OS_FUTEX_ANY);
	}
	io_engine_wake(engine);
}

void io_cancel(struct io_engine *engine, struct io_request *request)
{
	os_lock(&engine->lock);
	switch (atomic_get(&request->state)) {
	case IO_QUEUED:
		atomic_set(&request->cancel_wanted, true);
		request_take_back(engine, request);
		break;
	case IO_ISSUED:
		if (!atomic_xchg(&request->cancel_wanted, true)) {
			cancel_list(engine, request);
		}
		break;
	default: /* the request is with the submitter, or about to be */
		break;
	}
	os_unlock(&engine->lock);
	io_engine_wake(engine);
}
