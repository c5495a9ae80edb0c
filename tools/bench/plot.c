/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's pictures. For each workload, bars show how fast each way was. One overview
 * compares some ways over all workloads. One picture shows each target with its figure. Speeds are
 * ratios, so the axes are logarithmic, and bars go from 1 to either side.
 */
#include "bench/bench.h"

#include "bench/svg.h"
#include "command/tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define WIDTH 900.0
#define TOP   66.0 /* below the title */
#define FOOT  34.0 /* for the numbers of the axis */

/* ------------------------------------------------------------------ one workload */

#define BAR_STEP  24.0
#define BAR_LEFT  190.0
#define BAR_RIGHT 680.0

/* Return the row whose speed is 1: kernel-mmap, or else the first way that ran. */
static const struct bench_row *reference(const struct bench_row *rows, size_t count,
					 unsigned threads)
{
	const struct bench_row *first = NULL;

	for (size_t i = 0; i < count; i++) {
		if (rows[i].left_out || rows[i].threads != threads)
			continue;
		if (rows[i].way == BENCH_KERNEL)
			return &rows[i];
		first = first ? first : &rows[i];
	}
	return first;
}

static double speed(const struct bench_row *row, const struct bench_row *than)
{
	if (row->mid.ratio > 0 && than->way == BENCH_KERNEL)
		return row->mid.ratio;
	return row->mid.ns_per_op > 0 ? than->mid.ns_per_op / row->mid.ns_per_op : 1;
}

/* Write MiB/s for a scan of the device, and the time of an operation for other workloads. */
static void own_text(const struct bench_row *row, char *text, size_t len)
{
	char time[TOOL_TEXT_LEN];

	if (bench_is_scan(row->workload) && row->mid.seconds > 0)
		snprintf(text, len, "%.0f MiB/s", row->mid.bytes / (double)MIB / row->mid.seconds);
	else if (row->mid.ns_per_op < 1000)
		snprintf(text, len, "%.1f ns", row->mid.ns_per_op);
	else
		snprintf(text, len, "%s", tool_time_text((uint64_t)row->mid.ns_per_op, time));
}

static void put_bar(FILE *out, const struct svg_axis *axis, double y, const struct bench_row *row,
		    double ratio)
{
	double one = svg_at(axis, 1), end = svg_at(axis, ratio);
	const struct bench_way_info *way = &bench_ways[row->way];
	char text[40];

	(way->family == FAMILY_FILEMAP ? svg_bold : svg_text)(out, BAR_LEFT - 12, y + 13, SVG_END,
							      13, SVG_INK, way->name);
	/* A bar at 1 is visible, too. */
	svg_rect(out, (end < one ? end : one) - 2, y + 1, (end < one ? one - end : end - one) + 4,
		 17, way->color);
	snprintf(text, sizeof(text),
		 ratio < 0.095  ? "%.3f"
		 : ratio < 9.95 ? "%.2f"
		 : ratio < 99.5 ? "%.1f"
				: "%.0f",
		 ratio);
	svg_bold(out, BAR_RIGHT + 70, y + 14, SVG_END, 13, SVG_INK, text);
	own_text(row, text, sizeof(text));
	svg_text(out, WIDTH - 20, y + 14, SVG_END, 13, SVG_FAINT, text);
}

/* Draw the bars for one number of threads, from `y` on. Returns where the next bars begin. */
static double put_bars(FILE *out, const struct svg_axis *axis, double y,
		       const struct bench_row *rows, size_t count, unsigned threads)
{
	const struct bench_row *than = reference(rows, count, threads);
	char text[40];

	if (!than)
		return y;
	if (than->workload->threads[1]) {
		snprintf(text, sizeof(text), "%u thread%s", threads, threads == 1 ? "" : "s");
		svg_bold(out, 20, y + 14, SVG_START, 13, SVG_FAINT, text);
		y += BAR_STEP;
	}
	for (size_t i = 0; i < count; i++) {
		if (rows[i].left_out || rows[i].threads != threads)
			continue;
		put_bar(out, axis, y, &rows[i], speed(&rows[i], than));
		y += BAR_STEP;
	}
	return y + 8;
}

