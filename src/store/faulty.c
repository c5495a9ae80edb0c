/* SPDX-License-Identifier: MIT */
/*
 * faulty:URI?...: a filter that makes any store slow or bad, and lets that be changed while it
 * runs. A read that comes in waits until its delay and its share of rate and iops are over (for
 * ever while stuck=1), then fails, is cut short, or goes on to the store below.
 *
 * Settings are single words, read and written atomically. Whoever changes one then raises the
 * generation and wakes all that wait: they look at the settings again. In a thread's own read the
 * wait is a futex on the generation; in the I/O thread it is a timer of the request.
 * The lock protects `waiting` and `engine`, so that a change finds the engine alive as long as a
 * request waits there. Order: this lock, then the engine's.
 * May call: io.h, os.h.
 */
#include "store.h"

#include "io/io.h"
#include "os/atomic.h"
#include "os/os.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define NOWHERE UINT64_MAX /* error-at=none */

struct faulty_settings {
	uint64_t delay_min_ns, delay_max_ns;
	uint64_t rate;        /* bytes a second; 0: no limit */
	uint64_t iops;        /* 0: no limit */
	uint64_t error;       /* positive errno */
	uint64_t error_every; /* 0: never */
	uint64_t error_at;
	uint64_t short_every; /* 0: never */
	uint64_t stuck;
	uint64_t seed;
};

struct faulty_store {
	struct fm_store store; /* first */
	struct fm_store *inner;
	struct faulty_settings set;
	uint32_t generation; /* futex: raised by every change */
	uint32_t limits;     /* raised when rate or iops change: shares are dealt out anew */
	uint32_t aborted;
	uint64_t reads;        /* counted so far */
	uint64_t rate_free_ns; /* when the next read may have its bytes */
	uint64_t iops_free_ns; /* when the next read may start */
	struct os_lock lock;
	unsigned waiting;         /* requests whose timer is ours */
	struct io_engine *engine; /* where; valid while waiting > 0 */
};

/* One read's wait. A request keeps it in its store_words. */
struct faulty_wait {
	uint64_t begun_ns;
	uint64_t number;   /* of this read, from 1 */
	uint64_t share_ns; /* when rate and iops let it through */
	uint64_t limits; /* the generation of limits that share_ns belongs to, plus one; 0: none */
};
_Static_assert(sizeof(struct faulty_wait) <= sizeof(((struct io_request *)0)->store_words),
	       "a request has room for a faulty_wait");

/* ------------------------------------------------------------------ what happens to a read */

