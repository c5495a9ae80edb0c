/* SPDX-License-Identifier: MIT */
/*
 * filemap run: run a program with the shim preloaded, which serves its read-only mappings of
 * files. The verb looks whether the program can be preloaded, puts the settings into the
 * environment, and becomes the program.
 * May call: command/tool.h, run/elf.h, filemap.h, libc.
 */
#include "command/tool.h"
#include "filemap.h"
#include "run/elf.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHIM "libfilemap-run.so"

enum run_trap { RUN_TRAP_AUTO, RUN_TRAP_THREAD };

struct run {
	uint64_t budget, min_size, readahead;
	const char *match, *stats;
	unsigned trap;
	bool all, verbose, require;
};

static void set_number(const char *name, uint64_t value)
{
	char text[TOOL_TEXT_LEN];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	setenv(name, text, 1);
}

static void set_text(const char *name, const char *value)
{
	if (value)
		setenv(name, value, 1);
	else
		unsetenv(name);
}

/* The program may go to another folder before the file is written. */
static int set_stats(const char *stats)
{
	char path[PATH_MAX];

	if (!stats || !strcmp(stats, "-") || stats[0] == '/') {
		set_text("FILEMAP_RUN_STATS", stats);
		return TOOL_OK;
	}
	if (!getcwd(path, sizeof(path)) || strlen(path) + strlen(stats) + 2 > sizeof(path))
		return tool_error(TOOL_FAILED, "run: --stats %s: the present folder has no path", stats);
	strcat(path, "/");
	strcat(path, stats);
	setenv("FILEMAP_RUN_STATS", path, 1);
	return TOOL_OK;
}

static void set_environment(const struct run *run)
{
	if (run->budget)
		set_number("FILEMAP_RUN_BUDGET", run->budget);
	else
		unsetenv("FILEMAP_RUN_BUDGET");
	set_number("FILEMAP_RUN_MIN_SIZE", run->min_size);
	set_number("FILEMAP_RUN_READAHEAD", run->readahead);
	set_text("FILEMAP_RUN_MATCH", run->match);
	set_text("FILEMAP_RUN_ALL", run->all ? "1" : NULL);
	set_text("FILEMAP_RUN_VERBOSE", run->verbose ? "1" : NULL);
}

/* Find the shim: beside this program in the build tree, below its prefix, or where it was
 * installed. */
static bool find_shim(char *path, size_t len)
{
	static const char *const places[] = {"../run/" SHIM, FM_RUN_BESIDE "/filemap/" SHIM};
	char exe[PATH_MAX], *slash;
	ssize_t got = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[got < 0 ? 0 : got] = 0;
	slash = strrchr(exe, '/');
	for (size_t i = 0; slash && i < sizeof(places) / sizeof(places[0]); i++) {
		char place[2 * PATH_MAX], *real;
		snprintf(place, sizeof(place), "%.*s/%s", (int)(slash - exe), exe, places[i]);
		real = realpath(place, NULL);
		if (real) {
			snprintf(path, len, "%s", real);
			free(real);
			return true;
		}
	}
	snprintf(path, len, "%s", FM_RUN_INSTALLED "/filemap/" SHIM);
	return access(path, R_OK) == 0;
}

/* Put the shim in front of what is preloaded already, once. */
static int preload(const char *shim)
{
	const char *before = getenv("LD_PRELOAD");
	char *both;

	if (strpbrk(shim, " :"))
		return tool_error(TOOL_FAILED,
				  "run: %s: a preloaded library's path has neither spaces nor colons", shim);
	if (!before || !*before || strstr(before, shim))
		both = strdup(before && *before ? before : shim);
	else if (asprintf(&both, "%s:%s", shim, before) < 0)
		both = NULL;
	if (!both)
		return tool_error(TOOL_FAILED, "run: no memory");
	setenv("LD_PRELOAD", both, 1);
	free(both);
	return TOOL_OK;
}

/* Try whether the trap may serve faults of system calls. */
static int trap_refused(void)
{
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = 1 << 20,
					.trap = FM_TRAP_THREAD,
					.flags = FM_MM_NO_SIGNALS};
	fm_mm *mm;
	int err = fm_mm_create(&options, &mm);

	if (!err)
		fm_mm_destroy(mm);
	return err;
}

