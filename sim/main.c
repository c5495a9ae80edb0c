/* SPDX-License-Identifier: MIT */
/*
 * filemap-sim: many runs, and what they came to.
 * Owns the options, the processes that share the runs, the summary. A failure is reported by trace.c, and ends all.
 * May call: world, trace, libc.
 */
#include "sim.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: filemap-sim [--seeds N] [--from S] [--minutes M] [--jobs J] [--trace] [--hash] [--json]\n"
	"Run the fault path on a simulated machine; each seed is one run, and repeats exactly.\n"
	"  --seeds N     so many runs (1000; with --minutes: no limit)\n"
	"  --from S      the first seed (else a random one, which is told)\n"
	"  --minutes M   no longer than this\n"
	"  --jobs J      so many processes share the runs (1)\n"
	"  --trace       print every event\n"
	"  --hash        print one number that all events of all runs went into\n"
	"  --json        the summary as JSON\n";

struct result {
	uint64_t runs, steps, switches, hash;
	struct sim_marks marks;
	struct sim_cover cover;
	struct stats_histogram steps_a_run;
};

static struct {
	uint64_t seeds, from, jobs;
	double minutes;
	bool trace, hash, json;
} options = {.jobs = 1};

static double now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------ options */

static uint64_t number(const char *name, const char *text)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (*end || end == text || *text == '-' || errno) {
		fprintf(stderr, "filemap-sim: --%s %s: not a whole number\n", name, text);
		exit(2);
	}
	return value;
}

static double minutes(const char *text)
{
	char *end;
	double value = strtod(text, &end);
	if (*end || end == text || !(value > 0)) {
		fprintf(stderr, "filemap-sim: --minutes %s: not a number of minutes above 0\n", text);
		exit(2);
	}
	return value;
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"seeds", 1, NULL, 's'}, {"from", 1, NULL, 'f'}, {"minutes", 1, NULL, 'm'},
		{"jobs", 1, NULL, 'j'},  {"trace", 0, NULL, 't'}, {"hash", 0, NULL, 'x'},
		{"json", 0, NULL, 'o'},  {"help", 0, NULL, 'h'},  {0}};
	bool from = false;
	for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
		switch (c) {
		case 's': options.seeds = number("seeds", optarg); break;
		case 'f': options.from = number("from", optarg); from = true; break;
		case 'm': options.minutes = minutes(optarg); break;
		case 'j': options.jobs = number("jobs", optarg); break;
		case 't': options.trace = true; break;
		case 'x': options.hash = true; break;
		case 'o': options.json = true; break;
		case 'h': fputs(usage, stdout); exit(0);
		default: fputs(usage, stderr); exit(2);
		}
	if (optind < argc) {
		fprintf(stderr, "filemap-sim: %s: one argument too many; see --help\n", argv[optind]);
		exit(2);
	}
	if (!options.jobs || options.jobs > 64) {
		fprintf(stderr, "filemap-sim: --jobs %llu: between 1 and 64\n", (unsigned long long)options.jobs);
		exit(2);
	}
	if (!options.seeds)
		options.seeds = options.minutes > 0 ? UINT64_MAX : 1000;
	if (!from && getrandom(&options.from, 6, 0) != 6)
		options.from = (uint64_t)time(NULL);
}

/* ------------------------------------------------------------------ running */

static struct result result;

static void progress(double begun, uint64_t last)
{
	if (!isatty(2))
		return;
	double s = now_s() - begun;
	fprintf(stderr, "\r%llu runs, %.0f a second, seed %llu ", (unsigned long long)result.runs,
		(double)result.runs / (s > 0 ? s : 1), (unsigned long long)last);
}

static void run_share(uint64_t first)
{
	double begun = now_s(), told = begun;
	sim_tracing = options.trace;
	sim_trace_install_handlers();
	for (uint64_t i = first; i < options.seeds; i += options.jobs) {
		world_run(options.from + i);
		result.runs++;
		result.steps += sim.step;
		result.switches += sim.switches;
		result.hash = (result.hash ^ sim_trace_hash()) * 0x100000001b3ull;
		stats_record(&result.steps_a_run, sim.step);
		if ((result.runs & 31) && !options.trace)
			continue;
		double now = now_s();
		if (options.minutes > 0 && now - begun > options.minutes * 60)
			break;
		if (!first && now - told > 0.5) {
			told = now;
			progress(begun, options.from + i);
		}
	}
	result.marks = sim_marks;
	cover_collect(&result.cover);
	if (!first && isatty(2))
		fprintf(stderr, "\r\033[K");
}

