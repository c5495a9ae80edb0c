/* SPDX-License-Identifier: MIT */
/*
 * filemap bench: compares the library's mappings with the kernel's, and with the device's limit.
 * This file has the plan: one cell runs after another. See bench.h for the other parts. In each
 * round every way runs once, in another order each time. Ratios are taken within a round. The
 * coordinator is single-threaded.
 */
#include "bench/verb.h"

#include "command/tool.h"
#include "command/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE          (4 * GIB)
#define SIZE_QUICK    (512 * MIB)

#define RANGE_ALIGN   (BENCH_STREAMS * BENCH_HUGE)
#define CELL_LIMIT_MS 300000

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
	interrupted = signo;
}

/* Tell why a way is left out, once for each reason, however many workloads have the reason. */
static void note(struct bench *bench, enum bench_way way, const char *why)
{
	char line[sizeof(bench->notes[0])];

	snprintf(line, sizeof(line), "%s: %s", bench_ways[way].name, why);
	for (unsigned i = 0; i < bench->note_count; i++)
		if (!strcmp(bench->notes[i], line))
			return;
	if (bench->note_count < BENCH_NOTES_MAX)
		strcpy(bench->notes[bench->note_count++], line);
	tool_error(TOOL_OK, "bench: left out: %s", line);
}

/* ------------------------------------------------------------------ a cell's orders */

/* Return how many bytes of the file a random touch brings in, for ways that read around each
 * touch. */
static uint64_t touch_bytes(const struct bench *bench, enum bench_way way)
{
	uint64_t kib;

	if (bench_ways[way].page_size > BENCH_PAGE && bench_ways[way].page_size <= BENCH_HUGE)
		return bench_ways[way].page_size;
	if (bench_ways[way].short_readahead)
		return 128 << 10;
	if (way == BENCH_KERNEL && tool_parse_count(bench->machine.readahead_text, &kib) && kib)
		return kib << 10;
	return BENCH_PAGE;
}

/* Limit the operations so that the file stays cold: a touch must not find what the readahead of
 * another touch brought in. */
static uint64_t cold_ops(const struct bench *bench, enum bench_way way, unsigned threads,
			 uint64_t range, uint64_t ops)
{
	uint64_t most = range / 2 / touch_bytes(bench, way);

	if (ops > most)
		ops = most;
	ops -= ops % threads;
	return ops ? ops : threads;
}

static uint64_t budget_least(enum bench_way way)
{
	uint32_t page_size = bench_ways[way].page_size;

	return fm_budget_min(page_size ? page_size : BENCH_PAGE);
}

static uint64_t cell_budget(const struct bench_workload *workload, enum bench_way way,
			    uint64_t range)
{
	uint64_t least = budget_least(way);
	uint64_t budget = range + range / 8 + 64 * MIB;

	if (workload->budget_part)
		return range / workload->budget_part;
	if (workload->passes)
		return range / 6 * 5 & ~(uint64_t)(BENCH_HUGE - 1);
	if (workload->sparse)
		return 0;
	/* Nothing is written back: half of the dirty limit is more than the range. */
	if (workload->memory &&
	    workload->writes)
		return 9 * range + 64 * MIB;
	if (workload->memory) /* nothing is evicted while the cache is filled */
		return 3 * range + 64 * MIB;
	if (workload->pattern == PATTERN_RANDOM && !workload->writes)
		return 0; /* the library's own default */
	return budget < 2 * least ? 2 * least : budget;
}

