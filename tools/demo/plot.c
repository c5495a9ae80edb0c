/* SPDX-License-Identifier: MIT */
/*
 * The picture. gnuplot draws a panel for each situation. In a panel, the ways stand side by side
 * in parts of the same width. Each part shows the round with the longest wait.
 */
#define _GNU_SOURCE
#include "demo/plot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define GAP      0.04  /* between two ways, where the part of a way has the width 1 */
#define LONG_US  50000 /* a wait of so many us is drawn as a bar, as long as the wait in time */
#define NO_POINT "-1 1 0\n" /* gnuplot refuses an empty block of data; this point is outside */
#define ALL_WAYS (WAY_BIT(WAY_COUNT) - 1)
#define TWO_WAYS (WAY_BIT(WAY_FILEMAP) | WAY_BIT(WAY_KERNEL))
#define COLUMNS  2
#define WIDTH    1300
#define HEAD     100 /* pixels above the panels */
#define FOOT     40
#define PANEL    222
#define POINTS   100 /* for each probe and way in a panel */

static const char *const colours[PROBE_JUDGED] = {
	[PROBE_MAP] = "#1f77b4",     [PROBE_ADVISE] = "#17becf",  [PROBE_STATS] = "#2ca02c",
	[PROBE_FAULT] = "#ff7f0e",   [PROBE_PROTECT] = "#bcbd22", [PROBE_FORK] = "#8c564b",
	[PROBE_CMDLINE] = "#d62728", [PROBE_SMAPS] = "#000000",   [PROBE_MAPS] = "#9467bd",
};

/* One panel, and where the part of each way begins. */
struct panel {
	const struct report *report;
	size_t situation;
	unsigned ways; /* WAY_BIT()s of the ways that ran */
	double begin[WAY_COUNT], end;
};

/* Return where a moment of the round lies in the part of a way, 0 to 1. */
static double place(const struct cell *cell, uint64_t ns)
{
	return ns < cell->drawn_ns ? (double)ns / (double)cell->drawn_ns : 1;
}

static struct panel panel_of(const struct report *report, size_t situation, unsigned ways)
{
	struct panel panel = {.report = report, .situation = situation};

	for (enum way way = 0; way < WAY_COUNT; way++) {
		const struct cell *cell = &report->cell[way][situation];

		if (!(ways & WAY_BIT(way)) || !cell->drawn)
			continue;
		panel.begin[way] = panel.ways ? panel.end + GAP : 0;
		panel.end = panel.begin[way] + 1;
		panel.ways |= WAY_BIT(way);
	}
	return panel;
}

/* Draw the short waits of a way, at most POINTS of them. */
static void put_points(FILE *out, const struct cell *cell, unsigned probe, double begin)
{
	size_t slots = cell->drawn_ns / REC_SLOT_NS + 1, step = slots / POINTS + 1;

	for (size_t slot = 0; slot < slots && slot < REC_SLOTS; slot += step) {
		uint32_t us = 0;

		for (size_t i = slot; i < slot + step && i < REC_SLOTS; i++) {
			uint32_t here = cell->drawn[probe].slot_max_us[i];

			us = here < LONG_US && here > us ? here : us;
		}
		if (us)
			fprintf(out, "%.4f %.4f\n",
				begin + place(cell, (slot + step) * REC_SLOT_NS), (double)us / 1e3);
	}
}

/* Draw the long waits of a way. */
static void put_bars(FILE *out, const struct cell *cell, unsigned probe, double begin)
{
	for (size_t slot = 0; slot < REC_SLOTS; slot++) {
		uint32_t us = cell->drawn[probe].slot_max_us[slot];
		uint64_t last_ns = (slot + 1) * REC_SLOT_NS, wait_ns = us * 1000ull;
		double first = place(cell, wait_ns < last_ns ? last_ns - wait_ns : 0);

		if (us >= LONG_US)
			fprintf(out, "%.4f %.4f %.4f\n", begin + first, (double)us / 1e3,
				place(cell, last_ns) - first);
	}
}

/* Put the latencies of one probe in one panel, as two inline blocks of data. The first block
 * has the short waits as points, the second block the long waits as bars. */
static void put_probe(FILE *out, const struct panel *panel, unsigned probe)
{
	for (int bars = 0; bars < 2; bars++) {
		fprintf(out, "$s%zup%u%s << EOD\n", panel->situation, probe, bars ? "bars" : "");
		for (enum way way = 0; way < WAY_COUNT; way++) {
			const struct cell *cell = &panel->report->cell[way][panel->situation];

			if (!(panel->ways & WAY_BIT(way)))
				continue;
			if (bars)
				put_bars(out, cell, probe, panel->begin[way]);
			else
				put_points(out, cell, probe, panel->begin[way]);
		}
		fprintf(out, NO_POINT "EOD\n");
	}
}