/* Random, but a function of the seed and the read's number alone. */
static uint64_t faulty_random(struct faulty_store *faulty, uint64_t number, uint64_t salt)
{
	uint64_t z = atomic_get(&faulty->set.seed) + salt + number * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void faulty_begin(struct faulty_store *faulty, struct faulty_wait *wait)
{
	wait->begun_ns = os_now_ns();
	wait->number = atomic_add(&faulty->reads, 1) + 1;
	wait->share_ns = 0;
	wait->limits = 0;
}

/* Reserve `cost_ns` on a line of reads; the moment when ours begins. */
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

/* When rate and iops let the read through: reserved once, and again after the limits changed. */
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

/* A read that is cancelled while it waits gives its share back to those that are yet to come. */
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

/* When the read may go on, by the settings of this moment. OS_FOREVER: stuck. */
static uint64_t faulty_due(struct faulty_store *faulty, struct faulty_wait *wait, size_t len,
			   uint64_t now_ns)
{
	uint64_t min, max, due, share;

	if (atomic_get(&faulty->set.stuck))
		return OS_FOREVER;
	min = atomic_get(&faulty->set.delay_min_ns);
	max = atomic_get(&faulty->set.delay_max_ns);
	due = wait->begun_ns + min;
	if (max > min)
		due += faulty_random(faulty, wait->number, 1) % (max - min + 1);
	share = faulty_share(faulty, wait, len, now_ns);
	return share > due ? share : due;
}

/* After the wait: the error it ends with, or 0 and how many bytes it may bring. */
static int faulty_verdict(struct faulty_store *faulty, const struct faulty_wait *wait,
			  uint64_t offset, size_t len, size_t *ret_limit)
{
	uint64_t error_every = atomic_get(&faulty->set.error_every);
	uint64_t error_at = atomic_get(&faulty->set.error_at);
	uint64_t short_every = atomic_get(&faulty->set.short_every);
	int error = -(int)atomic_get(&faulty->set.error);

	if (error_every && wait->number % error_every == 0)
		return error;
	if (error_at != NOWHERE && error_at >= offset && error_at - offset < len)
		return error;
	*ret_limit = len;
	if (short_every && wait->number % short_every == 0 && len > 1)
		*ret_limit = 1 + faulty_random(faulty, wait->number, 2) % (len - 1);
	return 0;
}

/* ------------------------------------------------------------------ in the thread that reads */

static int faulty_wait_here(struct faulty_store *faulty, struct faulty_wait *wait, size_t len)
{
	for (;;) {
		uint32_t generation = atomic_get(&faulty->generation);
		uint64_t now_ns = os_now_ns(), due;

		if (atomic_get(&faulty->aborted))
			return -ECANCELED;
		due = faulty_due(faulty, wait, len, now_ns);
		if (due <= now_ns)
			return 0;
		(void)os_futex_wait(&faulty->generation, generation, OS_FUTEX_ANY, due);
	}
}

/* A cut read brings whole segments, or a part of the first: no copy of the iovecs here. */
static int faulty_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		       uint64_t offset, size_t *ret_done)
{
	struct faulty_store *faulty = (struct faulty_store *)store;
	struct fm_store *inner = faulty->inner;
	size_t len = store_iov_bytes(iov, iov_count), limit = 0, used;
	struct faulty_wait wait;
	struct iovec part;
	int error, count = 0;

	faulty_begin(faulty, &wait);
	error = faulty_wait_here(faulty, &wait, len);
	if (error) {
		faulty_share_return(faulty, &wait, len);
		return error;
	}
	error = faulty_verdict(faulty, &wait, offset, len, &limit);
	if (error)
		return error;
	if (limit == len)
		return inner->ops->read(inner, iov, iov_count, offset, ret_done);
	used = 0;
	while (used + iov[count].iov_len <= limit)
		used += iov[count++].iov_len;
	if (used)
		return inner->ops->read(inner, iov, count, offset, ret_done);
	part = (struct iovec){iov[0].iov_base, limit};
	return inner->ops->read(inner, &part, 1, offset, ret_done);
}

/* ------------------------------------------------------------------ in the I/O thread */

/* store_private[0] says which filter's timer the request waits for. */
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

/* The wait is over. */
static void faulty_proceed(struct faulty_store *faulty, struct io_engine *engine,
			   struct io_request *request, size_t len)
{
	struct faulty_wait *wait = (struct faulty_wait *)request->store_words;
	size_t limit = 0;
	int error =
		faulty_verdict(faulty, wait, request->offset + request->bytes_done, len, &limit);

	if (error) {
		io_complete(engine, request, error, 0);
		return;
	}
	if (limit < len)
		request_cut(request, limit);
	io_pass_on(engine, request, faulty->inner);
}

/* The timer's function: whenever it is called, early or late, the settings decide. */
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
	due = faulty_due(faulty, wait, len, now_ns);
	if (due > now_ns) {
		io_timer_start(engine, request, due, faulty_look);
		return;
	}
	faulty_let_go(faulty, request);
	faulty_proceed(faulty, engine, request, len);
}

static int faulty_submit_read(struct fm_store *store, struct io_engine *engine,
			      struct io_request *request)
{
	struct faulty_store *faulty = (struct faulty_store *)store;

