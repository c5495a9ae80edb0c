/* SPDX-License-Identifier: MIT */
/*
 * The I/O engine and the device behind it: requests end at virtual times, in any order, whole or failed, at the object's
 * end or cancelled; a cancel may come too late, and the device then goes on writing into the frames.
 * Owns the requests in flight. Two threads carry them out, so that two ends may meet.
 * May call: store, sched, trace.
 */
#include "sim.h"

#define FLIGHTS 160
#define ENGINE_THREADS 2

enum stage { FLIGHT_NONE, FLIGHT_QUEUED, FLIGHT_ISSUED };

struct flight {
	enum stage stage;
	struct io_request *request;
	uint64_t due, part; /* the first bytes come when it is issued, the rest at its end */
	int error;
	bool busy; /* one of the threads is at it */
};

struct io_engine {
	bool stop;
	uint64_t ends;
};

static struct io_engine engine;
static uint32_t between; /* requests whose end is being told */
static struct flight flights[FLIGHTS];
static struct os_thread threads[ENGINE_THREADS];

void io_reset(void)
{
	memset(flights, 0, sizeof(flights));
	memset(threads, 0, sizeof(threads));
	engine.stop = false;
	engine.ends = 0;
	between = 0;
}

/* A throttle lets what nobody waits for yet through at the end of its slice only. */
static uint64_t throttled(const struct io_request *request)
{
	return request->priority == IO_DEMAND ? 0 : sim.opt.throttle_ns;
}

static uint64_t later(void)
{
	uint64_t ns = 1 + sim_below((uint32_t)sim.opt.io_ns);
	if (sim_chance(sim.opt.slow_256)) /* a store that is all but dead */
		ns += sim_chance(64) ? 2 * OS_NSEC_PER_SEC : 100 * OS_NSEC_PER_MSEC;
	return sim.now_ns + ns;
}

static struct sim_store *store_of(const struct flight *f)
{
	return (struct sim_store *)f->request->store;
}

static uint64_t bytes_of(const struct io_request *request)
{
	return store_iov_bytes(request->iov, request->iov_count);
}

static void issue(struct flight *f)
{
	struct io_request *r = f->request;
	uint64_t len = bytes_of(r);
	f->stage = FLIGHT_ISSUED;
	r->state = IO_ISSUED;
	f->part = sim_below((uint32_t)(len / SIM_SECTOR)) * SIM_SECTOR;
	if (sim_chance(sim.opt.error_256) || store_is_bad(store_of(f), r->offset, len))
		f->error = store_random_error();
	if (!store_has_memory(r->iov, r->iov_count)) {
		f->error = -EFAULT;
		f->part = 0;
	}
	f->part = store_part(store_of(f), r->offset, f->part);
	store_write(store_of(f), r->iov, r->iov_count, r->offset, 0, f->part);
	f->due = later();
	event("device: begins page %llu of object %llu, %llu bytes", r->offset / OS_PAGE,
	      store_of(f)->id, len, 0);
}

/* What it came to, for `done`. */
static void end(struct flight *f)
{
	struct io_request *r = f->request;
	struct sim_store *s = store_of(f);
	uint64_t len = bytes_of(r), size = s->size[s->version];
	r->error = f->error;
	r->bytes_done = 0;
	r->shorts = 0;
	if (f->error == -ECANCELED)
		return;
	if (f->error) {
		mark(io_error);
		store_note_error(s, r->offset, len);
		return;
	}
	store_write(s, r->iov, r->iov_count, r->offset, f->part, len);
	r->bytes_done = r->offset >= size ? 0 : r->offset + len > size ? size - r->offset : len;
	r->shorts = sim_chance(sim.opt.short_256);
	if (r->bytes_done == len) {
		mark(io_ok);
		return;
	}
	mark(io_ended);
	if (s->version && sim_chance(128)) { /* nothing more came before the end it knew of */
		r->error = -EIO;
		store_note_error(s, r->offset, len);
	}
}

static void work(struct flight *f)
{
	struct io_request *r = f->request;
	if (f->stage == FLIGHT_QUEUED && !f->error) {
		issue(f);
		return;
	}
	f->busy = true;
	sim_point();
	end(f);
	r->ended = ++engine.ends;
	event("device: ends page %llu of object %llu: error %llu, %llu bytes", r->offset / OS_PAGE,
	      store_of(f)->id, -r->error, r->bytes_done);
	r->state = IO_DONE;
	f->stage = FLIGHT_NONE;
	f->busy = false;
	between++;
	r->done(r);
	between--;
	check_nothing_held("a request's end");
}

