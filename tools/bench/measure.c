/* SPDX-License-Identifier: MIT */
/* What a cell measures with: the clock, touches, and what the process has used. */
#include "bench/bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

int bench_why(struct bench_run *run, const char *format, ...)
{
	va_list args;

	if (!run->cell->out.why[0]) {
		va_start(args, format);
		vsnprintf(run->cell->out.why, BENCH_WHY, format, args);
		va_end(args);
	}
	return -1;
}

/* ------------------------------------------------------------------ touching */

uint64_t bench_sum_lines(const unsigned char *at, size_t len)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < len; i += BENCH_LINE)
		sum += *(const volatile uint64_t *)(at + i);
	return sum;
}

uint64_t bench_sum_pages(const unsigned char *at, size_t len)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < len; i += BENCH_PAGE)
		sum += *(const volatile uint64_t *)(at + i);
	return sum;
}

/* Touch random words. The loop has no call and no look at the clock. */
static int touch_words(struct bench_worker *worker, uint64_t from, uint64_t to)
{
	const struct bench_run *run = worker->run;
	uint64_t lines = run->range_bytes / BENCH_LINE, state = from + worker->index + 1, sum = 0;

	for (uint64_t turn = from; turn < to; turn++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		sum += *(const volatile uint64_t *)(run->map + (((state >> 32) * lines) >> 32) * BENCH_LINE);
	}
	worker->ops = to - from;
	worker->sum = sum;
	return 0;
}

int bench_touch(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns)
{
	const struct bench_run *run = worker->run;
	const struct bench_workload *workload = run->workload;

	if (workload->pattern == PATTERN_WORDS)
		return touch_words(worker, from, to);
	for (uint64_t turn = from; turn < to && !bench_over(worker, turn, deadline_ns); turn++) {
		uint64_t offset = bench_offset(worker, turn);
		const unsigned char *at = run->maps ? run->maps[offset / workload->step] : run->map + offset;

		bench_done(worker, workload->touch_words ? bench_sum_pages(at, workload->unit)
							 : bench_sum_lines(at, workload->unit));
	}
	return 0;
}

/* ------------------------------------------------------------------ counting */

uint64_t bench_device_bytes(struct bench_run *run, const char *key)
{
	FILE *io = fopen("/proc/self/io", "re");
	unsigned long long bytes = 0;
	size_t len = strlen(key);
	char line[100];
	bool found = false;

	while (io && !found && fgets(line, sizeof(line), io))
		found = !strncmp(line, key, len) && sscanf(line + len, ": %llu", &bytes) == 1;
	if (io)
		fclose(io);
	if (!found)
		bench_why(run, "/proc/self/io has no line %s: the kernel is built without "
			  "CONFIG_TASK_IO_ACCOUNTING", key);
	return bytes;
}

uint64_t bench_rss_bytes(void)
{
	unsigned long long pages = 0;
	FILE *statm = fopen("/proc/self/statm", "re");

	if (!statm || fscanf(statm, "%*s %llu", &pages) != 1)
		pages = 0;
	if (statm)
		fclose(statm);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* This clock is exact. getrusage() may count by ticks. */
uint64_t bench_cpu_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * 1000000000ull + (uint64_t)used.tv_nsec;
}
