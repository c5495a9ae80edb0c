/* SPDX-License-Identifier: MIT */
/*
 * faulty:URI?...: a filter that makes any store slow or bad, and lets these settings be changed
 * while the store runs. A new read waits until its delay and its share of rate and iops are
 * over (for ever while stuck=1). Then the read fails, is cut short, or goes on to the store
 * below. Writes and flushes do the same, with settings of their own, and without shares. With
 * lose=1 the store below is that of lose.c, over the inner store.
 *
 * Settings are single words, read and written atomically. A thread that changes a setting then
 * raises the generation and wakes all waiting requests, which look at the settings again. In a
 * thread's own read the wait is a futex on the generation; in the I/O thread the wait is a
 * timer of the request. The lock protects `waiting` and `engine`, so that a change finds the
 * engine alive as long as a request waits there. Lock order: this lock, then the engine's. May
 * call: io.h, os.h.
 */
#include "store/faulty.h"

#include "io/io.h"
#include "os/atomic.h"
#include "os/os.h"
#include "store/faulty_settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The wait of a request. A request keeps its wait in its store_words. */
struct faulty_wait {
	uint64_t begun_ns;
	uint64_t number;   /* among the requests of its kind, from 1 */
	uint64_t share_ns; /* when rate and iops let it through */
	uint64_t limits; /* the generation of limits that share_ns belongs to, plus one; 0: none */
};
_Static_assert(sizeof(struct faulty_wait) <= sizeof(((struct io_request *)0)->store_words),
	       "a request has room for a faulty_wait");

/* Return the store that requests go on to. */
static struct fm_store *faulty_target(struct faulty_store *faulty)
{
	return atomic_get(&faulty->losing) ? atomic_get(&faulty->lose) : faulty->inner;
}

/* ------------------------------------------------------------------ what happens to a request */

/* Make a random number that is a function of only the seed, the kind of request and the
 * request's number. */