static void fill_orders(struct bench *bench, size_t index, enum bench_way way, unsigned threads)
{
	const struct bench_workload *workload = &bench_workloads[index];
	const struct bench_scale *scale = bench->quick ? &workload->quick : &workload->full;
	struct bench_cell *cell = bench->cell;
	uint64_t step = workload->step ? workload->step : workload->unit;
	uint64_t range = workload->writes ? bench->machine.scratch_bytes : bench->machine.file_bytes;

	if (range > scale->range_bytes || workload->sparse)
		range = scale->range_bytes;
	range -= range % (workload->memory ? step : RANGE_ALIGN);
	memset(cell, 0, sizeof(*cell));
	cell->in.magic = BENCH_MAGIC;
	cell->in.workload = (unsigned)index;
	cell->in.way = way;
	cell->in.threads = threads;
	cell->in.fd = -1;
	snprintf(cell->in.path, sizeof(cell->in.path), "%s",
		 workload->writes ? bench->machine.scratch : bench->machine.path);
	cell->in.file_bytes = workload->writes ? bench->machine.scratch_bytes : bench->machine.file_bytes;
	cell->in.seed = bench_now_ns();
	cell->in.range_bytes = range;
	cell->in.budget_bytes = cell_budget(workload, way, range);
	cell->in.ops = scale->ops ? scale->ops : range / step;
	cell->in.warm_ops = scale->warm_ops;
	cell->in.limit_ns = scale->limit_ms * 1000000ull;
	if (workload->passes) {
		cell->in.ops = workload->passes * (range / step);
		cell->in.warm_ops = range / step;
	}
	if (workload->same_pages)
		cell->in.ops *= threads; /* each thread makes all of them */
	if (workload->pattern == PATTERN_RANDOM && !workload->memory && !workload->whole)
		cell->in.ops = cold_ops(bench, way, threads, range, cell->in.ops);
}

/* Estimate how much memory a cell uses. */
static uint64_t memory_of(const struct bench *bench)
{
	uint64_t bytes = 2 * bench->cell->in.range_bytes + 64 * MIB,
		 enough = (bench->quick ? 320 : 768) * MIB;
	uint64_t most = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * BENCH_PAGE / 4;

	if (bench_workloads[bench->cell->in.workload].sparse)
		bytes = 128 * MIB;
	if (most > enough)
		most = enough;
	return bytes < most ? bytes : most;
}

/* Set up what the way needs of the machine. Returns 0, or -1 with the reason in `why`. */
static int fill_machine(struct bench *bench, char *why)
{
	struct bench_cell *cell = bench->cell;
	struct bench_machine *machine = &bench->machine;
	const struct bench_workload *workload = &bench_workloads[cell->in.workload];
	enum bench_way way = cell->in.way;
	char budget[TOOL_TEXT_LEN];

	why[0] = 0;
	if (bench_way_is_filemap(way) && cell->in.budget_bytes &&
	    cell->in.budget_bytes < budget_least(way)) {
		snprintf(why, BENCH_WHY, "%s: the budget of %s is too small for the page size; "
			 "give a larger file",
			 workload->name, tool_size_text(cell->in.budget_bytes, budget));
		return -1;
	}
	if ((workload->budget_part || workload->passes) && bench_way_is_cached(way)) {
		if (machine->no_cgroup[0] || bench_limit_cgroup(machine, cell->in.budget_bytes)) {
			snprintf(why, BENCH_WHY, "%s", machine->no_cgroup);
			return -1;
		}
		snprintf(cell->in.cgroup, sizeof(cell->in.cgroup), "%.180s/cgroup.procs", machine->cgroup);
	}
	bench_drop(machine, cell->in.path, cell->in.file_bytes);
	if (!machine->held)
		bench_hold_memory(machine, memory_of(bench));
	if (bench_ways[way].short_readahead) {
		cell->in.fd = bench_open_128k(machine);
		if (cell->in.fd < 0) {
			snprintf(why, BENCH_WHY, "%s", machine->no_readahead);
			return -1;
		}
	}
	return 0;
}

/* ------------------------------------------------------------------ running a cell */

static void execute_cell(struct bench *bench) __attribute__((noreturn));
static void execute_cell(struct bench *bench)
{
	char fd_text[16];

	undo_child(bench->machine.undo);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(fd_text, sizeof(fd_text), "%d", bench->cell_fd);
	fcntl(bench->cell_fd, F_SETFD, 0);
	if (bench->cell->in.fd >= 0)
		fcntl(bench->cell->in.fd, F_SETFD, 0);
	execl("/proc/self/exe", "filemap", "bench", "--cell", fd_text, (char *)NULL);
	_exit(127);
}

/* Wait for the cell. Returns its wait status, or -1 if interrupted or out of time. The process has
 * ended at return. */
