/* SPDX-License-Identifier: MIT */
/*
 * What the verbs of the filemap command share: exit statuses, a table of options, one-line errors,
 * sizes and times as texts, JSON. Only one thread may call these functions at a time.
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
	TOOL_CANNOT = 77, /* this machine lacks what the verb needs */
};

/* Run a verb. argv[0] is the verb's name. Each verb handles --help itself. Returns the exit
 * status. */
int verb_verify(int argc, char **argv);
int verb_stat(int argc, char **argv);
int verb_record(int argc, char **argv);
int verb_run(int argc, char **argv);
int verb_demo(int argc, char **argv);
int verb_bench(int argc, char **argv);

/* Print "filemap: " and one line on stderr. Returns `status`, so that a verb can return the call's
 * result. */
int tool_error(enum tool_status status, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- options */
enum tool_kind {
	TOOL_FLAG,   /* bool */
	TOOL_SIZE,   /* uint64_t bytes: a number, and K, M, G or T */
	TOOL_COUNT,  /* uint64_t */
	TOOL_CHOICE, /* unsigned: the index in `choices` */
	TOOL_TEXT,   /* const char * */
};

struct tool_option {
	const char *name;     /* such as "--threads" */
	enum tool_kind kind;
	const char *argument; /* name of the value in --help; NULL for a flag */
	const char *help;
	void *value;          /* the type depends on `kind`; unchanged if the option is not given */
	const char *const *choices; /* the list ends with NULL */
	uint64_t min, max;    /* limits of a size or count */
};

struct tool_verb {
	const char *name, *operands, *help; /* such as "verify", "URI"; text of --help */
	const struct tool_option *options;  /* the table ends with a NULL name */
	int operands_min, operands_max;
};

/* Parse options ("--name VALUE" or "--name=VALUE") and operands. Operands may stand anywhere, and
 * "--" ends the options. Returns true if the verb must go on: the operands are argv[1] to
 * argv[*ret_count]. Returns false if the verb must return *ret_status. */
bool tool_parse(const struct tool_verb *verb, int argc, char **argv, int *ret_count,
		int *ret_status);
bool tool_parse_size(const char *text, uint64_t *ret_bytes);
bool tool_parse_count(const char *text, uint64_t *ret_count);

/* ---- texts for people; each function returns `text` */
#define TOOL_TEXT_LEN 24
char *tool_size_text(uint64_t bytes, char text[TOOL_TEXT_LEN]); /* such as "1.5 MiB", or "2 MiB" if
								   exact */
char *tool_time_text(uint64_t ns, char text[TOOL_TEXT_LEN]);    /* such as "12.3 us" */
/* Replace control characters, in a text that comes from elsewhere. */
void tool_clean(char *text);

/* ---- a progress line, which is printed only if stderr is a terminal */
bool tool_on_terminal(void);
void tool_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tool_progress_clear(void);

/* ---- JSON without spaces, written to a stream; `key` is NULL within a list */
struct tool_json {
	FILE *out;
	bool comma; /* a value stands before, so a comma is needed */
};
void json_open(struct tool_json *json, const char *key, char bracket);
void json_close(struct tool_json *json, char bracket);
void json_text(struct tool_json *json, const char *key, const char *value);
void json_number(struct tool_json *json, const char *key, uint64_t value);
void json_real(struct tool_json *json, const char *key, double value);
void json_bool(struct tool_json *json, const char *key, bool value);
void json_null(struct tool_json *json, const char *key);

#endif
