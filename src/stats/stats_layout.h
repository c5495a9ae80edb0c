/* SPDX-License-Identifier: MIT */
/*
 * The version of the stats page's layout. The version is a hash of the tables' names in their
 * order, so that every change to a table changes the version. May call: nothing.
 */
#ifndef FM_STATS_LAYOUT_H
#define FM_STATS_LAYOUT_H

#include "stats/stats.h"

#define FM_X(name, help) #name ","
static const char stats_names[] = FM_COUNTERS(FM_X) ";" FM_GAUGES(FM_X) ";" FM_HISTOGRAMS(FM_X);
#undef FM_X

/* FNV-1a, 32 bits. */
static inline uint32_t stats_version(void)
{
	uint32_t hash = 2166136261u;

	for (const char *p = stats_names; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 16777619u;
	return hash ^ (STATS_BUCKETS << 8 | STATS_SUB_BITS);
}

#endif
