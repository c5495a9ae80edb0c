/* SPDX-License-Identifier: MIT */
/*
 * The results in words.
 */
#define _GNU_SOURCE
#include "demo/print.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static const char *human(uint64_t ns, char *text, size_t len)
{
	if (ns < 10000)
		snprintf(text, len, "%.1f us", (double)ns / 1e3);
	else if (ns < 1000000)
		snprintf(text, len, "%.0f us", (double)ns / 1e3);
	else if (ns < 100000000)
		snprintf(text, len, "%.1f ms", (double)ns / 1e6);
	else
		snprintf(text, len, "%.0f ms", (double)ns / 1e6);
	return text;
}

/* ------------------------------------------------------------------ a row for each situation */

#define RED   "\033[1;31m"
#define PLAIN "\033[0m"

/* Print the longest wait of a way, in 14 columns, and what waited, in `width` columns. */
static void story_cell(const struct report *report, enum way way, size_t s, bool colour, int width)
{
	const struct cell *cell = &report->cell[way][s];
	const char *word = "";
	unsigned probe = 0;
	uint64_t worst_ns;
	char text[24];

	if (!cell->rec) {
		printf("%-14s %-*s", cell->failed ? "failed" : "not run", width, "");
		return;
	}
	worst_ns = cell_worst(cell, 0, &probe);
	if (!cell->bound_ns)
		word = "?";
	else if (cell->stalled & 1u << probe)
		word = report_excused(way, s) & 1u << probe ? "STALL*" : "STALL";
	colour &= cell->bound_ns && *word;
	printf("%7s %s%s%s%*s %-*s", human(worst_ns, text, sizeof(text)), colour ? RED : "", word,
	       colour ? PLAIN : "", 6 - (int)strlen(word), "", width, demo_probe_names[probe]);
}

static void story_row(const struct report *report, size_t s, bool colour)
{
	const struct cell *filemap = &report->cell[WAY_FILEMAP][s];
	const struct cell *kernel = &report->cell[WAY_KERNEL][s];
	const char *kernel_not = demo_situations[s].kernel_not;

	if (!filemap->rec && !kernel->rec && !filemap->failed && !kernel->failed) {
		const char *why = *filemap->skipped ? filemap->skipped : kernel->skipped;

		if (*why)
			printf("%-14s skipped: %s\n", demo_situations[s].name, why);
		return;
	}
	printf("%-14s ", demo_situations[s].name);
	story_cell(report, WAY_FILEMAP, s, colour, 15);
	if (kernel->skipped[0])
		printf("skipped: %s\n", kernel->skipped);
	else if (kernel_not)
		printf("not run: %s\n", kernel_not);
	else
		story_cell(report, WAY_KERNEL, s, colour, 0);
	if (!kernel->skipped[0] && !kernel_not)
		printf("\n");
}

/* Say for each excused stall how long the other probes waited. */
static void story_excused(const struct report *report)
{
	for (size_t s = 0; s < demo_situation_count; s++) {
		const struct cell *cell = &report->cell[WAY_FILEMAP][s];
		unsigned excused = report_excused(WAY_FILEMAP, s), probe = 0;
		uint64_t worst_ns;
		char text[24];

		if (!cell->rec || !(cell->stalled & excused))
			continue;
		worst_ns = cell_worst(cell, excused, &probe);
		printf("* waited for a thread in the kernel's mmap(); for filemap: %s (%s)\n",
		       human(worst_ns, text, sizeof(text)), demo_probe_names[probe]);
	}
}

void print_story(const struct report *report, bool colour)
{
	char text[24];

	printf("The longest wait of others while threads wait for a slow store (delay %u ms):\n",
	       report->delay_ms);
	printf("%-14s %-14s %-14s %-14s %s\n", "situation", "filemap", "what waited",
	       "kernel mmap()", "what waited");
	for (size_t s = 0; s < demo_situation_count; s++)
		story_row(report, s, colour);
	printf("STALL: over 150 ms and twice the worst of an idle store (%s). More: --all.\n",
	       human(report_noise(report), text, sizeof(text)));
	story_excused(report);
	printf("\n");
}

/* ------------------------------------------------------------------ a row for each probe */

static const char *verdict(enum way way, size_t s, const struct cell *cell, unsigned probe)
{
	unsigned bit = 1u << probe;

	if (way_is_control(way) || probe >= PROBE_JUDGED)
		return "";
	if (!cell->bound_ns)
		return "no control";
	if (cell->stalled & bit)
		return report_excused(way, s) & bit ? "STALL (the kernel's)" : "STALL";
	return cell->slow & bit ? "slow" : "-";
}

static void table_cell(const struct report *report, enum way way, size_t s)
{
	const struct cell *cell = &report->cell[way][s];
	char p50[24], p99[24], max[24];

	if (cell->skipped[0])
		printf("%-14s %-14s skipped: %s\n", demo_situations[s].name, demo_way_names[way],
		       cell->skipped);
	if (!cell->rec)
		return;
	for (unsigned probe = 0; probe < PROBE_COUNT; probe++) {
		const struct recorder *rec = &cell->rec[probe];

		if (!rec->n && (probe >= PROBE_JUDGED || PROBE_SPECIAL & 1u << probe))
			continue;
		printf("%-14s %-14s %-12s %9llu %9s %9s %9s  %s\n", demo_situations[s].name,
		       demo_way_names[way], demo_probe_names[probe], (unsigned long long)rec->n,
		       human(recorder_quantile(rec, 500), p50, sizeof(p50)),
		       human(recorder_quantile(rec, 990), p99, sizeof(p99)),
		       human(rec->max_ns, max, sizeof(max)),
		       verdict(way, s, cell, probe));
	}
}

