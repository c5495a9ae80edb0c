/* SPDX-License-Identifier: MIT */
/*
 * The settings of faulty:, from words to numbers, when the store is opened and while it runs.
 * May call: io.h, os.h, lose.c.
 */
#include "store/faulty_settings.h"

#include "io/io.h"
#include "os/atomic.h"
#include "os/os.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>

static int parse_count(const char *text, uint64_t *ret)
{
	return store_parse_size(text, ret);
}

static int parse_offset(const char *text, uint64_t *ret)
{
	if (!strcmp(text, "none")) {
		*ret = FAULTY_NOWHERE;
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

/* Parse TIME or MIN..MAX: two words. */
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
	bool is_limit; /* shares of this limit have been dealt out */
	const char *hint;
};

#define SETTING(field)                                                                             \
	offsetof(struct faulty_settings, field), sizeof(((struct faulty_settings *)0)->field) / 8
static const char delay_hint[] = "a time such as 200ms, or MIN..MAX";
static const char errno_hint[] = "an errno: a name such as EIO, or a number";
static const char offset_hint[] = "an offset such as 64K, or none";
static const char switch_hint[] = "0 or 1";
static const char seed_hint[] = "a number";
static const char reads_hint[] = "a number of reads";
static const char writes_hint[] = "a number of writes";
static const char flushes_hint[] = "a number of flushes";

/* uri.c has the names of the settings, too. */
static const struct faulty_setting settings[] = {
	{"delay", SETTING(faults[IO_READ].delay_ns), parse_delay, false, delay_hint},
	{"rate", SETTING(rate), store_parse_size, true, "bytes per second, such as 10M"},
	{"iops", SETTING(iops), parse_count, true, "reads per second"},
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

/* Set lose: lose=1 keeps written bytes, lose=0 passes the kept bytes on. A store that is not
 * open for writing has no bytes to lose. */
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

/* Set a value. -EINVAL with *ret_hint set: a bad value; -EOPNOTSUPP: no such key; other errors:
 * the setting could not be changed. */
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

/* Make all waiting requests look at the settings again after a change. Any thread. */
void faulty_changed(struct faulty_store *faulty)
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

int faulty_control(struct fm_store *store, const char *key, const char *value)
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

int faulty_parameters(struct faulty_store *faulty, const char *parameters, char *error_text,
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
					 "faulty:…: not enough address space for %s=%s", key, value);
		}
	}
	return error ? store_say(error, error_text, error_text_len, "faulty:…: bad parameter '%s'",
				 cursor)
		     : 0;
}
