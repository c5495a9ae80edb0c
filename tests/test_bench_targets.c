/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's verdicts, on made-up rows. The ratio is taken within each round, and the median
 * counts. A bound that is just reached is met, on the bound's correct side. Of several ways the
 * best way counts. A target whose rows were left out is not judged.
 *
 * The last test checks the table of targets: each target names a workload that has the target's
 * threads and ways.
 */
#include "bench/bench.h"

#include "check.h"

static struct bench_row rows[8];
static size_t row_count;

static struct bench_row *row_add(const char *workload, unsigned threads, enum bench_way way,
				 const double *ns, unsigned rounds)
{
	struct bench_row *row = &rows[row_count++];

	*row = (struct bench_row){.way = way, .threads = threads, .rounds = rounds};
	for (size_t i = 0; i < bench_workload_count; i++)
		if (!strcmp(bench_workloads[i].name, workload))
			row->workload = &bench_workloads[i];
	CHECK(row->workload);
	for (unsigned r = 0; r < rounds; r++) {
		row->ns_per_op[r] = ns[r];
		row->ops[r] = 100;
		row->bytes[r] = 100 * BENCH_PAGE;
	}
	return row;
}

static struct bench_judgement judge(struct bench_target target)
{
	return bench_judge(&target, rows, row_count);
}

static void check_near(double a, double b)
{
	CHECK(a > b * 0.999999 && a < b * 1.000001);
}

#define SPEED(ways_, against_, need_)                                                              \
	((struct bench_target){"seq-cold", 1, ways_, FIGURE_SPEED, against_, NULL, AT_LEAST,       \
			       need_, 0})

/* The library is four times, twice and a quarter as fast as the kernel, so the figure is two. The
 * ratio of the medians would be one. */
static void test_median_of_ratios(void)
{
	struct bench_judgement judged;

	row_count = 0;
	row_add("seq-cold", 1, BENCH_FILEMAP, (double[]){100, 50, 400}, 3);
	row_add("seq-cold", 1, BENCH_KERNEL, (double[]){400, 100, 100}, 3);
	judged = judge(SPEED(BENCH_BIT(FILEMAP), BENCH_KERNEL, 2));
	CHECK_EQ(judged.verdict, VERDICT_MET);
	check_near(judged.figure, 2);
	check_near(judged.low, 0.25);
	check_near(judged.high, 4);
	CHECK_EQ(judge(SPEED(BENCH_BIT(FILEMAP), BENCH_KERNEL, 2.001)).verdict, VERDICT_MISSED);
}

static void test_at_most(void)
{
	struct bench_target target = {
		"seq-cold", 1, BENCH_BIT(FILEMAP), FIGURE_TIME, BENCH_BARE, NULL, AT_MOST, 1.5, 0};

	row_count = 0;
	row_add("seq-cold", 1, BENCH_FILEMAP, (double[]){150}, 1);
	row_add("seq-cold", 1, BENCH_BARE, (double[]){100}, 1);
	CHECK_EQ(judge(target).verdict, VERDICT_MET);
	rows[0].ns_per_op[0] = 151;
	CHECK_EQ(judge(target).verdict, VERDICT_MISSED);
	target.figure = FIGURE_SPEED; /* 100 / 151 */
	check_near(judge(target).figure, 100.0 / 151);
}

static void test_best_way(void)
{
	unsigned both = BENCH_BIT(FILEMAP) | BENCH_BIT(FILEMAP_HUGE);
	struct bench_judgement judged;

	row_count = 0;
	row_add("seq-cold", 1, BENCH_FILEMAP, (double[]){200}, 1);
	row_add("seq-cold", 1, BENCH_FILEMAP_HUGE, (double[]){50}, 1);
	row_add("seq-cold", 1, BENCH_KERNEL, (double[]){100}, 1);
	judged = judge(SPEED(both, BENCH_KERNEL, 1));
	CHECK_EQ(judged.verdict, VERDICT_MET);
	CHECK_EQ(judged.way, BENCH_FILEMAP_HUGE);
	rows[1].left_out = true;
	judged = judge(SPEED(both, BENCH_KERNEL, 1));
	CHECK_EQ(judged.verdict, VERDICT_MISSED);
	CHECK_EQ(judged.way, BENCH_FILEMAP);
	check_near(judged.figure, 0.5);
}

