/* SPDX-License-Identifier: MIT */
/*
 * The command around the simulated machine: the options, the processes that share the work, and
 * their jobs. Of all this the machine itself knows only struct sim_limits and struct sim_failure
 * (sim.h).
 */
#ifndef FM_SIM_RUN_H
#define FM_SIM_RUN_H

#include "sim.h"

#include <stdio.h>

#define JOBS_MAX 64

struct sim_command {
	uint64_t seeds, from, jobs, shrink_seconds;
	double minutes; /* 0: no limit */
	bool trace, hash, json, exhaustive, scenario, hold;
	const char *world, *schedule; /* of the small worlds; NULL: all worlds, no schedule */
	uint64_t preemptions;
	const char *limit; /* as given, for the command that repeats a run */
};
extern struct sim_command options;

/* trace.c: set where events and failures are printed. again() writes the command that repeats a
 * run. */
void sim_trace_init(FILE *to, void (*again)(char *to, size_t size));

/* options.c: exit with one line and status 2 if the options make no sense. */
void options_parse(int argc, char **argv);
void sim_again(char *to, size_t size); /* the command that repeats this run */

/* limits.c */
const char *limits_parse(const char *text,
			 struct sim_limits *ret_limits); /* NULL, or the item that is wrong */
void limits_words(const struct sim_limits *limits, char *to, size_t size);
/* Give the n-th way to make a run smaller than under `limits`. Returns false if no more ways
 * exist. */
bool limits_smaller(const struct sim_limits *limits, uint32_t n, struct sim_limits *ret_smaller);
void limits_help(void);

/* search/jobs.c */
double now_s(void);
bool jobs_stop(void); /* another process has failed */
void *jobs_shared(size_t size); /* zeroed memory, shared by the processes */
/* Run share(j) in `jobs` processes. Call progress() now and then in this process. Returns 0, or 1
 * if any process failed. */
int jobs_run(uint64_t jobs, void (*share)(uint64_t j), void (*progress)(void));

/* search/shrink.c: search for a smaller run that fails in the same way, and report the run. */
void shrink(const struct sim_failure *failure);

/* search/search.c: run all schedules of the small worlds. Returns the command's status. */
int search_worlds(void);
int search_one(void); /* one world, one schedule */

#endif
