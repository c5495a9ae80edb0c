/* SPDX-License-Identifier: MIT */
/*
 * The targets of the library in one table, and the judgement of each target from the measured rows.
 * A target has one figure in each round, taken within that round. The median of these figures is
 * judged.
 */
#include "bench/bench.h"

#include <stdio.h>
#include <string.h>

#define BIT_FILEMAP BENCH_BIT(FILEMAP)
/* The way with pages of 2 MiB. */
#define BIT_LARGE   BENCH_BIT(FILEMAP_HUGE)
#define NOTHING     BENCH_WAY_COUNT

const struct bench_target bench_targets[] = {
	/* workload, threads, ways, figure, against (way, workload), bound, need, aim */
	{"rand-cold", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL_128K, NULL, AT_LEAST, 2.5, 0},
	{"rand-cold", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 20, 0},
	{"rand-cold", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL_RANDOM, NULL, AT_LEAST, 0.85, 0.95},
	{"rand-cold", 4, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL_RANDOM, NULL, AT_LEAST, 1, 0},
	{"rand-cold", 16, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL_RANDOM, NULL, AT_LEAST, 1, 0},
	{"rand-nowait", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_LIMIT, NULL, AT_LEAST, 0.8, 0},
	{"seq-cold", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 0.95, 0},
	{"seq-cold", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_LIMIT, NULL, AT_LEAST, 0.95, 0},
	{"seq-cold-over-budget", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 1, 0},
	{"backward", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 1, 0},
	{"backward", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_LIMIT, NULL, AT_LEAST, 0.8, 0},
	{"multi-stream", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 1, 0},
	{"multi-stream", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_LIMIT, NULL, AT_LEAST, 0.8, 0},
	{"strided", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 2, 0},
	{"strided", 1, BIT_FILEMAP, FIGURE_DEVICE_ASKED, NOTHING, NULL, AT_MOST, 1.5, 0},
	{"zipf-over-budget", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL_RANDOM, NULL, AT_LEAST, 1, 1.2},
	{"zipf-over-budget", 1, BIT_FILEMAP, FIGURE_DEVICE, BENCH_KERNEL_RANDOM, NULL, AT_MOST, 1.1, 0},
	{"loop-over-budget", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 2, 0},
	{"loop-over-budget", 1, BIT_FILEMAP, FIGURE_DEVICE, BENCH_KERNEL, NULL, AT_MOST, 0.5, 0},
	{"hot", 1, BIT_LARGE, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 1, 1.15},
	{"hot", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 0.8, 0},
	{"fault-cost-4k", 1, BIT_FILEMAP, FIGURE_TIME, BENCH_BARE, NULL, AT_MOST, 1.5, 0},
	{"fault-cost-2m", 1, BIT_FILEMAP, FIGURE_TIME, BENCH_BARE, NULL, AT_MOST, 1.5, 0},
	{"fault-cost-2m", 1, BIT_FILEMAP, FIGURE_TIME, BENCH_KERNEL, NULL, AT_MOST, 1, 0},
	{"contended", 16, BIT_FILEMAP, FIGURE_READ_ONCE, NOTHING, NULL, AT_MOST, 1, 0},
	{"map-scale", 1, BIT_FILEMAP, FIGURE_TIME, BENCH_FILEMAP, "map-one", AT_MOST, 1.3, 0},
	{"seq-cold", 1, BIT_LARGE, FIGURE_CPU, BENCH_KERNEL, NULL, AT_MOST, 1.5, 0},
	{"seq-cold", 1, BIT_FILEMAP, FIGURE_CPU, BENCH_KERNEL, NULL, AT_MOST, 5, 0},
	{"rand-write", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 1, 0},
	{"write-sync", 1, BIT_FILEMAP, FIGURE_SPEED, BENCH_KERNEL, NULL, AT_LEAST, 1, 0},
	{"write-fault", 1, BIT_FILEMAP, FIGURE_TIME, BENCH_BARE_PROTECT, NULL, AT_MOST, 1.5, 0},
	{"metadata", 1, BIT_FILEMAP, FIGURE_METADATA, NOTHING, NULL, AT_MOST, 0.016, 0},
};
const size_t bench_target_count = sizeof(bench_targets) / sizeof(bench_targets[0]);

const char *const bench_figure_names[] = {
	[FIGURE_SPEED] = "speed",
	[FIGURE_TIME] = "time per operation",
	[FIGURE_CPU] = "CPU time per byte",
	[FIGURE_DEVICE] = "device bytes per operation",
	[FIGURE_DEVICE_ASKED] = "device bytes per wanted byte",
	[FIGURE_READ_ONCE] = "reads per cached page",
	[FIGURE_METADATA] = "metadata as a part of the budget",
};
const char *const bench_verdict_names[] = {
	[VERDICT_NOT_MEASURED] = "not measured",
	[VERDICT_MISSED] = "missed",
	[VERDICT_MET] = "met",
};

