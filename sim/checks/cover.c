/* SPDX-License-Identifier: MIT */
/*
 * Coverage: the counters behind covered(), and the verdict on rows that no run reached.
 * Owns the counters.
 * May call: libc.
 */
#include "sim.h"

#include <stdio.h>

/* From so many runs on a row that none of them reached is a failure: it has become unreachable, or
 * the workload has lost what leads to it. The rarest comes some 15 times in so many. */
#define RUNS_ENOUGH 20000u

#define COVER_X(name, help)                                                                    \
	extern uint64_t cover_##name;                                                          \
	uint64_t cover_##name;
COVER_ALL
#undef COVER_X

void cover_collect(struct sim_cover *ret)
{
#define COVER_X(name, help) ret->name = cover_##name;
	COVER_ALL
#undef COVER_X
}

void cover_print(const struct sim_cover *cover, bool json)
{
	const char *comma = "";
#define COVER_X(name, help)                                                                    \
	if (json)                                                                              \
		printf("%s\"%s\": %llu", comma, #name, (unsigned long long)cover->name);       \
	else                                                                                   \
		printf("  %-24s %12llu  %s\n", #name, (unsigned long long)cover->name, help);  \
	comma = ", ";
	if (!json)
		printf("the fault path: table (_d, the map lock may be dropped; _n, it may not), "
		       "hazards, exits, pages:\n");
	COVER_ALL
#undef COVER_X
}

/* 0, or 1 when a row should have been reached and was not. */
int cover_verdict(const struct sim_cover *cover, uint64_t runs, bool json)
{
	uint32_t missed = 0;
	char names[512] = "";
	size_t len = 0;
#define COVER_X(name, help)                                                                    \
	if (!cover->name) {                                                                    \
		missed++;                                                                      \
		if (len < sizeof(names))                                                       \
			len += (size_t)snprintf(names + len, sizeof(names) - len, " %s", #name); \
	}
	COVER_ALL
#undef COVER_X
	if (!missed)
		return 0;
	if (runs < RUNS_ENOUGH) {
		if (!json)
			printf("%u rows were not reached, as is usual for fewer than %u runs\n", missed, RUNS_ENOUGH);
		return 0;
	}
	fprintf(stderr, "filemap-sim: never reached in %llu runs:%s\n", (unsigned long long)runs, names);
	return 1;
}
