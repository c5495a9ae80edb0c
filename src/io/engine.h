/* SPDX-License-Identifier: MIT */
/*
 * What the files of src/io share. One small lock (`lock`) protects the queues and the lists that
 * lead to the I/O thread. The lock also protects the state and place of every request in these
 * queues and lists. The lock is held for tens of instructions and never during a store's
 * operation or `done`. All other members are marked with the thread that owns them.
 *
 * The path of a request: queues[QUEUE_TURN] (until its store has fewer than `limit` under way) ->
 * its store, in the I/O thread -> the ring, a timer, or queues[QUEUE_WORK] and a worker ->
 * `completed` -> the store again after a short read or write, or `done`.
 * May call: os.h, store.h, liburing (ring.c only).
 */
#ifndef FM_IO_ENGINE_H
#define FM_IO_ENGINE_H

#include "io/io.h"
#include "os/atomic.h"
#include "os/bells.h"
#include "os/os.h"
#include "store/store.h"

enum io_queue_index { QUEUE_TURN = 0, QUEUE_WORK = 1 };

/* The place of a request; each place has one holder. */
enum io_place {
	PLACE_NONE = 0,   /* held by the submitter */
	PLACE_QUEUE_TURN, /* IO_QUEUED */
	PLACE_QUEUE_WORK, /* IO_QUEUED, though the store already knows the request */
	PLACE_TAKEN_BACK, /* cancelled in a queue, on the way to the I/O thread */
	PLACE_STORE,      /* the I/O thread gave the request to the store */
	PLACE_RING,       /* the kernel has the request */
	PLACE_WORKER,     /* a worker reads, writes or flushes */
	PLACE_RETURNED,   /* a worker gave the request to the I/O thread */
	PLACE_COMPLETED,  /* io_complete() was called */
};

/* The stores that have a waiting request and may have another request under way, in turn, by
 * priority. */
struct io_queue {
	struct io_store_queue *first[2], *last[2];
	uint32_t limit[2]; /* most requests of one store that may be under way */
	uint32_t room; /* limit for all stores together; 0: no limit. A store may not have more
			  places than are left for other stores */
	uint32_t busy;
	enum io_queue_index index;
};

/* A list linked by request->next, first in first out. */
struct io_list {
	struct io_request *first, *last;
};

struct io_ring; /* ring.c */

struct io_engine {
	struct os_lock lock;
	struct io_queue queues[2];
	struct io_list taken_back, returned; /* requests for the I/O thread */
	struct io_request *cancels;          /* issued requests to be cancelled */
	unsigned idle_workers, workers;      /* waiting workers; started workers */
	unsigned workers_max;
	size_t issued; /* requests that hold a turn; under the lock, and atomic: the I/O thread
			  reads the count without the lock */
	bool workers_stop;

	uint32_t sleeping;  /* atomic, futex: 1 while the I/O thread sleeps or is about to */
	uint32_t work_word; /* futex: incremented when there may be work for a worker */
	uint32_t rethink;   /* atomic */
	uint32_t calls;     /* calls of io_engine_wake(); atomic */
	uint32_t stopping;  /* atomic */
	uint32_t started;   /* futex: 1 when the I/O thread is set up */
	uint32_t requests;  /* atomic: requests submitted and not done */
	uint64_t ends;      /* atomic: requests that stores and workers have ended */

	unsigned workers_room; /* capacity of worker_threads */
	bool no_uring;
	int ring_error; /* why there is no ring */
	struct os_bell bell; /* wakes the I/O thread out of the ring; fd is -1 if the thread
				sleeps on `sleeping` */
	struct io_ring *ring;
	struct os_thread thread;
	struct os_thread *worker_threads;

	/* owned by the I/O thread */
	struct io_list completed;
	uint32_t calls_seen;
	uint64_t wait_ns; /* how long the I/O thread waits for the next thing to do, smoothed */
	struct io_request **timers; /* binary heap, the earliest first */
	size_t timers_count, timers_room;
};

/* queue.c; all but io_engine_wake are called with the lock held */
void io_list_push(struct io_list *list, struct io_request *request);
struct io_request *io_list_pop(struct io_list *list);
void queue_init(struct io_queue *queue, enum io_queue_index index, uint32_t demand,
		uint32_t speculative, uint32_t room);
void queue_push(struct io_queue *queue, struct fm_store *store, struct io_request *request);
struct io_request *queue_take(struct io_queue *queue);
void queue_release(struct io_queue *queue, struct fm_store *store, enum io_op op);
static inline bool queue_has(const struct io_queue *queue)
{
	return queue->first[IO_DEMAND] || queue->first[IO_SPECULATIVE];
}
void cancel_list(struct io_engine *engine, struct io_request *request);
struct io_request *cancel_pop(struct io_engine *engine);
void cancel_forget(struct io_engine *engine, struct io_request *request);
void request_take_back(struct io_engine *engine, struct io_request *request);
void io_engine_wake(struct io_engine *engine);

/* complete.c */
void engine_finish(struct io_engine *engine, struct io_request *request, int error);

/* workers.c */
bool workers_wanted(struct io_engine *engine); /* with the lock held */
int workers_start_one(struct io_engine *engine);
void workers_stop(struct io_engine *engine);

/* timers.c */
bool timers_reserve(struct io_engine *engine, size_t count);
void timers_run(struct io_engine *engine);
uint64_t timers_next(const struct io_engine *engine);

/* ring.c */
int ring_open(struct io_engine *engine);
void ring_close(struct io_engine *engine);
bool ring_has_completed(struct io_engine *engine);
void ring_submit(struct io_engine *engine);
/* Submit the prepared requests, sleep until a request completes or `until_ns` has come (0: do not
 * sleep), and handle all completions. */
void ring_turn(struct io_engine *engine, uint64_t until_ns);

#endif
