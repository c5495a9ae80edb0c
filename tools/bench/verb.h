/* SPDX-License-Identifier: MIT */
/* A run of the benchmark: its options and its state. */
#ifndef FILEMAP_BENCH_VERB_H
#define FILEMAP_BENCH_VERB_H

#include "bench/bench.h"

#define BENCH_SIZE_MIN      (16 * MIB)

#define BENCH_NOTES_MAX     64

struct bench {
	/* options */
	const char *file, *plot, *markdown, *ways_text;
	uint64_t rounds, size;
	bool json, quick, counters;
	/* state */
	unsigned ways;            /* BENCH_BIT()s */
	const char *const *names; /* of workloads; no name: all workloads */
	int name_count;
	struct bench_machine machine;
	struct bench_cell *cell;
	int cell_fd;
	struct bench_row *rows;
	size_t row_count;
	bool failed;              /* a way read or wrote wrong bytes, or died */
	bool library_ran;
	char notes[BENCH_NOTES_MAX][BENCH_WHY + 40];
	unsigned note_count;
};

/* Carry out the whole plan: the file, the rounds, the reports. Everything is undone at return.
 * Returns the exit status. */
int bench_run_plan(struct bench *bench);

#endif
