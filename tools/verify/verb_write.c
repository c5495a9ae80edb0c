/* SPDX-License-Identifier: MIT */
/*
 * filemap verify --write: writes a pattern through a mapping into a given or new file, and
 * syncs. Then plain reads and a fresh mapping must show the pattern. This file has opening, the two
 * passes, and the result in words. write.c does the work. A memory store would be lost at close, so
 * its cache is dropped instead.
 */
#include "filemap.h"
#include "command/tool.h"
#include "verify/settings.h"
#include "verify/write.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define SIZE_NEW (64ull << 20)

struct write_run {
	const struct verify_settings *set;
	unsigned trap;
	struct verify_pattern job;
	struct verify_found written, found;
	int sync_error;
	struct fm_stats stats; /* of the writing pass */
	double write_s, sync_s, read_s;
};

/* Return whether the store is a memory store, also below any number of "faulty:". */
static bool is_memory(const char *uri)
{
	while (!strncmp(uri, "faulty:", 7))
		uri += 7;
	return !strncmp(uri, "memory:", 7);
}

static void show_progress(const char *what, uint64_t done, uint64_t all)
{
	char done_text[TOOL_TEXT_LEN], all_text[TOOL_TEXT_LEN];

	tool_progress("%s: %3.0f %%  %s of %s", what, all ? 100.0 * (double)done / (double)all : 100.0,
		      tool_size_text(done, done_text), tool_size_text(all, all_text));
}

/* ------------------------------------------------------------------ opening */

static int open_all(const struct verify_settings *set, enum fm_trap trap, uint32_t flags,
		    struct verify_pattern *job)
{
	struct fm_mm_options mm_options = {
		.size = sizeof(mm_options),
		.budget_bytes = set->budget_bytes,
		.trap = trap,
		.install = set->install,
		.log = verify_on_log,
	};
	struct fm_file_options options = {
		.size = sizeof(options),
		.page_size = (uint32_t)set->page_size,
		.flags = flags,
	};
	int error = fm_mm_create(&mm_options, &job->mm);

	if (error)
		return verify_fail(NULL, error);
	error = fm_file_open(job->mm, set->uri, &options, &job->file);
	if (error) {
		int status = verify_fail(set->uri, error);

		fm_mm_destroy(job->mm);
		return status;
	}
	return TOOL_OK;
}

/* Close the file and the address space. The first error decides the status. */
static int close_all(struct verify_pattern *job, int status)
{
	int error = fm_file_close(job->file);

	if (!error)
		error = fm_mm_destroy(job->mm);
	else
		fm_mm_destroy(job->mm);
	return error && !status ? verify_fail("cannot close the address space", error) : status;
}

#define GROW_MOST (1ull << 30) /* the most by which a file can grow while open */

/* Resize the file. If the file grows by more than GROW_MOST, the file is opened anew for each step.
 * `job` is open before. `job` is open at return unless the call fails. */
static int resize(const struct verify_settings *set, uint32_t flags, struct verify_pattern *job,
		  uint64_t size)
{
	for (;;) {
		uint64_t next = set->size > size + GROW_MOST ? size + GROW_MOST : set->size;
		int error = fm_truncate(job->file, next), status;

		if (error)
			return close_all(job, verify_fail(set->uri, error));
		if (next == set->size)
			return TOOL_OK;
		status = close_all(job, TOOL_OK);
		if (!status)
			status = open_all(set, FM_TRAP_CALL, flags, job);
		if (status)
			return status;
		size = next;
	}
}

int verify_write_prepare(struct verify_settings *set)
{
	uint32_t flags = FM_FILE_WRITE | (is_memory(set->uri) ? 0 : FM_FILE_CREATE);
	struct verify_pattern job = {0};
	char text[TOOL_TEXT_LEN];
	uint64_t size = 0;
	int error, status = open_all(set, FM_TRAP_CALL, flags, &job);

	if (status)
		return status;
	error = fm_file_size(job.file, &size);
	if (error)
		status = verify_fail(set->uri, error);
	else if (size && !set->overwrite && !is_memory(set->uri))
		status = tool_error(
			TOOL_USAGE,
			"verify: %s: is not empty (%s); give --overwrite, or another file",
			set->uri, tool_size_text(size, text));
	if (!set->size)
		set->size = size ? size : SIZE_NEW;
	if (!status && set->size != size && !is_memory(set->uri)) {
		status = resize(set, flags, &job, size);
		if (status)
			return status;
	} else if (!status && set->size != size) {
		status = tool_error(TOOL_USAGE, "verify: --size: cannot be used with a memory store, whose "
						"size is in the URI");
	}
	return close_all(&job, status);
}

