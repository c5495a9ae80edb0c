/* SPDX-License-Identifier: MIT */
/*
 * The demonstration's rows: rounds added up, judged against their control, told as a table, as
 * JSON and in three lines of words. Owns the merged recorders.
 * May call: libc.
 */
#define _GNU_SOURCE
#include "demo/demo.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOISE_MAX_NS (150 * NSEC_PER_MSEC)
#define NOISE_P99_NS (2 * NSEC_PER_MSEC)
#define READS_MIN    20
#define SAMPLES_MIN  1000

/* ------------------------------------------------------------------ adding up */

int report_add_round(struct report *report, enum way way, size_t situation,
		     const struct round *round, uint64_t round_ns)
{
	struct cell *cell = &report->cell[way][situation];

	if (!cell->rec) {
		cell->rec = calloc(PROBE_COUNT, sizeof(*cell->rec));
		cell->first = calloc(PROBE_COUNT, sizeof(*cell->first));
		if (!cell->rec || !cell->first) {
			report_failure(report, "out of memory");
			return -ENOMEM;
		}
		memcpy(cell->first, round->rec, PROBE_COUNT * sizeof(*cell->first));
		cell->first_ns = round_ns;
		cell->samples_min = UINT64_MAX;
		cell->reads_min = UINT32_MAX;
	}
	for (unsigned probe = 0; probe < PROBE_COUNT; probe++) {
		recorder_merge(&cell->rec[probe], &round->rec[probe]);
		if (probe < PROBE_JUDGED && !(PROBE_SPECIAL & 1u << probe) &&
		    round->rec[probe].n < cell->samples_min)
			cell->samples_min = round->rec[probe].n;
	}
	if (round->reads < cell->reads_min)
		cell->reads_min = round->reads;
	cell->reads += round->reads;
	cell->errors += round->errors;
	cell->wrong += round->wrong;
	cell->last_error = round->last_error;
	cell->held_over_block += round->lock_held_over_block;
	cell->rounds++;
	return 0;
}

void report_skip(struct report *report, enum way way, size_t situation, const char *why)
{
	snprintf(report->cell[way][situation].skipped, SITUATION_WHY, "%s", why);
}

void report_failure(struct report *report, const char *format, ...)
{
	va_list args;

	if (report->failure_count == DEMO_FAILURES_MAX)
		return;
	va_start(args, format);
	vsnprintf(report->failure[report->failure_count++], sizeof(report->failure[0]), format,
		  args);
	va_end(args);
}

void report_free(struct report *report)
{
	for (enum way way = 0; way < WAY_COUNT; way++) {
		for (size_t s = 0; s < demo_situation_count; s++) {
			free(report->cell[way][s].rec);
			free(report->cell[way][s].first);
		}
	}
	free(report);
}

/* ------------------------------------------------------------------ judging */

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static const struct cell *control_of(const struct report *report, enum way way, size_t situation)
{
	const struct cell *cell =
		&report->cell[way_is_kernel(way) ? WAY_KERNEL_CONTROL : WAY_CONTROL][situation];

	return cell->rec ? cell : NULL;
}

/* The worst that any probe met over the idle store: this machine's own noise. */
static uint64_t worst(const struct cell *cell)
{
	uint64_t max_ns = 0;

	for (unsigned probe = 0; probe < PROBE_JUDGED; probe++)
		max_ns = larger(max_ns, cell->rec[probe].max_ns);
	return max_ns;
}

/* The same over the whole run, whose rounds are interleaved: noise comes in bursts. */
static uint64_t worst_of_run(const struct report *report)
{
	uint64_t max_ns = 0;

	for (enum way way = 0; way < WAY_COUNT; way++) {
		for (size_t s = 0; s < demo_situation_count; s++) {
			const struct cell *cell = &report->cell[way][s];

			if (way_is_control(way) && cell->rec)
				max_ns = larger(max_ns, worst(cell));
		}
	}
	return max_ns;
}

static void judge_cell(const struct report *report, enum way way, size_t situation,
		       struct cell *cell)
{
	const struct cell *control = control_of(report, way, situation);

	for (unsigned probe = 0; probe < PROBE_JUDGED && control; probe++) {
		const struct recorder *rec = &cell->rec[probe];
		uint64_t bound_p99 =
			larger(NOISE_P99_NS, 2 * recorder_quantile(&control->rec[probe], 990));

		cell->bound_ns = larger(NOISE_MAX_NS, 2 * worst_of_run(report));
		if (rec->max_ns > cell->bound_ns)
			cell->stalled |= 1u << probe;
		if (recorder_quantile(rec, 990) > bound_p99)
			cell->slow |= 1u << probe;
	}
}