static int await_cell(struct bench *bench, pid_t pid)
{
	struct pollfd fd = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	int status = -1;
	bool ended = false;

	for (unsigned ms = 0; ms < CELL_LIMIT_MS && !interrupted && !ended; ms += 100)
		ended = poll(&fd, 1, 100) == 1;
	if (!ended) {
		kill(pid, SIGKILL);
		if (!interrupted)
			snprintf(bench->cell->out.why, BENCH_WHY, "the process did not end within %u s",
				 CELL_LIMIT_MS / 1000);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	close(fd.fd);
	return ended ? status : -1;
}

/* Run the cell. Returns true if the cell has its figures. */
static bool run_cell(struct bench *bench, char *why)
{
	struct bench_cell *cell = bench->cell;
	unsigned mark = undo_mark(bench->machine.undo);
	int status = -1;
	pid_t pid;

	fflush(NULL);
	bench_release_memory(&bench->machine);
	pid = fork();
	if (!pid)
		execute_cell(bench);
	if (pid > 0) {
		undo_add(bench->machine.undo, UNDO_KILL, pid, NULL, NULL);
		status = await_cell(bench, pid);
	}
	if (cell->in.fd >= 0)
		close(cell->in.fd);
	undo_to(bench->machine.undo, mark);
	bench_forget(cell->in.path);
	bench_hold_memory(&bench->machine, memory_of(bench));
	bench->failed |= cell->out.wrong;
	if (cell->out.done || interrupted)
		return cell->out.done;
	if (cell->out.why[0])
		snprintf(why, BENCH_WHY, "%s", cell->out.why);
	else if (status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && cell->in.cgroup[0])
		snprintf(why, BENCH_WHY, "%s: the kernel killed the process: the memory limit of its cgroup "
			 "is too small for the readahead; give a larger file", bench_workloads[cell->in.workload].name);
	else if (status >= 0 && WIFSIGNALED(status))
		snprintf(why, BENCH_WHY, "%s: signal %d killed the process",
			 bench_workloads[cell->in.workload].name, WTERMSIG(status));
	else
		snprintf(why, BENCH_WHY, "the process cannot be started");
	bench->failed |= !cell->out.why[0] && !(cell->in.cgroup[0] && WTERMSIG(status) == SIGKILL);
	return false;
}

/* ------------------------------------------------------------------ comparing the bytes */

/* Sums that all ways over the same bytes must have. The first way to reach a sum sets the sum. */
struct truth {
	uint64_t sums[BENCH_SUMS];
	uint64_t ops[BENCH_WAY_COUNT], sum[BENCH_WAY_COUNT]; /* of all operations of a cell */
	unsigned count;
};

static bool agrees(struct truth *truth, const struct bench_cell *cell)
{
	unsigned known = 0;

	for (unsigned i = 0; i < BENCH_SUMS; i++) {
		if (!cell->out.sums[i])
			continue;
		if (truth->sums[i] && truth->sums[i] != cell->out.sums[i])
			return false;
		truth->sums[i] = cell->out.sums[i];
	}
	/* In a cell that was cut short, each thread may have reached any operation. */
	if (cell->out.ops != cell->in.ops)
		return true;
	while (known < truth->count && truth->ops[known] != cell->out.ops)
		known++;
	if (known < truth->count)
		return truth->sum[known] == cell->out.sum;
	if (known < BENCH_WAY_COUNT) {
		truth->ops[known] = cell->out.ops;
		truth->sum[known] = cell->out.sum;
		truth->count++;
	}
	return true;
}

/* ------------------------------------------------------------------ rounds */

/* Rows that share their rounds: one workload or several, with one number of threads. */
struct group {
	struct bench *bench;
	unsigned count;
	struct bench_row *rows;
	struct truth file, memory;
};

static void run_one(struct group *group, struct bench_row *row)
{
	struct bench *bench = group->bench;
	const struct bench_workload *workload = row->workload;
	bool memory = workload->memory && !bench_way_is_cached(row->way);

	fill_orders(bench, (size_t)(workload - bench_workloads), row->way, row->threads);
	if (fill_machine(bench, row->why) || !run_cell(bench, row->why)) {
		if (!interrupted)
			note(bench, row->way, row->why);
		row->left_out = true;
		return;
	}
	if (!agrees(memory ? &group->memory : &group->file, bench->cell)) {
		snprintf(row->why, BENCH_WHY, "%s: this way read different bytes than the other ways",
			 workload->name);
		tool_error(TOOL_OK, "bench: %s: %s read different bytes than the other ways",
			   workload->name, bench_ways[row->way].name);
		bench->failed = row->left_out = true;
		return;
	}
	if (bench_way_is_filemap(row->way)) {
		bench->library_ran = true;
		if (bench->counters && !row->rounds)
			bench_counters(bench->cell);
	}
	bench_row_add(row, bench->cell);
}

static void report_group(struct group *group)
{
	tool_progress_clear();
	for (unsigned i = 0; i < group->count; i++) {
		struct bench_row *row = &group->rows[i];

		if (row->left_out)
			continue;
		bench_row_finish(row, bench_row_find(group->rows, group->count, row->workload->name, row->threads,
						     BENCH_KERNEL));
		if (group->bench->json)
			bench_json_row(row);
		else
			bench_table_row(row);
	}
	fflush(stdout);
}

static void add_rows(struct group *group, const struct bench_workload *workload, unsigned threads)
{
	for (enum bench_way way = 0; way < BENCH_WAY_COUNT; way++)
		if (workload->ways & group->bench->ways & 1u << way)
			group->rows[group->count++] =
				(struct bench_row){.workload = workload, .way = way, .threads = threads};
}

/* Return which row has turn `i`. Neighbours stay neighbours, because the machine changes with time.
 * But each round begins with another way, and every second round goes backwards. */
static unsigned turn_of(const struct group *group, unsigned round, unsigned i)
{
	unsigned turn = (i + round) % group->count;

	return round % 2 ? group->count - 1 - turn : turn;
}

/* Return the number of rounds. A workload over a store in memory takes little time, so noise
 * disturbs the figures more: such a workload gets three times as many rounds. */
static unsigned rounds_of(const struct bench *bench, const struct bench_workload *workload)
{
	uint64_t rounds = bench->rounds * (workload->memory && !bench->quick ? 3 : 1);

	return rounds < BENCH_ROUNDS_MAX ? (unsigned)rounds : BENCH_ROUNDS_MAX;
}

static void run_group(struct group *group)
{
	struct bench *bench = group->bench;
	unsigned rounds = rounds_of(bench, group->rows->workload);

	bench->row_count += group->count;
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < group->count && !interrupted; i++) {
			struct bench_row *row = &group->rows[turn_of(group, round, i)];

			if (row->left_out)
				continue;
			tool_progress("%s, %u threads, round %u of %u: %s", row->workload->name, row->threads,
				      round + 1, rounds, bench_ways[row->way].name);
			run_one(group, row);
		}
	}
	if (!interrupted)
		report_group(group);
}

