/* SPDX-License-Identifier: MIT */
/*
 * The results: rounds added up, and judged against their control.
 */
#define _GNU_SOURCE
#include "demo/report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOISE_MAX_NS (150 * NSEC_PER_MSEC)
#define NOISE_P99_NS (2 * NSEC_PER_MSEC)
#define READS_MIN    20

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* ------------------------------------------------------------------ adding up */

int report_add_round(struct report *report, enum way way, size_t situation,
		     const struct round *round, uint64_t round_ns)
{
	struct cell *cell = &report->cell[way][situation];
	uint64_t worst_ns = 0;

	if (!cell->rec) {
		cell->rec = calloc(PROBE_COUNT, sizeof(*cell->rec));
		cell->drawn = calloc(PROBE_COUNT, sizeof(*cell->drawn));
		if (!cell->rec || !cell->drawn) {
			report_failure(report, "out of memory");
			return -ENOMEM;
		}
		cell->samples_min = UINT64_MAX;
		cell->reads_min = UINT32_MAX;
	}
	for (unsigned probe = 0; probe < PROBE_COUNT; probe++) {
		recorder_merge(&cell->rec[probe], &round->rec[probe]);
		if (probe < PROBE_JUDGED && !(PROBE_SPECIAL & 1u << probe) &&
		    round->rec[probe].n < cell->samples_min)
			cell->samples_min = round->rec[probe].n;
		if (probe < PROBE_JUDGED)
			worst_ns = larger(worst_ns, round->rec[probe].max_ns);
	}
	if (worst_ns >= cell->drawn_worst_ns) {
		memcpy(cell->drawn, round->rec, PROBE_COUNT * sizeof(*cell->drawn));
		cell->drawn_ns = round_ns;
		cell->drawn_worst_ns = worst_ns;
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

void report_round_failed(struct report *report, enum way way, size_t situation, const char *why)
{
	report->cell[way][situation].failed = true;
	report_failure(report, "%s, %s: %s", demo_situations[situation].name, demo_way_names[way],
		       why);
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
			free(report->cell[way][s].drawn);
		}
	}
	free(report);
}

/* ------------------------------------------------------------------ judging */

unsigned report_excused(enum way way, size_t situation)
{
	return way == WAY_FILEMAP ? demo_situations[situation].excused : 0;
}

const struct cell *report_control(const struct report *report, enum way way, size_t situation)
{
	const struct cell *cell =
		&report->cell[way_is_kernel(way) ? WAY_KERNEL_CONTROL : WAY_CONTROL][situation];

	return cell->rec ? cell : NULL;
}

uint64_t cell_worst(const struct cell *cell, unsigned without, unsigned *ret_probe)
{
	uint64_t max_ns = 0;

	for (unsigned probe = 0; probe < PROBE_JUDGED; probe++) {
		if (without & 1u << probe || cell->rec[probe].max_ns <= max_ns)
			continue;
		max_ns = cell->rec[probe].max_ns;
		if (ret_probe)
			*ret_probe = probe;
	}
	return max_ns;
}

/* The controls of the whole run count, because noise comes in bursts, and the rounds are
 * interleaved. */
uint64_t report_noise(const struct report *report)
{
	uint64_t max_ns = 0;

	for (enum way way = 0; way < WAY_COUNT; way++) {
		for (size_t s = 0; s < demo_situation_count; s++) {
			const struct cell *cell = &report->cell[way][s];

			if (way_is_control(way) && cell->rec)
				max_ns = larger(max_ns, cell_worst(cell, 0, NULL));
		}
	}
	return max_ns;
}

static void judge_cell(const struct report *report, enum way way, size_t situation,
		       struct cell *cell)
{
	const struct cell *control = report_control(report, way, situation);

	for (unsigned probe = 0; probe < PROBE_JUDGED && control; probe++) {
		const struct recorder *rec = &cell->rec[probe];
		uint64_t bound_p99 =
			larger(NOISE_P99_NS, 2 * recorder_quantile(&control->rec[probe], 990));

		cell->bound_ns = larger(NOISE_MAX_NS, 2 * report_noise(report));
		if (rec->max_ns > cell->bound_ns)
			cell->stalled |= 1u << probe;
		if (recorder_quantile(rec, 990) > bound_p99)
			cell->slow |= 1u << probe;
	}
}

bool report_is_close(const struct report *report, size_t situation)
{
	struct cell cell = report->cell[WAY_FILEMAP][situation];
	unsigned judged = ~report_excused(WAY_FILEMAP, situation);

	if (!cell.rec || cell.held_over_block)
		return false;
	judge_cell(report, WAY_FILEMAP, situation, &cell);
	return !(cell.stalled & judged) && (cell.slow & judged);
}

/* Judge what filemap promises in this situation. */
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
	if (cell->samples_min < situation_samples_min(situation))
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

/* A slow access must end with the file's bytes, or in time with the error of the situation. */
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

/* Noise that is as long as the delay hides a stall. No verdict is possible then. */
static void judge_noise(struct report *report)
{
	uint64_t noise_ns = report_noise(report);
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
