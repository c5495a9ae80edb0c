/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's tables of ways and workloads, and the offset of each operation of a pattern. All
 * data is constant, or filled before the threads start.
 */
#include "bench/bench.h"

#include <math.h>
#include <stdlib.h>

#define LIBRARY    BENCH_LIBRARY
#define KERNEL     (BENCH_BIT(KERNEL) | BENCH_BIT(KERNEL_128K))
#define SEQUENTIAL                                                                                 \
	(LIBRARY | KERNEL | BENCH_BIT(KERNEL_SEQUENTIAL) | BENCH_BIT(PREAD) | BENCH_BIT(LIMIT))
#define RANDOM     (LIBRARY | KERNEL | BENCH_BIT(KERNEL_RANDOM) | BENCH_BIT(PREAD))
/* Ways whose page size is the workload's unit. */
#define FAULT                                                                                      \
	(BENCH_BIT(FILEMAP) | BENCH_BIT(FILEMAP_THREAD) | BENCH_BIT(KERNEL) | BENCH_BIT(BARE) |    \
	 BENCH_BIT(BARE_COPY))

#define WRITE                                                                                      \
	(BENCH_BIT(FILEMAP) | BENCH_BIT(FILEMAP_THREAD) | BENCH_BIT(KERNEL) | BENCH_BIT(PWRITE))