static uint64_t faulty_random(struct faulty_store *faulty, enum io_op op, uint64_t number,
			      uint64_t salt)
{
	uint64_t z = atomic_get(&faulty->set.seed) + salt + 16 * (uint64_t)op +
		     number * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void faulty_begin(struct faulty_store *faulty, enum io_op op, struct faulty_wait *wait)
{
	wait->begun_ns = os_now_ns();
	wait->number = atomic_add(&faulty->counted[op], 1) + 1;
	wait->share_ns = 0;
	wait->limits = 0;
}

/* Reserve `cost_ns` on a line of reads. Returns the moment when the reserved time begins. */
static uint64_t line_reserve(uint64_t *free_ns, uint64_t now_ns, uint64_t cost_ns)
{
	uint64_t seen = atomic_get(free_ns), begin;

	do {
		begin = seen > now_ns ? seen : now_ns;
		if (begin > INT64_MAX / 2) /* far beyond any wait: do not wrap */
			break;
	} while (!atomic_cas(free_ns, &seen, begin + cost_ns));
	return begin;
}

static uint64_t rate_cost_ns(uint64_t rate, size_t len)
{
	unsigned __int128 cost = rate ? (unsigned __int128)len * OS_NSEC_PER_SEC / rate : 0;

	return cost > INT64_MAX / 4 ? INT64_MAX / 4 : (uint64_t)cost;
}

/* Return when rate and iops let the read through: reserved once, and again after the limits
 * changed. */
static uint64_t faulty_share(struct faulty_store *faulty, struct faulty_wait *wait, size_t len,
			     uint64_t now_ns)
{
	uint32_t limits = atomic_get(&faulty->limits);
	uint64_t rate, iops, due = 0;

	if (wait->limits == limits + 1ull)
		return wait->share_ns;
	rate = atomic_get(&faulty->set.rate);
	iops = atomic_get(&faulty->set.iops);
	if (rate) {
		uint64_t cost = rate_cost_ns(rate, len);

		due = line_reserve(&faulty->rate_free_ns, now_ns, cost) + cost;
	}
	if (iops) {
		uint64_t begin =
			line_reserve(&faulty->iops_free_ns, now_ns, OS_NSEC_PER_SEC / iops);

		due = begin > due ? begin : due;
	}
	wait->share_ns = due;
	wait->limits = limits + 1ull;
	return due;
}

/* Give the share of a read that is cancelled while it waits back to later reads. */
static void faulty_share_return(struct faulty_store *faulty, struct faulty_wait *wait, size_t len)
{
	uint64_t rate = atomic_get(&faulty->set.rate), iops = atomic_get(&faulty->set.iops);

	if (wait->limits != atomic_get(&faulty->limits) + 1ull)
		return;
	if (rate)
		(void)atomic_sub(&faulty->rate_free_ns, rate_cost_ns(rate, len));
	if (iops)
		(void)atomic_sub(&faulty->iops_free_ns, OS_NSEC_PER_SEC / iops);
}

/* Return when the request may go on, by the settings of this moment. OS_FOREVER: stuck. */
static uint64_t faulty_due(struct faulty_store *faulty, enum io_op op, struct faulty_wait *wait,
			   size_t len, uint64_t now_ns)
{
	struct faulty_faults *faults = &faulty->set.faults[op];
	uint64_t min, max, due, share;

	if (atomic_get(&faults->stuck))
		return OS_FOREVER;
	min = atomic_get(&faults->delay_ns[0]);
	max = atomic_get(&faults->delay_ns[1]);
	due = wait->begun_ns + min;
	if (max > min)
		due += faulty_random(faulty, op, wait->number, 1) % (max - min + 1);
	share = op == IO_READ ? faulty_share(faulty, wait, len, now_ns) : 0;
	return share > due ? share : due;
}

/* Decide after the wait: the error that the request ends with, or 0 and how many bytes the
 * request may transfer. */
static int faulty_verdict(struct faulty_store *faulty, enum io_op op,
			  const struct faulty_wait *wait, uint64_t offset, size_t len,
			  size_t *ret_limit)
{
	struct faulty_faults *faults = &faulty->set.faults[op];
	uint64_t error_every = atomic_get(&faults->error_every);
	uint64_t error_at = atomic_get(&faults->error_at);
	uint64_t short_every = atomic_get(&faults->short_every);
	int error = -(int)atomic_get(&faults->error);

	if (error_every && wait->number % error_every == 0)
		return error;
	if (error_at != FAULTY_NOWHERE && error_at >= offset && error_at - offset < len)
		return error;
	*ret_limit = len;
	if (short_every && wait->number % short_every == 0 && len > 1)
		*ret_limit = 1 + faulty_random(faulty, op, wait->number, 2) % (len - 1);
	return 0;
}

/* ------------------------------------------------------------------ in the calling thread */

static int faulty_wait_here(struct faulty_store *faulty, enum io_op op, struct faulty_wait *wait,
			    size_t len)
{
	for (;;) {
		uint32_t generation = atomic_get(&faulty->generation);
		uint64_t now_ns = os_now_ns(), due;

		if (atomic_get(&faulty->aborted))
			return -ECANCELED;
		due = faulty_due(faulty, op, wait, len, now_ns);
		if (due <= now_ns)
			return 0;
		(void)os_futex_wait(&faulty->generation, generation, OS_FUTEX_ANY, due);
	}
}

static int target_transfer(struct faulty_store *faulty, enum io_op op, const struct iovec *iov,
			   int iov_count, uint64_t offset, size_t *ret_done)
{
	struct fm_store *target = faulty_target(faulty);

	return op == IO_WRITE ? target->ops->write(target, iov, iov_count, offset, ret_done)
			      : target->ops->read(target, iov, iov_count, offset, ret_done);
}

/* Transfer. A cut request transfers whole segments, or a part of the first segment: no copy of
 * the iovecs here. */
static int faulty_transfer(struct faulty_store *faulty, enum io_op op, const struct iovec *iov,
			   int iov_count, uint64_t offset, size_t *ret_done)
{
	size_t len = store_iov_bytes(iov, iov_count), limit = 0, used;
	struct faulty_wait wait;
	struct iovec part;
	int error, count = 0;

	faulty_begin(faulty, op, &wait);
	error = faulty_wait_here(faulty, op, &wait, len);
	if (error) {
		faulty_share_return(faulty, &wait, len);
		return error;
	}
	error = faulty_verdict(faulty, op, &wait, offset, len, &limit);
	if (error)
		return error;
	if (limit == len)
		return target_transfer(faulty, op, iov, iov_count, offset, ret_done);
	used = 0;
	while (used + iov[count].iov_len <= limit)
		used += iov[count++].iov_len;
	if (used)
		return target_transfer(faulty, op, iov, count, offset, ret_done);
	part = (struct iovec){iov[0].iov_base, limit};
	return target_transfer(faulty, op, &part, 1, offset, ret_done);
}

static int faulty_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		       uint64_t offset, size_t *ret_done)
{
	return faulty_transfer((struct faulty_store *)store, IO_READ, iov, iov_count, offset, ret_done);
}

