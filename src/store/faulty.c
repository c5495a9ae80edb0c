/* SPDX-License-Identifier: MIT */
/*
 * faulty:URI?...: a filter that makes any store slow or bad, and lets that be changed while it
 * runs. A read that comes in waits until its delay and its share of rate and iops are over (for
 * ever while stuck=1), then fails, is cut short, or goes on to the store below. So do writes and flushes, with settings of
 * their own, and without shares. With lose=1 the store below is lose.c's, over the inner one.
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

/* What happens to one kind of request. */
struct faulty_faults {
	uint64_t delay_ns[2]; /* at least, at most */
	uint64_t error;       /* positive errno */
	uint64_t error_every; /* 0: never */
	uint64_t error_at;
	uint64_t short_every; /* 0: never */
	uint64_t stuck;
};

#define OPS 3 /* enum io_op */
_Static_assert(IO_READ < OPS && IO_WRITE < OPS && IO_FLUSH < OPS, "each kind has its faults");

struct faulty_settings {
	struct faulty_faults faults[OPS];
	uint64_t rate; /* of reads: bytes a second; 0: no limit */
	uint64_t iops; /* of reads; 0: no limit */
	uint64_t seed;
};

struct faulty_store {
	struct fm_store store; /* first */
	struct fm_store *inner;
	struct fm_store *lose; /* atomic: over inner, made when lose=1 is first set; NULL: not yet */
	uint32_t losing;       /* atomic: it is to be used */
	struct faulty_settings set;
	uint32_t generation; /* futex: raised by every change */
	uint32_t limits;     /* raised when rate or iops change: shares are dealt out anew */
	uint32_t aborted;
	uint64_t counted[OPS]; /* so far */
	uint64_t rate_free_ns; /* when the next read may have its bytes */
	uint64_t iops_free_ns; /* when the next read may start */
	struct os_lock lock;
	unsigned waiting;         /* requests whose timer is ours */
	struct io_engine *engine; /* where; valid while waiting > 0 */
};

/* One request's wait. A request keeps it in its store_words. */
struct faulty_wait {
	uint64_t begun_ns;
	uint64_t number;   /* among those of its kind, from 1 */
	uint64_t share_ns; /* when rate and iops let it through */
	uint64_t limits; /* the generation of limits that share_ns belongs to, plus one; 0: none */
};
_Static_assert(sizeof(struct faulty_wait) <= sizeof(((struct io_request *)0)->store_words),
	       "a request has room for a faulty_wait");

/* Where requests go on to. */
static struct fm_store *faulty_target(struct faulty_store *faulty)
{
	return atomic_get(&faulty->losing) ? atomic_get(&faulty->lose) : faulty->inner;
}

/* ------------------------------------------------------------------ what happens to a request */

/* Random, but a function of the seed, the kind of request and its number alone. */
static uint64_t faulty_random(struct faulty_store *faulty, enum io_op op, uint64_t number, uint64_t salt)
{
	uint64_t z = atomic_get(&faulty->set.seed) + salt + 16 * (uint64_t)op + number * 0x9e3779b97f4a7c15ull;

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

/* When the request may go on, by the settings of this moment. OS_FOREVER: stuck. */
static uint64_t faulty_due(struct faulty_store *faulty, enum io_op op, struct faulty_wait *wait, size_t len,
			   uint64_t now_ns)
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

/* After the wait: the error it ends with, or 0 and how many bytes it may bring or take. */
static int faulty_verdict(struct faulty_store *faulty, enum io_op op, const struct faulty_wait *wait,
			  uint64_t offset, size_t len, size_t *ret_limit)
{
	struct faulty_faults *faults = &faulty->set.faults[op];
	uint64_t error_every = atomic_get(&faults->error_every);
	uint64_t error_at = atomic_get(&faults->error_at);
	uint64_t short_every = atomic_get(&faults->short_every);
	int error = -(int)atomic_get(&faults->error);

	if (error_every && wait->number % error_every == 0)
		return error;
	if (error_at != NOWHERE && error_at >= offset && error_at - offset < len)
		return error;
	*ret_limit = len;
	if (short_every && wait->number % short_every == 0 && len > 1)
		*ret_limit = 1 + faulty_random(faulty, op, wait->number, 2) % (len - 1);
	return 0;
}

/* ------------------------------------------------------------------ in the thread that reads or writes */

static int faulty_wait_here(struct faulty_store *faulty, enum io_op op, struct faulty_wait *wait, size_t len)
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

static int target_transfer(struct faulty_store *faulty, enum io_op op, const struct iovec *iov, int iov_count,
			   uint64_t offset, size_t *ret_done)
{
	struct fm_store *target = faulty_target(faulty);

	return op == IO_WRITE ? target->ops->write(target, iov, iov_count, offset, ret_done)
			      : target->ops->read(target, iov, iov_count, offset, ret_done);
}

/* A cut one brings or takes whole segments, or a part of the first: no copy of the iovecs here. */
static int faulty_transfer(struct faulty_store *faulty, enum io_op op, const struct iovec *iov, int iov_count,
			   uint64_t offset, size_t *ret_done)
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

static int faulty_write(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
			size_t *ret_done)
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
		faulty_verdict(faulty, request->op, wait, request->offset + request->bytes_done, len, &limit);

	if (error) {
		io_complete(engine, request, error, 0);
		return;
	}
	if (limit < len)
		request_cut(request, limit);
	io_pass_on(engine, request, faulty_target(faulty));
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
	due = faulty_due(faulty, request->op, wait, len, now_ns);
	if (due > now_ns) {
		io_timer_start(engine, request, due, faulty_look);
		return;
	}
	faulty_let_go(faulty, request);
	faulty_proceed(faulty, engine, request, len);
}

