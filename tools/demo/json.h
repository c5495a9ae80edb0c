/* SPDX-License-Identifier: MIT */
/*
 * The results as JSON.
 */
#ifndef FILEMAP_DEMO_JSON_H
#define FILEMAP_DEMO_JSON_H

#include "demo/report.h"

/* Print one JSON object for each row of print_all(). */
void json_report(const struct report *report);

#endif