/* Write the names of the ways, lines between the ways, and the line of the delay. */
static void put_marks(FILE *out, const struct panel *panel)
{
	const struct situation *situation = &demo_situations[panel->situation];
	unsigned delay_ms = situation->delay_ms ? situation->delay_ms : panel->report->delay_ms;

	fprintf(out, "unset label\nunset arrow\nset title '%s' font ',13' offset 0,-0.6\n",
		situation->name);
	for (enum way way = 0; way < WAY_COUNT; way++) {
		if (!(panel->ways & WAY_BIT(way)))
			continue;
		fprintf(out, "set label '%s' at %.4f, graph 0.94 font ',10' tc rgb '#555555'\n",
			demo_way_names[way], panel->begin[way] + panel->end * 0.01);
		fprintf(out,
			"set label '%.0f s' at %.4f, graph -0.07 right font ',9' tc rgb '#555555'\n",
			(double)panel->report->cell[way][panel->situation].drawn_ns / 1e9,
			panel->begin[way] + 1);
		if (panel->begin[way] > 0)
			fprintf(out,
				"set arrow from %.3f, graph 0 to %.3f, graph 1 nohead lc rgb "
				"'#999999'\n",
				panel->begin[way] - GAP / 2, panel->begin[way] - GAP / 2);
	}
	if (!(panel->ways & WAY_BIT(WAY_KERNEL)) && situation->kernel_not)
		fprintf(out,
			"set label 'kernel-mmap not run: %s' at graph 0.98, graph 0.94 right font "
			"',10' tc rgb '#555555'\n",
			situation->kernel_not);
	fprintf(out, "set arrow from 0, first %u to %.3f, first %u nohead lc rgb '#dd0000' dt 2\n",
		delay_ms, panel->end, delay_ms);
}

static void put_panel(FILE *out, const struct panel *panel)
{
	const char *separator = "plot";

	put_marks(out, panel);
	fprintf(out, "set xrange [0:%.3f]\n", panel->end);
	for (unsigned probe = 0; probe < PROBE_JUDGED; probe++) {
		fprintf(out,
			"%s $s%zup%u using 1:2 with points pt 7 ps 0.25 lc rgb '%s' notitle, \\\n"
			"    $s%zup%ubars using 1:2:3:(0) with vectors nohead lw 4 lc rgb '%s' notitle",
			separator, panel->situation, probe, colours[probe], panel->situation, probe,
			colours[probe]);
		separator = ", \\\n    ";
	}
	fprintf(out, "\n");
}

/* Draw the names of the probes above the panels. */
static void put_key(FILE *out, unsigned height)
{
	const char *separator = "plot";

	fprintf(out,
		"set origin 0,%.4f\nset size 1,%.4f\nset margins 0,0,0,0\nunset title\nunset label\n"
		"unset arrow\nunset border\nunset tics\nset xrange [0:1]\nset yrange [1:2]\n"
		"set key center center horizontal samplen 2 width 1 font ',11'\n",
		1 - 88.0 / height, 28.0 / height);
	for (unsigned probe = 0; probe < PROBE_JUDGED; probe++) {
		fprintf(out, "%s -1 with lines lw 4 lc rgb '%s' title '%s'", separator, colours[probe],
			demo_probe_names[probe]);
		separator = ", ";
	}
	fprintf(out, "\n");
}

static void put_head(FILE *out, const char *svg_path, unsigned delay_ms, unsigned height)
{
	fprintf(out, "set terminal svg size %u,%u font 'sans,11' background '#ffffff'\n", WIDTH,
		height);
	fprintf(out, "set output '");
	for (const char *c = svg_path; *c; c++)
		fprintf(out, *c == '\'' ? "''" : "%c", *c);
	fprintf(out,
		"'\nset multiplot title \"How long others wait while threads wait for a slow store "
		"(delay %u ms; red: the delay)\\neach point: the worst of its time; each bar: one "
		"wait of 50 ms or more; to the right: the time of a round\" font ',14'\n"
		"set logscale y\nset yrange [0.0002:300000]\n"
		"set ytics ('1 us' 0.001, '10 us' 0.01, '100 us' 0.1, '1 ms' 1, '10 ms' 10, "
		"'100 ms' 100, '1 s' 1000, '10 s' 10000) font ',9'\nunset xtics\n"
		"set grid ytics lc rgb '#dddddd'\nset key off\n",
		delay_ms);
}

static void put_script(FILE *out, const struct report *report, const char *svg_path, unsigned ways)
{
	struct panel panels[DEMO_SITUATIONS_MAX];
	unsigned count = 0, rows, height;

	for (size_t s = 0; s < demo_situation_count; s++) {
		panels[count] = panel_of(report, s, ways);
		count += panels[count].ways != 0;
	}
	rows = (count + COLUMNS - 1) / COLUMNS;
	height = HEAD + FOOT + PANEL * rows;
	for (unsigned i = 0; i < count; i++) {
		for (unsigned probe = 0; probe < PROBE_JUDGED; probe++)
			put_probe(out, &panels[i], probe);
	}
	put_head(out, svg_path, report->delay_ms, height);
	for (unsigned i = 0; i < count; i++) {
		double top = HEAD + PANEL * (i / COLUMNS), left = 0.055 + 0.48 * (i % COLUMNS);

		fprintf(out, "set lmargin at screen %.4f\nset rmargin at screen %.4f\n", left,
			left + 0.43);
		fprintf(out, "set tmargin at screen %.4f\nset bmargin at screen %.4f\n",
			1 - (top + 24) / height, 1 - (top + PANEL - 28) / height);
		put_panel(out, &panels[i]);
	}
	put_key(out, height);
	fprintf(out, "unset multiplot\n");
}

int plot_report(const struct report *report, const char *svg_path, bool all)
{
	FILE *gnuplot = popen("gnuplot", "w");
	int status;

	if (!gnuplot)
		return -errno;
	put_script(gnuplot, report, svg_path, all ? ALL_WAYS : TWO_WAYS);
	status = pclose(gnuplot);
	return status ? -EIO : 0;
}
