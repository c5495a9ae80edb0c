/* SPDX-License-Identifier: MIT */
/*
 * The filemap command: a table of verbs.
 * May call: filemap.h, the verbs.
 */
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
	{"verify", verb_verify, "read everything through a mapping and compare with plain reads"},
	{"stat", verb_stat, "show the statistics of running processes"},
	{"record", verb_record, "run a program and write which ranges it touches, for hotset="},
	{"run", verb_run, "run a program as it is, with its read-only mappings of files served"},
	{"demo", verb_demo, "who stalls while faults wait for a slow store"},
	{"bench", verb_bench, "measure against the kernel's mmap() and the device's limit"},
};

#define VERB_COUNT (sizeof(verbs) / sizeof(verbs[0]))

static int help(void)
{
	printf("usage: filemap VERB [OPTIONS] [ARGUMENTS]\n\n"
	       "mmap served from user space.\n\nverbs:\n");
	for (size_t i = 0; i < VERB_COUNT; i++)
		printf("  %-10s%s\n", verbs[i].name, verbs[i].help);
	printf("\n`filemap VERB --help` tells a verb's options. Exit status: 0 done, 1 failed,\n"
	       "2 wrong usage, 77 this machine cannot run it.\n");
	return TOOL_OK;
}

/* Output that did not arrive is a failure (a full disk, a closed pipe). A verb may have flushed
 * already: then the stream remembers that this failed. */
static int finish(int status)
{
	bool lost = fflush(stdout) != 0 || ferror(stdout);

	if (lost && status == TOOL_OK)
		return tool_error(TOOL_FAILED, "standard output: cannot be written");
	return status;
}

/* Where a standard stream is closed, the next file that is opened would take its number, and what
 * is printed would be written into that file. So the number is taken first, by something that
 * cannot be written to: output is then told as lost. False: even /dev/null cannot be opened. */
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
		return tool_error(TOOL_USAGE, "no verb; see filemap --help");
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
