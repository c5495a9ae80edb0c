/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's arithmetic: a row collects its rounds; medians and the ratio come from them at the end.
 * May call: nothing.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double bench_median(const double *values, unsigned count)
{
	double sorted[BENCH_ROUNDS_MAX];

	if (!count)
		return 0;
	memcpy(sorted, values, count * sizeof(*values));
	qsort(sorted, count, sizeof(*sorted), compare);
	return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

void bench_row_add(struct bench_row *row, const struct bench_cell *cell)
{
	unsigned r = row->rounds++;

	row->seconds[r] = (double)cell->out.ns / 1e9;
	row->ops[r] = (double)cell->out.ops;
	row->bytes[r] = (double)cell->out.bytes;
	row->ns_per_op[r] = cell->out.ops ? (double)cell->out.ns / (double)cell->out.ops : 0;
	row->device_bytes[r] = (double)cell->out.device_bytes;
	row->cpu_s[r] = (double)cell->out.cpu_ns / 1e9;
	row->rss_mib[r] = (double)cell->out.rss_bytes / (double)MIB;
}

/* The speed over the kernel's in each round, and of these the median. Both have all rounds or are left out. */
void bench_row_finish(struct bench_row *row, const struct bench_row *kernel)
{
	double ratio[BENCH_ROUNDS_MAX];
	unsigned n = row->rounds;

	row->mid.seconds = bench_median(row->seconds, n);
	row->mid.ops = bench_median(row->ops, n);
	row->mid.bytes = bench_median(row->bytes, n);
	row->mid.ns_per_op = bench_median(row->ns_per_op, n);
	row->mid.device_bytes = bench_median(row->device_bytes, n);
	row->mid.cpu_s = bench_median(row->cpu_s, n);
	row->mid.rss_mib = bench_median(row->rss_mib, n);
	if (!kernel || kernel->left_out || kernel->rounds != n)
		return;
	for (unsigned r = 0; r < n; r++)
		ratio[r] = row->ns_per_op[r] > 0 ? kernel->ns_per_op[r] / row->ns_per_op[r] : 0;
	row->mid.ratio = bench_median(ratio, n);
}
