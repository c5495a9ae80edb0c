/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's results in words: a table for people, rows of JSON, and what the library counted.
 * May call: tool.h.
 */
#include "bench.h"

#include "tool.h"

#include <string.h>

void bench_table_head(void)
{
	printf("%-21s%-23s%7s %9s %11s %9s %9s %9s %8s\n", "workload", "way", "threads", "ms", "ns/op", "MiB/s",
	       "read MiB", "cpu ms", "ratio");
}

void bench_table_row(const struct bench_row *row)
{
	double mib = row->mid.bytes / (double)MIB;

	printf("%-21s%-23s%7u %9.1f %11.1f %9.1f %9.1f %9.1f ", row->workload->name, bench_way_names[row->way],
	       row->threads, row->mid.seconds * 1e3, row->mid.ns_per_op,
	       row->mid.seconds > 0 ? mib / row->mid.seconds : 0, row->mid.device_bytes / (double)MIB,
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
	json_text(&json, "way", bench_way_names[row->way]);
	json_number(&json, "threads", row->threads);
	json_real(&json, "seconds", row->mid.seconds);
	json_number(&json, "ops", (uint64_t)row->mid.ops);
	json_number(&json, "bytes", (uint64_t)row->mid.bytes);
	json_real(&json, "ns_per_op", row->mid.ns_per_op);
	json_number(&json, "device_bytes", (uint64_t)row->mid.device_bytes);
	json_real(&json, "cpu_s", row->mid.cpu_s);
	json_real(&json, "rss_mib", row->mid.rss_mib);
	if (row->mid.ratio > 0)
		json_real(&json, "ratio_vs_kernel", row->mid.ratio);
	else
		json_null(&json, "ratio_vs_kernel");
	json_close(&json, '}');
	putchar('\n');
}

void bench_counters(const struct bench_cell *cell)
{
	const struct fm_stats *stats = &cell->out.stats;

	fprintf(stderr, "%s %s %u:", bench_workloads[cell->in.workload].name, bench_way_names[cell->in.way],
		cell->in.threads);
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
