/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's pictures: for each workload, horizontal bars of how fast each way was, as its ratio to kernel-mmap
 * where there is one; and one overview of the library's best, kernel-mmap and the limit. Owns nothing.
 * May call: libc, gnuplot.
 */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BAR_PIXELS 26
#define SPREAD_LOG 15.0 /* from this ratio between bars on, the axis is logarithmic */

static double millions_per_s(const struct bench_row *row)
{
	return row->mid.ns_per_op > 0 ? 1e3 / row->mid.ns_per_op : 0;
}

static double bar(const struct bench_row *row)
{
	return row->mid.ratio > 0 ? row->mid.ratio : millions_per_s(row);
}

static const char *color(enum bench_way way)
{
	if (bench_way_is_filemap(way))
		return "#2a6fbb";
	if (way == BENCH_LIMIT || way == BENCH_BARE || way == BENCH_BARE_COPY)
		return "#5b8c3e";
	return way == BENCH_KERNEL ? "#555555" : "#a0a0a0";
}

static void put_output(FILE *out, const char *dir, const char *name)
{
	fprintf(out, "set output '");
	for (const char *c = dir; *c; c++)
		fprintf(out, *c == '\'' ? "''" : "%c", *c);
	fprintf(out, "/%s.svg'\n", name);
}

static void put_axis(FILE *out, char axis, double low, double high)
{
	if (low > 0 && high / low > SPREAD_LOG)
		fprintf(out, "set logscale %c\nset %crange [%g:%g]\n", axis, axis, low / 2, high * 3);
	else
		fprintf(out, "unset logscale %c\nset %crange [0:%g]\n", axis, axis, high * 1.25);
}

/* ------------------------------------------------------------------ one workload */

/* `rows` to `rows + count` are of one workload. The first is drawn on top. */
static void put_workload(FILE *out, const struct bench_row *rows, size_t count, const char *dir)
{
	const struct bench_workload *workload = rows->workload;
	double low = 0, high = 0;
	size_t bars = 0, n = 0;
	bool relative = false;

	for (size_t i = 0; i < count; i++) {
		double value = bar(&rows[i]);

		if (rows[i].left_out)
			continue;
		bars++;
		relative |= rows[i].mid.ratio > 0;
		low = low == 0 || value < low ? value : low;
		high = value > high ? value : high;
	}
	if (!bars)
		return;
	fprintf(out, "reset\nset terminal svg size 900,%zu font 'sans,12' background '#ffffff'\n",
		110 + bars * BAR_PIXELS);
	put_output(out, dir, workload->name);
	put_axis(out, 'x', low, high);
	fprintf(out, "set title \"%s: %s\" font ',15'\nset xlabel '%s'\nset key off\nset grid xtics lc rgb "
		     "'#dddddd'\nset yrange [-0.6:%zu.6]\nset lmargin 30\nset style fill solid\nset ytics (",
		workload->name, workload->what,
		relative ? "speed, kernel-mmap = 1" : "million operations a second", bars - 1);
	for (size_t i = 0; i < count; i++) {
		if (rows[i].left_out)
			continue;
		n++;
		fprintf(out, "%s'%s", n == 1 ? "" : ", ", bench_way_names[rows[i].way]);
		if (workload->threads[1])
			fprintf(out, ", %u thread%s", rows[i].threads, rows[i].threads == 1 ? "" : "s");
		fprintf(out, "' %zu", bars - n);
	}
	fprintf(out, ")\n");
	n = 0;
	for (size_t i = 0; i < count; i++) {
		double value = bar(&rows[i]), y;

		if (rows[i].left_out)
			continue;
		y = (double)(bars - ++n);
		fprintf(out, "set object rectangle from %g,%g to %g,%g fc rgb '%s' lw 0\n",
			low > 0 && high / low > SPREAD_LOG ? low / 2 : 0.0, y - 0.36, value, y + 0.36,
			color(rows[i].way));
		fprintf(out, "set label '%.3g' at %g,%g offset 0.5,0\n", value, value, y);
	}
	fprintf(out, "plot -10 notitle\n");
}

/* ------------------------------------------------------------------ overview */

static const struct bench_row *find_row(const struct bench_row *rows, size_t count,
					const struct bench_workload *workload, unsigned threads, enum bench_way way)
{
	for (size_t i = 0; i < count; i++)
		if (rows[i].workload == workload && rows[i].threads == threads && rows[i].way == way &&
		    !rows[i].left_out && rows[i].mid.ratio > 0)
			return &rows[i];
	return NULL;
}

/* One series: a way's ratio for each workload that has one for kernel-mmap. */
static size_t put_series(FILE *out, const struct bench_row *rows, size_t count, enum bench_way way)
{
	size_t n = 0;

	fprintf(out, "$way%u << EOD\n", (unsigned)way);
	for (size_t i = 0; i < count; i++) {
		const struct bench_row *row;

		if (rows[i].way != BENCH_KERNEL || rows[i].left_out)
			continue;
		row = find_row(rows, count, rows[i].workload, rows[i].threads, way);
		fprintf(out, "\"%s", rows[i].workload->name);
		if (rows[i].workload->threads[1])
			fprintf(out, " %u", rows[i].threads);
		if (row)
			fprintf(out, "\" %g\n", row->mid.ratio);
		else
			fprintf(out, "\" NaN\n");
		n++;
	}
	fprintf(out, "EOD\n");
	return n;
}

static void put_overview(FILE *out, const struct bench_row *rows, size_t count, const char *dir)
{
	static const enum bench_way ways[] = {BENCH_FILEMAP, BENCH_FILEMAP_HUGE, BENCH_KERNEL_128K, BENCH_LIMIT};
	static const char *const colors[] = {"#2a6fbb", "#7fb2e5", "#a0a0a0", "#5b8c3e"};
	size_t groups = 0;

	fprintf(out, "reset\n");
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		groups = put_series(out, rows, count, ways[i]);
	if (!groups)
		return;
	fprintf(out, "set terminal svg size %zu,560 font 'sans,12' background '#ffffff'\n", 200 + groups * 65);
	put_output(out, dir, "overview");
	fprintf(out, "set title \"speed, kernel-mmap = 1\" font ',16'\nset logscale y\nset grid ytics lc rgb "
		     "'#dddddd'\nset style data histogram\nset style histogram clustered gap 1\nset style fill "
		     "solid\nset boxwidth 0.95\nset xtics rotate by -35 nomirror\nset key top right\n"
		     "set datafile missing 'NaN'\n"
		     "set arrow from graph 0, first 1 to graph 1, first 1 nohead lc rgb '#333333' lw 1.5 front\n");
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		fprintf(out, "%s $way%u using 2:xtic(1) lc rgb '%s' title '%s'", i ? ", " : "plot",
			(unsigned)ways[i], colors[i], bench_way_names[ways[i]]);
	fprintf(out, "\n");
}

int bench_plot(const struct bench_row *rows, size_t count, const char *dir)
{
	FILE *gnuplot = popen("gnuplot", "w");
	size_t from = 0;

	if (!gnuplot)
		return -errno;
	for (size_t i = 1; i <= count; i++) {
		if (i < count && rows[i].workload == rows[from].workload)
			continue;
		put_workload(gnuplot, rows + from, i - from, dir);
		from = i;
	}
	put_overview(gnuplot, rows, count, dir);
	return pclose(gnuplot) ? -EIO : 0;
}