/* The rows from `rows` to `rows + count` belong to one workload. */
static int plot_workload(const struct bench_row *rows, size_t count, const char *dir)
{
	const struct bench_workload *workload = rows->workload;
	double low = 1, high = 1, height = TOP + FOOT;
	const struct bench_row *than = NULL;
	struct svg_axis axis;
	char title[160], below[160];
	FILE *out;

	for (unsigned t = 0; t < BENCH_THREAD_SETS && workload->threads[t]; t++) {
		const struct bench_row *here = reference(rows, count, workload->threads[t]);

		for (size_t i = 0; here && i < count; i++) {
			if (rows[i].left_out || rows[i].threads != here->threads)
				continue;
			low = speed(&rows[i], here) < low ? speed(&rows[i], here) : low;
			high = speed(&rows[i], here) > high ? speed(&rows[i], here) : high;
			height += BAR_STEP;
		}
		height += here ? 8 + (workload->threads[1] ? BAR_STEP : 0) : 0;
		than = here ? here : than;
	}
	if (!than)
		return 0;
	snprintf(title, sizeof(title), "%s: %s", workload->name, workload->what);
	snprintf(below, sizeof(below), "speed, %s = 1 (logarithmic); to the right is faster",
		 bench_ways[than->way].name);
	out = svg_open(dir, workload->name, WIDTH, height, title, below);
	if (!out)
		return -errno;
	axis = svg_axis(low, high, BAR_LEFT, BAR_RIGHT);
	svg_grid(out, &axis, TOP, height - FOOT);
	svg_text(out, BAR_RIGHT + 70, TOP - 6, SVG_END, 11, SVG_FAINT, "speed");
	svg_text(out, WIDTH - 20, TOP - 6, SVG_END, 11, SVG_FAINT,
		 bench_is_scan(workload) ? "" : "time per operation");
	height = TOP + 4;
	for (unsigned t = 0; t < BENCH_THREAD_SETS && workload->threads[t]; t++)
		height = put_bars(out, &axis, height, rows, count, workload->threads[t]);
	svg_line(out, svg_at(&axis, 1), TOP, svg_at(&axis, 1), height - 4, 1.5, SVG_INK, NULL);
	return svg_close(out);
}

/* ------------------------------------------------------------------ overview */

#define DOT_STEP  42.0
#define DOT_LEFT  330.0
#define DOT_RIGHT (WIDTH - 40)
#define DOT_TOP   100.0

static void put_mark(FILE *out, enum bench_way way, double x, double y)
{
	const char *color = bench_ways[way].color;

	if (bench_ways[way].family == FAMILY_LIMIT)
		svg_rect(out, x - 2.5, y - 10, 5, 20, color);
	else if (bench_ways[way].family == FAMILY_KERNEL)
		svg_diamond(out, x, y, 7, color);
	else
		svg_circle(out, x, y, way == BENCH_FILEMAP ? 8 : 6.5, color);
}

static void put_legend(FILE *out)
{
	double x = 28;

	for (enum bench_way way = 0; way < BENCH_WAY_COUNT; way++) {
		const char *name = bench_ways[way].name;

		if (!bench_ways[way].overview)
			continue;
		put_mark(out, way, x, 76);
		svg_text(out, x + 14, 80.5, SVG_START, 13, SVG_INK, name);
		x += 48 + 7.2 * (double)strlen(name);
	}
	svg_line(out, x, 66, x, 86, 2, bench_ways[BENCH_KERNEL].color, NULL);
	svg_text(out, x + 10, 80.5, SVG_START, 13, SVG_INK, bench_ways[BENCH_KERNEL].name);
}

static void put_dots(FILE *out, const struct svg_axis *axis, double y, const struct bench_row *rows,
		     size_t count, const struct bench_row *kernel)
{
	const struct bench_workload *workload = kernel->workload;
	const struct bench_row *row =
		bench_row_find(rows, count, workload->name, kernel->threads, BENCH_FILEMAP);
	char text[80];

	snprintf(text, sizeof(text), workload->threads[1] ? "%s, %u thread%s" : "%s",
		 workload->name, kernel->threads, kernel->threads == 1 ? "" : "s");
	svg_bold(out, 20, y - 2, SVG_START, 13.5, SVG_INK, text);
	svg_text(out, 20, y + 13, SVG_START, 10.5, SVG_FAINT, workload->what);
	if (row)
		svg_line(out, svg_at(axis, 1), y, svg_at(axis, row->mid.ratio), y, 3,
			 bench_ways[BENCH_FILEMAP].color, NULL);
	/* Draw the first ways of the table last, so that their marks are on top. */
	for (unsigned way = BENCH_WAY_COUNT; way-- > 0;) {
		row = bench_row_find(rows, count, workload->name, kernel->threads, way);
		if (bench_ways[way].overview && row && row->mid.ratio > 0)
			put_mark(out, way, svg_at(axis, row->mid.ratio), y);
	}
}

/* Return whether the overview has a line for this row of kernel-mmap. The overview leaves out
 * workloads over a store in memory, which tell nothing about reading. */
static bool in_overview(const struct bench_row *row)
{
	return row->way == BENCH_KERNEL && !row->left_out && row->mid.ratio > 0 && !row->workload->memory;
}

