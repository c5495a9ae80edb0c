/* SPDX-License-Identifier: MIT */
/*
 * The end of a request: the request is given back to its submitter, or to the I/O thread. Locks
 * as in engine.h. May call: os.h.
 */
#include "io/engine.h"

#include <assert.h>

/* Give a request back to its submitter. Called in the I/O thread or in a worker. After `done` the
 * request and its store may no longer exist. */
void engine_finish(struct io_engine *engine, struct io_request *request, int error)
{
	os_lock(&engine->lock);
	cancel_forget(engine, request);
	if (request->holds_turn) {
		queue_release(&engine->queues[QUEUE_TURN], request->store, request->op);
		atomic_set(&engine->issued, engine->issued - 1);
	}
	request->holds_turn = false;
	request->place = PLACE_NONE;
	request->error = error;
	assert(!request->timer_slot);
	atomic_set(&request->state, IO_DONE);
	os_unlock(&engine->lock);
	request->done(request);
	(void)atomic_sub(&engine->requests, 1);
}

void io_complete(struct io_engine *engine, struct io_request *request, int error, size_t bytes)
{
	assert(error <= 0 && request->place != PLACE_COMPLETED);
	request->rest_error = error;
	request->rest_bytes = bytes;
	request->place = PLACE_COMPLETED;
	request->ended = atomic_add(&engine->ends, 1) + 1;
	/* The I/O thread ends the request from the list, not here: the calling store has not
	 * finished its own work. */
	io_list_push(&engine->completed, request);
}

uint64_t io_ends(struct io_engine *engine)
{
	return atomic_get(&engine->ends);
}
