/* SPDX-License-Identifier: MIT */
/*
 * The subject that maps with filemap: one fm_mm with the slow file, a second handle of the slow
 * file for the probe map-unmap, and a fast file. All probes share the map lock of the fm_mm.
 * The budget is smaller than the fast file, so that each touch of the fast file is a fault.
 */
#define _GNU_SOURCE
#include "command/clock.h"
#include "demo/plan.h"
#include "demo/probe.h"
#include "demo/remote.h"
#include "demo/write.h"
#include "filemap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUDGET_BYTES    (16u << 20)
#define FAST_BYTES      (64u << 20)
#define FAST_URI        "memory:64M"
#define FILE_PART_BYTES (8u << 20) /* the probe map-unmap stays in this part of the slow file */

struct filemap_subject {
	const struct round_spec *spec;
	struct load_plan plan;
	struct write_plan writes;
	uint64_t slow_bytes; /* the size of the slow file */
	size_t slow_len;     /* the length that is mapped for the whole round */
	fm_mm *mm;
	fm_file *slow, *again, *fast;
	unsigned char *slow_addr;
	const volatile unsigned char *fast_addr;
	size_t fast_at, map_at;
	int journal_fd;
};

/* ------------------------------------------------------------------ probes */

static void filemap_probe_map(void *arg, struct round *round, struct recorder *rec)
{
	struct filemap_subject *subject = arg;
	uint64_t begin = tool_now_ns();
	void *addr;
	int error = fm_map(subject->again, subject->map_at, DEMO_PAGE, NULL, &addr);

	if (!error)
		error = fm_unmap(subject->mm, addr, DEMO_PAGE);
	if (error)
		round_fail(round, "probe map-unmap: %s", strerror(-error));
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
	subject->map_at = (subject->map_at + DEMO_PAGE) %
			  (subject->slow_bytes < FILE_PART_BYTES ? subject->slow_bytes
								 : FILE_PART_BYTES);
}

static void filemap_probe_advise(void *arg, struct round *round, struct recorder *rec)
{
	struct filemap_subject *subject = arg;
	uint64_t begin = tool_now_ns();
	int error = fm_advise(subject->mm, subject->slow_addr, subject->slow_len,
			      FM_ADVICE_NORMAL);

	if (error)
		round_fail(round, "probe advise: %s", strerror(-error));
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
}

static void filemap_probe_stats(void *arg, struct round *round, struct recorder *rec)
{
	struct filemap_subject *subject = arg;
	struct fm_stats stats = {.size = sizeof(stats)};
	uint64_t begin = tool_now_ns();
	int error = fm_stats(subject->mm, &stats);

	if (error)
		round_fail(round, "probe stats: %s", strerror(-error));
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
}

static void filemap_probe_fault(void *arg, struct round *round, struct recorder *rec)
{
	struct filemap_subject *subject = arg;
	uint64_t begin = tool_now_ns();

	(void)subject->fast_addr[subject->fast_at];
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
	subject->fast_at = (subject->fast_at + DEMO_PAGE) % FAST_BYTES;
}

/* filemap has no mprotect(): permissions come and go with mappings. The probe maps and unmaps a
 * page that others write to. */
static void filemap_probe_protect(void *arg, struct round *round, struct recorder *rec)
{
	struct filemap_subject *subject = arg;
	const struct fm_map_options options = {.size = sizeof(options), .flags = FM_MAP_WRITE};
	uint64_t begin = tool_now_ns();
	void *addr;
	int error = fm_map(subject->slow, 0, DEMO_PAGE, &options, &addr);

	if (!error)
		error = fm_unmap(subject->mm, addr, DEMO_PAGE);
	if (error)
		round_fail(round, "probe protect: %s", strerror(-error));
	recorder_add(rec, round->start_ns, begin, tool_now_ns());
	tool_sleep_ms(1);
}

/* ------------------------------------------------------------------ the load */

struct touch {
	const unsigned char *page, *truth;
	volatile bool equal;
};

static void touch_body(void *arg)
{
	struct touch *touch = arg;

	touch->equal = !memcmp(touch->page, touch->truth, DEMO_PAGE);
}

/* Call the kernel's mmap(), which waits for the journal with the kernel's lock held. */
static void load_map_journal(struct filemap_subject *subject, struct round *round)
{
	while (!round_over(round) && tool_now_ns() - round->start_ns < subject->spec->min_ns) {
		uint64_t begin = tool_now_ns();
		void *addr = mmap(NULL, DEMO_PAGE, PROT_READ, MAP_SHARED, subject->journal_fd, 0);

		if (addr != MAP_FAILED)
			munmap(addr, DEMO_PAGE);
		recorder_add(&round->rec[PROBE_MAPPER], round->start_ns, begin, tool_now_ns());
		tool_sleep_ms(5);
	}
}

struct write_touch {
	struct write_plan *plan;
	unsigned index, page;
	unsigned char *at;
};

static void write_body(void *arg)
{
	struct write_touch *touch = arg;

	write_plan_write(touch->plan, touch->index, touch->page, touch->at);
}

