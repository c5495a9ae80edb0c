/* SPDX-License-Identifier: MIT */
/*
 * filemap-sim: many runs, and their summary. trace.c reports a failure in the process that met the
 * failure. The failure ends all processes, and shrink.c then searches for a smaller run.
 */
#include "run.h"

#include <stdio.h>
#include <unistd.h>

struct result {
	uint64_t runs, steps, switches, hash, last;
	struct sim_marks marks;
	struct sim_cover cover;
	struct stats_histogram steps_a_run;
};
static struct result *results; /* one for each process; shared */
static double begun;

/* ------------------------------------------------------------------ running */

static void run_share(uint64_t j)
{
	struct result *r = &results[j];
	sim_tracing = options.trace;
	for (uint64_t i = j; i < options.seeds && !jobs_stop(); i += options.jobs) {
		if (options.minutes > 0 && now_s() - begun > options.minutes * 60)
			break;
		r->last = options.from + i;
		world_run(r->last);
		if (options.trace)
			sim_trace_print(0, false);
		r->runs++;
		r->steps += sim.step;
		r->switches += sim.switches;
		/* the sum does not depend on which process ran a seed */
		r->hash += sim_trace_hash() * (2 * r->last + 1);
		stats_record(&r->steps_a_run, sim.step);
	}
	r->marks = sim_marks;
	cover_collect(&r->cover);
}

static void progress(void)
{
	uint64_t runs = 0, last = 0;
	double s = now_s() - begun;
	for (uint64_t j = 0; j < options.jobs; j++) {
		runs += __atomic_load_n(&results[j].runs, __ATOMIC_RELAXED);
		last = results[j].last > last ? results[j].last : last;
	}
	fprintf(stderr, "\r%llu runs, %.0f per second, seed %llu ", (unsigned long long)runs,
		(double)runs / (s > 0 ? s : 1), (unsigned long long)last);
}

static void add(struct result *to, const struct result *from)
{
	uint64_t *a = (uint64_t *)to;
	const uint64_t *b = (const uint64_t *)from;
	for (size_t i = 0; i < sizeof(*to) / sizeof(*a); i++)
		a[i] += b[i];
}

/* ------------------------------------------------------------------ the summary */

static void print_summary(const struct result *r, double seconds)
{
	struct fm_histogram_summary steps;
	stats_summary(&r->steps_a_run, &steps);
	const char *format = options.json ? "%s\"%s\": %llu" : "%.0s  %-24s %12llu\n";
	if (options.json)
		printf("{\"from\": %llu, \"runs\": %llu, \"failures\": 0, \"seconds\": %.3f, "
		       "\"runs_a_second\": %.1f, "
		       "\"points\": %llu, \"points_median\": %llu, \"switches\": %llu, \"marks\": "
		       "{",
		       (unsigned long long)options.from, (unsigned long long)r->runs, seconds,
		       (double)r->runs / seconds, (unsigned long long)r->steps,
		       (unsigned long long)steps.p50_ns, (unsigned long long)r->switches);
	else
		printf("%llu runs from seed %llu in %.1f s, %.0f per second: no failure\n"
		       "scheduling points per run: median about %llu, maximum %llu; %.0f switches per run\n"
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

static int run_seeds(void)
{
	struct result sum = {.runs = 0};
	results = jobs_shared(options.jobs * sizeof(*results));
	if (!options.json) {
		printf("from seed %llu\n", (unsigned long long)options.from);
		fflush(stdout);
	}
	begun = now_s();
	if (jobs_run(options.jobs, run_share, progress)) {
		struct sim_failure failure = *sim_failure;
		if (failure.failed && options.shrink_seconds)
			shrink(&failure);
		if (options.json)
			printf("{\"from\": %llu, \"failures\": 1, \"seed\": %llu}\n",
			       (unsigned long long)options.from, (unsigned long long)failure.seed);
		return 1;
	}
	for (uint64_t j = 0; j < options.jobs; j++)
		add(&sum, &results[j]);
	print_summary(&sum, now_s() - begun);
	return options.limit ? 0 : cover_verdict(&sum.cover, sum.runs, options.json);
}

int main(int argc, char **argv)
{
	options_parse(argc, argv);
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	sim_trace_init(options.json ? stderr : stdout, sim_again);
	kernel_init();
	sim_failure = jobs_shared(sizeof(*sim_failure));
	int status = options.exhaustive ? search_worlds() : options.world ? search_one() : run_seeds();
	return fflush(stdout) ? 1 : status;
}
