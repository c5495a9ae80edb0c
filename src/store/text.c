/* SPDX-License-Identifier: MIT */
/*
 * Words and numbers in URIs and their parameters. Owns no state.
 * May call: libc.
 */
#include "store/text.h"

#include "store/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ words */

int store_say(int error, char *error_text, size_t error_text_len, const char *format, ...)
{
	va_list args;

	if (error_text && error_text_len) {
		va_start(args, format);
		vsnprintf(error_text, error_text_len, format, args);
		va_end(args);
	}
	return error;
}

/* ------------------------------------------------------------------ numbers */

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{"", 1},           {"K", 1ull << 10}, {"M", 1ull << 20},
	{"G", 1ull << 30}, {"T", 1ull << 40}, {NULL, 0},
};

static const struct unit time_units[] = {
	{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {NULL, 0},
};

/* Parse DIGITS[.DIGITS]UNIT exactly, rounded down. */
static int parse_number(const char *text, const struct unit *units, uint64_t *ret_value)
{
	unsigned __int128 whole = 0, fraction = 0, scale = 1, value;
	const char *at = text;
	bool has_point = false;

	if (*at < '0' || *at > '9')
		return -EINVAL;
	for (; *at >= '0' && *at <= '9'; at++) {
		whole = whole * 10 + (unsigned)(*at - '0');
		if (whole > UINT64_MAX)
			return -EINVAL;
	}
	if (*at == '.') {
		has_point = true;
		at++;
		if (*at < '0' || *at > '9')
			return -EINVAL;
		for (; *at >= '0' && *at <= '9'; at++) {
			if (scale > 100000000000000000ull)
				return -EINVAL;
			fraction = fraction * 10 + (unsigned)(*at - '0');
			scale *= 10;
		}
	}
	if (units == time_units && !*at && !whole && !fraction) {
		*ret_value = 0; /* the only time that needs no unit */
		return 0;
	}
	for (; units->name; units++)
		if (!strcmp(at, units->name))
			break;
	if (!units->name || (has_point && units->factor == 1))
		return -EINVAL;
	value = whole * units->factor + fraction * units->factor / scale;
	if (value > INT64_MAX)
		return -EINVAL;
	*ret_value = (uint64_t)value;
	return 0;
}

int store_parse_size(const char *text, uint64_t *ret_bytes)
{
	return parse_number(text, size_units, ret_bytes);
}

int store_parse_time(const char *text, uint64_t *ret_ns)
{
	return parse_number(text, time_units, ret_ns);
}

/* ------------------------------------------------------------------ percent-encoding, parameters
 */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decode text[0..text_len) into `out`. No escaped NUL: it would cut the text. */
int text_percent_decode(const char *text, size_t text_len, char *out, size_t out_len)
{
	size_t from = 0, to = 0;

	while (from < text_len) {
		char c = text[from++];

		if (c == '%') {
			int high = from < text_len ? hex_digit(text[from]) : -1;
			int low = from + 1 < text_len ? hex_digit(text[from + 1]) : -1;

			if (high < 0 || low < 0 || !(high | low))
				return -EINVAL;
			c = (char)(high << 4 | low);
			from += 2;
		}
		if (to + 1 >= out_len)
			return -ENAMETOOLONG;
		out[to++] = c;
	}
	if (to >= out_len)
		return -ENAMETOOLONG;
	out[to] = '\0';
	return 0;
}

bool store_next_parameter(const char **cursor, char *key, size_t key_len, char *value,
			  size_t value_len, int *ret_error)
{
	const char *at = *cursor, *equals;
	size_t len;
	int error = -EINVAL;

	if (!at)
		return false;
	at += strspn(at, "?&");
	*cursor = at;
	if (!*at)
		return false;
	len = strcspn(at, "&");
	equals = memchr(at, '=', len);
	if (equals && equals != at)
		error = text_percent_decode(at, (size_t)(equals - at), key, key_len);
	if (!error)
		error = text_percent_decode(equals + 1, len - (size_t)(equals + 1 - at), value,
				       value_len);
	if (error) {
		*ret_error = error;
		return false;
	}
	*cursor = at + len;
	return true;
}
