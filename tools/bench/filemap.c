/* SPDX-License-Identifier: MIT */
/* The benchmark's ways over the library: the cell's address space, file and mappings. */
#include "bench/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct library {
	fm_mm *mm;
	fm_file *file;
	uint32_t page_size;
	uint64_t rss_before;   /* before the address space was made */
	struct fm_stats before;
	char said[BENCH_WHY]; /* the last error that the library logged */
};

static struct library library;

static void on_log(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	if (level == FM_LOG_ERROR)
		snprintf(library.said, sizeof(library.said), "%s", line);
}

static int fail(struct bench_run *run, const char *what, int error)
{
	if (library.said[0])
		return bench_why(run, "%s", library.said);
	return bench_why(run, "%s: %s", what, strerror(-error));
}

/* ------------------------------------------------------------------ open */

static void stats_now(struct fm_stats *stats)
{
	stats->size = sizeof(*stats);
	fm_stats(library.mm, stats);
}

/* Bring the range into the cache, not into a mapping: read through a mapping, then remove the
 * mapping. */
static int cache_range(struct bench_run *run)
{
	void *map;
	int error = fm_map(library.file, 0, run->range_bytes, NULL, &map);

	if (!error)
		error = fm_fault_in(library.mm, map, run->range_bytes, 0);
	if (!error)
		error = fm_unmap(library.mm, map, run->range_bytes);
	return error ? fail(run, "cannot fill the cache", error) : 0;
}

static int advise(struct bench_run *run, void *map, uint64_t len)
{
	int error = run->workload->random_advice ? fm_advise(library.mm, map, len, FM_ADVICE_RANDOM) : 0;

	return error ? fail(run, "fm_advise", error) : 0;
}

static int map_each(struct bench_run *run)
{
	const struct bench_workload *workload = run->workload;

	run->maps = calloc(run->slots, sizeof(*run->maps));
	if (!run->maps)
		return bench_why(run, "out of memory");
	for (uint64_t i = 0; i < run->slots; i++) {
		void *addr;
		int error = fm_map(library.file, i * workload->step, workload->unit, NULL, &addr);

		if (error)
			return fail(run, "fm_map", error);
		if (advise(run, addr, workload->unit))
			return -1;
		run->maps[i] = addr;
	}
	return 0;
}

/* Map the range. With each_mapped, each unit gets a mapping of its own, and the mapping of the
 * whole range is removed again. */
static int map_all(struct bench_run *run)
{
	struct fm_map_options options = {.size = sizeof(options)};
	void *map;
	int error;

	if (run->workload->memory && !run->workload->sparse && !run->workload->hot && cache_range(run))
		return -1;
	options.flags = run->workload->writes ? FM_MAP_WRITE : 0;
	error = fm_map(library.file, 0, run->range_bytes, &options, &map);
	if (error)
		return fail(run, "fm_map", error);
	run->map = map;
	if (!run->workload->each_mapped)
		return advise(run, map, run->range_bytes);
	if (map_each(run))
		return -1;
	error = fm_unmap(library.mm, map, run->range_bytes);
	return error ? fail(run, "fm_unmap", error) : 0;
}

static int filemap_open(struct bench_run *run)
{
	const struct bench_workload *workload = run->workload;
	const struct bench_way_info *way = &bench_ways[run->way];
	struct fm_mm_options mm_options = {
		.size = sizeof(mm_options),
		.budget_bytes = run->cell->in.budget_bytes,
		.trap = way->trap,
		.log = on_log,
	};
	struct fm_file_options file_options = {.size = sizeof(file_options)};
	char uri[PATH_MAX + 8];
	int error;

	library.page_size = workload->memory && !workload->sparse ? workload->unit : way->page_size;
	library.rss_before = bench_rss_bytes();
	file_options.page_size = library.page_size;
	file_options.flags = workload->writes ? FM_FILE_WRITE : 0;
	if (workload->memory)
		snprintf(uri, sizeof(uri), "memory:%llu", (unsigned long long)run->range_bytes);
	else
		snprintf(uri, sizeof(uri), "%s%s", run->cell->in.path[0] == '/' ? "" : "./", run->cell->in.path);
	error = fm_mm_create(&mm_options, &library.mm);
	if (error)
		return fail(run, "cannot create an address space", error);
	error = fm_file_open(library.mm, uri, &file_options, &library.file);
	if (error)
		return fail(run, uri, error);
	return map_all(run);
}

