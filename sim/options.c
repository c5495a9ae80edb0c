/* SPDX-License-Identifier: MIT */
/*
 * The command line: options.c reads and checks the options, and writes the command that repeats a
 * run. Bad input ends the process with one line and status 2.
 */
#include "run.h"

#include "search/explore.h"

#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define PREEMPTIONS_MAX 9

struct sim_command options = {.jobs = 1, .shrink_seconds = 20, .preemptions = 2};
static const char *program = "filemap-sim";

static const char usage[] =
	"usage: filemap-sim [--seeds N] [--from S] [--minutes M] [--jobs J] [--limit LIST] "
	"[--shrink SECONDS]\n"
	"       filemap-sim --exhaustive [--world NAME] [--preemptions N] [--hold] [--minutes M] "
	"[--jobs J]\n"
	"       filemap-sim --world NAME --schedule LIST [--hold]\n"
	"       filemap-sim --scenario NAME [--hold]\n"
	"       filemap-sim --list\n"
	"Run the fault path on a simulated machine. Each seed is one run, which repeats exactly. Or try "
	"all schedules of\n"
	"small worlds. Status: 0 no failure, 1 a failure, 2 wrong usage, 77 the machine's memory cannot "
	"be set up here.\n"
	"\n"
	"Seeds:\n"
	"  --seeds N        run N seeds (default 1000; with --minutes: no limit)\n"
	"  --from S         the first seed (default: a random seed, which is printed)\n"
	"  --minutes M      stop after M minutes, which may be a fraction\n"
	"  --jobs J         share the work between J processes (default 1; at most 64)\n"
	"  --limit LIST     make the runs smaller, like the smaller run of a failure; separate the items "
	"below by commas\n"
	"  --shrink SECONDS after a failure, search that long for a smaller run that fails in the same "
	"way\n"
	"                   (default 20; 0: no search)\n"
	"\n"
	"Small worlds:\n"
	"  --exhaustive     try every schedule of each small world with at most N surprises. Without a "
	"surprise, a thread\n"
	"                   runs until it must wait, and then the next thread in turn runs. A surprise: "
	"a thread is\n"
	"                   preempted, a thread runs out of turn, a timer ends early, or the machine "
	"gives an answer\n"
	"                   that it need not give (EBUSY, an error). Fewer surprises are tried first\n"
	"  --preemptions N  the largest number of surprises (default 2, about a minute in all; each more "
	"takes some\n"
	"                   hundred times as long; at most 9)\n"
	"  --world NAME     use only this world\n"
	"  --schedule LIST  run only this schedule of the world, as a failure prints it: "
	"POINT=CHOICE,...\n"
	"  --scenario NAME  run a world in one fixed way and print what happens (--trace: every "
	"event)\n"
	"  --hold           wait with the map lock held, like FM_MM_HOLD_LOCK\n"
	"  --list           list the worlds\n"
	"\n"
	"Output:\n"
	"  --trace          print every event of each run\n"
	"  --hash           print one number that depends on all events of all runs\n"
	"  --json           print the summary as JSON\n"
	"  --plant          treat something harmless as a failure, to show what a failure prints\n"
	"  --help           print this text\n"
	"\n"
	"Items of --limit:\n";

