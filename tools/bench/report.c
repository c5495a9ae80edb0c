/* SPDX-License-Identifier: MIT */
/* The benchmark's results as text: a table for people, rows of JSON, and the library's counters. */
#include "bench/bench.h"

#include "command/tool.h"

#include <string.h>

void bench_table_head(void)
{
	printf("%-21s%-23s%7s %9s %11s %9s %9s %9s %9s %8s\n", "workload", "way", "threads", "ms",
	       "ns/op", "MiB/s", "read MiB", "write MiB", "cpu ms", "ratio");
}

void bench_table_row(const struct bench_row *row)
{
	double mib = row->mid.bytes / (double)MIB;

	printf("%-21s%-23s%7u %9.1f %11.1f %9.1f %9.1f %9.1f %9.1f ", row->workload->name,
	       bench_ways[row->way].name, row->threads, row->mid.seconds * 1e3, row->mid.ns_per_op,
	       row->mid.seconds > 0 ? mib / row->mid.seconds : 0,
	       row->mid.device_bytes / (double)MIB, row->mid.written_bytes / (double)MIB,
	       row->mid.cpu_s * 1e3);
	if (row->mid.ratio > 0)
		printf("%8.2f\n", row->mid.ratio);
	else
		printf("%8s\n", "-");
}

void bench_json_row(const struct bench_row *row)
{
	struct tool_json json = {.out = stdout};

	json_open(&json, NULL, '{');
	json_text(&json, "workload", row->workload->name);
	json_text(&json, "way", bench_ways[row->way].name);
	json_number(&json, "threads", row->threads);
	json_real(&json, "seconds", row->mid.seconds);
	json_number(&json, "ops", (uint64_t)row->mid.ops);
	json_number(&json, "bytes", (uint64_t)row->mid.bytes);
	json_real(&json, "ns_per_op", row->mid.ns_per_op);
	json_number(&json, "device_bytes", (uint64_t)row->mid.device_bytes);
	json_number(&json, "written_bytes", (uint64_t)row->mid.written_bytes);
	json_real(&json, "cpu_s", row->mid.cpu_s);
	json_real(&json, "rss_mib", row->mid.rss_mib);
	if (row->mid.ratio > 0)
		json_real(&json, "ratio_vs_kernel", row->mid.ratio);
	else
		json_null(&json, "ratio_vs_kernel");
	json_close(&json, '}');
	putchar('\n');
}

/* ------------------------------------------------------------------ targets */

void bench_table_targets(const struct bench_row *rows, size_t count)
{
	char what[120], need[40], span[40];
	bool head = false;

	for (size_t i = 0; i < bench_target_count; i++) {
		const struct bench_target *target = &bench_targets[i];
		struct bench_judgement judged = bench_judge(target, rows, count);

		if (judged.verdict == VERDICT_NOT_MEASURED)
			continue;
		if (!head)
			printf("\n%-21s%7s %-70s %-20s%8s  %-16s %s\n", "targets", "threads", "", "", "figure",
			       "lowest, highest", "verdict");
		head = true;
		snprintf(span, sizeof(span), "%.4g, %.4g", judged.low, judged.high);
		printf("%-21s%7u %-70s %-20s%8.4g  %-16s %s\n", target->workload, target->threads,
		       bench_target_text(target, judged.way, what, sizeof(what)),
		       bench_need_text(target, need, sizeof(need)), judged.figure, span,
		       bench_verdict_names[judged.verdict]);
	}
}

static void json_target(const struct bench_target *target, const struct bench_judgement *judged)
{
	struct tool_json json = {.out = stdout};
	char what[120];

	json_open(&json, NULL, '{');
	json_text(&json, "target", bench_target_text(target, judged->way, what, sizeof(what)));
	json_text(&json, "workload", target->workload);
	json_text(&json, "way", bench_ways[judged->way].name);
	json_number(&json, "threads", target->threads);
	json_real(&json, target->bound == AT_LEAST ? "at_least" : "at_most", target->need);
	if (target->aim > 0)
		json_real(&json, "aim", target->aim);
	else
		json_null(&json, "aim");
	json_real(&json, "figure", judged->figure);
	json_real(&json, "lowest", judged->low);
	json_real(&json, "highest", judged->high);
	json_text(&json, "verdict", bench_verdict_names[judged->verdict]);
	json_close(&json, '}');
	putchar('\n');
}

void bench_json_targets(const struct bench_row *rows, size_t count)
{
	for (size_t i = 0; i < bench_target_count; i++) {
		struct bench_judgement judged = bench_judge(&bench_targets[i], rows, count);

		if (judged.verdict != VERDICT_NOT_MEASURED)
			json_target(&bench_targets[i], &judged);
	}
}

/* ------------------------------------------------------------------ counters */

void bench_counters(const struct bench_cell *cell)
{
	const struct fm_stats *stats = &cell->out.stats;

	fprintf(stderr, "%s %s %u:", bench_workloads[cell->in.workload].name,
		bench_ways[cell->in.way].name, cell->in.threads);
#define BENCH_X(name, help)                                                                        \
	if (stats->name)                                                                           \
		fprintf(stderr, " %s=%llu", #name, (unsigned long long)stats->name);
	FM_COUNTERS(BENCH_X)
	FM_GAUGES(BENCH_X)
#undef BENCH_X
#define BENCH_X(name, help)                                                                        \
	if (stats->name.count)                                                                     \
		fprintf(stderr, " %s=%llu/%llu", #name, (unsigned long long)stats->name.p50_ns,    \
			(unsigned long long)stats->name.p99_ns);
	FM_HISTOGRAMS(BENCH_X)
#undef BENCH_X
	fputc('\n', stderr);
}
