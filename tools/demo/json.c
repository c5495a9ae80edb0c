/* SPDX-License-Identifier: MIT */
/*
 * The results as JSON, one object a line.
 */
#include "demo/json.h"

#include <stdio.h>

static void json_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else if ((unsigned char)*text < 0x20)
			printf("\\u%04x", (unsigned)*text);
		else
			putchar(*text);
	}
	putchar('"');
}

static void json_cell(const struct report *report, enum way way, size_t s)
{
	const struct cell *cell = &report->cell[way][s];

	if (cell->skipped[0]) {
		printf("{\"way\":\"%s\",\"situation\":\"%s\",\"skipped\":", demo_way_names[way],
		       demo_situations[s].name);
		json_string(cell->skipped);
		printf("}\n");
	}
	if (!cell->rec)
		return;
	for (unsigned probe = 0; probe < PROBE_COUNT; probe++) {
		const struct recorder *rec = &cell->rec[probe];

		if (!rec->n && (probe >= PROBE_JUDGED || PROBE_SPECIAL & 1u << probe))
			continue;
		printf("{\"way\":\"%s\",\"situation\":\"%s\",\"probe\":\"%s\",\"delay_ms\":%u,"
		       "\"n\":%llu,\"p50_us\":%.3f,\"p99_us\":%.3f,\"max_us\":%.3f",
		       demo_way_names[way], demo_situations[s].name, demo_probe_names[probe],
		       demo_situations[s].delay_ms ? demo_situations[s].delay_ms : report->delay_ms,
		       (unsigned long long)rec->n, (double)recorder_quantile(rec, 500) / 1e3,
		       (double)recorder_quantile(rec, 990) / 1e3, (double)rec->max_ns / 1e3);
		if (probe < PROBE_JUDGED && cell->bound_ns)
			printf(",\"bound_us\":%.3f,\"stall\":%s,\"excused\":%s",
			       (double)cell->bound_ns / 1e3,
			       cell->stalled & (1u << probe) ? "true" : "false",
			       report_excused(way, s) & (1u << probe) ? "true" : "false");
		printf("}\n");
	}
}

void json_report(const struct report *report)
{
	for (size_t s = 0; s < demo_situation_count; s++) {
		for (enum way way = 0; way < WAY_COUNT; way++)
			json_cell(report, way, s);
	}
}
