/* SPDX-License-Identifier: MIT */
/*
 * --exhaustive: run all schedules of each small world with a limited number of surprises, and
 * print a summary. Also run one schedule, or one scenario.
 */
#include "run.h"

#include "search/explore.h"

#include <stdio.h>
#include <unistd.h>

struct found { /* results of a world; shared by the processes */
	uint64_t schedules, longest, points;
	uint32_t surprises; /* the number of surprises that the search has reached */
	bool begun, complete;
	double seconds;
};
static struct found *found;
static double end_s;

static bool wanted(const struct small_world *w)
{
	return options.world ? !strcmp(options.world, w->name) : !w->scenario;
}

static bool time_is_up(void)
{
	return jobs_stop() || (end_s > 0 && now_s() > end_s);
}

/* Run all schedules with at most `surprises` surprises. Returns false if the time is up first. */
static bool search_bound(const struct small_world *w, struct found *f, uint32_t surprises)
{
	uint64_t schedules = 0;
	explore_begin();
	do {
		if ((schedules & 63) == 0 && time_is_up())
			return false;
		world_run_small(w, options.hold);
		f->schedules = ++schedules > f->schedules ? schedules : f->schedules;
		f->points += explore_length();
		f->longest = explore_length() > f->longest ? explore_length() : f->longest;
	} while (explore_next(surprises));
	return true;
}

static void search_world(const struct small_world *w, struct found *f)
{
	double begun = now_s();
	f->begun = f->complete = true;
	explore_forget();
	for (uint32_t n = 0; n <= options.preemptions && f->complete; n++) {
		f->surprises = n;
		do
			f->complete = search_bound(w, f, n);
		while (f->complete && explore_learnt());
	}
	f->seconds = now_s() - begun;
}

static void share_worlds(uint64_t j)
{
	for (uint32_t i = 0, n = 0; i < small_world_count; i++)
		if (wanted(&small_worlds[i]) && n++ % options.jobs == j)
			search_world(&small_worlds[i], &found[i]);
}

static void progress(void)
{
	for (uint32_t i = 0; i < small_world_count; i++)
		if (found[i].begun && found[i].seconds == 0) {
			fprintf(stderr, "\r\033[K%s: %u surprises, %llu schedules ", small_worlds[i].name,
				found[i].surprises, (unsigned long long)found[i].schedules);
			return;
		}
}

static void print_world(const struct small_world *w, const struct found *f, const char *comma)
{
	if (options.json)
		printf("%s{\"world\": \"%s\", \"schedules\": %llu, \"bound\": %llu, \"complete\": %s, "
		       "\"longest\": %llu, \"seconds\": %.3f}", comma, w->name, (unsigned long long)f->schedules,
		       (unsigned long long)options.preemptions, f->complete ? "true" : "false",
		       (unsigned long long)f->longest, f->seconds);
	else
		printf("%-22s %9llu schedules, at most %llu surprises: %s; up to %llu choices in a run, %.1f s\n",
		       w->name, (unsigned long long)f->schedules, (unsigned long long)options.preemptions,
		       f->complete ? "complete" : "NOT complete", (unsigned long long)f->longest, f->seconds);
}

int search_worlds(void)
{
	const char *comma = "";
	found = jobs_shared(small_world_count * sizeof(*found));
	end_s = options.minutes > 0 ? now_s() + options.minutes * 60 : 0;
	if (jobs_run(options.jobs, share_worlds, progress)) {
		if (options.json)
			printf("{\"failures\": 1}\n");
		return 1;
	}
	if (options.json)
		printf("{\"failures\": 0, \"worlds\": [");
	for (uint32_t i = 0; i < small_world_count; i++)
		if (wanted(&small_worlds[i])) {
			print_world(&small_worlds[i], &found[i], comma);
			comma = ",\n";
		}
	if (options.json)
		printf("]}\n");
	return 0;
}

static void one(uint64_t j)
{
	char words[1500];
	(void)j;
	for (uint32_t i = 0; i < small_world_count; i++)
		if (wanted(&small_worlds[i]) ||
		    (options.scenario && !strcmp(options.world, small_worlds[i].name)))
			world_run_small(&small_worlds[i], options.hold);
	explore_words(words, sizeof(words));
	if (sim_tracing)
		sim_trace_print(0, !options.trace);
	if (!options.scenario)
		printf("world %s, schedule %s: no failure, %u choices\n", options.world, words, explore_length());
	if (options.hash)
		printf("hash %016llx\n", (unsigned long long)sim_trace_hash());
}

int search_one(void)
{
	sim_tracing = options.trace || options.scenario;
	return jobs_run(1, one, NULL);
}
