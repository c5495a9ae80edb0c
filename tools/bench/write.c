/* SPDX-License-Identifier: MIT */
/*
 * The workloads that write. The bytes of a page are a function of the page's number and the cell's
 * seed, so the bytes of an earlier cell differ. Written bytes become durable within the measured
 * time, in the same manner for each way: by fm_sync() or msync(MS_SYNC) of the whole range, or by
 * fdatasync(). Each thread syncs after its last page, or after each commit. Only `write-fault`
 * syncs nothing. Afterwards, all bytes are read back: from the file by O_DIRECT, past the page
 * cache, or from the library's store.
 */
#define _GNU_SOURCE
#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK_BYTES MIB
#define WORDS       (BENCH_PAGE / sizeof(uint64_t))

static uint64_t page_value(const struct bench_run *run, uint64_t offset)
{
	return (offset / BENCH_PAGE + 1) * 0x9e3779b97f4a7c15ull ^ run->cell->in.seed;
}

static void fill_page(const struct bench_run *run, volatile uint64_t *words, uint64_t offset)
{
	uint64_t value = page_value(run, offset);
	size_t count = run->workload->touch_words ? 1 : WORDS;

	for (size_t i = 0; i < count; i++)
		words[i] = value + i;
}

static int write_page(const struct bench_worker *worker, uint64_t offset)
{
	struct bench_run *run = worker->run;
	uint64_t words[WORDS];

	if (run->way != BENCH_PWRITE) {
		fill_page(run, (volatile uint64_t *)(uintptr_t)(run->map + offset), offset);
		return 0;
	}
	fill_page(run, words, offset);
	if (pwrite(run->fd, words, sizeof(words), (off_t)offset) != (ssize_t)sizeof(words))
		return bench_why(run, "pwrite: %s", strerror(errno));
	return 0;
}

/* Return the offset of page number `page` of operation `turn`. */
static uint64_t page_offset(const struct bench_worker *worker, uint64_t turn, unsigned page)
{
	unsigned pages = worker->run->workload->commit_pages;

	return bench_offset(worker, pages ? turn * pages + page : turn);
}

static unsigned pages_of(const struct bench_workload *workload)
{
	return workload->commit_pages ? workload->commit_pages : 1;
}

int bench_write(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns)
{
	struct bench_run *run = worker->run;
	const struct bench_workload *workload = run->workload;
	unsigned pages = pages_of(workload);
	int error = 0;

	for (uint64_t turn = from; !error && turn < to && !bench_over(worker, turn, deadline_ns); turn++) {
		for (unsigned page = 0; !error && page < pages; page++)
			error = write_page(worker, page_offset(worker, turn, page));
		if (!error && workload->commit_pages)
			error = run->ops->sync(run);
		worker->ops++;
	}
	if (!error && !workload->commit_pages && !workload->memory)
		error = run->ops->sync(run);
	return error;
}

/* ------------------------------------------------------------------ afterwards */

static bool page_is_right(const struct bench_run *run, const uint64_t *words, uint64_t offset)
{
	uint64_t value = page_value(run, offset);
	size_t count = run->workload->touch_words ? 1 : WORDS;

	for (size_t i = 0; i < count; i++)
		if (words[i] != value + i)
			return false;
	return true;
}

/* Read bytes as they are in the store, past the page cache if possible. */
static int read_back(struct bench_run *run, int fd, void *to, size_t len, uint64_t offset)
{
	if (run->ops->read_back)
		return run->ops->read_back(run, to, len, offset);
	if (pread(fd < 0 ? run->fd : fd, to, len, (off_t)offset) != (ssize_t)len)
		return bench_why(run, "cannot read the written bytes back: %s", strerror(errno));
	return 0;
}

/* Compare what was written with the store. `written` has a byte for each page of the range. */
static int compare(struct bench_run *run, int fd, const unsigned char *written)
{
	size_t step = run->range_bytes < CHECK_BYTES ? run->range_bytes : CHECK_BYTES;
	unsigned char *bytes;
	int error = 0;

	if (posix_memalign((void **)&bytes, BENCH_PAGE, step))
		return bench_why(run, "out of memory");
	for (uint64_t at = 0; !error && at < run->range_bytes; at += step) {
		error = read_back(run, fd, bytes, step, at);
		for (size_t i = 0; !error && i < step; i += BENCH_PAGE) {
			if (!written[(at + i) / BENCH_PAGE] ||
			    page_is_right(run, (const uint64_t *)(const void *)(bytes + i), at + i))
				continue;
			run->cell->out.wrong = true;
			error = bench_why(run, "%s: the bytes written and synced at offset %llu are not in the file",
					  run->workload->name, (unsigned long long)(at + i));
		}
	}
	free(bytes);
	return error;
}

int bench_write_check(struct bench_run *run, unsigned index, uint64_t from, uint64_t ops)
{
	struct bench_worker worker = {.run = run, .index = index};
	unsigned char *written = calloc(run->range_bytes / BENCH_PAGE, 1);
	int fd = open(run->cell->in.path, O_RDONLY | O_DIRECT | O_CLOEXEC), error = 0;

	if (!written)
		error = bench_why(run, "out of memory");
	for (uint64_t turn = from; !error && turn < from + ops; turn++)
		for (unsigned page = 0; page < pages_of(run->workload); page++)
			written[page_offset(&worker, turn, page) / BENCH_PAGE] = 1;
	if (!error && run->workload->memory && run->ops->sync) /* not measured */
		error = run->ops->sync(run);
	if (!error)
		error = compare(run, fd, written);
	if (fd >= 0)
		close(fd);
	free(written);
	return error;
}