/* The last thread syncs the whole mapping again and again. Each other thread writes to its own
 * pages. */
static void load_write(struct filemap_subject *subject, struct round *round, unsigned index)
{
	const struct round_spec *spec = subject->spec;
	struct write_plan *plan = &subject->writes;
	uint64_t until = round->start_ns + spec->min_ns;

	for (unsigned i = 0; !round_over(round) && tool_now_ns() < until; i++) {
		struct write_touch touch = {.plan = plan, .index = index, .page = write_plan_page(plan, i)};
		uint64_t begin = tool_now_ns();
		int error;

		if (index == plan->writers) {
			error = fm_sync(subject->mm, subject->slow_addr, subject->slow_len, 0);
			if (error)
				round_fail(round, "fm_sync: %s", strerror(-error));
		} else {
			touch.at = subject->slow_addr + write_plan_offset(plan, index, touch.page);
			error = fm_guard(write_body, &touch, NULL);
			round_count_access(round, index, begin, error);
		}
		if (spec->pause_ms)
			tool_sleep_ms(spec->pause_ms);
	}
}

static void load_unmap(struct filemap_subject *subject, struct round *round, unsigned index)
{
	const struct fm_map_options options = {.size = sizeof(options), .flags = FM_MAP_WRITE};
	const struct round_spec *spec = subject->spec;
	struct write_plan *plan = &subject->writes;
	uint64_t until = round->start_ns + spec->min_ns;
	size_t len = plan->pages * DEMO_PAGE;

	while (!round_over(round) && tool_now_ns() < until) {
		struct write_touch touch = {.plan = plan, .index = index};
		uint64_t begin = tool_now_ns();
		void *at;
		int error = fm_map(subject->slow, write_plan_offset(plan, index, 0), len, &options,
				   &at);

		for (touch.page = 0; !error && touch.page < plan->pages; touch.page++) {
			touch.at = (unsigned char *)at + touch.page * DEMO_PAGE;
			error = fm_guard(write_body, &touch, NULL);
		}
		if (!error)
			error = fm_unmap(subject->mm, at, len);
		round_count_access(round, index, begin, error);
		tool_sleep_ms(spec->pause_ms);
	}
}

static void load_touch(struct filemap_subject *subject, struct round *round, unsigned index)
{
	const struct load_plan *plan = &subject->plan;

	for (unsigned t = 0; t < plan->touches && !round_over(round); t++) {
		struct touch touch = {
			.page = subject->slow_addr + load_plan_offset(plan, index, t),
			.truth = load_plan_truth(plan, index, t),
		};
		uint64_t begin = tool_now_ns();
		int error = fm_guard(touch_body, &touch, NULL);

		round_count_access(round, index, begin, error);
		if (!error && !touch.equal)
			atomic_fetch_add(&round->wrong, 1);
	}
}

/* Pin each page until the other process has read the page. */
static void load_remote(struct filemap_subject *subject, struct round *round, unsigned index)
{
	const struct load_plan *plan = &subject->plan;

	for (unsigned t = 0; t < plan->touches && !round_over(round); t++) {
		unsigned char *page = subject->slow_addr + load_plan_offset(plan, index, t);
		int error = fm_pin(subject->mm, page, DEMO_PAGE, 0);

		if (error)
			round_fail(round, "fm_pin: %s", strerror(-error));
		handover_step(round, index, HANDOVER_PINNED(t));
		handover_wait(round, index, HANDOVER_READ(t));
		if (!error)
			error = fm_unpin(subject->mm, page, DEMO_PAGE);
		if (error)
			round_fail(round, "fm_unpin: %s", strerror(-error));
	}
}

static void filemap_load(void *arg, struct round *round, unsigned index)
{
	struct filemap_subject *subject = arg;

	if (subject->spec->load == LOAD_WRITE)
		load_write(subject, round, index);
	else if (subject->spec->load == LOAD_UNMAP)
		load_unmap(subject, round, index);
	else if (subject->spec->load == LOAD_REMOTE)
		load_remote(subject, round, index);
	else if (subject->spec->journal_path && index == subject->spec->threads - 1)
		load_map_journal(subject, round);
	else
		load_touch(subject, round, index);
}

/* ------------------------------------------------------------------ open and close */

static void keep_line(void *arg, enum fm_log_level level, const char *line)
{
	struct round *round = arg;

	if (level == FM_LOG_ERROR)
		round_fail(round, "%s", line);
}

static int open_file(struct filemap_subject *subject, struct round *round, const char *uri,
		     const struct fm_file_options *options, size_t len, fm_file **ret_file,
		     void **ret_addr)
{
	const struct fm_map_options map = {
		.size = sizeof(map),
		.flags = options->flags & FM_FILE_WRITE ? FM_MAP_WRITE : 0,
	};
	int error = fm_file_open(subject->mm, uri, options, ret_file);

	if (!error && ret_addr)
		error = fm_map(*ret_file, 0, len, &map, ret_addr);
	if (error)
		round_fail(round, "%s: %s", uri, strerror(-error));
	return error;
}