static int map_all(struct write_run *run, uint32_t flags)
{
	const struct fm_map_options options = {.size = sizeof(options), .flags = flags};
	void *map;
	int error = fm_map(run->job.file, 0, run->job.size, &options, &map);

	if (error)
		return verify_fail(run->set->uri, error);
	run->job.map = map;
	return TOOL_OK;
}

static int unmap_all(struct write_run *run)
{
	int error = fm_unmap(run->job.mm, run->job.map, run->job.size);

	return error ? verify_fail(run->set->uri, error) : TOOL_OK;
}

/* ------------------------------------------------------------------ the two passes */

static int write_all(struct write_run *run)
{
	double start = verify_now_s();
	int error, status = map_all(run, FM_MAP_WRITE);

	if (status)
		return status;
	error = verify_pattern_write(&run->job, &run->written);
	if (error)
		return verify_fail("cannot start the threads", error);
	run->write_s = verify_now_s() - start;
	if (run->job.progress)
		run->job.progress("syncing", run->job.size, run->job.size);
	start = verify_now_s();
	run->sync_error = fm_sync(run->job.mm, run->job.map, run->job.size, 0);
	run->sync_s = verify_now_s() - start;
	run->stats.size = sizeof(run->stats);
	error = fm_stats(run->job.mm, &run->stats);
	return error ? verify_fail("cannot read the statistics", error) : unmap_all(run);
}

static int find_all(struct write_run *run)
{
	double start = verify_now_s();
	int error, status = map_all(run, 0);

	if (status)
		return status;
	error = verify_pattern_find(&run->job, &run->found);
	if (error)
		return verify_fail("cannot start the threads", error);
	run->read_s = verify_now_s() - start;
	return unmap_all(run);
}

static bool is_good(const struct write_run *run)
{
	return !run->written.error && !run->sync_error && !run->found.error &&
	       run->found.wrong_at == UINT64_MAX;
}

/* ------------------------------------------------------------------ the result in words */

static double rate(uint64_t bytes, double seconds)
{
	return seconds > 0 ? (double)bytes / 1048576.0 / seconds : 0;
}

/* Return the errno that ended the run early, or 0. Also returns the offset, and what failed. */
static int first_error(const struct write_run *run, uint64_t *ret_at, const char **ret_in)
{
	if (run->written.error) {
		*ret_at = run->written.error_at;
		*ret_in = "writing";
		return run->written.error;
	}
	if (run->sync_error) {
		*ret_at = 0;
		*ret_in = "sync";
		return run->sync_error;
	}
	*ret_at = run->found.error_at;
	*ret_in = run->found.error_in_mapping ? "mapping" : "plain read";
	return run->found.error;
}

static void print_json(const struct write_run *run)
{
	const struct verify_settings *set = run->set;
	const struct fm_stats *stats = &run->stats;
	struct tool_json json = {.out = stdout};
	const char *in;
	uint64_t at;
	int error = first_error(run, &at, &in);

	json_open(&json, NULL, '{');
	json_text(&json, "uri", set->uri);
	json_text(&json, "trap", verify_trap_names[run->trap]);
	json_text(&json, "install", verify_install_names[set->install]);
	json_text(&json, "order", verify_order_names[set->order]);
	json_number(&json, "threads", set->threads);
	json_number(&json, "page_size_bytes", set->page_size);
	json_number(&json, "budget_bytes", set->budget_bytes);
	json_number(&json, "size_bytes", run->job.size);
	json_number(&json, "written_bytes", run->written.bytes);
	json_real(&json, "write_seconds", run->write_s);
	json_real(&json, "sync_seconds", run->sync_s);
	json_real(&json, "write_mib_per_s", rate(run->written.bytes, run->write_s + run->sync_s));
	json_number(&json, "read_bytes", run->found.bytes);
	json_real(&json, "read_seconds", run->read_s);
	json_real(&json, "read_mib_per_s", rate(run->found.bytes, run->read_s));
	json_number(&json, "faults", stats->faults);
	json_number(&json, "dirtied", stats->dirtied);
	json_number(&json, "writes", stats->writes);
	json_number(&json, "write_bytes", stats->write_bytes);
	json_number(&json, "write_errors", stats->write_errors);
	json_number(&json, "write_throttled", stats->write_throttled);
	json_number(&json, "dirty_lost", stats->dirty_lost);
	json_number(&json, "lock_held_over_block", stats->lock_held_over_block);
	json_number(&json, "plain_mismatches", run->found.plain_wrong);
	json_number(&json, "mapped_mismatches", run->found.mapped_wrong);
	json_bool(&json, "equal", is_good(run));
	if (run->found.wrong_at != UINT64_MAX)
		json_number(&json, "differs_at", run->found.wrong_at);
	if (error) {
		json_text(&json, "error", strerror(-error));
		json_number(&json, "errno", (uint64_t)-error);
		json_number(&json, "error_at", at);
		json_text(&json, "error_in", in);
	}
	json_close(&json, '}');
	putchar('\n');
}