static int plot_overview(const struct bench_row *rows, size_t count, const char *dir)
{
	double low = 1, high = 1, y = DOT_TOP, height;
	struct svg_axis axis;
	FILE *out;

	for (size_t i = 0; i < count; i++) {
		if (!in_overview(&rows[i]))
			continue;
		y += DOT_STEP;
		for (enum bench_way way = 0; way < BENCH_WAY_COUNT; way++) {
			const struct bench_row *row = bench_row_find(rows, count, rows[i].workload->name,
								     rows[i].threads, way);

			if (!bench_ways[way].overview)
				continue;
			if (row && row->mid.ratio > high)
				high = row->mid.ratio;
			if (row && row->mid.ratio > 0 && row->mid.ratio < low)
				low = row->mid.ratio;
		}
	}
	if (y == DOT_TOP)
		return 0;
	height = y + FOOT;
	out = svg_open(dir, "overview", WIDTH, height,
		       "filemap against the kernel's mmap(), by access pattern",
		       "speed relative to mmap() with the default readahead (logarithmic); right is faster");
	if (!out)
		return -errno;
	put_legend(out);
	axis = svg_axis(low, high, DOT_LEFT, DOT_RIGHT);
	svg_grid(out, &axis, DOT_TOP, y);
	svg_line(out, svg_at(&axis, 1), DOT_TOP, svg_at(&axis, 1), y, 2,
		 bench_ways[BENCH_KERNEL].color, NULL);
	y = DOT_TOP + DOT_STEP / 2;
	for (size_t i = 0; i < count; i++) {
		if (!in_overview(&rows[i]))
			continue;
		put_dots(out, &axis, y, rows, count, &rows[i]);
		y += DOT_STEP;
	}
	return svg_close(out);
}

/* ------------------------------------------------------------------ targets */

#define TARGET_STEP  23.0
#define TARGET_LEFT  560.0
#define TARGET_WIDTH 1100.0

/* Return how far the figure is beyond the target: 1 is just met. More is better, for both kinds of
 * bounds. */
static double score(const struct bench_target *target, double figure)
{
	if (figure <= 0)
		return target->bound == AT_MOST ? 100 : 0.01;
	return target->bound == AT_LEAST ? figure / target->need : target->need / figure;
}

static void put_target(FILE *out, const struct svg_axis *axis, double y,
		       const struct bench_target *target, const struct bench_judgement *judged)
{
	const char *color = judged->verdict == VERDICT_MET ? SVG_MET : SVG_MISS;
	double x = svg_at(axis, score(target, judged->figure));
	char what[120], need[40], text[80];

	snprintf(text, sizeof(text), target->threads > 1 ? "%s, %u threads" : "%s",
		 target->workload, target->threads);
	svg_bold(out, 20, y + 4, SVG_START, 12, SVG_INK, text);
	svg_text(out, 190, y + 4, SVG_START, 12, SVG_INK,
		 bench_target_text(target, judged->way, what, sizeof(what)));
	svg_line(out, svg_at(axis, score(target, judged->low)), y,
		 svg_at(axis, score(target, judged->high)), y, 3, "#cbd5e1", NULL);
	svg_circle(out, x, y, 6, color);
	snprintf(text, sizeof(text), "%.3g", judged->figure);
	svg_bold(out, TARGET_WIDTH - 145, y + 4, SVG_END, 12, color, text);
	svg_text(out, TARGET_WIDTH - 137, y + 4, SVG_START, 11, SVG_FAINT,
		 bench_need_text(target, need, sizeof(need)));
}

static int plot_targets(const struct bench_row *rows, size_t count, const char *dir)
{
	double low = 1, high = 1, y = TOP;
	struct svg_axis axis;
	unsigned met = 0, all = 0;
	char title[80];
	FILE *out;

	for (size_t i = 0; i < bench_target_count; i++) {
		struct bench_judgement judged = bench_judge(&bench_targets[i], rows, count);
		double here = score(&bench_targets[i], judged.figure);

		if (judged.verdict == VERDICT_NOT_MEASURED)
			continue;
		met += judged.verdict == VERDICT_MET;
		all++;
		low = here < low ? here : low;
		high = here > high ? here : high;
	}
	if (!all)
		return 0;
	snprintf(title, sizeof(title), "Targets: %u of %u met", met, all);
	y += all * TARGET_STEP + 8;
	out = svg_open(dir, "targets", TARGET_WIDTH, y + FOOT, title,
		       "figure relative to its target, 1 = just met (logarithmic): median and range "
		       "of the rounds; right is better");
	if (!out)
		return -errno;
	axis = svg_axis(low, high, TARGET_LEFT, TARGET_WIDTH - 205);
	svg_grid(out, &axis, TOP, y);
	svg_line(out, svg_at(&axis, 1), TOP, svg_at(&axis, 1), y, 1.5, SVG_INK, NULL);
	y = TOP + TARGET_STEP / 2 + 4;
	for (size_t i = 0; i < bench_target_count; i++) {
		struct bench_judgement judged = bench_judge(&bench_targets[i], rows, count);

		if (judged.verdict == VERDICT_NOT_MEASURED)
			continue;
		put_target(out, &axis, y, &bench_targets[i], &judged);
		y += TARGET_STEP;
	}
	return svg_close(out);
}

int bench_plot(const struct bench_row *rows, size_t count, const char *dir)
{
	int error = plot_overview(rows, count, dir);
	size_t from = 0;

	if (!error)
		error = plot_targets(rows, count, dir);
	for (size_t i = 1; i <= count && !error; i++) {
		if (i < count && rows[i].workload == rows[from].workload)
			continue;
		error = plot_workload(rows + from, i - from, dir);
		from = i;
	}
	return error;
}