void print_all(const struct report *report)
{
	printf("Served: %s. Delay of each read: %u ms. Rounds of each way: %u, interleaved.\n\n",
	       report->file, report->delay_ms, report->rounds);
	printf("%-14s %-14s %-12s %9s %9s %9s %9s  %s\n", "situation", "way", "probe", "samples",
	       "p50", "p99", "worst", "stall");
	for (size_t s = 0; s < demo_situation_count; s++) {
		for (enum way way = 0; way < WAY_COUNT; way++)
			table_cell(report, way, s);
	}
	printf("\n"
	       "STALL: worse than 150 ms and twice the worst of the controls. slow: p99 above 2 "
	       "ms\n"
	       "and twice its control's, where the proc- probes' p50 and p99 are without the time "
	       "for which\n"
	       "other threads had the processors (worst is with it). A probe that stalls has fewer "
	       "samples: it waited.\n"
	       "reader is the load itself: what the threads that touch or write to slow pages "
	       "wait.\n\n");
}

/* ------------------------------------------------------------------ the closing lines */

struct extreme {
	uint64_t ns, control_ns, readers, reader_ns, writers;
	size_t situation;
	unsigned probe, situations, stalled;
};

/* Find the longest wait of a way in all situations, without the excused probes. */
static struct extreme extreme_of(const struct report *report, enum way way)
{
	struct extreme extreme = {0};

	for (size_t s = 0; s < demo_situation_count; s++) {
		const struct cell *cell = &report->cell[way][s];
		const struct cell *control = report_control(report, way, s);
		unsigned excused = report_excused(way, s), probe = 0;
		uint64_t worst_ns;

		if (!cell->rec)
			continue;
		extreme.situations++;
		if (load_writes(demo_situations[s].load))
			extreme.writers += cell->reads;
		else
			extreme.readers += cell->reads;
		extreme.reader_ns = larger(extreme.reader_ns, cell->rec[PROBE_READER].max_ns);
		extreme.stalled += (cell->stalled & ~excused) != 0;
		if (control)
			extreme.control_ns =
				larger(extreme.control_ns, cell_worst(control, 0, NULL));
		worst_ns = cell_worst(cell, excused, &probe);
		if (worst_ns <= extreme.ns)
			continue;
		extreme.ns = worst_ns;
		extreme.situation = s;
		extreme.probe = probe;
	}
	return extreme;
}

/* Return why a way has no figures: the first reason of any situation. */
static const char *why_not(const struct report *report, enum way way)
{
	for (size_t s = 0; s < demo_situation_count; s++) {
		if (report->cell[way][s].skipped[0])
			return report->cell[way][s].skipped;
	}
	return "not asked for, or failed";
}

/* Print a line. On a terminal, break the line at words. */
static void say(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(FILE *out, const char *format, ...)
{
	size_t columns = isatty(fileno(out)) ? 80 : SIZE_MAX;
	char text[1200], *line = text;
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	while (strlen(line) > columns) {
		char *end = line + columns;

		while (end > line && *end != ' ')
			end--;
		if (end == line)
			break;
		*end = 0;
		fprintf(out, "%s\n", line);
		line = end + 1;
	}
	fprintf(out, "%s\n", line);
}

static void summary_filemap(const struct report *report, FILE *out)
{
	struct extreme extreme = extreme_of(report, WAY_FILEMAP);
	char wait[24], slow[24], idle[24];

	if (!extreme.situations) {
		say(out, "filemap: not run: %s.", why_not(report, WAY_FILEMAP));
		return;
	}
	say(out,
	    "filemap: while %llu accesses waited for a slow or stopped store, and %llu wrote to a "
	    "slow or frozen one, up to %s each, nobody else waited longer than %s (%s, %s; idle: "
	    "%s).",
	    (unsigned long long)extreme.readers, (unsigned long long)extreme.writers,
	    human(extreme.reader_ns, slow, sizeof(slow)), human(extreme.ns, wait, sizeof(wait)),
	    demo_probe_names[extreme.probe], demo_situations[extreme.situation].name,
	    human(extreme.control_ns, idle, sizeof(idle)));
}

static void summary_hold(const struct report *report, FILE *out)
{
	struct extreme extreme = extreme_of(report, WAY_HOLD);
	char wait[24];

	if (!extreme.situations) {
		say(out, "filemap-hold: not run: %s.", why_not(report, WAY_HOLD));
		return;
	}
	say(out,
	    "filemap-hold: the same code, made to wait under its map lock: %s waited %s. So this "
	    "experiment can fail.",
	    demo_probe_names[extreme.probe], human(extreme.ns, wait, sizeof(wait)));
}

static void summary_kernel(const struct report *report, FILE *out)
{
	struct extreme extreme = extreme_of(report, WAY_KERNEL);
	char wait[24], names[400] = "";
	size_t len = 0;

	if (!extreme.situations) {
		say(out, "kernel-mmap: not run: %s.", why_not(report, WAY_KERNEL));
		return;
	}
	for (size_t s = 0; s < demo_situation_count; s++) {
		if (report->cell[WAY_KERNEL][s].stalled)
			len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s",
						len ? ", " : " (", demo_situations[s].name);
	}
	say(out,
	    "kernel-mmap: the kernel stalled others in %u of %u situations%s%s; the longest wait was "
	    "%s (%s, %s).",
	    extreme.stalled, extreme.situations, names, len ? ")" : "",
	    human(extreme.ns, wait, sizeof(wait)), demo_probe_names[extreme.probe],
	    demo_situations[extreme.situation].name);
}

void print_summary(const struct report *report, FILE *out)
{
	for (size_t i = 0; i < report->failure_count; i++)
		say(out, "NOT SHOWN: %s", report->failure[i]);
	summary_filemap(report, out);
	summary_hold(report, out);
	summary_kernel(report, out);
}