	faulty_begin(faulty, (struct faulty_wait *)request->store_words);
	/* Held before the first look: a change after that look then has the request look again. */
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

/* ------------------------------------------------------------------ writing */

static int faulty_write(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
			size_t *ret_done)
{
	struct fm_store *inner = ((struct faulty_store *)store)->inner;

	return inner->ops->write(inner, iov, iov_count, offset, ret_done);
}

static int faulty_flush(struct fm_store *store)
{
	struct fm_store *inner = ((struct faulty_store *)store)->inner;

	return inner->ops->flush(inner);
}

static int faulty_submit_write(struct fm_store *store, struct io_engine *engine, struct io_request *request)
{
	io_pass_on(engine, request, ((struct faulty_store *)store)->inner);
	return 0;
}

static int faulty_resize(struct fm_store *store, uint64_t size_bytes)
{
	struct fm_store *inner = ((struct faulty_store *)store)->inner;
	int error = inner->ops->resize ? inner->ops->resize(inner, size_bytes) : -EOPNOTSUPP;

	if (!error)
		atomic_set(&store->size_bytes, size_bytes);
	return error;
}

static int faulty_punch(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct fm_store *inner = ((struct faulty_store *)store)->inner;

	return inner->ops->punch ? inner->ops->punch(inner, offset, len) : -EOPNOTSUPP;
}

static int faulty_reserve(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct fm_store *inner = ((struct faulty_store *)store)->inner;

	return inner->ops->reserve ? inner->ops->reserve(inner, offset, len) : -EOPNOTSUPP;
}

/* ------------------------------------------------------------------ settings */

static int parse_count(const char *text, uint64_t *ret)
{
	return store_parse_size(text, ret);
}

static int parse_offset(const char *text, uint64_t *ret)
{
	if (!strcmp(text, "none")) {
		*ret = NOWHERE;
		return 0;
	}
	return store_parse_size(text, ret);
}

static int parse_switch(const char *text, uint64_t *ret)
{
	if (strcmp(text, "0") && strcmp(text, "1"))
		return -EINVAL;
	*ret = text[0] == '1';
	return 0;
}

static int parse_errno(const char *text, uint64_t *ret)
{
	uint64_t number;

	for (int error = 1; error < 256; error++) {
		const char *name = strerrorname_np(error);

		if (name && !strcmp(name, text)) {
			*ret = (uint64_t)error;
			return 0;
		}
	}
	if (store_parse_size(text, &number) || number < 1 || number > 4095)
		return -EINVAL;
	*ret = number;
	return 0;
}

struct faulty_setting {
	const char *key;
	size_t offset; /* in struct faulty_settings */
	int (*parse)(const char *text, uint64_t *ret_value);
	bool is_limit; /* shares of it have been dealt out */
	const char *hint;
};

#define SETTING(field) offsetof(struct faulty_settings, field)
static const struct faulty_setting settings[] = {
	/* delay has two words: see faulty_set_delay() */
	{"rate", SETTING(rate), store_parse_size, true, "bytes a second, such as 10M"},
	{"iops", SETTING(iops), parse_count, true, "reads a second"},
	{"error", SETTING(error), parse_errno, false, "an errno: a name such as EIO, or a number"},
	{"error-every", SETTING(error_every), parse_count, false, "a number of reads"},
	{"error-at", SETTING(error_at), parse_offset, false, "an offset such as 64K, or none"},
	{"short-every", SETTING(short_every), parse_count, false, "a number of reads"},
	{"stuck", SETTING(stuck), parse_switch, false, "0 or 1"},
	{"seed", SETTING(seed), parse_count, false, "a number"},
};
#undef SETTING
static const char delay_hint[] = "a time such as 200ms, or MIN..MAX";

/* TIME or MIN..MAX. */
static int faulty_set_delay(struct faulty_store *faulty, const char *text)
{
	const char *dots = strstr(text, "..");
	uint64_t min, max;
	char first[32];

	if (!dots) {
		if (store_parse_time(text, &min))
			return -EINVAL;
		max = min;
	} else {
		if ((size_t)(dots - text) >= sizeof(first))
			return -EINVAL;
		memcpy(first, text, (size_t)(dots - text));
		first[dots - text] = '\0';
		if (store_parse_time(first, &min) || store_parse_time(dots + 2, &max) || max < min)
			return -EINVAL;
	}
	atomic_set(&faulty->set.delay_min_ns, min);
	atomic_set(&faulty->set.delay_max_ns, max);
	return 0;
}

/* -EINVAL with *ret_hint set: a bad value; -EOPNOTSUPP: no such key. */
static int faulty_set(struct faulty_store *faulty, const char *key, const char *value,
		      const char **ret_hint)
{
	uint64_t word = 0;

	*ret_hint = delay_hint;
	if (!strcmp(key, "delay"))
		return faulty_set_delay(faulty, value);
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		const struct faulty_setting *setting = &settings[i];

		if (strcmp(key, setting->key))
			continue;
		*ret_hint = setting->hint;
		if (setting->parse(value, &word))
			return -EINVAL;
		atomic_set((uint64_t *)((char *)&faulty->set + setting->offset), word);
		if (setting->is_limit) {
			atomic_set(&faulty->rate_free_ns, 0);
			atomic_set(&faulty->iops_free_ns, 0);
			(void)atomic_add(&faulty->limits, 1);
		}
		return 0;
	}
	return -EOPNOTSUPP;
}

