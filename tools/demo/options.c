/* SPDX-License-Identifier: MIT */
/*
 * The options of `filemap demo`, and the plan that the options make.
 */
#define _GNU_SOURCE
#include "demo/options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------ words */

void demo_say(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "filemap demo: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

#define INDENT "                 "

static void usage(FILE *out)
{
	fprintf(out,
		"usage: filemap demo [OPTIONS]\n"
		"\n"
		"Some threads wait for a slow store. How long do others wait meanwhile? Others\n"
		"are threads of the same process that map and unmap, advise, read statistics, and\n"
		"fault on a fast mapping; and another process that reads cmdline, smaps and maps\n"
		"in /proc/PID. In two situations, threads also call fork(); where a mapping is\n"
		"written to, a thread changes the range (protect).\n"
		"\n"
		"A row for each situation has the longest wait of others under filemap and under\n"
		"the kernel's mmap(), and what waited. A control is the same with an idle store.\n"
		"\n"
		"  --all             print a row for each probe of each way; draw all ways\n"
		"  --json            print one JSON object for each row of --all\n"
		"  --plot F.svg      draw the latencies over time (needs gnuplot)\n"
		"  --file F          the file whose bytes are served, 16 MiB or more\n"
		"                    (default: the largest library found under /usr/lib)\n"
		"  --delay MS        the delay of each read or write, %u to %u (default %u)\n"
		"  --rounds N[-MOST] rounds of each way, 1 to %u (default %u-%u); up to MOST rounds\n"
		"                    of filemap, if nobody stalled and a row is above the noise\n"
		"  --only SITUATION  only this situation; may be repeated\n"
		"  --way WAY         only this way and its control; may be repeated\n"
		"  --help            this text\n"
		"\n"
		"Situations:\n",
		DELAY_MIN_MS, DELAY_MAX_MS, DELAY_DEFAULT_MS, ROUNDS_MAX, ROUNDS_DEFAULT,
		ROUNDS_MOST);
	for (size_t i = 0; i < demo_situation_count; i++)
		fprintf(out, "  %-14s %s\n%s%s%s", demo_situations[i].name,
			demo_situations[i].what[0], demo_situations[i].what[1] ? INDENT : "",
			demo_situations[i].what[1] ? demo_situations[i].what[1] : "",
			demo_situations[i].what[1] ? "\n" : "");
	fprintf(out,
		"\n"
		"Ways:\n"
		"  filemap                   the library\n"
		"  filemap-hold              the library made to wait under its map lock\n"
		"  kernel-mmap               the kernel's own mmap()\n"
		"  control, kernel-control   filemap and the kernel's mmap() with an idle store\n"
		"\n"
		"Without root, only slow-store runs, and only under filemap; the other rows say\n"
		"what is missing. Everything that is set up is undone at the end, also after an\n"
		"interrupt. Exit status: 0 shown, 1 not shown or failed, 2 usage, 77 filemap\n"
		"cannot run here.\n");
}

/* ------------------------------------------------------------------ options */

static int parse_number(const char *option, const char *text, unsigned min, unsigned max,
			unsigned *ret_value)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || end == text || *end || value < min || value > max || text[0] == '-') {
		demo_say("%s: '%s' is not a number from %u to %u", option, text, min, max);
		return -1;
	}
	*ret_value = (unsigned)value;
	return 0;
}

/* Parse N or N-MOST. */
static int parse_rounds(const char *text, struct plan *plan)
{
	char first[16];
	const char *dash = strchr(text, '-');

	if (!dash || dash == text || (size_t)(dash - text) >= sizeof(first))
		return parse_number("--rounds", text, 1, ROUNDS_MAX, &plan->rounds);
	snprintf(first, sizeof(first), "%.*s", (int)(dash - text), text);
	if (parse_number("--rounds", first, 1, ROUNDS_MAX, &plan->rounds))
		return -1;
	return parse_number("--rounds", dash + 1, plan->rounds, ROUNDS_MAX, &plan->rounds_most);
}

