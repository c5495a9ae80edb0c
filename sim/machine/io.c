/* SPDX-License-Identifier: MIT */
/*
 * The I/O engine and the device behind the engine. Requests end at virtual times and in any order:
 * whole, failed, short at the object's end, or cancelled. A cancel may come too late; then the
 * device goes on writing into the frames. A write takes its bytes from memory in two parts, with
 * time in between. A write that fails may have stored more than it reports. A flush makes durable
 * all writes that had ended when the flush was submitted. Two threads carry out the requests, so
 * two ends may run at the same time.
 */
#include "sim.h"

#define FLIGHTS 160
#define ENGINE_THREADS 2
#define FLIGHT_SECTORS (8 * SIM_TAGS) /* of a write */

enum stage { FLIGHT_NONE, FLIGHT_QUEUED, FLIGHT_ISSUED };

struct flight {
	enum stage stage;
	uint32_t id, covers;   /* covers: of a flush, the number of writes that had ended */
	uint64_t taken[FLIGHT_SECTORS]; /* the bytes that a write has taken from its pages */
	bool in_place, missing;
	struct io_request *request;
	uint64_t due, part; /* `part` bytes come when the request is issued, the rest at its end */
	int error;
	bool busy; /* one of the engine's threads works on the request */
};

struct io_engine {
	bool stop;
	uint64_t ends;
};

static struct io_engine engine;
static uint32_t between; /* requests whose done() runs */
static struct flight flights[FLIGHTS];
static struct os_thread threads[ENGINE_THREADS];
static uint32_t flights_begun;

void io_reset(void)
{
	memset(flights, 0, sizeof(flights));
	memset(threads, 0, sizeof(threads));
	engine.stop = false;
	engine.ends = 0;
	between = 0;
	flights_begun = 0;
}

/* Return the extra delay of a request. A throttled store issues a request that no fault waits for
 * only at the end of the store's time slice. */
static uint64_t throttled(const struct io_request *request)
{
	return request->priority == IO_DEMAND ? 0 : sim.opt.throttle_ns;
}

