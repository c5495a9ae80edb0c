/* SPDX-License-Identifier: MIT */
/*
 * The results: the rounds of each way in each situation, added up and judged.
 */
#ifndef FILEMAP_DEMO_REPORT_H
#define FILEMAP_DEMO_REPORT_H

#include "demo/situations/situations.h"

#define DEMO_FAILURES_MAX 64

/* One way in one situation. */
struct cell {
	struct recorder *rec;   /* [PROBE_COUNT], all rounds together; NULL: did not run */
	struct recorder *drawn; /* the round with the longest wait, for the picture */
	uint64_t drawn_ns, drawn_worst_ns;
	unsigned rounds;
	uint32_t reads, errors, wrong; /* slow accesses */
	uint32_t reads_min;            /* slow accesses of a round */
	uint64_t samples_min;          /* of a judged probe in a round */
	uint64_t held_over_block;
	int last_error;
	char skipped[SITUATION_WHY]; /* why the way did not run */
	bool failed;                 /* a round failed; a failure of the report says why */
	/* the judgement */
	uint64_t bound_ns;      /* the worst latency that is still noise; 0: no control */
	unsigned stalled, slow; /* probes, bits: worst, or p99, above its bound */
};

struct report {
	unsigned delay_ms, rounds;
	const char *file;
	struct cell cell[WAY_COUNT][DEMO_SITUATIONS_MAX];
	char failure[DEMO_FAILURES_MAX][300];
	size_t failure_count;
};

int report_add_round(struct report *report, enum way way, size_t situation,
		     const struct round *round, uint64_t round_ns);
void report_skip(struct report *report, enum way way, size_t situation, const char *why);
void report_round_failed(struct report *report, enum way way, size_t situation, const char *why);
void report_failure(struct report *report, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* True if nobody stalled under filemap in this situation, and the p99 of a probe is above its
 * bound all the same. Such a few milliseconds may be noise of the machine; more rounds tell. */
bool report_is_close(const struct report *report, size_t situation);
/* Find bounds and verdicts. Add a failure for each thing that the demonstration did not
 * show. */
void report_judge(struct report *report);
void report_free(struct report *report);

/* The longest wait in all controls: the noise of this machine. */
uint64_t report_noise(const struct report *report);
/* The control of this way in this situation; NULL if the control did not run. */
const struct cell *report_control(const struct report *report, enum way way, size_t situation);
/* The longest wait of the judged probes outside the set `without` (bits), and the probe. */
uint64_t cell_worst(const struct cell *cell, unsigned without, unsigned *ret_probe);
/* The probes that the kernel itself may stall in this way, bits. */
unsigned report_excused(enum way way, size_t situation);

#endif