static bool in_flight(void)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (flights[i].stage != FLIGHT_NONE)
			return true;
	return false;
}

static void *engine_main(void *arg)
{
	(void)arg;
	while (!engine.stop || in_flight()) {
		struct flight *next = NULL;
		for (int i = 0; i < FLIGHTS; i++)
			if (flights[i].stage != FLIGHT_NONE && !flights[i].busy &&
			    (!next || flights[i].due < next->due))
				next = &flights[i];
		if (next && next->due <= sim.now_ns)
			work(next);
		else
			sim_wait_for(WAIT_CHANNEL, (uint64_t)flights, next ? next->due : OS_FOREVER);
		sim_point();
	}
	sim_notify(WAIT_CHANNEL, (uint64_t)flights);
	return NULL;
}

uint64_t io_ends(struct io_engine *e)
{
	sim_point();
	return e->ends;
}

static void look_again(void)
{
	sim_notify(WAIT_CHANNEL, (uint64_t)flights);
}

int io_engine_create(const struct io_engine_options *options, struct io_engine **ret_engine)
{
	(void)options;
	engine.stop = false;
	for (int i = 0; i < (sim.small ? 1 : ENGINE_THREADS); i++) {
		int err = os_thread_start(&threads[i], i ? "fm-io-2" : "fm-io", engine_main, NULL);
		if (err) {
			io_engine_destroy(&engine);
			return err;
		}
	}
	*ret_engine = &engine;
	return 0;
}

void io_engine_destroy(struct io_engine *e)
{
	e->stop = true;
	look_again();
	for (int i = 0; i < ENGINE_THREADS; i++)
		os_thread_join(&threads[i]);
}

void io_submit_later(struct io_engine *e, struct io_request *request)
{
	int at = 0;
	sim_point();
	if (self()->map_held && !sim.hold)
		sim_fail("a request is submitted under the map lock");
	if (e->stop)
		sim_fail("a request is submitted to an engine that has stopped");
	while (at < FLIGHTS && flights[at].stage != FLIGHT_NONE) {
		if (flights[at].request == request)
			sim_fail("a request is submitted twice");
		at++;
	}
	flights[at] = (struct flight){.stage = FLIGHT_QUEUED, .request = request, .due = later() + throttled(request)};
	request->state = IO_QUEUED;
	check_given_away(request);
}

void io_kick(struct io_engine *e)
{
	(void)e;
	sim_point();
	look_again();
}

void io_submit(struct io_engine *e, struct io_request *request)
{
	io_submit_later(e, request);
	look_again();
}

static struct flight *flight_of(const struct io_request *request)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (flights[i].stage != FLIGHT_NONE && flights[i].request == request)
			return &flights[i];
	return NULL;
}

bool io_knows(const struct io_request *request)
{
	return flight_of(request) != NULL;
}

bool io_between(void)
{
	return between > 0;
}

void io_promote(struct io_engine *e, struct io_request *request)
{
	struct flight *f = flight_of(request);
	(void)e;
	sim_point();
	if (!f || f->stage != FLIGHT_QUEUED || sim.opt.throttle_ns)
		return; /* its slice is used up: it can't be made to go */
	mark(io_promoted);
	request->priority = IO_DEMAND;
	f->due = sim.now_ns;
	look_again();
}

void io_cancel(struct io_engine *e, struct io_request *request)
{
	sim_point();
	(void)e;
	struct flight *f = flight_of(request);
	if (!f || f->busy) {
		mark(io_cancel_done);
		return;
	}
	if (f->stage == FLIGHT_QUEUED) {
		mark(io_cancel_queued);
		f->error = -ECANCELED;
		f->due = sim.now_ns;
	} else if (sim_chance(sim.opt.late_256)) {
		mark(io_cancel_late);
		f->due += sim_below(20000000);
	} else {
		mark(io_cancel_issued);
		f->error = -ECANCELED;
		f->due = sim.now_ns + sim_below(50000);
	}
	event("cancels the read of page %llu of object %llu (stage %llu, error %llu)",
	      request->offset / OS_PAGE, store_of(f)->id, f->stage, -f->error);
	look_again();
}

/* The store is aborted: what it keeps waiting ends. */
void io_hurry(struct sim_store *s)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (flights[i].stage != FLIGHT_NONE && !flights[i].busy && store_of(&flights[i]) == s &&
		    flights[i].due > sim.now_ns + OS_NSEC_PER_MSEC)
			flights[i].due = sim.now_ns + OS_NSEC_PER_MSEC;
	look_again();
}
