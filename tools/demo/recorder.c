/* SPDX-License-Identifier: MIT */
/*
 * The recorder: a histogram of latencies, and the worst latency of each slot of time.
 */
#include "demo/recorder.h"

#include <stddef.h>

const char *const demo_probe_names[PROBE_COUNT] = {
#define DEMO_X(id, name, fm, kernel) name,
	DEMO_PROBES(DEMO_X)
#undef DEMO_X
};

static unsigned bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns < (1u << REC_SUB_BITS))
		return (unsigned)ns;
	shift = 63u - (unsigned)__builtin_clzll(ns) - REC_SUB_BITS;
	return ((shift + 1) << REC_SUB_BITS) +
	       (unsigned)((ns >> shift) & ((1u << REC_SUB_BITS) - 1));
}

/* Return the largest value of a bucket, so that a quantile is never too small. */
static uint64_t bucket_top(unsigned bucket)
{
	unsigned shift = bucket >> REC_SUB_BITS;
	uint64_t low = bucket & ((1u << REC_SUB_BITS) - 1);

	if (!shift)
		return low;
	return ((low + (1u << REC_SUB_BITS) + 1) << (shift - 1)) - 1;
}

void recorder_add(struct recorder *rec, uint64_t round_start_ns, uint64_t begin_ns, uint64_t end_ns)
{
	recorder_add_less(rec, round_start_ns, begin_ns, end_ns, 0);
}

void recorder_add_less(struct recorder *rec, uint64_t round_start_ns, uint64_t begin_ns,
		       uint64_t end_ns, uint64_t processor_ns)
{
	uint64_t ns = end_ns - begin_ns;
	uint64_t slot = (end_ns - round_start_ns) / REC_SLOT_NS;
	uint64_t us = (ns + 999) / 1000;

	rec->n++;
	rec->count[bucket_of(processor_ns < ns ? ns - processor_ns : 0)]++;
	if (ns > rec->max_ns)
		rec->max_ns = ns;
	if (us > UINT32_MAX)
		us = UINT32_MAX;
	if (slot < REC_SLOTS && us > rec->slot_max_us[slot])
		rec->slot_max_us[slot] = (uint32_t)us;
}

void recorder_merge(struct recorder *into, const struct recorder *from)
{
	into->n += from->n;
	if (from->max_ns > into->max_ns)
		into->max_ns = from->max_ns;
	for (size_t i = 0; i < REC_BUCKETS; i++)
		into->count[i] += from->count[i];
	for (size_t i = 0; i < REC_SLOTS; i++) {
		if (from->slot_max_us[i] > into->slot_max_us[i])
			into->slot_max_us[i] = from->slot_max_us[i];
	}
}

uint64_t recorder_quantile(const struct recorder *rec, unsigned permille)
{
	uint64_t want = (rec->n * permille + 999) / 1000, seen = 0;

	if (!rec->n)
		return 0;
	for (unsigned i = 0; i < REC_BUCKETS; i++) {
		seen += rec->count[i];
		if (seen >= want && seen)
			return bucket_top(i) < rec->max_ns ? bucket_top(i) : rec->max_ns;
	}
	return rec->max_ns;
}