static int parse_situation(const char *text, unsigned *bits)
{
	for (size_t i = 0; i < demo_situation_count; i++) {
		if (!strcmp(text, demo_situations[i].name)) {
			*bits |= 1u << i;
			return 0;
		}
	}
	demo_say("--only: unknown situation '%s'; see filemap demo --help", text);
	return -1;
}

/* A way is judged by its control, so the control runs, too. */
static int parse_way(const char *text, unsigned *bits)
{
	for (enum way way = 0; way < WAY_COUNT; way++) {
		if (!strcmp(text, demo_way_names[way])) {
			*bits |= WAY_BIT(way);
			*bits |= WAY_BIT(way_is_kernel(way) ? WAY_KERNEL_CONTROL : WAY_CONTROL);
			return 0;
		}
	}
	demo_say("--way: unknown way '%s'; see filemap demo --help", text);
	return -1;
}

enum {
	OPT_FILE = 1,
	OPT_DELAY,
	OPT_ROUNDS,
	OPT_ALL,
	OPT_ONLY,
	OPT_WAY,
	OPT_JSON,
	OPT_PLOT,
	OPT_HELP,
};

/* Take one option with its argument. 0, or -1 after a line on stderr. */
static int take_option(int option, struct demo *demo, struct plan *plan)
{
	switch (option) {
	case OPT_FILE:
		demo->file = optarg;
		return 0;
	case OPT_DELAY:
		return parse_number("--delay", optarg, DELAY_MIN_MS, DELAY_MAX_MS, &demo->delay_ms);
	case OPT_ROUNDS:
		return parse_rounds(optarg, plan);
	case OPT_ALL:
		demo->all = true;
		return 0;
	case OPT_ONLY:
		return parse_situation(optarg, &plan->situations);
	case OPT_WAY:
		return parse_way(optarg, &plan->ways);
	case OPT_JSON:
		demo->json = true;
		return 0;
	case OPT_PLOT:
		demo->plot = optarg;
		return 0;
	}
	return -1;
}

int demo_parse_options(int argc, char **argv, struct demo *demo, struct plan *plan)
{
	static const struct option options[] = {
		{"file", required_argument, NULL, OPT_FILE},
		{"delay", required_argument, NULL, OPT_DELAY},
		{"rounds", required_argument, NULL, OPT_ROUNDS},
		{"all", no_argument, NULL, OPT_ALL},
		{"only", required_argument, NULL, OPT_ONLY},
		{"way", required_argument, NULL, OPT_WAY},
		{"json", no_argument, NULL, OPT_JSON},
		{"plot", required_argument, NULL, OPT_PLOT},
		{"help", no_argument, NULL, OPT_HELP},
		{0},
	};
	int option;

	optind = 1;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) >= 0) {
		switch (option) {
		case OPT_HELP:
			usage(stdout);
			return 1;
		case ':':
			demo_say("%s wants a value; see filemap demo --help", argv[optind - 1]);
			return 3;
		case '?':
			if (optopt > OPT_HELP)
				demo_say("unknown option '-%c'; see filemap demo --help", optopt);
			else
				demo_say("unknown option '%s'; see filemap demo --help",
					 argv[optind - 1]);
			return 3;
		default:
			if (take_option(option, demo, plan))
				return 3;
		}
	}
	if (optind < argc) {
		demo_say("unexpected argument '%s'; see filemap demo --help", argv[optind]);
		return 3;
	}
	return 0;
}

/* Runs before the measurement, so that an error does not come only after minutes. */
int demo_check_plot(const char *path)
{
	int fd;

	if (system("gnuplot --version >/dev/null 2>&1")) {
		demo_say("--plot needs gnuplot, which is not installed");
		return -1;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0) {
		demo_say("%s: %s", path, strerror(errno));
		return -1;
	}
	close(fd);
	return 0;
}