static void add(struct result *to, const struct result *from)
{
	uint64_t *a = (uint64_t *)to;
	const uint64_t *b = (const uint64_t *)from;
	uint64_t hash = (to->hash ^ from->hash) * 0x100000001b3ull;
	for (size_t i = 0; i < sizeof(*to) / sizeof(*a); i++)
		a[i] += b[i];
	to->hash = hash;
}

/* The shares run in processes of their own; the first that fails has said so, and the others are waited for. */
static int run_jobs(struct result *ret)
{
	int pipes[64][2], status, bad = 0;
	fflush(stdout);
	for (uint64_t j = 0; j < options.jobs; j++) {
		if (pipe(pipes[j]) < 0 || (status = fork()) < 0) {
			perror("filemap-sim");
			exit(1);
		}
		if (status == 0) {
			run_share(j);
			FILE *out = fdopen(pipes[j][1], "w");
			_exit(!(out && fwrite(&result, sizeof(result), 1, out) == 1 && fflush(out) == 0));
		}
		close(pipes[j][1]);
	}
	for (uint64_t j = 0; j < options.jobs; j++) {
		struct result share;
		FILE *in = fdopen(pipes[j][0], "r");
		if (in && fread(&share, sizeof(share), 1, in) == 1)
			add(ret, &share);
		else
			bad = 1;
		if (in)
			fclose(in);
	}
	while (wait(&status) > 0)
		bad |= !WIFEXITED(status) || WEXITSTATUS(status);
	return bad;
}

/* ------------------------------------------------------------------ the summary */

static void print_summary(const struct result *r, double seconds)
{
	struct fm_histogram_summary steps;
	stats_summary(&r->steps_a_run, &steps);
	const char *format = options.json ? "%s\"%s\": %llu" : "%.0s  %-24s %12llu\n";
	if (options.json)
		printf("{\"from\": %llu, \"runs\": %llu, \"failures\": 0, \"seconds\": %.3f, \"runs_a_second\": %.1f, "
		       "\"points\": %llu, \"points_median\": %llu, \"switches\": %llu, \"marks\": {",
		       (unsigned long long)options.from, (unsigned long long)r->runs, seconds,
		       (double)r->runs / seconds, (unsigned long long)r->steps,
		       (unsigned long long)steps.p50_ns, (unsigned long long)r->switches);
	else
		printf("%llu runs from seed %llu in %.1f s, %.0f a second: no failure\n"
		       "scheduling points a run: median about %llu, most %llu; %.0f switches a run\n"
		       "reached, how often:\n",
		       (unsigned long long)r->runs, (unsigned long long)options.from, seconds,
		       (double)r->runs / seconds, (unsigned long long)steps.p50_ns,
		       (unsigned long long)steps.max_ns, (double)r->switches / (double)(r->runs ? r->runs : 1));
	const char *comma = "";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#define FM_X(name, help)                                                                       \
	printf(format, comma, #name, (unsigned long long)r->marks.name);                       \
	comma = ", ";
	SIM_MARKS(FM_X)
	FM_COUNTERS(FM_X)
#undef FM_X
#pragma GCC diagnostic pop
	printf("%s", options.json ? "}, \"rows\": {" : "");
	cover_print(&r->cover, options.json);
	if (options.json)
		printf("}}\n");
	if (options.hash)
		printf("hash %016llx\n", (unsigned long long)r->hash);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	sim_command = argv[0];
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	kernel_init();
	if (!options.json)
		printf("from seed %llu\n", (unsigned long long)options.from);
	double begun = now_s();
	if (options.jobs > 1) {
		int bad = run_jobs(&result);
		if (bad)
			return 1;
	} else {
		run_share(0);
	}
	print_summary(&result, now_s() - begun);
	int missed = cover_verdict(&result.cover, result.runs, options.json);
	return fflush(stdout) || missed;
}
