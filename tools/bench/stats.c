/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's arithmetic: a row collects its rounds. At the end, the middle round and the ratio
 * are computed from the rounds.
 */
#include "bench/bench.h"

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
	row->written_bytes[r] = (double)cell->out.written_bytes;
	row->cpu_s[r] = (double)cell->out.cpu_ns / 1e9;
	row->rss_mib[r] = (double)cell->out.rss_bytes / (double)MIB;
	row->cached_bytes[r] = (double)cell->out.cached_bytes;
	row->budget_bytes[r] = (double)cell->out.stats.budget_bytes;
	row->metadata_bytes[r] = (double)cell->out.metadata_bytes;
}

const struct bench_row *bench_row_find(const struct bench_row *rows, size_t count,
				       const char *workload, unsigned threads, enum bench_way way)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(rows[i].workload->name, workload) && rows[i].threads == threads &&
		    rows[i].way == way && !rows[i].left_out)
			return &rows[i];
	return NULL;
}

/* Return the round with the median time of an operation. The figures of one round belong together,
 * which separate medians would not. */
static unsigned middle_round(const struct bench_row *row)
{
	unsigned middle = 0;

	for (unsigned r = 0; r < row->rounds; r++) {
		unsigned before = 0;

		for (unsigned other = 0; other < row->rounds; other++)
			before += row->ns_per_op[other] < row->ns_per_op[r] ||
				  (row->ns_per_op[other] == row->ns_per_op[r] && other < r);
		if (before == (row->rounds - 1) / 2)
			middle = r;
	}
	return middle;
}

/* Compute the row's results. The ratio is the median, over the rounds, of the speed relative to the
 * kernel's. A row has all rounds unless the row is left out. */
void bench_row_finish(struct bench_row *row, const struct bench_row *kernel)
{
	double ratio[BENCH_ROUNDS_MAX];
	unsigned n = row->rounds, middle = middle_round(row);

	row->mid.seconds = row->seconds[middle];
	row->mid.ops = row->ops[middle];
	row->mid.bytes = row->bytes[middle];
	row->mid.ns_per_op = row->ns_per_op[middle];
	row->mid.device_bytes = row->device_bytes[middle];
	row->mid.written_bytes = row->written_bytes[middle];
	row->mid.cpu_s = row->cpu_s[middle];
	row->mid.rss_mib = row->rss_mib[middle];
	if (!kernel || kernel->left_out || kernel->rounds != n)
		return;
	for (unsigned r = 0; r < n; r++)
		ratio[r] = row->ns_per_op[r] > 0 ? kernel->ns_per_op[r] / row->ns_per_op[r] : 0;
	row->mid.ratio = bench_median(ratio, n);
}
