/* SPDX-License-Identifier: MIT */
/*
 * The options of `filemap demo`, and the plan that they make.
 * May call: the table of situations, libc.
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

static void usage(FILE *out)
{
	fprintf(out,
		"usage: filemap demo [OPTIONS]\n"
		"\n"
		"Threads fault on cold pages of a store that delays each read. Meanwhile others "
		"map and\n"
		"unmap, advise, read statistics, fault on a fast mapping, and another process "
		"reads\n"
		"/proc/PID/{cmdline,smaps,maps}: how long does each of them wait? The same over "
		"an\n"
		"idle store is the control. Or they write to a mapping of a file on a slow or a "
		"frozen\n"
		"file system; where that matters others fork, and change the range (protect).\n"
		"\n"
		"  --file F          the real file whose bytes are served, 16 MiB or more\n"
		"                    (default: the largest library found under /usr/lib)\n"
		"  --delay MS        delay of each read, %u to %u (default %u)\n"
		"  --rounds N[-MOST] rounds of each way, 1 to %u (default %u-%u): N, and up to "
		"MOST of filemap's\n"
		"                    where nobody stalled, yet a row is above this machine's "
		"noise\n"
		"  --only SITUATION  only this situation; may be repeated\n"
		"  --way WAY         only this way and its control; may be repeated\n"
		"  --json            one JSON object a row instead of the table\n"
		"  --plot F.svg      draw the latencies over time (needs gnuplot)\n"
		"  --help            this text\n"
		"\n"
		"Situations:\n",
		DELAY_MIN_MS, DELAY_MAX_MS, DELAY_DEFAULT_MS, ROUNDS_MAX, ROUNDS_DEFAULT,
		ROUNDS_MOST);
	for (size_t i = 0; i < demo_situation_count; i++)
		fprintf(out, "  %-14s %s\n", demo_situations[i].name, demo_situations[i].what);
	fprintf(out, "\n"
		     "Ways:\n"
		     "  control, kernel-control   the store is idle\n"
		     "  filemap                   the library\n"
		     "  filemap-hold              the library made to wait under its map lock\n"
		     "  kernel-mmap               the kernel's own mmap()\n"
		     "\n"
		     "The situations but slow-store's filemap ways need root; a row says what is "
		     "missing.\n"
		     "Everything set up is undone at the end, also after an interrupt.\n"
		     "Exit status: 0 shown, 1 not shown or failed, 2 usage, 77 filemap can't run "
		     "here.\n");
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

/* N, or N-MOST. */
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

/* A way is judged by its control, which therefore comes with it. */
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

/* 0: go on; else what to exit with, plus one. */
int demo_parse_options(int argc, char **argv, struct demo *demo, struct plan *plan)
{
	enum {
		OPT_FILE = 1,
		OPT_DELAY,
		OPT_ROUNDS,
		OPT_ONLY,
		OPT_WAY,
		OPT_JSON,
		OPT_PLOT,
		OPT_HELP
	};
	static const struct option options[] = {
		{"file", required_argument, NULL, OPT_FILE},
		{"delay", required_argument, NULL, OPT_DELAY},
		{"rounds", required_argument, NULL, OPT_ROUNDS},
		{"only", required_argument, NULL, OPT_ONLY},
		{"way", required_argument, NULL, OPT_WAY},
		{"json", no_argument, NULL, OPT_JSON},
		{"plot", required_argument, NULL, OPT_PLOT},
		{"help", no_argument, NULL, OPT_HELP},
		{0},
	};
	int option, error = 0;

	optind = 1;
	opterr = 0;
	while (!error && (option = getopt_long(argc, argv, ":", options, NULL)) >= 0) {
		switch (option) {
		case OPT_FILE:
			demo->file = optarg;
			break;
		case OPT_DELAY:
			error = parse_number("--delay", optarg, DELAY_MIN_MS, DELAY_MAX_MS,
					     &demo->delay_ms);
			break;
		case OPT_ROUNDS:
			error = parse_rounds(optarg, plan);
			break;
		case OPT_ONLY:
			error = parse_situation(optarg, &plan->situations);
			break;
		case OPT_WAY:
			error = parse_way(optarg, &plan->ways);
			break;
		case OPT_JSON:
			demo->json = true;
			break;
		case OPT_PLOT:
			demo->plot = optarg;
			break;
		case OPT_HELP:
			usage(stdout);
			return 1;
		case ':':
			demo_say("%s wants a value; see filemap demo --help", argv[optind - 1]);
			return 3;
		default:
			if (optopt > OPT_HELP)
				demo_say("unknown option '-%c'; see filemap demo --help", optopt);
			else
				demo_say("unknown option '%s'; see filemap demo --help",
				    argv[optind - 1]);
			return 3;
		}
	}
	if (error)
		return 3;
	if (optind < argc) {
		demo_say("unexpected argument '%s'; see filemap demo --help", argv[optind]);
		return 3;
	}
	return 0;
}

/* Better now than after two minutes. */
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
