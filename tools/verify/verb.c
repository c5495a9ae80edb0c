/* SPDX-License-Identifier: MIT */
/*
 * filemap verify: reads everything through a mapping and compares the bytes with plain reads of the
 * same store. This file has the options, opening, and the result in words. work.c does the reading.
 */
#include "verify/verify.h"

#include "command/tool.h"
#include "filemap.h"
#include "verify/settings.h"

#include <limits.h>
#include <string.h>

#define STRIDE_SMALL      (1ull << 20)
#define STRIDE_LARGE      (256ull << 20)
#define STRIDE_LARGE_FROM (4ull << 30)
#define TRAP_ALL          3u
#define WRITE_THREADS     4
#define WRITE_BUDGET      (16ull << 20)
#define UNSET             UINT_MAX

/* The run with one trap. */
struct run {
	const struct verify_settings *set;
	unsigned trap;
	struct verify_job job;
	struct verify_result result;
	struct fm_stats stats;
	double seconds;
};

/* ------------------------------------------------------------------ one run */

static void show_progress(uint64_t done, uint64_t all)
{
	char done_text[TOOL_TEXT_LEN], all_text[TOOL_TEXT_LEN];

	tool_progress("%3.0f %%  %s of %s", all ? 100.0 * (double)done / (double)all : 100.0,
		      tool_size_text(done, done_text), tool_size_text(all, all_text));
}

static int open_mm(struct run *run)
{
	const struct verify_settings *set = run->set;
	struct fm_mm_options options = {
		.size = sizeof(options),
		.budget_bytes = set->budget_bytes,
		.trap = verify_traps[run->trap],
		.install = (uint32_t)set->install, /* verify_install_names has the enum's order */
		.log = verify_on_log,
	};
	int error = fm_mm_create(&options, &run->job.mm);

	return error ? verify_fail(NULL, error) : TOOL_OK;
}

static int open_file(struct run *run)
{
	struct fm_file_options options = {
		.size = sizeof(options),
		.page_size = (uint32_t)run->set->page_size,
	};
	int error = fm_file_open(run->job.mm, run->set->uri, &options, &run->job.file);

	if (!error)
		error = fm_file_size(run->job.file, &run->job.size);
	return error ? verify_fail(run->set->uri, error) : TOOL_OK;
}

static int map_and_compare(struct run *run)
{
	struct verify_job *job = &run->job;
	void *map = NULL;
	double start;
	int error;

	if (!job->size)
		return TOOL_OK; /* nothing to map, and nothing that could differ */
	error = fm_map(job->file, 0, job->size, NULL, &map);
	if (error)
		return verify_fail(run->set->uri, error);
	job->map = map;
	start = verify_now_s();
	error = verify_run(job, &run->result);
	run->seconds = verify_now_s() - start;
	if (error)
		return verify_fail("cannot start the threads", error);
	run->stats.size = sizeof(run->stats);
	error = fm_stats(job->mm, &run->stats);
	if (!error)
		error = fm_unmap(job->mm, map, job->size);
	if (error)
		return verify_fail(run->set->uri, error);
	return run->result.differs || run->result.error ? TOOL_FAILED : TOOL_OK;
}

static void make_job(struct run *run)
{
	const struct verify_settings *set = run->set;
	struct verify_job *job = &run->job;
	struct fm_stats stats = {.size = sizeof(stats)};

	job->page_size = set->page_size;
	job->order = (enum order_kind)set->order;
	job->stride = set->stride;
	if (!job->stride)
		job->stride = job->size > STRIDE_LARGE_FROM ? STRIDE_LARGE : STRIDE_SMALL;
	job->threads = (unsigned)set->threads;
	job->pin = verify_traps[run->trap] == FM_TRAP_CALL;
	job->progress = tool_on_terminal() ? show_progress : NULL;
	job->budget_bytes = fm_budget_min((uint32_t)set->page_size);
	if (fm_stats(job->mm, &stats) == 0)
		job->budget_bytes = stats.budget_bytes;
}

/* ------------------------------------------------------------------ the result in words */

