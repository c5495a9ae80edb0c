/* SPDX-License-Identifier: MIT */
/*
 * The options of `filemap demo`, and the plan that the options make.
 */
#ifndef FILEMAP_DEMO_OPTIONS_H
#define FILEMAP_DEMO_OPTIONS_H

#include "demo/situations/situations.h"

#define DELAY_DEFAULT_MS 1000
#define DELAY_MIN_MS     10
#define DELAY_MAX_MS     5000
#define ROUNDS_DEFAULT   2
#define ROUNDS_MAX       20
#define ROUNDS_MOST      6 /* if a result is close and no number was given */

struct plan {
	unsigned situations; /* bits */
	unsigned ways;       /* bits */
	unsigned rounds;
	unsigned rounds_most; /* of filemap, if a result is close */
};

/* Print one line on stderr. */
void demo_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Returns 0 to go on, or the exit status plus one. */
int demo_parse_options(int argc, char **argv, struct demo *demo, struct plan *plan);
/* Test whether a picture can be drawn and written to this path. 0, or -1 and one line on
 * stderr. */
int demo_check_plot(const char *path);

#endif
