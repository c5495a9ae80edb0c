/* SPDX-License-Identifier: MIT */
/*
 * The demonstration's picture: gnuplot draws, for each way a panel, the latencies of the first
 * round over time, the situations side by side on one axis. Owns nothing.
 * May call: libc, gnuplot.
 */
#define _GNU_SOURCE
#include "demo/demo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define GAP_S 0.4 /* between two situations on the time axis */

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

/* Where each situation begins on the common time axis; returns the axis's end. */
static double lay_out(const struct report *report, double *begin)
{
	double at = 0;

	for (size_t s = 0; s < demo_situation_count; s++) {
		uint64_t longest_ns = 0;

		begin[s] = at;
		for (enum way way = 0; way < WAY_COUNT; way++) {
			const struct cell *cell = &report->cell[way][s];

			if (cell->first && cell->first_ns > longest_ns)
				longest_ns = cell->first_ns;
		}
		if (longest_ns)
			at += seconds(longest_ns) + GAP_S;
	}
	return at;
}

static bool situation_ran(const struct report *report, size_t s)
{
	for (enum way way = 0; way < WAY_COUNT; way++) {
		if (report->cell[way][s].first)
			return true;
	}
	return false;
}

static bool way_ran(const struct report *report, enum way way)
{
	for (size_t s = 0; s < demo_situation_count; s++) {
		if (report->cell[way][s].first)
			return true;
	}
	return false;
}

#define NO_POINT "-1 1\n" /* gnuplot wants at least one: outside the picture */

/* Waits of 50 ms and more, as the line that such a wait is in time. */
#define LONG_US 50000u

static void put_long(FILE *out, const struct report *report, enum way way, unsigned probe,
		     const double *begin)
{
	fprintf(out, "$w%up%ul << EOD\n", (unsigned)way, probe);
	for (size_t s = 0; s < demo_situation_count; s++) {
		const struct cell *cell = &report->cell[way][s];

		for (size_t slot = 0; cell->first && slot < REC_SLOTS; slot++) {
			uint32_t us = cell->first[probe].slot_max_us[slot];
			double end = begin[s] + seconds((slot + 1) * REC_SLOT_NS);

			if (us >= LONG_US)
				fprintf(out, "%.3f %.4f\n%.3f %.4f\n\n", end - (double)us / 1e6,
					(double)us / 1e3, end, (double)us / 1e3);
		}
	}
	fprintf(out, NO_POINT "EOD\n");
}

/* The points of one probe in one panel, as an inline block of data. */
static void put_points(FILE *out, const struct report *report, enum way way, unsigned probe,
		       const double *begin)
{
	fprintf(out, "$w%up%u << EOD\n", (unsigned)way, probe);
	for (size_t s = 0; s < demo_situation_count; s++) {
		const struct cell *cell = &report->cell[way][s];

		if (!cell->first)
			continue;
		for (size_t slot = 0; slot < REC_SLOTS; slot++) {
			uint32_t us = cell->first[probe].slot_max_us[slot];

			if (us)
				fprintf(out, "%.3f %.4f\n",
					begin[s] + seconds((slot + 1) * REC_SLOT_NS),
					(double)us / 1e3);
		}
	}
	fprintf(out, NO_POINT "EOD\n");
}

static void put_situations(FILE *out, const struct report *report, const double *begin, double end,
			   bool names)
{
	unsigned count = 0;

	fprintf(out, "unset label\nunset arrow\n");
	for (size_t s = 0; s < demo_situation_count; s++) {
		if (!situation_ran(report, s))
			continue;
		if (begin[s] > 0)
			fprintf(out,
				"set arrow from %.3f, graph 0 to %.3f, graph 1 nohead lc rgb "
				"'#bbbbbb' dt 3\n",
				begin[s] - GAP_S / 2, begin[s] - GAP_S / 2);
		if (names)
			fprintf(out, "set label '%s' at %.3f, graph %.2f font ',11'\n",
				demo_situations[s].name, begin[s], count++ % 2 ? 1.16 : 1.06);
	}
	fprintf(out, "set arrow from 0, first %u to %.3f, first %u nohead lc rgb '#dd0000' dt 2\n",
		report->delay_ms, end, report->delay_ms);
}

static void put_panel(FILE *out, enum way way)
{
	const char *separator = "plot";

	fprintf(out, "set ylabel '%s' font ',12'\n", demo_way_names[way]);
	for (unsigned probe = 0; probe < PROBE_JUDGED; probe++) {
		fprintf(out,
			"%s $w%up%u using 1:2 with points pt 7 ps 0.35 lc %u notitle, \\\n"
			"    $w%up%ul using 1:2 with lines lw 3 lc %u title '%s'",
			separator, (unsigned)way, probe, probe + 1, (unsigned)way, probe, probe + 1,
			demo_probe_names[probe]);
		separator = ", \\\n    ";
	}
	fprintf(out, "\n");
}

static void put_script(FILE *out, const struct report *report, const char *svg_path)
{
	double begin[DEMO_SITUATIONS_MAX];
	double end = lay_out(report, begin);
	unsigned panels = 0, panel = 0;

	for (enum way way = 0; way < WAY_COUNT; way++)
		panels += way_ran(report, way);
	fprintf(out, "set terminal svg size 1300,%u font 'sans,11' background '#ffffff'\n",
		150 + 190 * panels);
	fprintf(out, "set output '");
	for (const char *c = svg_path; *c; c++)
		fprintf(out, *c == '\'' ? "''" : "%c", *c);
	fprintf(out, "'\n");
	for (enum way way = 0; way < WAY_COUNT; way++) {
		for (unsigned probe = 0; probe < PROBE_JUDGED && way_ran(report, way); probe++) {
			put_points(out, report, way, probe, begin);
			put_long(out, report, way, probe, begin);
		}
	}
	fprintf(out,
		"set multiplot layout %u,1 title \"How long others wait while threads fault on a "
		"slow store (delay %u ms, dashed red)\\neach point: the worst of 20 ms; each bar: "
		"one wait of 50 ms or more\" "
		"font ',15' margins 0.09,0.86,0.07,%.3f spacing 0,0.02\n"
		"set logscale y\nset yrange [0.0002:20000]\nset xrange [0:%.3f]\n"
		"set ytics ('1 us' 0.001, '10 us' 0.01, '100 us' 0.1, '1 ms' 1, '10 ms' 10, "
		"'100 ms' 100, '1 s' 1000, '10 s' 10000)\n"
		"set grid ytics lc rgb '#dddddd'\nset key off\nset format x ''\n",
		panels, report->delay_ms, 1.0 - 95.0 / (150 + 190 * panels), end);
	for (enum way way = 0; way < WAY_COUNT; way++) {
		if (!way_ran(report, way))
			continue;
		put_situations(out, report, begin, end, panel == 0);
		if (panel == 0)
			fprintf(out,
				"set key outside right top samplen 1 spacing 1.2 font ',10'\n");
		if (++panel == panels)
			fprintf(out, "set format x '%%g'\nset xlabel 'seconds, the situations side "
				     "by side'\n");
		put_panel(out, way);
		fprintf(out, "set key off\n");
	}
	fprintf(out, "unset multiplot\n");
}

int report_plot(const struct report *report, const char *svg_path)
{
	FILE *gnuplot = popen("gnuplot", "w");
	int status;

	if (!gnuplot)
		return -errno;
	put_script(gnuplot, report, svg_path);
	status = pclose(gnuplot);
	return status ? -EIO : 0;
}
