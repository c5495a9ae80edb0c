/* SPDX-License-Identifier: MIT */
/*
 * Requests and the engine that carries them out. One I/O thread owns the io_uring, the timers and
 * all submitted requests (io_uring requests die with the thread that submitted them); a few worker
 * threads serve stores that can only block, and all stores where io_uring is forbidden.
 * queue.c orders: demand before speculation. A request belongs to its submitter until io_submit(),
 * to the engine until `done` is called, and then to the submitter again.
 * `done` is called in an engine thread, with no lock held, exactly once for each submit.
 * Preallocated: io_submit, io_promote and io_cancel allocate nothing, are signal-safe (signals are
 * blocked by the caller), block on nothing but a small lock, and never call `done` themselves.
 * May call: os.h, store.h.
 */
#ifndef FM_IO_H
#define FM_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct fm_store;
struct io_engine;
struct io_request;

typedef void (*io_done_fn)(struct io_request *request);
typedef void (*io_timer_fn)(struct io_engine *engine, struct io_request *request);
typedef void (*io_ring_fn)(struct io_engine *engine, struct io_request *request, int result);

#define IO_SEGMENTS_MAX 64

enum io_priority { IO_DEMAND = 0, IO_SPECULATIVE = 1 };

/* FLUSH has no bytes: what was written before it was submitted is durable when it has ended well.
 * It is not ordered among requests that are under way beside it. */
enum io_op { IO_READ = 0, IO_WRITE = 1, IO_FLUSH = 2 };

enum io_request_state {
	IO_IDLE = 0,   /* the submitter's */
	IO_QUEUED = 1, /* in the engine, not yet with the store: can be promoted, taken back */
	IO_ISSUED = 2, /* with the store */
	IO_DONE = 3,   /* `done` is being called */
};

struct io_request {
	/* set by the submitter */
	struct fm_store *store;
	uint64_t offset;
	struct iovec iov[IO_SEGMENTS_MAX];
	int iov_count;
	enum io_priority priority;
	enum io_op op; /* IO_READ unless it says else */
	io_done_fn done;
	void *owner;
	/* results, for `done` */
	int error;         /* 0 or negative errno; -ECANCELED when it was taken back */
	size_t bytes_done; /* a read's is short only at the end of the object: the engine goes on by
			    * itself; a write is whole, or fails after so many bytes */
	unsigned shorts;   /* how often it had to */
	uint64_t ended;    /* io_ends(), when the last of it had come */
	/* the engine's */
	uint32_t state;     /* enum io_request_state, atomic */
	bool cancel_wanted; /* atomic */
	struct io_request *next, *prev;
	struct iovec rest[IO_SEGMENTS_MAX]; /* what is still to be read or written; of a flush: none */
	int rest_count;
	int rest_error;              /* how the last call of the store ended */
	size_t rest_bytes;           /* and what it brought or took */
	size_t total_bytes;          /* of iov; of a flush: 0 */
	uint32_t place;              /* enum io_place */
	bool holds_turn;             /* counted in its store's queue[0].busy */
	struct fm_store *work_store; /* whose operation a worker is to call */
	struct io_request *cancel_next, *cancel_prev;
	bool cancel_listed;
	int ring_fd;
	bool ring_async; /* set by the store: starting to read may block the thread that submits */
	bool ring_nowait; /* set by the store: a read that would wait for a lock ends with -EAGAIN,
			     which ring_fn gets */
	unsigned ring_tries;
	uint64_t timer_ns;
	io_timer_fn timer_fn;
	uint32_t timer_slot; /* place in the timer heap, plus one */
	/* for the stores a request passes through: each may use these while it holds the request,
	 * and finds them as the one before it left them. store_private is NULL at the start. */
	void *store_private[2];
	uint64_t store_words[4];
	io_ring_fn ring_fn; /* gets the result of io_ring_read(), negative errno or bytes; NULL:
			     * io_complete() does */
};

struct io_engine_options {
	unsigned queue_depth; /* requests under way at most, of each store, so that a dead one does
			       * not starve the others; speculation gets three quarters; 0: 128 */
	unsigned workers_max; /* threads for blocking stores; 0: 16; started when first needed */
	bool no_uring;        /* behave as where io_uring is forbidden */
	void (*note)(void *arg, const char *line); /* told once when io_uring is not to be had */
	void *note_arg;
};

int io_engine_create(const struct io_engine_options *options, struct io_engine **ret_engine);
/* Waits until every request is done (cancel them, and abort their stores, first). Not concurrently
 * with a call of io_submit, io_promote or io_cancel. */
void io_engine_destroy(struct io_engine *engine);

void io_submit(struct io_engine *engine, struct io_request *request);
/* The same, but the I/O thread, should it be asleep, is woken by io_kick() only: one wake-up for
 * several requests. */
void io_submit_later(struct io_engine *engine, struct io_request *request);
void io_kick(struct io_engine *engine);
/* How many ends the engine has counted: what had come by then, had come before what is done from
 * here on. */
uint64_t io_ends(struct io_engine *engine);
/* Speculative becomes demand, if it is still queued. */
void io_promote(struct io_engine *engine, struct io_request *request);
/* Ask for an early end. `done` still comes: -ECANCELED, or whatever it came to. A queued request is
 * taken back at once (its `done` comes from the I/O thread); an issued one by ops->cancel. */
void io_cancel(struct io_engine *engine, struct io_request *request);

/* ---- for stores, in the I/O thread only */
/* Give a request to a store: a filter's way to the store below it. Returns when it has been started
 * or has ended; workers serve where the operation's submit function is missing or gives
 * -EOPNOTSUPP. A filter may have shortened request->rest before. */
void io_pass_on(struct io_engine *engine, struct io_request *request, struct fm_store *store);
/* A request has ended; `bytes` of request->rest were read or written. The engine goes on after a
 * short one, or calls `done`. */
void io_complete(struct io_engine *engine, struct io_request *request, int error, size_t bytes);
/* Read request->rest from a descriptor at request->offset + request->bytes_done, by the ring.
 * -EOPNOTSUPP where there is none. */
int io_ring_read(struct io_engine *engine, struct io_request *request, int fd);
/* The same for the other operations: write request->rest there; fdatasync(). */
int io_ring_write(struct io_engine *engine, struct io_request *request, int fd);
int io_ring_flush(struct io_engine *engine, struct io_request *request, int fd);
void io_ring_cancel(struct io_engine *engine, struct io_request *request);
/* Have a worker call the store's blocking operation for request->rest. */
void io_by_worker(struct io_engine *engine, struct io_request *request, struct fm_store *store);
/* Call fn(engine, request) at a time. One timer a request. */
void io_timer_start(struct io_engine *engine, struct io_request *request, uint64_t when_ns,
		    io_timer_fn fn);
bool io_timer_stop(struct io_engine *engine, struct io_request *request);
/* Any thread, signal-safe: have every timer's function called now; it starts its timer again if it
 * finds that it is too early. For stores whose settings changed. */
void io_timers_rethink(struct io_engine *engine);

#endif
