/* SPDX-License-Identifier: MIT */
/* The options of filemap bench, and checks of the files and folders that the options name. */
#include "bench/verb.h"

#include "command/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROUNDS        5
#define ROUNDS_QUICK  3

/* ------------------------------------------------------------------ options */

static int parse_ways(struct bench *bench)
{
	const char *text = bench->ways_text;

	bench->ways = text ? 0 : (1u << BENCH_WAY_COUNT) - 1;
	while (text && *text) {
		size_t len = strcspn(text, ",");
		enum bench_way way = 0;

		while (way < BENCH_WAY_COUNT &&
		       (strlen(bench_ways[way].name) != len || memcmp(bench_ways[way].name, text, len)))
			way++;
		if (way == BENCH_WAY_COUNT)
			return tool_error(TOOL_USAGE, "bench: --ways %.*s: unknown way; see filemap bench --help",
					  (int)len, text);
		bench->ways |= 1u << way;
		text += len + (text[len] == ',');
	}
	if (!bench->ways)
		return tool_error(TOOL_USAGE, "bench: --ways: the list is empty; give at least one way; see "
					      "filemap bench --help");
	return TOOL_OK;
}

static int check_names(const struct bench *bench)
{
	for (int i = 0; i < bench->name_count; i++) {
		size_t w = 0;

		while (w < bench_workload_count && strcmp(bench_workloads[w].name, bench->names[i]))
			w++;
		if (w == bench_workload_count)
			return tool_error(TOOL_USAGE, "bench: %s: unknown workload; see filemap bench --help",
					  bench->names[i]);
	}
	return TOOL_OK;
}

static int check_file(struct bench *bench)
{
	struct stat st;
	int fd;

	if (!bench->file)
		return TOOL_OK;
	fd = open(bench->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st))
		return tool_error(TOOL_FAILED, "bench: %s: %s", bench->file, strerror(errno));
	close(fd);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < BENCH_SIZE_MIN)
		return tool_error(TOOL_FAILED, "bench: %s: not a regular file of 16 MiB or more", bench->file);
	bench->machine.path = bench->file;
	bench->machine.file_bytes = (uint64_t)st.st_size;
	return TOOL_OK;
}

/* Check the folder now, not at the end of the measurement. */
static int check_plot(const struct bench *bench)
{
	struct stat st;

	if (!bench->plot)
		return TOOL_OK;
	if (mkdir(bench->plot, 0777) && errno != EEXIST)
		return tool_error(TOOL_FAILED, "bench: --plot %s: %s", bench->plot, strerror(errno));
	if (stat(bench->plot, &st) || !S_ISDIR(st.st_mode) || access(bench->plot, W_OK))
		return tool_error(TOOL_FAILED, "bench: --plot %s: not a folder that can be written to",
				  bench->plot);
	return TOOL_OK;
}

static int check_markdown(const struct bench *bench)
{
	FILE *out = bench->markdown ? fopen(bench->markdown, "ae") : NULL;

	if (bench->markdown && !out)
		return tool_error(TOOL_FAILED, "bench: --markdown %s: %s", bench->markdown, strerror(errno));
	if (out)
		fclose(out);
	return TOOL_OK;
}

/* ------------------------------------------------------------------ the verb */

static char *make_help(void)
{
	static char help[6144];
	size_t len = 0;

	len += (size_t)snprintf(help, sizeof(help),
				"Measure the library's mappings of a file, the kernel's mappings, and the device\n"
				"itself. In each round every way runs once, in a new process, and in another order.\n"
				"The table shows the median round. The ratio is the median of the speeds relative\n"
				"to kernel-mmap in the same round. Workloads that write use a file of their own, and\n"
				"sync within the measured time.\n"
				"\nworkloads (default: all):\n");
	for (size_t i = 0; i < bench_workload_count; i++)
		len += (size_t)snprintf(help + len, sizeof(help) - len, "  %-22s%s\n", bench_workloads[i].name,
					bench_workloads[i].what);
	len += (size_t)snprintf(help + len, sizeof(help) - len, "\nways:\n");
	for (enum bench_way way = 0; way < BENCH_WAY_COUNT; way++)
		len += (size_t)snprintf(help + len, sizeof(help) - len, "  %-24s%s\n", bench_ways[way].name,
					bench_ways[way].what);
	return help;
}

int verb_bench(int argc, char **argv)
{
	static struct bench bench;
	const struct tool_option options[] = {
		{.name = "--file",
		 .argument = "F",
		 .kind = TOOL_TEXT,
		 .value = &bench.file,
		 .help = "the file to read, preferably of 4G or more (default: a new file)"},
		{.name = "--size",
		 .argument = "SIZE",
		 .kind = TOOL_SIZE,
		 .value = &bench.size,
		 .min = BENCH_SIZE_MIN,
		 .max = 1ull << 44,
		 .help = "size of the new file (default 4G; with --quick 512M)"},
		{.name = "--quick",
		 .kind = TOOL_FLAG,
		 .value = &bench.quick,
		 .help = "use smaller ranges and 3 rounds, in less than 2 minutes"},
		{.name = "--rounds",
		 .argument = "N",
		 .kind = TOOL_COUNT,
		 .value = &bench.rounds,
		 .min = 1,
		 .max = BENCH_ROUNDS_MAX,
		 .help = "number of rounds (default 5; three times as many for a store in memory)"},
		{.name = "--ways",
		 .argument = "WAY,...",
		 .kind = TOOL_TEXT,
		 .value = &bench.ways_text,
		 .help = "run only these ways"},
		{.name = "--json",
		 .kind = TOOL_FLAG,
		 .value = &bench.json,
		 .help = "print one JSON object for each row"},
		{.name = "--plot",
		 .argument = "DIR",
		 .kind = TOOL_TEXT,
		 .value = &bench.plot,
		 .help = "write SVG pictures into DIR: each workload, an overview, the targets"},
		{.name = "--markdown",
		 .argument = "FILE",
		 .kind = TOOL_TEXT,
		 .value = &bench.markdown,
		 .help = "write a page: the machine, the targets, the rows, the pictures of --plot"},
		{.name = "--counters",
		 .kind = TOOL_FLAG,
		 .value = &bench.counters,
		 .help = "print the library's counters of the first round on stderr"},
		{.name = NULL},
	};
	const struct tool_verb verb = {
		.name = "bench",
		.operands = "[WORKLOAD...]",
		.help = make_help(),
		.options = options,
		.operands_max = 64,
	};
	uint64_t cell_fd;
	int count, status;

	if (argc == 3 && !strcmp(argv[1], "--cell") && tool_parse_count(argv[2], &cell_fd) &&
	    cell_fd < INT_MAX)
		bench_cell_main((int)cell_fd); /* returns if there is no cell: an unknown option */
	if (!tool_parse(&verb, argc, argv, &count, &status))
		return status;
	bench.names = (const char *const *)argv + 1;
	bench.name_count = count;
	if (bench.file && bench.size)
		return tool_error(TOOL_USAGE, "bench: --size is the size of a new file: give it without --file");
	if (!bench.rounds)
		bench.rounds = bench.quick ? ROUNDS_QUICK : ROUNDS;
	status = parse_ways(&bench);
	if (!status)
		status = check_names(&bench);
	if (!status)
		status = check_file(&bench);
	if (!status)
		status = check_plot(&bench);
	if (!status)
		status = check_markdown(&bench);
	return status ? status : bench_run_plan(&bench);
}