bool report_is_close(const struct report *report, size_t situation)
{
	struct cell cell = report->cell[WAY_FILEMAP][situation];

	if (!cell.rec || cell.held_over_block)
		return false;
	judge_cell(report, WAY_FILEMAP, situation, &cell);
	unsigned excused = demo_situations[situation].excused;
	return !(cell.stalled & ~excused) && (cell.slow & ~excused);
}

/* What `filemap` promises, in this situation. */
static void judge_filemap(struct report *report, const struct situation *situation,
			  const struct cell *cell)
{
	unsigned bad = (cell->stalled | cell->slow) & ~situation->excused;

	for (unsigned probe = 0; probe < PROBE_JUDGED; probe++) {
		const struct recorder *rec = &cell->rec[probe];

		if (bad & (1u << probe))
			report_failure(report, "filemap, %s: %s waited: p99 %.3f ms, worst %.1f ms",
				       situation->name, demo_probe_names[probe],
				       (double)recorder_quantile(rec, 990) / 1e6,
				       (double)rec->max_ns / 1e6);
	}
	if (cell->samples_min < SAMPLES_MIN)
		report_failure(report, "filemap, %s: a probe has only %llu samples a round",
			       situation->name, (unsigned long long)cell->samples_min);
	if (cell->reads_min < READS_MIN)
		report_failure(report, "filemap, %s: only %u slow accesses in a round",
			       situation->name, cell->reads_min);
	if (cell->held_over_block)
		report_failure(report,
			       "filemap, %s: map lock held over something that blocks, %llu times",
			       situation->name, (unsigned long long)cell->held_over_block);
}

/* The readers: the file's bytes, or the error that the situation is made for, in time. */
static void judge_readers(struct report *report, enum way way, const struct situation *situation,
			  const struct cell *cell)
{
	const struct recorder *rec = &cell->rec[PROBE_READER];
	uint64_t deadline_ns = 2 * (uint64_t)report->delay_ms * NSEC_PER_MSEC;

	if (cell->wrong)
		report_failure(report, "%s, %s: %u accesses showed bytes that are not the file's",
			       demo_way_names[way], situation->name, cell->wrong);
	if (!situation->expect_error && cell->errors)
		report_failure(report, "%s, %s: %u of %u slow accesses failed: %s",
			       demo_way_names[way], situation->name, cell->errors, cell->reads,
			       strerror(-cell->last_error));
	if (!situation->expect_error || way_is_kernel(way))
		return;
	if (cell->errors != cell->reads || cell->last_error != -situation->expect_error)
		report_failure(
			report,
			"%s, %s: %u of %u slow accesses failed, with: %s; all should, with: %s",
			demo_way_names[way], situation->name, cell->errors, cell->reads,
			strerror(-cell->last_error), strerror(situation->expect_error));
	if (rec->max_ns > deadline_ns + cell->bound_ns)
		report_failure(report, "%s, %s: a reader had its error after %.0f ms only",
			       demo_way_names[way], situation->name, (double)rec->max_ns / 1e6);
}

/* Noise as long as the delay hides what is looked for: no verdict is then worth anything. */
static void judge_noise(struct report *report)
{
	uint64_t noise_ns = worst_of_run(report);
	uint64_t least_ns = (uint64_t)report->delay_ms * NSEC_PER_MSEC / 10 * 9;

	if (2 * noise_ns > NOISE_MAX_NS && 2 * noise_ns >= least_ns)
		report_failure(
			report,
			"idle probes waited up to %.0f ms: this machine is too busy to tell a "
			"stall of %u ms; run it again when it is not",
			(double)noise_ns / 1e6, report->delay_ms);
}

void report_judge(struct report *report)
{
	judge_noise(report);
	for (enum way way = 0; way < WAY_COUNT; way++) {
		for (size_t s = 0; s < demo_situation_count; s++) {
			struct cell *cell = &report->cell[way][s];
			uint64_t map_ns;

			if (!cell->rec || way_is_control(way))
				continue;
			judge_cell(report, way, s, cell);
			judge_readers(report, way, &demo_situations[s], cell);
			if (way == WAY_FILEMAP)
				judge_filemap(report, &demo_situations[s], cell);
			map_ns = cell->rec[PROBE_MAP].max_ns;
			if (way != WAY_HOLD)
				continue;
			if (map_ns * 10 < (uint64_t)report->delay_ms * NSEC_PER_MSEC * 9)
				report_failure(report,
					       "filemap-hold, %s: held its lock, yet map-unmap "
					       "waited only %.0f ms",
					       demo_situations[s].name, (double)map_ns / 1e6);
			else
				cell->stalled |= 1u << PROBE_MAP;
		}
	}
}

/* ------------------------------------------------------------------ table */

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

static const char *verdict(enum way way, const struct situation *situation, const struct cell *cell,
			   unsigned probe)
{
	unsigned bit = 1u << probe;

	if (way_is_control(way) || probe >= PROBE_JUDGED)
		return "";
	if (!cell->bound_ns)
		return "no control";
	if (cell->stalled & bit)
		return way == WAY_FILEMAP && situation->excused & bit ? "STALL (the kernel's)"
								      : "STALL";
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
		       verdict(way, &demo_situations[s], cell, probe));
	}
}