/* Escape the characters of a path that have a meaning in a URI. */
static void escape_path(const char *path, char *out, size_t len)
{
	size_t at = 0;

	for (; *path && at + 4 < len; path++) {
		if (strchr("%?&#", *path))
			at += (size_t)snprintf(out + at, len - at, "%%%02X", (unsigned char)*path);
		else
			out[at++] = *path;
	}
	out[at] = 0;
}

static int open_files(struct filemap_subject *subject, struct round *round)
{
	const struct round_spec *spec = subject->spec;
	struct fm_file_options slow = {.size = sizeof(slow), .deadline_ns = spec->deadline_ns};
	struct fm_file_options fast = {.size = sizeof(fast), .readahead_bytes = UINT32_MAX};
	char path[2 * PATH_MAX], uri[2 * PATH_MAX + 64];
	void *slow_addr, *fast_addr;
	int error;

	escape_path(spec->path, path, sizeof(path));
	if (spec->delay_ms)
		snprintf(uri, sizeof(uri), "faulty:file:%s?delay=%ums", path, spec->delay_ms);
	else
		snprintf(uri, sizeof(uri), "file:%s", path);
	if (load_writes(spec->load))
		slow.flags = FM_FILE_WRITE;
	if (spec->random)
		slow.readahead_bytes = UINT32_MAX;
	error = open_file(subject, round, uri, &slow, subject->slow_len, &subject->slow,
			  &slow_addr);
	/* A second handle for reading would have a page cache of its own beside a handle for
	 * writing. */
	subject->again = subject->slow;
	if (!error && !slow.flags)
		error = open_file(subject, round, uri, &slow, 0, &subject->again, NULL);
	if (!error)
		error = open_file(subject, round, FAST_URI, &fast, FAST_BYTES, &subject->fast,
				  &fast_addr);
	if (error)
		return error;
	subject->slow_addr = slow_addr;
	atomic_store(&round->address, (uintptr_t)slow_addr);
	subject->fast_addr = fast_addr;
	return 0;
}

static int filemap_open(const struct round_spec *spec, struct round *round, void **ret_subject)
{
	static struct filemap_subject the_subject;
	struct filemap_subject *subject = &the_subject;
	struct fm_mm_options options = {
		.size = sizeof(options),
		.budget_bytes = spec->budget_bytes ? spec->budget_bytes : BUDGET_BYTES,
		.flags = spec->way == WAY_HOLD ? FM_MM_HOLD_LOCK : 0,
		.log = keep_line,
		.log_arg = round,
	};
	int error;

	subject->spec = spec;
	if (load_writes(spec->load)) {
		if (write_plan_make(spec, round, &subject->writes))
			return -1;
		subject->slow_bytes = subject->writes.file_bytes;
	} else {
		if (load_plan_make(spec, round, &subject->plan))
			return -1;
		subject->slow_bytes = subject->plan.file_bytes;
	}
	subject->slow_len = subject->slow_bytes;
	/* With LOAD_UNMAP, the pages of the load threads must have no other mapping. */
	if (spec->load == LOAD_UNMAP)
		subject->slow_len = DEMO_PAGE;
	if (spec->journal_path) {
		subject->journal_fd = open(spec->journal_path, O_RDONLY | O_CLOEXEC);
		if (subject->journal_fd < 0) {
			round_fail(round, "%s: %s", spec->journal_path, strerror(errno));
			return -1;
		}
	}
	/* The memory of the page cache counts against the limit, so join before the cache is
	 * made. */
	if (subject_join_cgroups(spec, round))
		return -1;
	error = fm_mm_create(&options, &subject->mm);
	if (error) {
		round_fail(round, "can't make an address space: %s", strerror(-error));
		return error;
	}
	error = open_files(subject, round);
	if (!error)
		*ret_subject = subject;
	return error;
}

static void filemap_close(void *arg, struct round *round)
{
	struct filemap_subject *subject = arg;
	struct fm_stats stats = {.size = sizeof(stats)};
	int error = 0;

	if (load_writes(subject->spec->load)) {
		error = fm_file_sync(subject->slow, 0, 0, 0);
		if (!error)
			write_plan_check(&subject->writes, subject->spec, round);
	}
	if (!error)
		error = fm_stats(subject->mm, &stats);
	if (!error)
		error = fm_mm_destroy(subject->mm);
	if (error)
		round_fail(round, "taking the address space down: %s", strerror(-error));
	round->store_reads = stats.reads;
	round->lock_held_over_block = stats.lock_held_over_block;
}

const struct subject_ops filemap_subject = {
	.open = filemap_open,
	.probe =
		{
			[PROBE_MAP] = filemap_probe_map,
			[PROBE_ADVISE] = filemap_probe_advise,
			[PROBE_STATS] = filemap_probe_stats,
			[PROBE_FAULT] = filemap_probe_fault,
			[PROBE_PROTECT] = filemap_probe_protect,
			[PROBE_FORK] = subject_probe_fork,
		},
	.load = filemap_load,
	.close = filemap_close,
};