static int faulty_write(struct fm_store *store, const struct iovec *iov, int iov_count,
			uint64_t offset, size_t *ret_done)
{
	return faulty_transfer((struct faulty_store *)store, IO_WRITE, iov, iov_count, offset, ret_done);
}

static int faulty_flush(struct fm_store *store)
{
	struct faulty_store *faulty = (struct faulty_store *)store;
	struct fm_store *target;
	struct faulty_wait wait;
	size_t limit;
	int error;

	faulty_begin(faulty, IO_FLUSH, &wait);
	error = faulty_wait_here(faulty, IO_FLUSH, &wait, 0);
	if (!error)
		error = faulty_verdict(faulty, IO_FLUSH, &wait, 0, 0, &limit);
	if (error)
		return error;
	target = faulty_target(faulty);
	return target->ops->flush(target);
}

/* ------------------------------------------------------------------ in the I/O thread */

/* Hold a request. store_private[0] says which filter's timer the request waits for. */
static void faulty_hold(struct faulty_store *faulty, struct io_engine *engine,
			struct io_request *request)
{
	request->store_private[0] = faulty;
	os_lock(&faulty->lock);
	faulty->engine = engine;
	faulty->waiting++;
	os_unlock(&faulty->lock);
}

static void faulty_let_go(struct faulty_store *faulty, struct io_request *request)
{
	request->store_private[0] = NULL;
	os_lock(&faulty->lock);
	faulty->waiting--;
	os_unlock(&faulty->lock);
}

static void request_cut(struct io_request *request, size_t limit)
{
	int i = 0;

	while (limit > request->rest[i].iov_len)
		limit -= request->rest[i++].iov_len;
	request->rest[i].iov_len = limit;
	request->rest_count = i + 1;
}

/* Let a request go on after its wait. */
static void faulty_proceed(struct faulty_store *faulty, struct io_engine *engine,
			   struct io_request *request, size_t len)
{
	struct faulty_wait *wait = (struct faulty_wait *)request->store_words;
	size_t limit = 0;
	int error =
		faulty_verdict(faulty, request->op, wait, request->offset + request->bytes_done, len, &limit);

	if (error) {
		io_complete(engine, request, error, 0);
		return;
	}
	if (limit < len)
		request_cut(request, limit);
	io_pass_on(engine, request, faulty_target(faulty));
}

/* Called by the timer: whether the call is early or late, the settings decide. */
static void faulty_look(struct io_engine *engine, struct io_request *request)
{
	struct faulty_store *faulty = request->store_private[0];
	struct faulty_wait *wait = (struct faulty_wait *)request->store_words;
	size_t len = store_iov_bytes(request->rest, request->rest_count);
	uint64_t now_ns = os_now_ns(), due;

	if (atomic_get(&faulty->aborted)) {
		faulty_let_go(faulty, request);
		io_complete(engine, request, -ECANCELED, 0);
		return;
	}
	due = faulty_due(faulty, request->op, wait, len, now_ns);
	if (due > now_ns) {
		io_timer_start(engine, request, due, faulty_look);
		return;
	}
	faulty_let_go(faulty, request);
	faulty_proceed(faulty, engine, request, len);
}

/* Submit a request of any kind. */
static int faulty_submit(struct fm_store *store, struct io_engine *engine,
			 struct io_request *request)
{
	struct faulty_store *faulty = (struct faulty_store *)store;

