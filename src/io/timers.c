/* SPDX-License-Identifier: MIT */
/*
 * Timers of requests: a binary heap with the earliest timer on top. Owned by the I/O thread, no
 * lock; each request knows its place in the heap. Room is reserved when a request is issued,
 * since a request has one timer. So starting a timer cannot fail.
 * May call: os.h.
 */
#include "io/engine.h"

#include <assert.h>
#include <string.h>

#define TIMERS_ROOM_MIN 4096

bool timers_reserve(struct io_engine *engine, size_t count)
{
	size_t room = engine->timers_room ? engine->timers_room : TIMERS_ROOM_MIN;
	struct io_request **timers;

	if (count <= engine->timers_room)
		return true;
	while (room < count)
		room *= 2;
	timers = os_meta_alloc(room * sizeof(*timers));
	if (!timers)
		return false;
	if (engine->timers) {
		memcpy(timers, engine->timers, engine->timers_count * sizeof(*timers));
		os_meta_free(engine->timers, engine->timers_room * sizeof(*timers));
	}
	engine->timers = timers;
	engine->timers_room = room;
	return true;
}

static void heap_put(struct io_engine *engine, size_t at, struct io_request *request)
{
	engine->timers[at] = request;
	request->timer_slot = (uint32_t)at + 1;
}

static void heap_up(struct io_engine *engine, size_t at, struct io_request *request)
{
	while (at > 0) {
		struct io_request *parent = engine->timers[(at - 1) / 2];

		if (parent->timer_ns <= request->timer_ns)
			break;
		heap_put(engine, at, parent);
		at = (at - 1) / 2;
	}
	heap_put(engine, at, request);
}

static void heap_down(struct io_engine *engine, size_t at, struct io_request *request)
{
	for (;;) {
		size_t child = at * 2 + 1;

		if (child >= engine->timers_count)
			break;
		if (child + 1 < engine->timers_count &&
		    engine->timers[child + 1]->timer_ns < engine->timers[child]->timer_ns)
			child++;
		if (request->timer_ns <= engine->timers[child]->timer_ns)
			break;
		heap_put(engine, at, engine->timers[child]);
		at = child;
	}
	heap_put(engine, at, request);
}

void io_timer_start(struct io_engine *engine, struct io_request *request, uint64_t when_ns,
		    io_timer_fn fn)
{
	(void)io_timer_stop(engine, request);
	assert(engine->timers_count < engine->timers_room);
	request->timer_ns = when_ns;
	request->timer_fn = fn;
	heap_up(engine, engine->timers_count++, request);
}

bool io_timer_stop(struct io_engine *engine, struct io_request *request)
{
	size_t at = request->timer_slot;
	struct io_request *last;

	if (!at)
		return false;
	at--;
	assert(engine->timers[at] == request);
	request->timer_slot = 0;
	last = engine->timers[--engine->timers_count];
	if (last == request)
		return true;
	if (at > 0 && engine->timers[(at - 1) / 2]->timer_ns > last->timer_ns)
		heap_up(engine, at, last);
	else
		heap_down(engine, at, last);
	return true;
}

uint64_t timers_next(const struct io_engine *engine)
{
	return engine->timers_count ? engine->timers[0]->timer_ns : OS_FOREVER;
}

void io_timers_rethink(struct io_engine *engine)
{
	atomic_set(&engine->rethink, 1);
	io_engine_wake(engine);
}

/* Call the functions of the timers that are due; after a rethink, of all timers. A timer that its
 * function starts again at once waits for the next round, so that the rest of the engine can
 * run. */
void timers_run(struct io_engine *engine)
{
	size_t rounds = engine->timers_count;
	uint64_t now_ns;

	if (atomic_get(&engine->rethink) && atomic_xchg(&engine->rethink, 0))
		for (size_t i = 0; i < engine->timers_count; i++)
			engine->timers[i]->timer_ns = 0;
	if (!rounds)
		return;
	now_ns = os_now_ns();
	while (rounds-- && timers_next(engine) <= now_ns) {
		struct io_request *request = engine->timers[0];

		(void)io_timer_stop(engine, request);
		request->timer_fn(engine, request);
	}
}
