/* SPDX-License-Identifier: MIT */
/*
 * The results in words: a row for each situation, the table of all probes, and the closing
 * lines.
 */
#ifndef FILEMAP_DEMO_PRINT_H
#define FILEMAP_DEMO_PRINT_H

#include "demo/report.h"

#include <stdio.h>

/* Print a row for each situation, with filemap and the kernel side by side. With `colour`, the
 * word STALL is red. */
void print_story(const struct report *report, bool colour);
/* Print a row for each probe of each way. */
void print_all(const struct report *report);
/* Print what was not shown, and a line for each of three ways. On a terminal, lines break at
 * words to fit into 80 columns. */
void print_summary(const struct report *report, FILE *out);

#endif