static noreturn void bad(const char *format, ...) __attribute__((format(printf, 1, 2)));
static noreturn void bad(const char *format, ...)
{
	va_list args;
	fputs("filemap-sim: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

static uint64_t number(const char *name, const char *text, uint64_t least, uint64_t most)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (*end || *text < '0' || *text > '9' || (errno && errno != ERANGE))
		bad("--%s '%s': not a whole number", name, text);
	if (errno == ERANGE || value < least || value > most)
		bad("--%s %s: give a number between %llu and %llu", name, text, (unsigned long long)least,
		    (unsigned long long)most);
	return value;
}

static double minutes(const char *text)
{
	char *end;
	double value = strtod(text, &end);
	if (*end || end == text || !(value > 0) || !isfinite(value))
		bad("--minutes '%s': give a number of minutes above 0", text);
	return value;
}

static const struct small_world *world_named(const char *name)
{
	for (uint32_t i = 0; i < small_world_count; i++)
		if (!strcmp(small_worlds[i].name, name))
			return &small_worlds[i];
	return NULL;
}

static noreturn void help(void)
{
	fputs(usage, stdout);
	limits_help();
	exit(fflush(stdout) ? 1 : 0);
}

static noreturn void list(void)
{
	for (uint32_t i = 0; i < small_world_count; i++)
		printf("%-22s %s%s\n", small_worlds[i].name, small_worlds[i].about,
		       small_worlds[i].scenario ? " (scenario)" : "");
	exit(fflush(stdout) ? 1 : 0);
}

/* Refuse options that do not go together. */
static void check(bool from, bool seeds, bool preemptions)
{
	bool small = options.exhaustive || options.schedule || options.scenario;
	if (options.world && !world_named(options.world))
		bad("no world is named '%s'; --list lists the worlds", options.world);
	if (options.scenario && (options.exhaustive || options.schedule))
		bad("--scenario runs in one fixed way: cannot be used with --exhaustive or --schedule");
	if (options.exhaustive && options.schedule)
		bad("--exhaustive tries all schedules: cannot be used with --schedule");
	if (options.schedule && !options.world)
		bad("--schedule: give the world, with --world NAME");
	if (options.schedule && !explore_parse(options.schedule))
		bad("--schedule '%s': give POINT=CHOICE,... with rising points", options.schedule);
	if (options.world && !small)
		bad("--world: add --exhaustive, or --schedule LIST");
	if (small && (from || seeds || options.limit))
		bad("%s: cannot be used with small worlds, which have no seeds", from    ? "--from"
								      : seeds ? "--seeds"
									      : "--limit");
	if (options.hold && !small)
		bad("--hold: add --exhaustive, --schedule or --scenario; a seed chooses the mode itself");
	if (preemptions && !options.exhaustive)
		bad("--preemptions: add --exhaustive");
	if (options.trace && options.exhaustive)
		bad("--trace: cannot be used with --exhaustive; trace one schedule with --schedule");
}

enum {
	SEEDS = 256,
	FROM,
	MINUTES,
	JOBS,
	LIMIT,
	SHRINK,
	EXHAUSTIVE,
	PREEMPTIONS,
	WORLD,
	SCHEDULE,
	SCENARIO,
	HOLD,
	LIST,
	TRACE,
	HASH,
	JSON,
	PLANT,
	HELP
};

void options_parse(int argc, char **argv)
{
	static const struct option longs[] = {{"seeds", 1, NULL, SEEDS},
					      {"from", 1, NULL, FROM},
					      {"minutes", 1, NULL, MINUTES},
					      {"jobs", 1, NULL, JOBS},
					      {"limit", 1, NULL, LIMIT},
					      {"shrink", 1, NULL, SHRINK},
					      {"exhaustive", 0, NULL, EXHAUSTIVE},
					      {"preemptions", 1, NULL, PREEMPTIONS},
					      {"world", 1, NULL, WORLD},
					      {"schedule", 1, NULL, SCHEDULE},
					      {"scenario", 1, NULL, SCENARIO},
					      {"hold", 0, NULL, HOLD},
					      {"list", 0, NULL, LIST},
					      {"trace", 0, NULL, TRACE},
					      {"hash", 0, NULL, HASH},
					      {"json", 0, NULL, JSON},
					      {"plant", 0, NULL, PLANT},
					      {"help", 0, NULL, HELP},
					      {0}};
	bool from = false, seeds = false, preemptions = false;
	const char *wrong;
	program = argv[0];
	opterr = 0;
	for (int c; (c = getopt_long(argc, argv, ":", longs, NULL)) != -1;)
		switch (c) {
		case SEEDS: options.seeds = number("seeds", optarg, 1, UINT64_MAX); seeds = true; break;
		case FROM: options.from = number("from", optarg, 0, UINT64_MAX); from = true; break;
		case MINUTES: options.minutes = minutes(optarg); break;
		case JOBS: options.jobs = number("jobs", optarg, 1, JOBS_MAX); break;
		case LIMIT:
			options.limit = optarg;
			wrong = limits_parse(optarg, &sim_limits);
			if (wrong)
				bad("--limit: '%s' is no item; --help lists the items", wrong);
			break;
		case SHRINK: options.shrink_seconds = number("shrink", optarg, 0, 86400); break;
		case EXHAUSTIVE: options.exhaustive = true; break;
		case PREEMPTIONS:
			options.preemptions = number("preemptions", optarg, 0, PREEMPTIONS_MAX);
			preemptions = true;
			break;
		case WORLD: options.world = optarg; break;
		case SCHEDULE: options.schedule = optarg; break;
		case SCENARIO: options.world = optarg; options.scenario = true; break;
		case HOLD: options.hold = true; break;
		case LIST: list();
		case TRACE: options.trace = true; break;
		case HASH: options.hash = true; break;
		case JSON: options.json = true; break;
		case PLANT: sim_planted = true; break;
		case HELP: help();
		case ':': bad("%s: needs a value; see --help", argv[optind - 1]);
		default: bad("%s: unknown option, or an option without a value; see --help", argv[optind - 1]);
		}
	if (optind < argc)
		bad("'%s': one argument too many; see --help", argv[optind]);
	check(from, seeds, preemptions);
	if (!options.seeds)
		options.seeds = options.minutes > 0 ? UINT64_MAX : 1000;
	if (!from && getrandom(&options.from, 6, 0) != 6)
		options.from = (uint64_t)time(NULL);
}

void sim_again(char *to, size_t size)
{
	char words[1500];
	if (sim.small) {
		explore_words(words, sizeof(words));
		snprintf(to, size, "%s --world %s%s%s --schedule %s --trace", program, sim.small->name,
			 sim.hold ? " --hold" : "", sim_planted ? " --plant" : "", words);
		return;
	}
	limits_words(&sim_limits, words, sizeof(words));
	snprintf(to, size, "%s --from %llu --seeds 1%s%s%s --trace", program, (unsigned long long)sim.seed,
		 *words ? " --limit " : "", words, sim_planted ? " --plant" : "");
}