/* Something changed: all that wait look again. Any thread. */
static void faulty_changed(struct faulty_store *faulty)
{
	os_sigmask mask = os_signals_block();

	(void)atomic_add(&faulty->generation, 1);
	os_futex_wake(&faulty->generation, INT_MAX, OS_FUTEX_ANY);
	os_lock(&faulty->lock);
	if (faulty->waiting)
		io_timers_rethink(faulty->engine);
	os_unlock(&faulty->lock);
	os_signals_restore(mask);
}

static int faulty_control(struct fm_store *store, const char *key, const char *value)
{
	struct faulty_store *faulty = (struct faulty_store *)store;
	struct fm_store *inner = faulty->inner;
	const char *hint;
	int error = faulty_set(faulty, key, value, &hint);

	if (error == -EOPNOTSUPP && inner->ops->control)
		return inner->ops->control(inner, key, value);
	if (!error)
		faulty_changed(faulty);
	return error;
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

	faulty->inner->ops->close(faulty->inner);
	free(faulty);
}

static const struct fm_store_ops faulty_ops = {
	.name = "faulty",
	.read = faulty_read,
	.submit_read = faulty_submit_read,
	.cancel = faulty_cancel,
	.abort = faulty_abort,
	.version = faulty_version,
	.write = faulty_write,
	.submit_write = faulty_submit_write,
	.flush = faulty_flush,
	.submit_flush = faulty_submit_write,
	.resize = faulty_resize,
	.punch = faulty_punch,
	.reserve = faulty_reserve,
	.control = faulty_control,
	.close = faulty_close,
};

static int faulty_parameters(struct faulty_store *faulty, const char *parameters, char *error_text,
			     size_t error_text_len)
{
	const char *cursor = parameters, *hint;
	char key[64], value[64];
	int error = 0;

	while (store_next_parameter(&cursor, key, sizeof(key), value, sizeof(value), &error)) {
		switch (faulty_set(faulty, key, value, &hint)) {
		case 0:
			break;
		case -EINVAL:
			return store_say(-EINVAL, error_text, error_text_len,
					 "faulty:…: bad %s '%s': write %s", key, value, hint);
		default:
			return store_say(-EINVAL, error_text, error_text_len,
					 "faulty:…: unknown parameter '%s'", key);
		}
	}
	return error ? store_say(error, error_text, error_text_len, "faulty:…: bad parameter '%s'",
				 cursor)
		     : 0;
}

int store_faulty_open(struct fm_store *inner, const char *parameters, char *error_text,
		      size_t error_text_len, struct fm_store **ret_store)
{
	struct faulty_store *faulty = calloc(1, sizeof(*faulty));
	int error;

	if (!faulty)
		return store_say(-ENOMEM, error_text, error_text_len, "faulty:…: %s",
				 strerror(ENOMEM));
	faulty->inner = inner;
	faulty->set.error = EIO;
	faulty->set.error_at = NOWHERE;
	error = faulty_parameters(faulty, parameters, error_text, error_text_len);
	if (error) {
		free(faulty);
		return error;
	}
	faulty->store.ops = &faulty_ops;
	faulty->store.caps = FM_STORE_SUBMIT | (inner->caps & (FM_STORE_READ_INLINE | FM_STORE_WRITE));
	faulty->store.size_bytes = inner->size_bytes;
	faulty->store.opened = inner->opened;
	*ret_store = &faulty->store;
	return 0;
}