static void print_json(const struct run *run, double mib_per_s)
{
	const struct verify_result *result = &run->result;
	const struct fm_stats *stats = &run->stats;
	struct tool_json json = {.out = stdout};

	json_open(&json, NULL, '{');
	json_text(&json, "uri", run->set->uri);
	json_text(&json, "trap", verify_trap_names[run->trap]);
	json_text(&json, "install", verify_install_names[run->set->install]);
	json_text(&json, "order", verify_order_names[run->set->order]);
	if (run->job.order == ORDER_STRIDED)
		json_number(&json, "stride_bytes", run->job.stride);
	json_number(&json, "threads", run->set->threads);
	json_number(&json, "page_size_bytes", run->set->page_size);
	json_number(&json, "budget_bytes", run->job.budget_bytes);
	json_number(&json, "size_bytes", run->job.size);
	json_number(&json, "bytes", result->bytes);
	json_real(&json, "seconds", run->seconds);
	json_real(&json, "mib_per_s", mib_per_s);
	json_number(&json, "faults", stats->faults);
	json_number(&json, "faults_major", stats->faults_major);
	json_number(&json, "reads", stats->reads);
	json_number(&json, "read_bytes", stats->read_bytes);
	json_number(&json, "installs_move", stats->installs_move);
	json_number(&json, "installs_copy", stats->installs_copy);
	json_number(&json, "lock_held_over_block", stats->lock_held_over_block);
	json_number(&json, "fault_major_p99_ns", stats->fault_major_ns.p99_ns);
	json_bool(&json, "equal", !result->differs && !result->error);
	if (result->differs)
		json_number(&json, "differs_at", result->differs_at);
	if (result->error) {
		json_text(&json, "error", strerror(-result->error));
		json_number(&json, "errno", (uint64_t)-result->error);
		json_number(&json, "error_at", result->error_at);
		json_text(&json, "error_in", result->error_in_mapping ? "mapping" : "plain read");
	}
	json_close(&json, '}');
	putchar('\n');
}

static void print_verdict(const struct run *run)
{
	const struct verify_result *result = &run->result;

	if (result->differs)
		printf("DIFFERS, first at offset %llu%s", (unsigned long long)result->differs_at,
		       result->differs_at >= run->job.size ? " (a byte past the end is not zero)" : "");
	if (result->error)
		printf("%s%s at offset %llu, %s", result->differs ? "; then " : "FAILED: ",
		       result->error_in_mapping ? "mapping" : "plain read",
		       (unsigned long long)result->error_at, strerror(-result->error));
	if (!result->differs && !result->error)
		printf(run->job.size ? "equal" : "equal (empty: nothing to map)");
	putchar('\n');
}

static void print_line(const struct run *run, double mib_per_s)
{
	char bytes[TOOL_TEXT_LEN], size[TOOL_TEXT_LEN], stride[TOOL_TEXT_LEN];

	printf("%s: trap %s, install %s, %s, %llu thread%s: %s", run->set->uri,
	       verify_trap_names[run->trap], verify_install_names[run->set->install],
	       verify_order_names[run->set->order], (unsigned long long)run->set->threads,
	       run->set->threads == 1 ? "" : "s", tool_size_text(run->result.bytes, bytes));
	if (run->job.order == ORDER_STRIDED)
		printf(" (4 KiB of every %s of %s)", tool_size_text(run->job.stride, stride),
		       tool_size_text(run->job.size, size));
	printf(" in %.3f s, %.0f MiB/s, %llu faults, %llu reads: ", run->seconds, mib_per_s,
	       (unsigned long long)run->stats.faults, (unsigned long long)run->stats.reads);
	print_verdict(run);
}

static void print_result(const struct run *run)
{
	double mib = (double)run->result.bytes / 1048576.0;
	double mib_per_s = run->seconds > 0 ? mib / run->seconds : 0;

	tool_progress_clear();
	if (run->set->json)
		print_json(run, mib_per_s);
	else
		print_line(run, mib_per_s);
	fflush(stdout);
}

/* ------------------------------------------------------------------ the verb */

/* Verify through one trap. *ret_compared is true if there is a result, which has been printed. */
static int verify_one(const struct verify_settings *set, unsigned trap, bool *ret_compared)
{
	struct run run = {.set = set, .trap = trap};
	int status, error;

	status = open_mm(&run);
	if (status)
		return status;
	status = open_file(&run);
	if (!status) {
		make_job(&run);
		status = map_and_compare(&run);
		*ret_compared = status == TOOL_OK || run.result.differs || run.result.error;
		if (*ret_compared)
			print_result(&run);
		fm_file_close(run.job.file);
	}
	error = fm_mm_destroy(run.job.mm);
	return error && !status ? verify_fail("cannot close the address space", error) : status;
}

/* Verify through all traps. The first trap that fails decides the status. The other traps still
 * run, unless the file cannot be used: then each trap would report the same error. */
static int verify_all(const struct verify_settings *set)
{
	int status = TOOL_OK;

	for (unsigned trap = 0; trap < TRAP_ALL; trap++) {
		bool compared = false;
		int one = (set->write ? verify_write_one : verify_one)(set, trap, &compared);

		if (!status)
			status = one;
		if (one && !compared && one != TOOL_CANNOT)
			break;
	}
	return status;
}

