/* SPDX-License-Identifier: MIT */
/*
 * The limits of --limit: limits.c parses them, prints them, and lists the ways to lower them
 * further. A run does not change sim_limits.
 */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>

struct sim_limits sim_limits;

static const struct {
	const char *name, *help;
	size_t at;
} numbers[] = {
#define FM_X(name, help) {#name, help, offsetof(struct sim_limits, name)},
	SIM_LIMITS(FM_X)
#undef FM_X
};
#define NUMBERS (sizeof(numbers) / sizeof(*numbers))

static const char *const withouts[] = {
#define FM_X(name) #name,
	SIM_WITHOUT(FM_X)
#undef FM_X
};
_Static_assert(WITHOUT_COUNT < 64, "a bit for each");
#define ALL ((1ull << WITHOUT_COUNT) - 1)

static uint32_t *number_of(struct sim_limits *limits, uint32_t n)
{
	return (uint32_t *)((char *)limits + numbers[n].at);
}

static bool is(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && !memcmp(text, word, len);
}

/* Parse no-NAME or with-NAME. */
static bool parse_switch(const char *text, size_t len, struct sim_limits *limits)
{
	bool with = len > 5 && !memcmp(text, "with-", 5);
	size_t prefix = with ? 5 : 3;
	if (!with && (len < 4 || memcmp(text, "no-", 3)))
		return false;
	for (uint32_t i = 0; i < WITHOUT_COUNT; i++)
		if (is(text + prefix, len - prefix, withouts[i])) {
			limits->without = with ? limits->without & ~(1ull << i) : limits->without | 1ull << i;
			return true;
		}
	return false;
}

/* Parse one item: NAME=N, bare, or a switch. */
static bool parse_item(const char *text, size_t len, struct sim_limits *limits)
{
	const char *equals = memchr(text, '=', len);
	if (is(text, len, "bare")) {
		limits->without = ALL;
		return true;
	}
	if (!equals)
		return parse_switch(text, len, limits);
	for (uint32_t i = 0; i < NUMBERS; i++)
		if (is(text, (size_t)(equals - text), numbers[i].name)) {
			char *end;
			unsigned long value = strtoul(equals + 1, &end, 10);
			*number_of(limits, i) = (uint32_t)value;
			return end == text + len && equals[1] >= '0' && equals[1] <= '9' && value && value <= 1000;
		}
	return false;
}

const char *limits_parse(const char *text, struct sim_limits *ret_limits)
{
	struct sim_limits limits = {.without = 0};
	static char wrong[60];
	while (*text) {
		size_t len = strcspn(text, ",");
		if (!parse_item(text, len, &limits)) {
			snprintf(wrong, sizeof(wrong), "%.*s", (int)(len < 50 ? len : 50), text);
			return wrong;
		}
		text += len + (text[len] == ',');
	}
	*ret_limits = limits;
	return NULL;
}

void limits_words(const struct sim_limits *limits, char *to, size_t size)
{
	struct sim_limits copy = *limits;
	size_t len = 0;
	to[0] = 0;
	for (uint32_t i = 0; i < NUMBERS; i++)
		if (*number_of(&copy, i) && len < size)
			len += (size_t)snprintf(to + len, size - len, "%s%s=%u", len ? "," : "", numbers[i].name,
						*number_of(&copy, i));
	bool bare = (uint32_t)__builtin_popcountll(limits->without) > WITHOUT_COUNT / 2;
	if (bare && len < size)
		len += (size_t)snprintf(to + len, size - len, "%sbare", len ? "," : "");
	for (uint32_t i = 0; i < WITHOUT_COUNT; i++)
		if ((limits->without >> i & 1) != bare && len < size)
			len += (size_t)snprintf(to + len, size - len, "%s%s-%s", len ? "," : "", bare ? "with" : "no",
						withouts[i]);
}

/* First lower each number, to the smallest value first. Then switch off one thing after another. */
bool limits_smaller(const struct sim_limits *limits, uint32_t n, struct sim_limits *ret_smaller)
{
	static const uint32_t least[] = {1, 2, 3, 4, 6};
	struct sim_limits smaller = *limits;
	const uint32_t steps = sizeof(least) / sizeof(*least);
	*ret_smaller = *limits;
	if (n < NUMBERS * steps) {
		uint32_t *value = number_of(&smaller, n / steps);
		if (*value && *value <= least[n % steps])
			return true; /* already as small: the limits stay the same */
		*value = least[n % steps];
	} else if (n - NUMBERS * steps < WITHOUT_COUNT) {
		smaller.without |= 1ull << (n - NUMBERS * steps);
	} else {
		return false;
	}
	*ret_smaller = smaller;
	return true;
}

void limits_help(void)
{
	for (uint32_t i = 0; i < NUMBERS; i++)
		printf("  %s=N%*s at most N %s\n", numbers[i].name, 9 - (int)strlen(numbers[i].name), "",
		       numbers[i].help);
	printf("  bare        all of the following; a later with-NAME takes one back\n");
	size_t column = 80;
	for (uint32_t i = 0; i < WITHOUT_COUNT; i++) {
		column += strlen(withouts[i]) + 5;
		if (column > 76) {
			printf("%s  ", i ? ",\n" : "");
			column = strlen(withouts[i]) + 7;
		} else {
			printf(", ");
		}
		printf("no-%s", withouts[i]);
	}
	printf("\n");
}