static bool wanted(const struct bench *bench, const char *name)
{
	for (int i = 0; i < bench->name_count; i++)
		if (!strcmp(bench->names[i], name))
			return true;
	return !bench->name_count;
}

/* Return TMPDIR, or else the folder of this program, because /tmp is memory on many machines. */
static const char *file_dir(void)
{
	static char beside[PATH_MAX - 80];
	const char *dir = getenv("TMPDIR");
	ssize_t len;

	if (dir && *dir)
		return dir;
	len = readlink("/proc/self/exe", beside, sizeof(beside) - 1);
	beside[len > 0 ? len : 0] = 0;
	if (strrchr(beside, '/'))
		*strrchr(beside, '/') = 0;
	return beside;
}

/* Make the file for the workloads that write. The user's own file is never written to. */
static int make_scratch(struct bench *bench)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < bench_workload_count; i++) {
		const struct bench_workload *workload = &bench_workloads[i];
		uint64_t range = (bench->quick ? &workload->quick : &workload->full)->range_bytes;

		if (workload->writes && wanted(bench, workload->name) &&
		    workload->ways & bench->ways && range > bytes)
			bytes = range;
	}
	/* If the user's file is small, the scratch file is small, too. */
	if (bytes > bench->machine.file_bytes)
		bytes = bench->machine.file_bytes - bench->machine.file_bytes % RANGE_ALIGN;
	return bytes && bench_make_scratch(&bench->machine, file_dir(), bytes) ? TOOL_FAILED : TOOL_OK;
}

