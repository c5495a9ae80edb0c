/* SPDX-License-Identifier: MIT */
/*
 * After a failure: search for a smaller run that fails in the same way. Each try takes one thing
 * away from the run. That changes all later events, so each try runs many seeds. A run that still
 * fails is the next run to make smaller. A failure ends its processes, so each try has its own
 * processes.
 */
#include "run.h"

#include <stdio.h>
#include <unistd.h>

#define TRIES 60 /* the time is divided into so many tries */

static uint64_t first_seed;
static double until;

static void try_seeds(uint64_t j)
{
	for (uint64_t seed = first_seed + j; !jobs_stop(); seed += options.jobs) {
		world_run(seed);
		if (now_s() > until)
			return;
	}
}

/* Run seeds under sim_limits until a run fails in the same way, or the time is over. Other
 * failures are skipped. */
static bool fails_alike(const struct sim_failure *failure, double seconds,
			struct sim_failure *ret_found)
{
	until = now_s() + seconds;
	first_seed = ret_found->seed;
	do {
		memset(sim_failure, 0, sizeof(*sim_failure));
		sim_failure->quiet = true;
		jobs_run(options.jobs, try_seeds, NULL);
		if (sim_failure->failed && !strcmp(sim_failure->kind, failure->kind)) {
			*ret_found = *sim_failure;
			return true;
		}
		first_seed = sim_failure->seed + 1;
	} while (sim_failure->failed && now_s() < until);
	return false;
}

static FILE *words_to(void)
{
	return options.json ? stderr : stdout;
}

static bool same(const struct sim_limits *a, const struct sim_limits *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static void report_one(uint64_t j)
{
	(void)j;
	sim_tracing = options.trace;
	world_run(first_seed);
	fprintf(words_to(), "the run does not fail a second time\n");
}

static void tell_progress(double end, const struct sim_limits *best)
{
	char words[1500];
	limits_words(best, words, sizeof(words));
	if (isatty(2))
		fprintf(stderr, "\r\033[Kshrinking, %.0f s left: %.100s ", end - now_s(), words);
}

void shrink(const struct sim_failure *failure)
{
	struct sim_limits best = sim_limits, next;
	struct sim_failure found = *failure;
	double end = now_s() + (double)options.shrink_seconds,
	       slice = (double)options.shrink_seconds / TRIES;
	bool smaller = false, again = true;

	while (again && now_s() < end) {
		again = false;
		for (uint32_t n = 0; now_s() < end && limits_smaller(&best, n, &next); n++) {
			if (same(&next, &best))
				continue;
			tell_progress(end, &best);
			sim_limits = next;
			if (!fails_alike(failure, slice, &found))
				continue;
			best = next;
			smaller = again = true;
		}
	}
	if (isatty(2))
		fputs("\r\033[K", stderr);
	if (!smaller) {
		fprintf(words_to(), "\nno smaller run was found that fails in the same way\n");
		return;
	}
	fprintf(words_to(), "\na smaller run that fails in the same way:\n");
	fflush(words_to());
	sim_limits = best;
	first_seed = found.seed;
	memset(sim_failure, 0, sizeof(*sim_failure));
	jobs_run(1, report_one, NULL);
}
