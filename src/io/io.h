/* SPDX-License-Identifier: MIT */
/*
 * Requests and the engine that carries them out. One I/O thread owns the io_uring, the timers and
 * all submitted requests, since io_uring requests die with the thread that submitted them. A few
 * worker threads serve stores that can only block, and all stores where io_uring is forbidden.
 * queue.c sets the order: demand before speculation. A request belongs to its submitter until
 * io_submit(), to the engine until `done` is called, and then to the submitter again.
 * The engine calls `done` in an engine thread, with no lock held, exactly once for each submit.
 * io_submit, io_promote and io_cancel allocate nothing and are signal-safe (the caller blocks
 * signals). They block on nothing but a small lock, and never call `done` themselves.
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

/* FLUSH has no bytes. When a FLUSH ends well, all bytes written before its submission are
 * durable. A FLUSH is not ordered among requests that are under way beside it. */
enum io_op { IO_READ = 0, IO_WRITE = 1, IO_FLUSH = 2 };

enum io_request_state {
	IO_IDLE = 0,   /* held by the submitter */
	IO_QUEUED = 1, /* in the engine, not yet with the store: can be promoted or taken back */
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
	enum io_op op; /* IO_READ unless the submitter sets another operation */
	io_done_fn done;
	void *owner;
	/* results, for `done` */
	int error;         /* 0 or negative errno; -ECANCELED if the request was taken back */
	size_t bytes_done; /* a read is short only at the end of the object, since the engine
			      continues short reads; a write is whole, or fails after so many
			      bytes */
	unsigned shorts;   /* how often the engine had to continue */
	uint64_t ended;    /* io_ends() at the time when the request's last byte had come */
	/* owned by the engine */
	uint32_t state;     /* enum io_request_state, atomic */
	bool cancel_wanted; /* atomic */
	struct io_request *next, *prev;
	struct iovec rest[IO_SEGMENTS_MAX]; /* bytes still to be read or written; none for a
					       flush */
	int rest_count;
	int rest_error;              /* result of the store's last call */
	size_t rest_bytes;           /* bytes that the last call read or wrote */
	size_t total_bytes;          /* bytes of iov; 0 for a flush */
	uint32_t place;              /* enum io_place */
	bool holds_turn;             /* the request is counted in its store's queue[0].busy */
	struct fm_store *work_store; /* the store whose operation a worker is to call */
	struct io_request *cancel_next, *cancel_prev;
	bool cancel_listed;
	int ring_fd;
	bool ring_async; /* set by the store: starting the read may block the submitting thread */
	bool ring_nowait; /* set by the store: a read that would wait for a lock ends with
			     -EAGAIN, which ring_fn gets */
	unsigned ring_tries;
	uint64_t timer_ns;
	io_timer_fn timer_fn;
	uint32_t timer_slot; /* place in the timer heap, plus one */
	/* For the stores that a request passes through. A store may use these members while the
	 * store holds the request, and finds them as the previous store left them. store_private
	 * is NULL at the start. */
	void *store_private[2];
	uint64_t store_words[4];
	io_ring_fn ring_fn; /* gets the result of io_ring_read(): negative errno or bytes; NULL:
			       io_complete() gets the result */
};

struct io_engine_options {
	unsigned queue_depth; /* most requests of each store under way, so that a dead store does
				 not starve the others; speculation gets three quarters; 0: 128 */
	unsigned workers_max; /* threads for blocking stores; 0: 16; started when first needed */
	bool no_uring;        /* behave as where io_uring is forbidden */
	void (*note)(void *arg, const char *line); /* called once if io_uring is not available */
	void *note_arg;
};

int io_engine_create(const struct io_engine_options *options, struct io_engine **ret_engine);
/* Wait until every request is done, then destroy the engine. The caller first cancels the
 * requests and aborts their stores. Must not run concurrently with io_submit, io_promote or
 * io_cancel. */
void io_engine_destroy(struct io_engine *engine);

void io_submit(struct io_engine *engine, struct io_request *request);
/* Submit a request without waking the I/O thread: only io_kick() wakes a sleeping I/O thread.
 * Several requests then need one wake-up. */
void io_submit_later(struct io_engine *engine, struct io_request *request);
void io_kick(struct io_engine *engine);
/* Return how many requests the engine has counted as ended. A request counted by then ended
 * before everything the caller does afterwards. */
uint64_t io_ends(struct io_engine *engine);
/* Turn a speculative request into a demand request, if the request is still queued. */
void io_promote(struct io_engine *engine, struct io_request *request);
/* Ask for an early end of a request. `done` still comes, with -ECANCELED or the request's own
 * result. A queued request is taken back at once (`done` comes from the I/O thread). An issued
 * request is cancelled by ops->cancel. */
void io_cancel(struct io_engine *engine, struct io_request *request);

/* ---- for stores, in the I/O thread only */
/* Give a request to a store: a filter uses this to reach the store below. Returns when the
 * request has started or ended. A worker serves the request if the operation's submit function is
 * missing or gives -EOPNOTSUPP. A filter may have shortened request->rest before. */
void io_pass_on(struct io_engine *engine, struct io_request *request, struct fm_store *store);
/* End a store's call: `bytes` of request->rest were read or written. The engine continues a short
 * request, or calls `done`. */
void io_complete(struct io_engine *engine, struct io_request *request, int error, size_t bytes);
/* Read request->rest by the ring from a descriptor at request->offset + request->bytes_done.
 * Returns -EOPNOTSUPP if there is no ring. */
int io_ring_read(struct io_engine *engine, struct io_request *request, int fd);
/* The same for the other operations: write request->rest at that offset; fdatasync(). */
int io_ring_write(struct io_engine *engine, struct io_request *request, int fd);
int io_ring_flush(struct io_engine *engine, struct io_request *request, int fd);
void io_ring_cancel(struct io_engine *engine, struct io_request *request);
/* Let a worker call the store's blocking operation for request->rest. */
void io_by_worker(struct io_engine *engine, struct io_request *request, struct fm_store *store);
/* Call fn(engine, request) at the given time. A request has one timer. */
void io_timer_start(struct io_engine *engine, struct io_request *request, uint64_t when_ns,
		    io_timer_fn fn);
bool io_timer_stop(struct io_engine *engine, struct io_request *request);
/* Have every timer's function called now. Callable in any thread, signal-safe. A function that
 * finds that the call is too early starts its timer again. For stores whose settings changed. */
void io_timers_rethink(struct io_engine *engine);

#endif