static void test_not_measured(void)
{
	row_count = 0;
	CHECK_EQ(judge(SPEED(BENCH_BIT(FILEMAP), BENCH_KERNEL, 0)).verdict, VERDICT_NOT_MEASURED);
	row_add("seq-cold", 1, BENCH_FILEMAP, (double[]){1, 1}, 2);
	CHECK_EQ(judge(SPEED(BENCH_BIT(FILEMAP), BENCH_KERNEL, 0)).verdict, VERDICT_NOT_MEASURED);
	row_add("seq-cold", 1, BENCH_KERNEL, (double[]){1}, 1); /* the row lacks a round */
	CHECK_EQ(judge(SPEED(BENCH_BIT(FILEMAP), BENCH_KERNEL, 0)).verdict, VERDICT_NOT_MEASURED);
	rows[1].rounds = 2;
	rows[1].ns_per_op[1] = 1;
	CHECK_EQ(judge(SPEED(BENCH_BIT(FILEMAP), BENCH_KERNEL, 0)).verdict, VERDICT_MET);
	rows[1].left_out = true;
	CHECK_EQ(judge(SPEED(BENCH_BIT(FILEMAP), BENCH_KERNEL, 0)).verdict, VERDICT_NOT_MEASURED);
	rows[1].left_out = false;
	rows[1].threads = 4;
	CHECK_EQ(judge(SPEED(BENCH_BIT(FILEMAP), BENCH_KERNEL, 0)).verdict, VERDICT_NOT_MEASURED);
}

static void test_figures(void)
{
	struct bench_row *ours, *theirs;
	struct bench_target target = {"map-scale",
				      1,
				      BENCH_BIT(FILEMAP),
				      FIGURE_DEVICE_ASKED,
				      BENCH_WAY_COUNT,
				      NULL,
				      AT_MOST,
				      1.5,
				      0};

	row_count = 0;
	ours = row_add("map-scale", 1, BENCH_FILEMAP, (double[]){130}, 1);
	ours->device_bytes[0] = 3 * ours->bytes[0];
	ours->cached_bytes[0] = 2 * ours->bytes[0];
	ours->budget_bytes[0] = 1000;
	ours->metadata_bytes[0] = 16;
	ours->cpu_s[0] = 3;
	check_near(judge(target).figure, 3);
	target.figure = FIGURE_READ_ONCE;
	check_near(judge(target).figure, 1.5);
	target.figure = FIGURE_METADATA;
	check_near(judge(target).figure, 0.016);
	theirs = row_add("map-one", 1, BENCH_KERNEL, (double[]){100}, 1);
	theirs->bytes[0] *= 2;
	theirs->device_bytes[0] = 6 * BENCH_PAGE * 100;
	theirs->cpu_s[0] = 1.5;
	target.against = BENCH_KERNEL;
	target.against_workload = "map-one";
	target.figure = FIGURE_TIME;
	check_near(judge(target).figure, 1.3);
	target.figure = FIGURE_CPU;
	check_near(judge(target).figure, 4);
	target.figure = FIGURE_DEVICE;
	check_near(judge(target).figure, 0.5);
}

/* ------------------------------------------------------------------ the table */

static const struct bench_workload *find_workload(const char *name, unsigned threads)
{
	for (size_t i = 0; i < bench_workload_count; i++)
		for (unsigned t = 0; t < BENCH_THREAD_SETS; t++)
			if (!strcmp(bench_workloads[i].name, name) && bench_workloads[i].threads[t] == threads)
				return &bench_workloads[i];
	return NULL;
}

static void test_table(void)
{
	for (size_t i = 0; i < bench_target_count; i++) {
		const struct bench_target *target = &bench_targets[i];
		const struct bench_workload *workload = find_workload(target->workload, target->threads);

		CHECK(workload);
		CHECK(target->ways && !(target->ways & ~workload->ways));
		if (target->against_workload)
			workload = find_workload(target->against_workload, target->threads);
		CHECK(workload);
		CHECK(target->against == BENCH_WAY_COUNT || workload->ways & 1u << target->against);
		CHECK(target->need > 0);
		CHECK(!(target->aim > 0) || bench_reached(target, target->aim, target->need));
	}
}

int main(void)
{
	test_median_of_ratios();
	test_at_most();
	test_best_way();
	test_not_measured();
	test_figures();
	test_table();
	return 0;
}