/* Run a workload together with the following workloads that share its rounds. */
static void run_together(struct bench *bench, size_t first, unsigned threads)
{
	struct group group = {.bench = bench, .rows = bench->rows + bench->row_count};

	for (size_t i = first;
	     i < bench_workload_count && (i == first || bench_workloads[i].with_previous); i++)
		if (wanted(bench, bench_workloads[i].name))
			add_rows(&group, &bench_workloads[i], threads);
	if (group.count && !interrupted)
		run_group(&group);
}

static int run_all(struct bench *bench)
{
	int error;

	bench->rows = calloc(bench_workload_count * BENCH_THREAD_SETS * BENCH_WAY_COUNT,
			     sizeof(*bench->rows));
	if (!bench->rows)
		return tool_error(TOOL_FAILED, "bench: out of memory");
	bench_machine_open(&bench->machine);
	if (make_scratch(bench))
		return TOOL_FAILED;
	if (!bench->json)
		bench_table_head();
	for (size_t i = 0; i < bench_workload_count && !interrupted; i++)
		for (unsigned t = 0; t < BENCH_THREAD_SETS && bench_workloads[i].threads[t]; t++)
			if (!bench_workloads[i].with_previous)
				run_together(bench, i, bench_workloads[i].threads[t]);
	tool_progress_clear();
	if (interrupted)
		return TOOL_FAILED;
	(bench->json ? bench_json_targets : bench_table_targets)(bench->rows, bench->row_count);
	error = bench->plot ? bench_plot(bench->rows, bench->row_count, bench->plot) : 0;
	if (error)
		return tool_error(TOOL_FAILED, "bench: --plot %s: %s", bench->plot, strerror(-error));
	if (bench->markdown &&
	    bench_markdown(&bench->machine, bench->rows, bench->row_count, (unsigned)bench->rounds,
			   bench->markdown, bench->plot))
		return TOOL_FAILED;
	if (bench->failed)
		return TOOL_FAILED;
	if (!bench->library_ran && bench->ways & BENCH_LIBRARY)
		return TOOL_CANNOT; /* the notes say why */
	return TOOL_OK;
}

/* ------------------------------------------------------------------ the file */

static int make_file(struct bench *bench)
{
	const char *dir = file_dir();
	char text[TOOL_TEXT_LEN];

	if (!bench->size)
		bench->size = bench->quick ? SIZE_QUICK : SIZE;
	if (!bench->json)
		printf("no --file is given: writing a file of %s into %s, which is deleted at the end\n",
		       tool_size_text(bench->size, text), dir);
	return bench_make_file(&bench->machine, dir, bench->size) ? TOOL_FAILED : TOOL_OK;
}

/* ------------------------------------------------------------------ the verb */

static int make_cell(struct bench *bench)
{
	bench->cell_fd = memfd_create("filemap-bench", MFD_CLOEXEC);
	if (bench->cell_fd < 0 || ftruncate(bench->cell_fd, sizeof(*bench->cell)))
		return tool_error(TOOL_FAILED, "bench: cannot make shared memory: %s", strerror(errno));
	bench->cell = mmap(NULL, sizeof(*bench->cell), PROT_READ | PROT_WRITE, MAP_SHARED,
			   bench->cell_fd, 0);
	if (bench->cell == MAP_FAILED)
		return tool_error(TOOL_FAILED, "bench: cannot make shared memory: %s", strerror(errno));
	return TOOL_OK;
}

int bench_run_plan(struct bench *bench)
{
	struct sigaction action = {.sa_handler = on_interrupt};
	int status = make_cell(bench);

	if (status)
		return status;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (undo_start(&bench->machine.undo))
		return tool_error(TOOL_FAILED, "bench: cannot start the process that undoes changes at the "
				  "end: %s", strerror(errno));
	if (!bench->file)
		status = make_file(bench);
	if (!status && !interrupted)
		status = run_all(bench);
	undo_end(bench->machine.undo);
	if (interrupted) {
		/* All is undone. End as the signal would have ended the program. */
		signal(interrupted, SIG_DFL);
		raise(interrupted);
	}
	return status;
}
