/* SPDX-License-Identifier: MIT */
/* Options of the filemap command: each verb has one table, which serves parsing and --help. */
#include "command/tool.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool tool_parse_count(const char *text, uint64_t *ret_count)
{
	unsigned long long value;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end)
		return false;
	*ret_count = value;
	return true;
}

bool tool_parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";
	unsigned long long value;
	unsigned shift = 0;
	const char *unit;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || end[1])
			return false;
		shift = 10 * (unsigned)(unit - units + 1);
	}
	if (errno || value > UINT64_MAX >> shift)
		return false;
	*ret_bytes = (uint64_t)value << shift;
	return true;
}

static void print_choices(const struct tool_option *option, FILE *out)
{
	for (unsigned i = 0; option->choices[i]; i++)
		fprintf(out, "%s%s", i ? "|" : "", option->choices[i]);
}

static void print_help(const struct tool_verb *verb)
{
	printf("usage: filemap %s [OPTIONS]%s%s\n\n%s\n", verb->name, *verb->operands ? " " : "",
	       verb->operands, verb->help);
	printf("options:\n");
	for (const struct tool_option *o = verb->options; o->name; o++) {
		int width = printf("  %s", o->name);

		if (o->argument)
			width += printf(" %s", o->argument);
		printf("%*s%s", width < 24 ? 24 - width : 1, "", o->help);
		if (o->kind == TOOL_CHOICE) {
			printf(": ");
			print_choices(o, stdout);
		}
		putchar('\n');
	}
	printf("  %-22s%s\n", "--help", "print this text");
}

static bool set_number(const struct tool_verb *verb, const struct tool_option *o, const char *text)
{
	bool size = o->kind == TOOL_SIZE;
	char low[TOOL_TEXT_LEN], high[TOOL_TEXT_LEN];
	uint64_t value;

	if (!(size ? tool_parse_size : tool_parse_count)(text, &value)) {
		tool_error(TOOL_USAGE, "%s: %s %s: not a %s", verb->name, o->name, text,
			   size ? "size; give a number, optionally with K, M, G or T" : "number");
		return false;
	}
	if (value >= o->min && value <= o->max) {
		*(uint64_t *)o->value = value;
		return true;
	}
	if (size)
		tool_error(TOOL_USAGE, "%s: %s %s: out of range; give a value from %s to %s",
			   verb->name, o->name, text, tool_size_text(o->min, low),
			   tool_size_text(o->max, high));
	else
		tool_error(TOOL_USAGE, "%s: %s %s: out of range; give a number from %llu to %llu",
			   verb->name, o->name, text, (unsigned long long)o->min,
			   (unsigned long long)o->max);
	return false;
}

static bool set_choice(const struct tool_verb *verb, const struct tool_option *o, const char *text)
{
	char all[256] = "";

	for (unsigned i = 0; o->choices[i]; i++) {
		if (strcmp(o->choices[i], text) == 0) {
			*(unsigned *)o->value = i;
			return true;
		}
		if (i)
			strncat(all, ", ", sizeof(all) - strlen(all) - 1);
		strncat(all, o->choices[i], sizeof(all) - strlen(all) - 1);
	}
	tool_error(TOOL_USAGE, "%s: %s %s: give one of %s", verb->name, o->name, text, all);
	return false;
}

static bool set_value(const struct tool_verb *verb, const struct tool_option *o, const char *text)
{
	switch (o->kind) {
	case TOOL_FLAG:
		*(bool *)o->value = true;
		return true;
	case TOOL_TEXT:
		*(const char **)o->value = text;
		return true;
	case TOOL_CHOICE:
		return set_choice(verb, o, text);
	case TOOL_SIZE:
	case TOOL_COUNT:
		break;
	}
	return set_number(verb, o, text);
}

static const struct tool_option *find_option(const struct tool_verb *verb, const char *arg,
					     size_t name_len)
{
	for (const struct tool_option *o = verb->options; o->name; o++)
		if (strlen(o->name) == name_len && memcmp(o->name, arg, name_len) == 0)
			return o;
	return NULL;
}

/* Parse one argument that is an option. *index moves on if the option's value is the next
 * argument. */
static bool parse_option(const struct tool_verb *verb, int argc, char **argv, int *index)
{
	const char *arg = argv[*index], *value = NULL;
	const char *equals = strchr(arg, '=');
	size_t name_len = equals ? (size_t)(equals - arg) : strlen(arg);
	const struct tool_option *o = find_option(verb, arg, name_len);

	if (!o) {
		tool_error(TOOL_USAGE, "%s: unknown option %.*s; see filemap %s --help", verb->name,
			   (int)name_len, arg, verb->name);
		return false;
	}
	if (o->kind == TOOL_FLAG) {
		if (equals) {
			tool_error(TOOL_USAGE, "%s: %s takes no value", verb->name, o->name);
			return false;
		}
	} else if (equals) {
		value = equals + 1;
	} else if (*index + 1 < argc) {
		value = argv[++*index];
	} else {
		tool_error(TOOL_USAGE, "%s: %s needs a value: %s", verb->name, o->name, o->argument);
		return false;
	}
	return set_value(verb, o, value);
}

static bool operands_fit(const struct tool_verb *verb, int count, char **argv)
{
	if (count < verb->operands_min) {
		tool_error(TOOL_USAGE, "%s: an argument is missing; usage: filemap %s [OPTIONS] %s",
			   verb->name, verb->name, verb->operands);
		return false;
	}
	if (count > verb->operands_max) {
		tool_error(TOOL_USAGE, "%s: %s: one argument too many; see filemap %s --help",
			   verb->name, argv[verb->operands_max + 1], verb->name);
		return false;
	}
	return true;
}

bool tool_parse(const struct tool_verb *verb, int argc, char **argv, int *ret_count,
		int *ret_status)
{
	bool options = true;
	int count = 0;

	*ret_status = TOOL_USAGE;
	for (int i = 1; i < argc; i++) {
		if (options && strcmp(argv[i], "--") == 0) {
			options = false;
		} else if (options && strcmp(argv[i], "--help") == 0) {
			print_help(verb);
			*ret_status = TOOL_OK;
			return false;
		} else if (options && argv[i][0] == '-' && argv[i][1]) {
			if (!parse_option(verb, argc, argv, &i))
				return false;
		} else {
			argv[++count] = argv[i];
		}
	}
	if (!operands_fit(verb, count, argv))
		return false;
	*ret_count = count;
	*ret_status = TOOL_OK;
	return true;
}