static uint64_t later(void)
{
	uint64_t ns = 1 + sim_below((uint32_t)sim.opt.io_ns);
	if (sim_chance(sim.opt.slow_256)) /* the store hardly answers */
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

/* ------------------------------------------------------------------ writes and flushes */

static uint64_t address_at(const struct io_request *r, uint64_t at)
{
	for (int i = 0; i < r->iov_count; i++) {
		if (at < r->iov[i].iov_len)
			return (uint64_t)r->iov[i].iov_base + at;
		at -= r->iov[i].iov_len;
	}
	sim_fail("a write ends before its end");
}

/* Let the device take sectors [from, to) of a write from memory as it is now. Returns the end of
 * what the device took: memory was missing from there on. */
static uint64_t take(struct flight *f, uint64_t from, uint64_t to)
{
	struct io_request *r = f->request;
	struct sim_store *s = store_of(f);
	for (uint64_t at = from; at < to; at += SIM_SECTOR) {
		uint64_t pos = r->offset + at, tag, addr = address_at(r, at);
		uint32_t n = store_place(s, pos / OS_PAGE);
		if (pos >= s->size[0])
			sim_fail("object %u ends at byte %llu, but byte %llu is written", s->id,
				 (unsigned long long)s->size[0], (unsigned long long)pos);
		if (n == SIM_PAGES)
			sim_fail("page %llu of object %u is written back, but no thread writes to the page",
				 (unsigned long long)pos / OS_PAGE, s->id);
		if (!kernel_read(addr, &tag)) {
			if (!sim.emptied && !sim.opt.famine_256)
				sim_fail("a write takes page %u of object %u from memory that is empty", n, s->id);
			return at;
		}
		f->in_place |= kernel_view(addr) != NULL;
		f->taken[at / SIM_SECTOR] = tag;
		written_put(s, n, pos % OS_PAGE / SIM_SECTOR, tag, f->id);
	}
	return to;
}

static void issue_write(struct flight *f)
{
	struct io_request *r = f->request;
	uint64_t len = bytes_of(r);
	if (len / SIM_SECTOR > FLIGHT_SECTORS || r->offset % OS_PAGE)
		sim_fail("a write has a bad range: %llu bytes at %llu",
			 (unsigned long long)len, (unsigned long long)r->offset);
	f->part = sim_below((uint32_t)(len / SIM_SECTOR) + 1) * SIM_SECTOR;
	if (sim_chance(sim.opt.error_256) || store_is_bad(store_of(f), r->offset, len))
		f->error = store_random_error();
	uint64_t came = take(f, 0, f->part);
	if (came < f->part) {
		f->error = -EFAULT;
		f->part = came;
		f->missing = true;
	}
}

/* Check that the bytes taken from each page were the page's bytes at one moment. */
static void check_taken(const struct flight *f, uint64_t bytes)
{
	const struct io_request *r = f->request;
	struct sim_store *s = store_of(f);
	for (uint64_t at = 0; at < bytes; at += OS_PAGE) {
		uint32_t n = store_place(s, (r->offset + at) / OS_PAGE);
		uint64_t rest = bytes - at < OS_PAGE ? bytes - at : OS_PAGE;
		bool pinned = s->writing_pinned[n] && kernel_view(address_at(r, at));
		written_check_snapshot(s, n, f->taken + at / SIM_SECTOR,
				       (uint32_t)(rest / SIM_SECTOR), s->writing_since[n], pinned);
	}
}

/* End a write. A write that fails may have stored more than it reports. */
static void end_write(struct flight *f)
{
	struct io_request *r = f->request;
	struct sim_store *s = store_of(f);
	uint64_t len = bytes_of(r), rest = len - f->part;
	if (f->error)
		rest = sim_below((uint32_t)(rest / SIM_SECTOR) + 1) * SIM_SECTOR;
	uint64_t came = f->missing ? f->part : take(f, f->part, f->part + rest);
	if (!f->error && came < len) {
		f->error = -EFAULT;
		f->part = came;
	}
	r->bytes_done = f->error ? f->part : len;
	check_taken(f, f->error ? f->part & ~(uint64_t)(OS_PAGE - 1) : len);
	written_ended(s, f->id);
	s->write_failures += f->error != 0;
	if (f->in_place)
		mark(in_place);
	if (f->error)
		mark(write_bad);
	else
		mark(write_ok);
}

static void end_flush(struct flight *f)
{
	struct sim_store *s = store_of(f);
	written_flushed(s, f->covers, !f->error);
	s->write_failures += f->error != 0;
	if (f->error)
		mark(flush_failed);
	else
		mark(flush_ok);
}

uint32_t io_new_flight(void)
{
	return ++flights_begun;
}

/* Return whether a write beyond `size` is under way. Called when the object's size changes. */
bool io_writes_beyond(const struct sim_store *s, uint64_t size)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (flights[i].stage != FLIGHT_NONE && flights[i].request->op == IO_WRITE &&
		    store_of(&flights[i]) == s &&
		    flights[i].request->offset + bytes_of(flights[i].request) > size)
			return true;
	return false;
}

/* ------------------------------------------------------------------ requests */

static void issue(struct flight *f)
{
	struct io_request *r = f->request;
	uint64_t len = bytes_of(r);
	f->stage = FLIGHT_ISSUED;
	r->state = IO_ISSUED;
	f->due = later();
	if (r->op == IO_WRITE) {
		event("device: begins to write page %llu of object %llu, %llu bytes",
		      r->offset / OS_PAGE, store_of(f)->id, len, 0);
		issue_write(f);
		return;
	}
	if (r->op == IO_FLUSH) {
		event("device: begins to flush object %llu", store_of(f)->id, 0, 0, 0);
		f->error = sim_chance(sim.opt.error_256) ? store_random_error() : 0;
		return;
	}
	f->part = sim_below((uint32_t)(len / SIM_SECTOR)) * SIM_SECTOR;
	if (sim_chance(sim.opt.error_256) || store_is_bad(store_of(f), r->offset, len))
		f->error = store_random_error();
	if (!store_has_memory(r->iov, r->iov_count)) {
		f->error = -EFAULT;
		f->part = 0;
	}
	f->part = store_part(store_of(f), r->offset, f->part);
	store_write(store_of(f), r->iov, r->iov_count, r->offset, 0, f->part);
	event("device: begins page %llu of object %llu, %llu bytes", r->offset / OS_PAGE,
	      store_of(f)->id, len, 0);
}

