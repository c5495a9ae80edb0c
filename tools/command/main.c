/* SPDX-License-Identifier: MIT */
/* The filemap command: main() finds the verb in a table and runs the verb. */
#include "filemap.h"
#include "command/tool.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} verbs[] = {
	{"verify", verb_verify,
	 "read a whole file through a mapping and compare the bytes with plain reads"},
	{"stat", verb_stat, "show the statistics of running processes"},
	{"record", verb_record,
	 "run a program and record which ranges of files it touches, for hotset="},
	{"run", verb_run, "run a program as it is, with its read-only mappings of files served"},
	{"demo", verb_demo,
	 "show which threads and processes stall while page faults wait for a slow store"},
	{"bench", verb_bench, "compare the speed with the kernel's mmap() and the device's limit"},
};

#define VERB_COUNT (sizeof(verbs) / sizeof(verbs[0]))

static int help(void)
{
	printf("usage: filemap VERB [OPTIONS] [ARGUMENTS]\n\n"
	       "mmap served from user space.\n\nverbs:\n");
	for (size_t i = 0; i < VERB_COUNT; i++)
		printf("  %-10s%s\n", verbs[i].name, verbs[i].help);
	printf("\n`filemap VERB --help` lists the options of a verb. Exit status: 0 success,\n"
	       "1 failure, 2 wrong usage, 77 this machine cannot run the verb.\n");
	return TOOL_OK;
}

/* Flush standard output. Lost output is a failure (a full disk, a closed pipe). If the verb's own
 * flush failed before, the stream's error flag tells so. */
static int finish(int status)
{
	bool lost = fflush(stdout) != 0 || ferror(stdout);

	if (lost && status == TOOL_OK)
		return tool_error(TOOL_FAILED, "standard output: cannot be written");
	return status;
}

/* Open each standard stream that is closed. Otherwise the next opened file would take the stream's
 * number, and printed text would go into that file. The replacement cannot be written to, so
 * finish() reports the output as lost. Returns false if /dev/null cannot be opened. */
static bool standard_streams_open(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
			return false;
	return true;
}

int main(int argc, char **argv)
{
	if (!standard_streams_open())
		return TOOL_FAILED;
	if (argc < 2)
		return tool_error(TOOL_USAGE, "no verb is given; see filemap --help");
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return finish(help());
	if (strcmp(argv[1], "--version") == 0) {
		printf("filemap %s\n", fm_version());
		return finish(TOOL_OK);
	}
	for (size_t i = 0; i < VERB_COUNT; i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return finish(verbs[i].run(argc - 1, argv + 1));
	return tool_error(TOOL_USAGE, "unknown %s %s; see filemap --help",
			  argv[1][0] == '-' ? "option" : "verb", argv[1]);
}