	faulty_begin(faulty, request->op, (struct faulty_wait *)request->store_words);
	/* The request is held before the first look: a change after that look then makes the
	 * request look again. */
	faulty_hold(faulty, engine, request);
	faulty_look(engine, request);
	return 0;
}

static void faulty_cancel(struct fm_store *store, struct io_engine *engine,
			  struct io_request *request)
{
	struct faulty_store *faulty = (struct faulty_store *)store;
	struct fm_store *inner = faulty->inner;

	if (request->store_private[0] == faulty) {
		(void)io_timer_stop(engine, request);
		faulty_share_return(faulty, (struct faulty_wait *)request->store_words,
				    store_iov_bytes(request->rest, request->rest_count));
		faulty_let_go(faulty, request);
		io_complete(engine, request, -ECANCELED, 0);
	} else if (inner->ops->cancel) {
		inner->ops->cancel(inner, engine, request);
	}
}

/* ------------------------------------------------------------------ its shape */

static int faulty_resize(struct fm_store *store, uint64_t size_bytes)
{
	struct fm_store *inner = faulty_target((struct faulty_store *)store);

	return inner->ops->resize ? inner->ops->resize(inner, size_bytes) : -EOPNOTSUPP;
}

static int faulty_punch(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct fm_store *inner = faulty_target((struct faulty_store *)store);

	return inner->ops->punch ? inner->ops->punch(inner, offset, len) : -EOPNOTSUPP;
}

static int faulty_reserve(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct fm_store *inner = ((struct faulty_store *)store)->inner;

	return inner->ops->reserve ? inner->ops->reserve(inner, offset, len) : -EOPNOTSUPP;
}

static void faulty_abort(struct fm_store *store)
{
	struct faulty_store *faulty = (struct faulty_store *)store;

	atomic_set(&faulty->aborted, 1);
	faulty_changed(faulty);
	if (faulty->inner->ops->abort)
		faulty->inner->ops->abort(faulty->inner);
}

/* ------------------------------------------------------------------ the rest of a store */

static int faulty_version(struct fm_store *store, struct fm_store_version *ret_version)
{
	struct fm_store *inner = ((struct faulty_store *)store)->inner;

	return inner->ops->version(inner, ret_version);
}

static void faulty_close(struct fm_store *store)
{
	struct faulty_store *faulty = (struct faulty_store *)store;

	if (faulty->lose)
		faulty->lose->ops->close(faulty->lose);
	faulty->inner->ops->close(faulty->inner);
	free(faulty);
}

static const struct fm_store_ops faulty_ops = {
	.name = "faulty",
	.read = faulty_read,
	.submit_read = faulty_submit,
	.cancel = faulty_cancel,
	.abort = faulty_abort,
	.version = faulty_version,
	.write = faulty_write,
	.submit_write = faulty_submit,
	.flush = faulty_flush,
	.submit_flush = faulty_submit,
	.resize = faulty_resize,
	.punch = faulty_punch,
	.reserve = faulty_reserve,
	.control = faulty_control,
	.close = faulty_close,
};

int store_faulty_open(struct fm_store *inner, const char *parameters, char *error_text,
		      size_t error_text_len, struct fm_store **ret_store)
{
	struct faulty_store *faulty = calloc(1, sizeof(*faulty));
	int error;

	if (!faulty)
		return store_say(-ENOMEM, error_text, error_text_len, "faulty:…: %s",
				 strerror(ENOMEM));
	faulty->inner = inner;
	for (int op = 0; op < FAULTY_OPS; op++) {
		faulty->set.faults[op].error = EIO;
		faulty->set.faults[op].error_at = FAULTY_NOWHERE;
	}
	error = faulty_parameters(faulty, parameters, error_text, error_text_len);
	if (error) {
		if (faulty->lose)
			faulty->lose->ops->close(faulty->lose);
		free(faulty);
		return error;
	}
	faulty->store.ops = &faulty_ops;
	faulty->store.caps = FM_STORE_SUBMIT | (inner->caps & (FM_STORE_READ_INLINE | FM_STORE_WRITE));
	faulty->store.below = inner;
	faulty->store.opened = inner->opened;
	*ret_store = &faulty->store;
	return 0;
}
