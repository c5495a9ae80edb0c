/* SPDX-License-Identifier: MIT */
/*
 * The picture of the results.
 */
#ifndef FILEMAP_DEMO_PLOT_H
#define FILEMAP_DEMO_PLOT_H

#include "demo/report.h"

/* Draw a panel for each situation with filemap and the kernel side by side; with `all`, the
 * other ways too. 0 or a negative errno. */
int plot_report(const struct report *report, const char *svg_path, bool all);

#endif
