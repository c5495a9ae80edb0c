/* SPDX-License-Identifier: MIT */
/*
 * What the verbs of the filemap command share: exit statuses, a table of options, one-line errors,
 * sizes and times as words, JSON. Single-threaded but for tool_error().
 * May call: filemap.h.
 */
#ifndef FM_TOOL_H
#define FM_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum tool_status {
	TOOL_OK = 0,
	TOOL_FAILED = 1,
	TOOL_USAGE = 2,
	TOOL_CANNOT = 77, /* this machine lacks what it needs */
};

/* argv[0] is the verb. Each handles --help itself. */
int verb_verify(int argc, char **argv);
int verb_stat(int argc, char **argv);
int verb_record(int argc, char **argv);
int verb_run(int argc, char **argv);
int verb_demo(int argc, char **argv);
int verb_bench(int argc, char **argv);

/* "filemap: " and one line on stderr. Returns `status`, so that a verb can return tool_error(...).
 */
int tool_error(enum tool_status status, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- options */
enum tool_kind {
	TOOL_FLAG,   /* bool */
	TOOL_SIZE,   /* uint64_t bytes: a number and K, M, G, T */
	TOOL_COUNT,  /* uint64_t */
	TOOL_CHOICE, /* unsigned: the index in `choices` */
	TOOL_TEXT,   /* const char * */
};

struct tool_option {
	const char *name;     /* "--threads" */
	enum tool_kind kind;
	const char *argument; /* what --help calls its value; NULL for a flag */
	const char *help;
	void *value;          /* as `kind` says; untouched when the option is not given */
	const char *const *choices; /* ends with NULL */
	uint64_t min, max;    /* of a size or count */
};

struct tool_verb {
	const char *name, *operands, *help; /* "verify", "URI", lines for --help */
	const struct tool_option *options;  /* ends with a NULL name */
	int operands_min, operands_max;
};

/* Options as "--name VALUE" or "--name=VALUE", operands anywhere, "--" ends the options. True: go
 * on, with the operands in argv[1] to argv[*ret_count]. False: return *ret_status. */
bool tool_parse(const struct tool_verb *verb, int argc, char **argv, int *ret_count,
		int *ret_status);
bool tool_parse_size(const char *text, uint64_t *ret_bytes);
bool tool_parse_count(const char *text, uint64_t *ret_count);

/* ---- words for people. Each returns `text`. */
#define TOOL_TEXT_LEN 24
char *tool_size_text(uint64_t bytes, char text[TOOL_TEXT_LEN]); /* "1.5 MiB"; exact sizes stay so */
char *tool_time_text(uint64_t ns, char text[TOOL_TEXT_LEN]);    /* "12.3 us" */
/* Replaces what is not printable: for text from elsewhere. */
void tool_clean(char *text);

/* ---- a progress line on a terminal; nothing elsewhere */
bool tool_on_terminal(void);
void tool_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tool_progress_clear(void);

/* ---- JSON, compact, to a stream. `key` is NULL within a list. */
struct tool_json {
	FILE *out;
	bool comma; /* something stands before */
};
void json_open(struct tool_json *json, const char *key, char bracket);
void json_close(struct tool_json *json, char bracket);
void json_text(struct tool_json *json, const char *key, const char *value);
void json_number(struct tool_json *json, const char *key, uint64_t value);
void json_real(struct tool_json *json, const char *key, double value);
void json_bool(struct tool_json *json, const char *key, bool value);
void json_null(struct tool_json *json, const char *key);

#endif