/* Whatever its kind. */
static int faulty_submit(struct fm_store *store, struct io_engine *engine, struct io_request *request)
{
	struct faulty_store *faulty = (struct faulty_store *)store;

	faulty_begin(faulty, request->op, (struct faulty_wait *)request->store_words);
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

/* TIME or MIN..MAX: two words. */
static int parse_delay(const char *text, uint64_t *ret)
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
	ret[0] = min;
	ret[1] = max;
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
	unsigned words;
	int (*parse)(const char *text, uint64_t *ret_words);
	bool is_limit; /* shares of it have been dealt out */
	const char *hint;
};

#define SETTING(field) offsetof(struct faulty_settings, field), sizeof(((struct faulty_settings *)0)->field) / 8
static const char delay_hint[] = "a time such as 200ms, or MIN..MAX";
static const char errno_hint[] = "an errno: a name such as EIO, or a number";
static const char offset_hint[] = "an offset such as 64K, or none";
static const char switch_hint[] = "0 or 1";
static const char seed_hint[] = "a number";
static const char reads_hint[] = "a number of reads";
static const char writes_hint[] = "a number of writes";
static const char flushes_hint[] = "a number of flushes";

/* uri.c has their names, too. */
static const struct faulty_setting settings[] = {
	{"delay", SETTING(faults[IO_READ].delay_ns), parse_delay, false, delay_hint},
	{"rate", SETTING(rate), store_parse_size, true, "bytes a second, such as 10M"},
	{"iops", SETTING(iops), parse_count, true, "reads a second"},
	{"error", SETTING(faults[IO_READ].error), parse_errno, false, errno_hint},
	{"error-every", SETTING(faults[IO_READ].error_every), parse_count, false, reads_hint},
	{"error-at", SETTING(faults[IO_READ].error_at), parse_offset, false, offset_hint},
	{"short-every", SETTING(faults[IO_READ].short_every), parse_count, false, reads_hint},
	{"stuck", SETTING(faults[IO_READ].stuck), parse_switch, false, switch_hint},
	{"write-delay", SETTING(faults[IO_WRITE].delay_ns), parse_delay, false, delay_hint},
	{"write-error", SETTING(faults[IO_WRITE].error), parse_errno, false, errno_hint},
	{"write-error-every", SETTING(faults[IO_WRITE].error_every), parse_count, false, writes_hint},
	{"write-error-at", SETTING(faults[IO_WRITE].error_at), parse_offset, false, offset_hint},
	{"write-short-every", SETTING(faults[IO_WRITE].short_every), parse_count, false, writes_hint},
	{"write-stuck", SETTING(faults[IO_WRITE].stuck), parse_switch, false, switch_hint},
	{"flush-delay", SETTING(faults[IO_FLUSH].delay_ns), parse_delay, false, delay_hint},
	{"flush-error", SETTING(faults[IO_FLUSH].error), parse_errno, false, errno_hint},
	{"flush-error-every", SETTING(faults[IO_FLUSH].error_every), parse_count, false, flushes_hint},
	{"flush-stuck", SETTING(faults[IO_FLUSH].stuck), parse_switch, false, switch_hint},
	{"seed", SETTING(seed), parse_count, false, seed_hint},
};
#undef SETTING

/* lose=1 keeps what is written, lose=0 passes on what there is of it. A store that is not written to has nothing to lose. */
static int faulty_set_lose(struct faulty_store *faulty, const char *value)
{
	uint64_t wanted;
	int error;

	if (parse_switch(value, &wanted))
		return -EINVAL;
	if (!(faulty->inner->caps & FM_STORE_WRITE) || (!wanted && !faulty->lose))
		return 0;
	if (!faulty->lose) {
		struct fm_store *lose;

		error = store_lose_open(faulty->inner, &lose);
		if (error)
			return error;
		atomic_set(&faulty->lose, lose);
	} else {
		error = faulty->lose->ops->control(faulty->lose, "lose", value);
		if (error)
			return error;
	}
	atomic_set(&faulty->losing, (uint32_t)wanted);
	return 0;
}

/* -EINVAL with *ret_hint set: a bad value; -EOPNOTSUPP: no such key; others: it could not be done. */
static int faulty_set(struct faulty_store *faulty, const char *key, const char *value,
		      const char **ret_hint)
{
	uint64_t words[2] = {0, 0};

	*ret_hint = switch_hint;
	if (!strcmp(key, "lose"))
		return faulty_set_lose(faulty, value);
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		const struct faulty_setting *setting = &settings[i];

		if (strcmp(key, setting->key))
			continue;
		*ret_hint = setting->hint;
		if (setting->parse(value, words))
			return -EINVAL;
		for (unsigned j = 0; j < setting->words; j++)
			atomic_set((uint64_t *)((char *)&faulty->set + setting->offset) + j, words[j]);
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
	int error;

	if (!strcmp(key, "crash") && faulty->lose)
		return faulty->lose->ops->control(faulty->lose, key, value);
	error = faulty_set(faulty, key, value, &hint);
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
		case -EOPNOTSUPP:
			return store_say(-EINVAL, error_text, error_text_len,
					 "faulty:…: unknown parameter '%s'", key);
		default:
			return store_say(-ENOMEM, error_text, error_text_len,
					 "faulty:…: no address space for %s=%s", key, value);
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
	for (int op = 0; op < OPS; op++) {
		faulty->set.faults[op].error = EIO;
		faulty->set.faults[op].error_at = NOWHERE;
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