static int check_settings(struct verify_settings *set)
{
	uint64_t budget_min = fm_budget_min((uint32_t)set->page_size);
	char text[TOOL_TEXT_LEN];

	if (!budget_min)
		return tool_error(TOOL_USAGE, "verify: --page-size %llu: give a power of two, 4K to 2M",
				  (unsigned long long)set->page_size);
	if (set->stride % VERIFY_PAGE)
		return tool_error(TOOL_USAGE, "verify: --stride %llu: give a multiple of 4096",
				  (unsigned long long)set->stride);
	if (!set->write && (set->size || set->overwrite))
		return tool_error(TOOL_USAGE, "verify: %s: can only be used with --write",
				  set->overwrite ? "--overwrite" : "--size");
	if (set->write && set->order == ORDER_STRIDED)
		return tool_error(TOOL_USAGE, "verify: --order strided: cannot be used with --write");
	if (set->order == UNSET)
		set->order = set->write ? ORDER_RANDOM : ORDER_SEQUENTIAL;
	if (!set->threads)
		set->threads = set->write ? WRITE_THREADS : 1;
	if (!set->budget_text) {
		/* The budget is small, so that pages are written back and read again while other
		 * pages are written. */
		if (set->write)
			set->budget_bytes = budget_min > WRITE_BUDGET / 2 ? 2 * budget_min : WRITE_BUDGET;
		return TOOL_OK;
	}
	if (strcmp(set->budget_text, "min") == 0)
		set->budget_bytes = budget_min;
	else if (!tool_parse_size(set->budget_text, &set->budget_bytes))
		return tool_error(TOOL_USAGE, "verify: --budget %s: not a size: give `min`, or a number"
				  " and K, M, G or T", set->budget_text);
	if (set->budget_bytes < budget_min)
		return tool_error(TOOL_USAGE, "verify: --budget %s: too small for this page size: give "
				  "%s or more", set->budget_text, tool_size_text(budget_min, text));
	return TOOL_OK;
}

static int run_settings(struct verify_settings *set)
{
	int status = check_settings(set);
	bool compared;

	if (!status && set->write)
		status = verify_write_prepare(set);
	if (status)
		return status;
	if (set->trap == TRAP_ALL)
		return verify_all(set);
	return (set->write ? verify_write_one : verify_one)(set, set->trap, &compared);
}

int verb_verify(int argc, char **argv)
{
	struct verify_settings set = {.order = UNSET, .page_size = 4096};
	const struct tool_option options[] = {
		{.name = "--order", .argument = "ORDER", .help = "order of the pages",
		 .kind = TOOL_CHOICE, .value = &set.order, .choices = verify_order_names},
		{.name = "--stride", .argument = "SIZE", .kind = TOOL_SIZE, .value = &set.stride,
		 .help = "strided: visit 4 KiB of every SIZE (default 1M; over 4G: 256M)",
		 .min = VERIFY_PAGE, .max = 1ull << 60},
		{.name = "--threads", .argument = "N", .kind = TOOL_COUNT, .value = &set.threads,
		 .help = "worker threads, 1 to 1024 (default 1; --write: 4)", .min = 1, .max = 1024},
		{.name = "--trap", .argument = "TRAP", .help = "how faults are delivered",
		 .kind = TOOL_CHOICE, .value = &set.trap, .choices = verify_trap_names},
		{.name = "--page-size", .argument = "SIZE", .kind = TOOL_SIZE,
		 .value = &set.page_size, .min = 4096, .max = 2 << 20,
		 .help = "size of the pages of the cache, 4K to 2M (default 4K)"},
		{.name = "--budget", .argument = "SIZE", .kind = TOOL_TEXT,
		 .value = &set.budget_text,
		 .help = "memory for pages; `min` is the smallest possible budget"},
		{.name = "--install", .argument = "WAY", .help = "how pages are installed",
		 .kind = TOOL_CHOICE, .value = &set.install, .choices = verify_install_names},
		{.name = "--write", .kind = TOOL_FLAG, .value = &set.write,
		 .help = "write a pattern through the mapping, sync, and check the pattern"},
		{.name = "--size", .argument = "SIZE", .kind = TOOL_SIZE, .value = &set.size,
		 .min = 1, .max = 1ull << 44,
		 .help = "--write: size of the file (default: unchanged; a new file: 64M)"},
		{.name = "--overwrite", .kind = TOOL_FLAG, .value = &set.overwrite,
		 .help = "--write: also overwrite a file that is not empty"},
		{.name = "--json", .help = "print one JSON object, on a line of its own, for each trap",
		 .kind = TOOL_FLAG, .value = &set.json},
		{.name = NULL},
	};
	const struct tool_verb verb = {
		.name = "verify",
		.operands = "URI",
		.help = "Read a whole store through a mapping, and compare the bytes with plain reads of the\n"
			"same store. If the bytes differ, print the first offset that differs, and exit with\n"
			"status 1. The time and MiB/s include both reads.\n"
			"With --write: write a pattern to all pages through a mapping, in random order, with\n"
			"several threads and a small budget; sync and close; then check the pattern by plain\n"
			"reads and in a new mapping. The file must be new or empty, unless --overwrite is\n"
			"given.\n"
			"URI: a path, file:PATH, memory:SIZE, or faulty:URI?PARAMETERS.\n",
		.options = options,
		.operands_min = 1,
		.operands_max = 1,
	};
	int count, status;

	if (!tool_parse(&verb, argc, argv, &count, &status))
		return status;
	set.uri = argv[1];
	return run_settings(&set);
}