/* Fill in the request's result, for done(). */
static void end(struct flight *f)
{
	struct io_request *r = f->request;
	struct sim_store *s = store_of(f);
	uint64_t len = bytes_of(r), size = s->size[s->version];
	r->error = f->error;
	r->bytes_done = 0;
	r->shorts = 0;
	if (r->op != IO_READ) {
		if (r->op == IO_WRITE)
			end_write(f);
		else
			end_flush(f);
		r->error = f->error;
		return;
	}
	if (f->error == -ECANCELED)
		return;
	if (f->error) {
		mark(io_error);
		s->refused++;
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
	if (s->writable &&
	    r->offset + r->bytes_done <
		    store_size(&s->store)) { /* as in the real engine: ended before its end */
		r->error = -EIO;
		return;
	}
	/* the read ended before the end that the library knew */
	if (s->version && sim_chance(128)) {
		s->refused++;
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
	event(r->op == IO_READ ? "device: ends page %llu of object %llu: error %llu, %llu bytes"
	      : r->op == IO_WRITE
		      ? "device: ends to write page %llu of object %llu: error %llu, %llu bytes"
		      : "device: ends a flush (%llu) of object %llu: error %llu, %llu bytes",
	      r->offset / OS_PAGE, store_of(f)->id, -r->error, r->bytes_done);
	struct sim_store *s = store_of(f);
	bool failed = r->op != IO_READ && r->error;
	r->state = IO_DONE;
	f->stage = FLIGHT_NONE;
	f->busy = false;
	between++;
	r->done(r);
	s->failures_known += failed;
	between--;
	check_nothing_held("the end of a request");
}

static bool in_flight(void)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (flights[i].stage != FLIGHT_NONE)
			return true;
	return false;
}

/* Return whether the request waits for the object's lock. A system call that waits for a page has
 * the lock. */
static bool waits_for_lock(const struct flight *f)
{
	const struct sim_store *s = store_of(f);
	bool wants = f->request->op == IO_WRITE || (f->request->op == IO_READ && !s->lockless);
	return wants && s->locked && f->stage == FLIGHT_QUEUED && !f->error;
}

static void *engine_main(void *arg)
{
	(void)arg;
	while (!engine.stop || in_flight()) {
		struct flight *next = NULL;
		for (int i = 0; i < FLIGHTS; i++)
			if (flights[i].stage != FLIGHT_NONE && !flights[i].busy && !waits_for_lock(&flights[i]) &&
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

void io_look_again(void)
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
	io_look_again();
	for (int i = 0; i < ENGINE_THREADS; i++)
		os_thread_join(&threads[i]);
}

void io_submit_later(struct io_engine *e, struct io_request *request)
{
	const struct sim_store *store = (const struct sim_store *)request->store;
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
	flights[at] = (struct flight){.stage = FLIGHT_QUEUED,
				      .request = request,
				      .due = later() + throttled(request),
				      .id = io_new_flight(),
				      .covers = store->ended};
	request->state = IO_QUEUED;
	if (request->op == IO_READ)
		check_given_away(request);
}

void io_kick(struct io_engine *e)
{
	(void)e;
	sim_point();
	io_look_again();
}

void io_submit(struct io_engine *e, struct io_request *request)
{
	io_submit_later(e, request);
	io_look_again();
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
		return; /* the store has used up its time slice: a promotion has no effect */
	mark(io_promoted);
	request->priority = IO_DEMAND;
	f->due = sim.now_ns;
	io_look_again();
}

void io_cancel(struct io_engine *e, struct io_request *request)
{
	sim_point();
	(void)e;
	struct flight *f = flight_of(request);
	if (f && request->op != IO_READ && !sim.dying)
		sim_fail("a write is cancelled");
	if (!f || f->busy || (request->op != IO_READ && f->stage != FLIGHT_QUEUED)) {
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
	io_look_again();
}

/* The store is aborted: let its requests end soon. */
void io_hurry(struct sim_store *s)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (flights[i].stage != FLIGHT_NONE && !flights[i].busy && store_of(&flights[i]) == s &&
		    flights[i].due > sim.now_ns + OS_NSEC_PER_MSEC)
			flights[i].due = sim.now_ns + OS_NSEC_PER_MSEC;
	io_look_again();
}