const struct bench_way_info bench_ways[BENCH_WAY_COUNT] = {
#define BENCH_X(id, name_, color_, what_, ...)                                                     \
	[BENCH_##id] = {.name = name_, .color = color_, .what = what_, .family = FAMILY, __VA_ARGS__},
#define FAMILY FAMILY_FILEMAP
	BENCH_WAYS_FILEMAP(BENCH_X)
#undef FAMILY
#define FAMILY FAMILY_KERNEL
	BENCH_WAYS_KERNEL(BENCH_X)
#undef FAMILY
#define FAMILY FAMILY_PREAD
	BENCH_WAYS_PREAD(BENCH_X)
#undef FAMILY
#define FAMILY FAMILY_LIMIT
	BENCH_WAYS_LIMIT(BENCH_X)
#undef FAMILY
#define FAMILY FAMILY_BARE
	BENCH_WAYS_BARE(BENCH_X)
#undef FAMILY
#undef BENCH_X
};

const struct bench_workload bench_workloads[] = {
	{
		.name = "seq-cold",
		.what = "scan of an uncached file that fits into memory",
		.pattern = PATTERN_FORWARD,
		.unit = BENCH_PAGE,
		.threads = {1},
		.ways = SEQUENTIAL | BENCH_BIT(KERNEL_WILLNEED),
		.full = {.range_bytes = 512 * MIB, .limit_ms = 1500},
		.quick = {.range_bytes = 128 * MIB, .limit_ms = 250},
	},
	{
		.name = "seq-cold-over-budget",
		.what = "scan with memory for an eighth of the file",
		.pattern = PATTERN_FORWARD,
		.unit = BENCH_PAGE,
		.budget_part = 8,
		.threads = {1},
		.ways = SEQUENTIAL,
		.full = {.range_bytes = 512 * MIB, .limit_ms = 1500},
		.quick = {.range_bytes = 256 * MIB, .limit_ms = 250},
	},
	{
		.name = "rand-cold",
		.what = "random reads of 4 KiB, nothing cached, no page twice",
		.pattern = PATTERN_RANDOM,
		.unit = BENCH_PAGE,
		.threads = {1, 4, 16},
		.ways = RANDOM | BENCH_BIT(LIMIT),
		.full = {.range_bytes = UINT64_MAX, .ops = 8192, .limit_ms = 700},
		.quick = {.range_bytes = UINT64_MAX, .ops = 2048, .limit_ms = 150},
	},
	{
		.name = "rand-nowait",
		.what = "random reads of 4 KiB, one thread with 32 reads in flight",
		.pattern = PATTERN_RANDOM,
		.unit = BENCH_PAGE,
		.threads = {1},
		.ways = LIBRARY | KERNEL | BENCH_BIT(KERNEL_RANDOM) | BENCH_BIT(KERNEL_WILLNEED) |
			BENCH_BIT(LIMIT),
		.nowait = true,
		.full = {.range_bytes = UINT64_MAX, .ops = 16384, .limit_ms = 700},
		.quick = {.range_bytes = UINT64_MAX, .ops = 4096, .limit_ms = 150},
	},
	{
		.name = "zipf-over-budget",
		.what = "reads of 4 KiB by Zipf's law (0.99), memory for an eighth of the pages",
		.pattern = PATTERN_ZIPF,
		.unit = BENCH_PAGE,
		.budget_part = 8,
		.threads = {1},
		.ways = RANDOM,
		.full = {.range_bytes = 512 * MIB,
			 .ops = 32768,
			 .warm_ops = 32768,
			 .limit_ms = 1000},
		.quick =
			{.range_bytes = 256 * MIB, .ops = 8192, .warm_ops = 12288, .limit_ms = 200},
	},
	{
		.name = "backward",
		.what = "scan from the end to the beginning",
		.pattern = PATTERN_BACKWARD,
		.unit = BENCH_PAGE,
		.threads = {1},
		.ways = SEQUENTIAL & ~BENCH_BIT(KERNEL_SEQUENTIAL),
		.full = {.range_bytes = 256 * MIB, .limit_ms = 1000},
		.quick = {.range_bytes = 64 * MIB, .limit_ms = 250},
	},
	{
		.name = "strided",
		.what = "4 KiB of every 256 KiB, forward",
		.pattern = PATTERN_FORWARD,
		.unit = BENCH_PAGE,
		.step = 256u << 10,
		.threads = {1},
		.ways = RANDOM | BENCH_BIT(KERNEL_WILLNEED) | BENCH_BIT(LIMIT),
		.full = {.range_bytes = GIB, .limit_ms = 1000},
		.quick = {.range_bytes = 256 * MIB, .limit_ms = 250},
	},
	{
		.name = "multi-stream",
		.what = "8 scans at once, one page of each in turn",
		.pattern = PATTERN_STREAMS,
		.unit = BENCH_PAGE,
		.threads = {1},
		.ways = SEQUENTIAL | BENCH_BIT(KERNEL_WILLNEED),
		.full = {.range_bytes = 256 * MIB, .limit_ms = 1000},
		.quick = {.range_bytes = 64 * MIB, .limit_ms = 250},
	},
	{
		.name = "loop-over-budget",
		.what = "the same scan repeated, over 1.2 times the memory",
		.pattern = PATTERN_FORWARD,
		.unit = BENCH_PAGE,
		.passes = 4,
		.threads = {1},
		.ways = SEQUENTIAL & ~BENCH_BIT(LIMIT),
		.full = {.range_bytes = 120 * MIB, .limit_ms = 1500},
		.quick = {.range_bytes = 60 * MIB, .limit_ms = 300},
	},
	{
		.name = "hot",
		.what = "random words, all pages mapped and resident",
		.pattern = PATTERN_WORDS,
		.unit = 8,
		.threads = {1},
		.ways = LIBRARY | BENCH_BIT(KERNEL),
		.hot = true,
		.full = {.range_bytes = 256 * MIB, .ops = 8 << 20},
		.quick = {.range_bytes = 128 * MIB, .ops = 2 << 20},
	},
	{
		.name = "fault-cost-4k",
		.what = "each page of 4 KiB is touched once; the store is in memory",
		.pattern = PATTERN_FORWARD,
		.unit = BENCH_PAGE,
		.threads = {1},
		.ways = FAULT,
		.memory = true,
		.touch_words = true,
		.full = {.range_bytes = 64 * MIB},
		.quick = {.range_bytes = 16 * MIB},
	},
	{
		.name = "fault-cost-64k",
		.what = "each page of 64 KiB is touched once; the store is in memory",
		.pattern = PATTERN_FORWARD,
		.unit = 64u << 10,
		.threads = {1},
		.ways = FAULT,
		.memory = true,
		.touch_words = true,
		.full = {.range_bytes = 128 * MIB},
		.quick = {.range_bytes = 32 * MIB},
	},
	{
		.name = "fault-cost-2m",
		.what = "each page of 2 MiB is touched once; the store is in memory",
		.pattern = PATTERN_FORWARD,
		.unit = BENCH_HUGE,
		.threads = {1},
		.ways = FAULT,
		.memory = true,
		.touch_words = true,
		.full = {.range_bytes = 256 * MIB},
		.quick = {.range_bytes = 128 * MIB},
	},
	{
		.name = "contended",
		.what = "16 threads touch the same cold pages, in the same order",
		.pattern = PATTERN_RANDOM,
		.unit = BENCH_PAGE,
		.threads = {16},
		.ways = RANDOM,
		.same_pages = true,
		.whole = true,
		.full = {.range_bytes = 32 * MIB},
		.quick = {.range_bytes = 16 * MIB},
	},
	{
		.name = "map-one",
		.what = "10,000 pages of one mapping are touched, with random advice; store in memory",
		.pattern = PATTERN_RANDOM,
		.unit = BENCH_PAGE,
		.step = 2 * BENCH_PAGE,
		.threads = {1},
		.ways = BENCH_BIT(FILEMAP) | BENCH_BIT(FILEMAP_THREAD) | BENCH_BIT(KERNEL),
		.memory = true,
		.touch_words = true,
		/* Without the advice, a fault would bring in neighbours, which the mappings of
		 * map-scale lack. */
		.random_advice = true,
		.full = {.range_bytes = 2ull * BENCH_PAGE * BENCH_MAPPINGS},
		.quick = {.range_bytes = 2ull * BENCH_PAGE * BENCH_MAPPINGS},
	},
	{
		.name = "map-scale",
		.what = "10,000 pages are touched, each in a mapping of its own, with random advice",
		.pattern = PATTERN_RANDOM,
		.unit = BENCH_PAGE,
		.step = 2 * BENCH_PAGE,
		.threads = {1},
		.ways = BENCH_BIT(FILEMAP) | BENCH_BIT(FILEMAP_THREAD) | BENCH_BIT(KERNEL),
		.memory = true,
		.touch_words = true,
		.each_mapped = true,
		.random_advice = true,
		.with_previous = true,
		.full = {.range_bytes = 2ull * BENCH_PAGE * BENCH_MAPPINGS},
		.quick = {.range_bytes = 2ull * BENCH_PAGE * BENCH_MAPPINGS},
	},
	{
		.name = "metadata",
		.what = "4096 pages, far apart in 1 TiB: the memory used besides the pages",
		.pattern = PATTERN_RANDOM,
		.unit = BENCH_PAGE,
		.step = 256u << 20,
		.threads = {1},
		.ways = BENCH_BIT(FILEMAP),
		.memory = true,
		.touch_words = true,
		.sparse = true,
		.full = {.range_bytes = 1ull << 40},
		.quick = {.range_bytes = 1ull << 40},
	},
	{
		.name = "rand-write",
		.what = "random writes of 4 KiB, memory for an eighth of the pages, one sync at the end",
		.pattern = PATTERN_RANDOM,
		.unit = BENCH_PAGE,
		.budget_part = 8,
		.threads = {1},
		.ways = WRITE | BENCH_BIT(KERNEL_RANDOM),
		.writes = true,
		.whole = true,
		.full = {.range_bytes = 512 * MIB, .ops = 32768, .limit_ms = 4000},
		.quick = {.range_bytes = 128 * MIB, .ops = 16384, .limit_ms = 450},
	},
	{
		.name = "seq-write",
		.what = "sequential write, memory for an eighth of the file, one sync at the end",
		.pattern = PATTERN_FORWARD,
		.unit = BENCH_PAGE,
		.budget_part = 8,
		.threads = {1},
		.ways = WRITE,
		.writes = true,
		.full = {.range_bytes = 512 * MIB, .limit_ms = 4000},
		.quick = {.range_bytes = 128 * MIB, .limit_ms = 450},
	},
	{
		.name = "write-sync",
		.what = "a commit: 16 random resident pages are written and synced",
		.pattern = PATTERN_RANDOM,
		.unit = 16 * BENCH_PAGE,
		.step = BENCH_PAGE,
		.commit_pages = 16,
		.threads = {1},
		.ways = WRITE,
		.writes = true,
		.whole = true,
		.hot = true,
		.full = {.range_bytes = 64 * MIB, .ops = 512, .limit_ms = 2500},
		.quick = {.range_bytes = 32 * MIB, .ops = 128, .limit_ms = 400},
	},
	{
		.name = "write-fault",
		.what = "the first write to each clean, mapped page; no sync",
		.pattern = PATTERN_FORWARD,
		.unit = BENCH_PAGE,
		.threads = {1},
		.ways = BENCH_BIT(FILEMAP) | BENCH_BIT(FILEMAP_THREAD) | BENCH_BIT(KERNEL) |
			BENCH_BIT(BARE_PROTECT),
		.memory = true,
		.touch_words = true,
		.writes = true,
		.hot = true,
		.full = {.range_bytes = 32 * MIB},
		.quick = {.range_bytes = 16 * MIB},
	},
};
const size_t bench_workload_count = sizeof(bench_workloads) / sizeof(bench_workloads[0]);

/* ------------------------------------------------------------------ patterns */

uint64_t bench_share(const struct bench_run *run, uint64_t ops)
{
	return ops / run->threads;
}

uint64_t bench_offset(const struct bench_worker *worker, uint64_t turn)
{
	const struct bench_run *run = worker->run;
	const struct bench_workload *workload = run->workload;
	uint64_t unit = workload->step ? workload->step : workload->unit;
	uint64_t global = workload->same_pages ? turn : turn * run->threads + worker->index;

	switch (workload->pattern) {
	case PATTERN_FORWARD:
		return global % run->slots * unit;
	case PATTERN_BACKWARD:
		return (run->slots - 1 - global % run->slots) * unit;
	case PATTERN_STREAMS:
		return (global % BENCH_STREAMS * (run->slots / BENCH_STREAMS) + global / BENCH_STREAMS) *
		       unit;
	case PATTERN_RANDOM:
		return order_unit(&run->order, global % run->slots) * unit;
	case PATTERN_ZIPF:
		return run->zipf[global] * (uint64_t)unit;
	case PATTERN_WORDS:
		break;
	}
	return 0;
}

/* Make a cumulative table, and search the table for each draw. */
uint32_t *bench_zipf_make(uint64_t pages, uint64_t count)
{
	double *below = malloc(pages * sizeof(*below)), sum = 0;
	uint32_t *list = malloc(count * sizeof(*list));
	uint64_t state = 1;
	struct order order;

	if (!below || !list) {
		free(below);
		free(list);
		return NULL;
	}
	order_make(&order, ORDER_RANDOM, pages);
	for (uint64_t i = 0; i < pages; i++)
		below[i] = sum += pow((double)(i + 1), -BENCH_ZIPF_S);
	for (uint64_t n = 0; n < count; n++) {
		uint64_t low = 0, high = pages - 1;
		double at;

		state = state * 6364136223846793005ull + 1442695040888963407ull;
		at = (double)(state >> 11) * 0x1p-53 * sum;
		while (low < high) {
			uint64_t middle = (low + high) / 2;

			if (below[middle] < at)
				low = middle + 1;
			else
				high = middle;
		}
		list[n] = (uint32_t)order_unit(&order, low);
	}
	free(below);
	return list;
}