/* Say why the kernel serves the program's mappings. Returns TOOL_OK to go on all the same. */
static int look(const struct run *run, const char *path)
{
	const char *why = elf_refused(path);
	int err = !why && (run->require || run->trap == RUN_TRAP_THREAD) ? trap_refused() : 0;

	if (why && run->require)
		return tool_error(TOOL_USAGE, "run: %s %s: it cannot be preloaded", path, why);
	if (why)
		(void)tool_error(TOOL_OK,
				 "run: %s %s: it cannot be preloaded, and the kernel serves its "
				 "mappings",
				 path, why);
	if (err)
		return tool_error(TOOL_USAGE,
				  "run: faults of system calls are not granted to this user: %s; set "
				  "vm.unprivileged_userfaultfd=1, or give access to /dev/userfaultfd",
				  strerror(-err));
	return TOOL_OK;
}

static int run_program(const struct run *run, char **argv)
{
	char path[PATH_MAX], shim[PATH_MAX];
	int error = elf_find(argv[0], path, sizeof(path)), status;

	if (error) {
		(void)tool_error(TOOL_FAILED, "run: %s: cannot be run: %s", argv[0], strerror(error));
		return error == ENOENT ? 127 : 126;
	}
	status = look(run, path);
	if (status != TOOL_OK)
		return status;
	if (!find_shim(shim, sizeof(shim)))
		return tool_error(TOOL_FAILED, "run: %s: not found: install filemap as a whole", shim);
	set_environment(run);
	status = set_stats(run->stats);
	if (status == TOOL_OK)
		status = preload(shim);
	if (status != TOOL_OK)
		return status;
	fflush(stdout);
	execvp(argv[0], argv);
	(void)tool_error(TOOL_FAILED, "run: %s: cannot be run: %s", argv[0], strerror(errno));
	return errno == ENOENT ? 127 : 126;
}

static const char help[] =
	"Run a program as it is, and serve its large read-only mappings of files from user space,\n"
	"as long as nobody opens the file for writing. The kernel serves all others. Exits as\n"
	"the program does.\n";

int verb_run(int argc, char **argv)
{
	static const char *const traps[] = {"auto", "thread", NULL};
	struct run run = {.min_size = 16 << 20};
	const struct tool_option options[] = {
		{.name = "--budget",
		 .argument = "SIZE",
		 .help = "memory for pages (a quarter of the cgroup's limit, at most 1G)",
		 .kind = TOOL_SIZE,
		 .value = &run.budget,
		 .min = 1 << 20,
		 .max = 8ull << 40},
		{.name = "--match",
		 .argument = "GLOB",
		 .help = "only files whose path or name matches",
		 .kind = TOOL_TEXT,
		 .value = &run.match},
		{.name = "--min-size",
		 .argument = "SIZE",
		 .help = "smallest mapping that is served (16M)",
		 .kind = TOOL_SIZE,
		 .value = &run.min_size,
		 .min = 1,
		 .max = 1ull << 46},
		{.name = "--all",
		 .help = "serve mappings that are in the page cache, too",
		 .kind = TOOL_FLAG,
		 .value = &run.all},
		{.name = "--trap",
		 .argument = "auto|thread",
		 .help = "auto: the kernel serves where faults of system calls are not granted (auto)",
		 .kind = TOOL_CHOICE,
		 .value = &run.trap,
		 .choices = traps},
		{.name = "--readahead",
		 .argument = "SIZE",
		 .help = "largest readahead window (8M)",
		 .kind = TOOL_SIZE,
		 .value = &run.readahead,
		 .min = 4096,
		 .max = 1 << 30},
		{.name = "--stats",
		 .argument = "FILE",
		 .help = "at the end, add a line of JSON for each process; - is stderr",
		 .kind = TOOL_TEXT,
		 .value = &run.stats},
		{.name = "--verbose",
		 .help = "a line on stderr for each mapping: served, or why not",
		 .kind = TOOL_FLAG,
		 .value = &run.verbose},
		{.name = "--require",
		 .help = "exit with 2 if the program's mappings cannot be served",
		 .kind = TOOL_FLAG,
		 .value = &run.require},
		{.name = NULL},
	};
	const struct tool_verb verb = {
		.name = "run",
		.operands = "-- PROGRAM [ARGUMENTS]",
		.help = help,
		.options = options,
		.operands_min = 1,
		.operands_max = INT_MAX - 1,
	};
	int count, status;

	if (!tool_parse(&verb, argc, argv, &count, &status))
		return status;
	argv[count + 1] = NULL; /* what stood behind, if "--" went */
	return run_program(&run, argv + 1);
}