/* ------------------------------------------------------------------ figures */

static double part(double of, double by)
{
	return by > 0 ? of / by : 0;
}

/* Return the row's own figure in round `r`, before any comparison. */
static double plain(const struct bench_row *row, enum bench_figure figure, unsigned r)
{
	switch (figure) {
	case FIGURE_SPEED:
		return part(1, row->ns_per_op[r]);
	case FIGURE_TIME:
		return row->ns_per_op[r];
	case FIGURE_CPU:
		return part(row->cpu_s[r], row->bytes[r]);
	case FIGURE_DEVICE:
		return part(row->device_bytes[r], row->ops[r]);
	case FIGURE_DEVICE_ASKED:
		return part(row->device_bytes[r], row->bytes[r]);
	case FIGURE_READ_ONCE:
		return part(row->device_bytes[r], row->cached_bytes[r]);
	case FIGURE_METADATA:
		return part(row->metadata_bytes[r], row->budget_bytes[r]);
	}
	return 0;
}

static bool better(const struct bench_target *target, double figure, double than)
{
	return target->bound == AT_LEAST ? figure > than : figure < than;
}

bool bench_reached(const struct bench_target *target, double figure, double wanted)
{
	return target->bound == AT_LEAST ? figure >= wanted : figure <= wanted;
}

/* ------------------------------------------------------------------ judgement */

/* Judge the target for one way. */
static void judge_way(const struct bench_target *target, const struct bench_row *rows, size_t count,
		      enum bench_way way, struct bench_judgement *ret)
{
	const struct bench_row *row = bench_row_find(rows, count, target->workload, target->threads, way);
	const char *workload = target->against_workload ? target->against_workload : target->workload;
	const struct bench_row *against = NULL;
	double figure[BENCH_ROUNDS_MAX];

	if (target->against != NOTHING)
		against = bench_row_find(rows, count, workload, target->threads, target->against);
	if (!row || !row->rounds ||
	    (target->against != NOTHING && (!against || against->rounds != row->rounds)))
		return;
	*ret = (struct bench_judgement){.way = way};
	for (unsigned r = 0; r < row->rounds; r++) {
		figure[r] = plain(row, target->figure, r);
		if (against)
			figure[r] = part(figure[r], plain(against, target->figure, r));
		if (!r || figure[r] < ret->low)
			ret->low = figure[r];
		if (!r || figure[r] > ret->high)
			ret->high = figure[r];
	}
	ret->figure = bench_median(figure, row->rounds);
	ret->verdict = bench_reached(target, ret->figure, target->need) ? VERDICT_MET : VERDICT_MISSED;
}

struct bench_judgement bench_judge(const struct bench_target *target, const struct bench_row *rows,
				   size_t count)
{
	struct bench_judgement best = {.verdict = VERDICT_NOT_MEASURED, .way = NOTHING};

	for (enum bench_way way = 0; way < BENCH_WAY_COUNT; way++) {
		struct bench_judgement one = {.verdict = VERDICT_NOT_MEASURED};

		if (best.way == NOTHING && target->ways & 1u << way)
			best.way = way; /* a way to name, even if no way is measured */
		if (target->ways & 1u << way)
			judge_way(target, rows, count, way, &one);
		if (one.verdict != VERDICT_NOT_MEASURED &&
		    (best.verdict == VERDICT_NOT_MEASURED || better(target, one.figure, best.figure)))
			best = one;
	}
	return best;
}

/* ------------------------------------------------------------------ words */

const char *bench_target_text(const struct bench_target *target, enum bench_way way, char *text,
			      size_t len)
{
	if (target->against == NOTHING)
		snprintf(text, len, "%s: %s", bench_ways[way].name, bench_figure_names[target->figure]);
	else if (target->against_workload)
		snprintf(text, len, "%s: %s, %s's = 1", bench_ways[way].name, bench_figure_names[target->figure],
			 target->against_workload);
	else
		snprintf(text, len, "%s: %s, %s = 1", bench_ways[way].name, bench_figure_names[target->figure],
			 bench_ways[target->against].name);
	return text;
}

const char *bench_need_text(const struct bench_target *target, char *text, size_t len)
{
	const char *sign = target->bound == AT_LEAST ? ">=" : "<=";

	if (target->aim > 0)
		snprintf(text, len, "%s %g (aim: %g)", sign, target->need, target->aim);
	else
		snprintf(text, len, "%s %g", sign, target->need);
	return text;
}
