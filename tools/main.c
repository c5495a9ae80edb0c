/* SPDX-License-Identifier: MIT */
/*
 * The filemap command: a table of verbs.
 * May call: filemap.h, the verbs.
 */
#include "filemap.h"
#include "tool.h"

#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} verbs[] = {
	{"verify", verb_verify, "read everything through a mapping and compare with plain reads"},
	{"stat", verb_stat, "show the statistics of running processes"},
	{"record", verb_record, "run a program and write which ranges it touches, for hotset="},
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

/* Output that did not arrive is a failure (a full disk, a closed pipe). */
static int finish(int status)
{
	if (fflush(stdout) != 0 && status == TOOL_OK)
		return tool_error(TOOL_FAILED, "standard output: cannot be written");
	return status;
}

int main(int argc, char **argv)
{
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
