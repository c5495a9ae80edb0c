/* SPDX-License-Identifier: MIT */
/*
 * What `filemap run` tells the shim, by the environment, and what the shim tells the user.
 * May call: libc.
 */
#ifndef FM_RUN_SETTINGS_H
#define FM_RUN_SETTINGS_H

#include "environment.h"

#include <stdbool.h>
#include <stdint.h>

struct settings {
	uint64_t budget_bytes; /* 0: the library's default */
	uint64_t min_bytes;
	uint64_t readahead_bytes; /* as in struct fm_file_options */
	const char *match;        /* a pattern for the path; NULL: all */
	const char *stats;        /* a file, or "-" for stderr; NULL: no statistics */
	bool all, verbose;
	bool off; /* the program runs with more rights than its user */
};

/* The settings; read at the first call. */
const struct settings *settings_get(void);

/* Print a line "filemap run: ..." to the stderr that the program was started with. Prints nothing
 * without --verbose, or if the program has put another file there. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, also without --verbose. */
void say_always(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Write a line to the file of --stats. */
void say_statistics(const char *line);

#endif
