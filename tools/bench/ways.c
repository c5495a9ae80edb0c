/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's ways over the kernel's page cache: mmap() with each kind of advice, and pread().
 * pwrite() is in write.c.
 */
#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PREAD_BYTES (128u << 10) /* what a program reads at once in a scan */

/* ------------------------------------------------------------------ mmap */

/* Bring the range into the page cache, without a mapping. */
static int cache_range(struct bench_run *run)
{
	static char buffer[64 << 10];

	for (uint64_t at = 0; at < run->range_bytes; at += sizeof(buffer))
		if (pread(run->fd, buffer, sizeof(buffer), (off_t)at) < 0)
			return bench_why(run, "%.150s: %s", run->cell->in.path, strerror(errno));
	return 0;
}

static int advice_of(const struct bench_run *run)
{
	return run->workload->random_advice ? MADV_RANDOM : bench_ways[run->way].advice;
}

static int map_each(struct bench_run *run)
{
	const struct bench_workload *workload = run->workload;

	run->maps = calloc(run->slots, sizeof(*run->maps));
	if (!run->maps)
		return bench_why(run, "out of memory");
	for (uint64_t i = 0; i < run->slots; i++) {
		run->maps[i] = mmap(NULL, workload->unit, PROT_READ, MAP_SHARED, run->fd,
				    (off_t)(i * workload->step));
		if (run->maps[i] == MAP_FAILED || madvise((void *)run->maps[i], workload->unit, advice_of(run)))
			return bench_why(run, "mmap number %llu: %s", (unsigned long long)i + 1, strerror(errno));
	}
	return 0;
}

static int kernel_open(struct bench_run *run)
{
	void *map;

	if (run->workload->memory && cache_range(run))
		return -1;
	if (run->workload->each_mapped)
		return map_each(run);
	map = mmap(NULL, run->range_bytes, PROT_READ | (run->workload->writes ? PROT_WRITE : 0),
		   MAP_SHARED, run->fd, 0);
	if (map == MAP_FAILED || madvise(map, run->range_bytes, advice_of(run)))
		return bench_why(run, "mmap: %s", strerror(errno));
	run->map = map;
	return 0;
}

/* Touch pages that are not neighbours. Each page is advised BENCH_DEPTH operations ahead. */
static int willneed_each(struct bench_worker *worker, uint64_t from, uint64_t to,
			 uint64_t deadline_ns)
{
	const struct bench_run *run = worker->run;
	uint64_t advised = from;

	for (uint64_t turn = from; turn < to && !bench_over(worker, turn, deadline_ns); turn++) {
		for (; advised < to && advised < turn + BENCH_DEPTH; advised++)
			madvise((void *)(run->map + bench_offset(worker, advised)), run->workload->unit,
				MADV_WILLNEED);
		bench_done(worker, bench_sum_lines(run->map + bench_offset(worker, turn),
						   run->workload->unit));
	}
	return 0;
}

static int kernel_work(struct bench_worker *worker, uint64_t from, uint64_t to,
		       uint64_t deadline_ns)
{
	const struct bench_run *run = worker->run;

	if (run->way == BENCH_KERNEL_WILLNEED) {
		if (run->workload->step || run->workload->pattern == PATTERN_RANDOM)
			return willneed_each(worker, from, to, deadline_ns);
		madvise((void *)run->map, run->range_bytes, MADV_WILLNEED);
	}
	return bench_touch(worker, from, to, deadline_ns);
}

static int kernel_sync(struct bench_run *run)
{
	if (msync((void *)(uintptr_t)run->map, run->range_bytes, MS_SYNC))
		return bench_why(run, "msync: %s", strerror(errno));
	return 0;
}

const struct bench_way_ops bench_kernel_ops = {
	.open = kernel_open,
	.work = kernel_work,
	.sync = kernel_sync,
};

/* ------------------------------------------------------------------ pread */

static int pread_open(struct bench_run *run)
{
	run->private = NULL;
	if (run->workload->hot && cache_range(run))
		return -1;
	if (posix_memalign(&run->private, BENCH_PAGE, (size_t)run->threads * PREAD_BYTES))
		return bench_why(run, "out of memory");
	memset(run->private, 0, (size_t)run->threads * PREAD_BYTES);
	return 0;
}

/* A forward scan reads PREAD_BYTES at once. Every other pattern reads one unit at a time. */
static int pread_work(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns)
{
	struct bench_run *run = worker->run;
	const struct bench_workload *workload = run->workload;
	unsigned char *buffer = (unsigned char *)run->private + (size_t)worker->index * PREAD_BYTES;
	bool scan = workload->pattern == PATTERN_FORWARD && !workload->step;
	size_t want = scan ? PREAD_BYTES : workload->unit;
	uint64_t have = UINT64_MAX; /* where the buffer's bytes begin */

	for (uint64_t turn = from; turn < to && !bench_over(worker, turn, deadline_ns); turn++) {
		uint64_t offset = bench_offset(worker, turn);

		if (have == UINT64_MAX || offset < have || offset + workload->unit > have + want) {
			ssize_t got = pread(run->fd, buffer, want, (off_t)offset);

			if (got < (ssize_t)workload->unit)
				return bench_why(run, "pread at offset %llu: %s", (unsigned long long)offset,
						 got < 0 ? strerror(errno) : "the read returned too few bytes");
			have = offset;
		}
		bench_done(worker, bench_sum_lines(buffer + (offset - have), workload->unit));
		if (!scan)
			have = UINT64_MAX;
	}
	return 0;
}

static int pread_sync(struct bench_run *run)
{
	if (fdatasync(run->fd))
		return bench_why(run, "fdatasync: %s", strerror(errno));
	return 0;
}

const struct bench_way_ops bench_pread_ops = {
	.open = pread_open,
	.work = pread_work,
	.sync = pread_sync,
};