void report_table(const struct report *report)
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

/* ------------------------------------------------------------------ JSON */

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
			printf(",\"bound_us\":%.3f,\"stall\":%s", (double)cell->bound_ns / 1e3,
			       cell->stalled & (1u << probe) ? "true" : "false");
		printf("}\n");
	}
}

void report_json(const struct report *report)
{
	for (size_t s = 0; s < demo_situation_count; s++) {
		for (enum way way = 0; way < WAY_COUNT; way++)
			json_cell(report, way, s);
	}
}

/* ------------------------------------------------------------------ summary */

struct extreme {
	uint64_t ns, control_ns, readers, reader_ns, writers;
	size_t situation;
	unsigned probe, situations, stalled;
};

/* The worst of a way over all situations, without what the kernel does to itself. */
static struct extreme extreme_of(const struct report *report, enum way way)
{
	struct extreme extreme = {0};

	for (size_t s = 0; s < demo_situation_count; s++) {
		const struct cell *cell = &report->cell[way][s];
		const struct cell *control = control_of(report, way, s);
		unsigned excused = way == WAY_FILEMAP ? demo_situations[s].excused : 0;

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
			extreme.control_ns = larger(extreme.control_ns, worst(control));
		for (unsigned probe = 0; probe < PROBE_JUDGED; probe++) {
			if (excused & (1u << probe) || cell->rec[probe].max_ns <= extreme.ns)
				continue;
			extreme.ns = cell->rec[probe].max_ns;
			extreme.situation = s;
			extreme.probe = probe;
		}
	}
	return extreme;
}

/* Why a way has no figures: the first reason that some situation gave. */
static const char *why_not(const struct report *report, enum way way)
{
	for (size_t s = 0; s < demo_situation_count; s++) {
		if (report->cell[way][s].skipped[0])
			return report->cell[way][s].skipped;
	}
	return "not asked for, or failed";
}

static void summary_filemap(const struct report *report, FILE *out)
{
	struct extreme extreme = extreme_of(report, WAY_FILEMAP);
	char wait[24], reader[24], idle[24];

	if (!extreme.situations) {
		fprintf(out, "filemap: not run: %s.\n", why_not(report, WAY_FILEMAP));
		return;
	}
	fprintf(out,
		"filemap: while %llu accesses waited for a slow or stopped store, and %llu wrote to a "
		"slow or frozen one, up to %s each, nobody else waited longer than %s (%s, %s; idle: "
		"%s).\n",
		(unsigned long long)extreme.readers, (unsigned long long)extreme.writers,
		human(extreme.reader_ns, reader, sizeof(reader)),
		human(extreme.ns, wait, sizeof(wait)), demo_probe_names[extreme.probe],
		demo_situations[extreme.situation].name,
		human(extreme.control_ns, idle, sizeof(idle)));
}

static void summary_hold(const struct report *report, FILE *out)
{
	struct extreme extreme = extreme_of(report, WAY_HOLD);
	char wait[24];

	if (!extreme.situations) {
		fprintf(out, "filemap-hold: not run: %s.\n", why_not(report, WAY_HOLD));
		return;
	}
	fprintf(out,
		"filemap-hold: the same code, made to wait under its map lock: %s waited %s. "
		"So this experiment can fail.\n",
		demo_probe_names[extreme.probe], human(extreme.ns, wait, sizeof(wait)));
}

static void summary_kernel(const struct report *report, FILE *out)
{
	struct extreme extreme = extreme_of(report, WAY_KERNEL);
	const char *separator = "";
	char wait[24];

	if (!extreme.situations) {
		fprintf(out, "kernel-mmap: not run: %s.\n", why_not(report, WAY_KERNEL));
		return;
	}
	fprintf(out, "kernel-mmap: the kernel stalled others in %u of %u situations",
		extreme.stalled, extreme.situations);
	for (size_t s = 0; s < demo_situation_count && extreme.stalled; s++) {
		if (!report->cell[WAY_KERNEL][s].stalled)
			continue;
		fprintf(out, "%s%s", *separator ? separator : " (", demo_situations[s].name);
		separator = ", ";
	}
	fprintf(out, "%s; the longest wait was %s (%s, %s).\n", extreme.stalled ? ")" : "",
		human(extreme.ns, wait, sizeof(wait)), demo_probe_names[extreme.probe],
		demo_situations[extreme.situation].name);
}

void report_summary(const struct report *report, FILE *out)
{
	for (size_t i = 0; i < report->failure_count; i++)
		fprintf(out, "NOT SHOWN: %s\n", report->failure[i]);
	summary_filemap(report, out);
	summary_hold(report, out);
	summary_kernel(report, out);
}