/* ------------------------------------------------------------------ counters */

static void filemap_begin(struct bench_run *run)
{
	(void)run;
	stats_now(&library.before);
}

/* Count the bytes of cached pages, and the memory beside frames that the process has used since the
 * address space was made. The charged bytes are frames, used or not, and page tables. Page tables
 * are not part of the resident size. */
static void count_memory(struct bench_cell *cell)
{
	const struct fm_stats *stats = &cell->out.stats;
	uint64_t frames = stats->charged_bytes - stats->pt_ranges * BENCH_PAGE;
	uint64_t grown = bench_rss_bytes() - library.rss_before;

	cell->out.cached_bytes = stats->frames_used * (library.page_size ? library.page_size : BENCH_PAGE);
	cell->out.metadata_bytes = grown > frames ? grown - frames : 0;
}

static void filemap_end(struct bench_run *run)
{
	struct fm_stats *stats = &run->cell->out.stats;

	stats_now(stats);
	count_memory(run->cell);
#define BENCH_X(name, help) stats->name -= library.before.name;
	FM_COUNTERS(BENCH_X)
#undef BENCH_X
}

/* ------------------------------------------------------------------ many in flight */

#define TAKE_MOST 8 /* while these pages are handled, the pages requested before are under way */

/* Keep up to BENCH_DEPTH pages under way. When some pages arrive, one call requests as many
 * more. */
static int nowait_work(struct bench_worker *worker, uint64_t from, uint64_t to,
		       uint64_t deadline_ns)
{
	struct bench_run *run = worker->run;
	struct fm_range range[BENCH_DEPTH];
	size_t free = BENCH_DEPTH, flying = 0, count;
	fm_queue *queue;
	int error = fm_queue_create(library.mm, BENCH_DEPTH, &queue);

	for (uint64_t turn = from; !error && (turn < to || flying);) {
		for (count = 0; count < free && turn < to; count++, turn++)
			range[count] = (struct fm_range){.addr = (void *)(run->map + bench_offset(worker, turn)),
							 .len = run->workload->unit};
		if (count)
			error = fm_fault_in_batch(queue, range, count, &count);
		flying += count;
		free = 0;
		if (!error)
			error = fm_completions(queue, range, TAKE_MOST, UINT64_MAX, &free);
		for (size_t i = 0; !error && i < free; i++) {
			error = range[i].error;
			bench_done(worker, bench_sum_lines(range[i].addr, range[i].len));
		}
		flying -= free;
		if (deadline_ns && bench_now_ns() >= deadline_ns)
			to = turn;
	}
	if (error)
		return fail(run, "fm_fault_in_batch", error);
	fm_queue_destroy(queue);
	return 0;
}

static int filemap_work(struct bench_worker *worker, uint64_t from, uint64_t to,
			uint64_t deadline_ns)
{
	return (worker->run->workload->nowait ? nowait_work : bench_touch)(worker, from, to, deadline_ns);
}

/* ------------------------------------------------------------------ writing */

static int filemap_sync(struct bench_run *run)
{
	int error = fm_sync(library.mm, (void *)(uintptr_t)run->map, run->range_bytes, 0);

	return error ? fail(run, "fm_sync", error) : 0;
}

static int filemap_read_back(struct bench_run *run, void *to, size_t len, uint64_t offset)
{
	size_t got = 0;
	int error = fm_file_read(library.file, to, len, offset, &got);

	if (!error && got != len)
		error = -EIO;
	return error ? fail(run, "cannot read the written bytes back", error) : 0;
}

const struct bench_way_ops bench_filemap_ops = {
	.open = filemap_open,
	.begin = filemap_begin,
	.end = filemap_end,
	.work = filemap_work,
	.sync = filemap_sync,
	.read_back = filemap_read_back,
};