static void print_line(const struct write_run *run)
{
	const struct verify_settings *set = run->set;
	char size[TOOL_TEXT_LEN];
	const char *in;
	uint64_t at;
	int error = first_error(run, &at, &in);

	printf("%s: trap %s, install %s, %s, %llu thread%s: %s written and synced in %.3f s, %.0f "
	       "MiB/s, %llu faults, %llu "
	       "writes; read back in %.3f s, %.0f MiB/s: ",
	       set->uri, verify_trap_names[run->trap], verify_install_names[set->install],
	       verify_order_names[set->order], (unsigned long long)set->threads,
	       set->threads == 1 ? "" : "s", tool_size_text(run->written.bytes, size),
	       run->write_s + run->sync_s, rate(run->written.bytes, run->write_s + run->sync_s),
	       (unsigned long long)run->stats.faults, (unsigned long long)run->stats.writes,
	       run->read_s, rate(run->found.bytes, run->read_s));
	if (run->found.wrong_at != UINT64_MAX)
		printf("DIFFERS, first at offset %llu: %llu pages of 4 KiB in plain reads, %llu in the mapping%s",
		       (unsigned long long)run->found.wrong_at, (unsigned long long)run->found.plain_wrong,
		       (unsigned long long)run->found.mapped_wrong, error ? "; then " : "");
	if (error)
		printf("FAILED: %s at offset %llu, %s", in, (unsigned long long)at, strerror(-error));
	if (is_good(run))
		printf("equal");
	putchar('\n');
}

/* ------------------------------------------------------------------ one trap */

/* Present the same store with nothing cached. The store is opened anew, but the cache of a memory
 * store is dropped. */
static int begin_anew(struct write_run *run, bool *ret_closed)
{
	int error, status;

	if (is_memory(run->set->uri)) {
		error = fm_invalidate(run->job.file, 0, 0);
		return error ? verify_fail(run->set->uri, error) : TOOL_OK;
	}
	status = close_all(&run->job, TOOL_OK);
	if (!status)
		status = open_all(run->set, verify_traps[run->trap], 0, &run->job);
	*ret_closed = status != TOOL_OK;
	return status;
}

int verify_write_one(const struct verify_settings *set, unsigned trap, bool *ret_compared)
{
	struct write_run run = {.set = set, .trap = trap, .found = {.wrong_at = UINT64_MAX}};
	struct timespec now;
	bool closed = false;
	int status;

	clock_gettime(CLOCK_REALTIME, &now);
	run.job = (struct verify_pattern){
		.size = set->size,
		.page_size = set->page_size,
		.budget_bytes = set->budget_bytes,
		.seed = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec,
		.order = (enum order_kind)set->order,
		.threads = (unsigned)set->threads,
		.pin = verify_traps[trap] == FM_TRAP_CALL,
		.progress = tool_on_terminal() ? show_progress : NULL,
	};
	status = open_all(set, verify_traps[trap], FM_FILE_WRITE, &run.job);
	if (status)
		return status;
	status = write_all(&run);
	if (!status && !run.written.error && !run.sync_error) {
		status = begin_anew(&run, &closed);
		if (!status)
			status = find_all(&run);
	}
	tool_progress_clear();
	*ret_compared = !status;
	if (!status) {
		(set->json ? print_json : print_line)(&run);
		fflush(stdout);
		status = is_good(&run) ? TOOL_OK : TOOL_FAILED;
	}
	return closed ? status : close_all(&run.job, status);
}
