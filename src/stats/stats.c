/* SPDX-License-Identifier: MIT */
/*
 * Histograms and their summaries. Owns nothing and takes no lock: recording is a few relaxed
 * atomics. The first 2^STATS_SUB_BITS buckets hold one value each. Above them, each power of two
 * is divided into 2^STATS_SUB_BITS equal parts. So a bucket's top is at most 1/8 above any value
 * in the bucket.
 * May call: nothing.
 */
#include "stats/stats.h"

#define SUB_COUNT    (1u << STATS_SUB_BITS)
#define BUCKET_OVER  (STATS_BUCKETS - 1u)
#define OVER_NS      (1ull << 40)

_Static_assert(STATS_BUCKETS == (40 - STATS_SUB_BITS + 1) * (1 << STATS_SUB_BITS) + 1,
	       "one bucket beyond 2^40");

unsigned stats_bucket(uint64_t ns)
{
	unsigned shift;

	if (ns < SUB_COUNT)
		return (unsigned)ns;
	if (ns >= OVER_NS)
		return BUCKET_OVER;
	shift = 63u - (unsigned)__builtin_clzll(ns) - STATS_SUB_BITS;
	return ((shift + 1) << STATS_SUB_BITS) + (unsigned)((ns >> shift) & (SUB_COUNT - 1));
}

uint64_t stats_bucket_top_ns(unsigned bucket)
{
	unsigned shift;

	if (bucket < SUB_COUNT)
		return bucket;
	if (bucket >= BUCKET_OVER)
		return UINT64_MAX;
	shift = (bucket >> STATS_SUB_BITS) - 1;
	return ((uint64_t)(SUB_COUNT + (bucket & (SUB_COUNT - 1)) + 1) << shift) - 1;
}

void stats_record(struct stats_histogram *histogram, uint64_t ns)
{
	uint64_t max = atomic_load_explicit(&histogram->max_ns, memory_order_relaxed);

	while (ns > max &&
	       !atomic_compare_exchange_weak_explicit(&histogram->max_ns, &max, ns,
						      memory_order_relaxed, memory_order_relaxed))
		;
	stats_add(histogram, bucket[stats_bucket(ns)], 1);
	stats_add(histogram, sum_ns, ns);
	stats_add(histogram, count, 1);
}

/* Return the smallest bucket top that at least `per_mille` of `count` values do not exceed. */
static uint64_t percentile(const uint64_t *bucket, uint64_t count, unsigned per_mille,
			   uint64_t max_ns)
{
	/* count * per_mille / 1000, rounded up, without overflow */
	uint64_t want = count / 1000 * per_mille + (count % 1000 * per_mille + 999) / 1000;
	uint64_t seen = 0;

	for (unsigned i = 0; i < BUCKET_OVER; i++) {
		seen += bucket[i];
		if (seen >= want) {
			uint64_t top_ns = stats_bucket_top_ns(i);

			return top_ns < max_ns ? top_ns : max_ns;
		}
	}
	return max_ns;
}

/* Summarize a histogram. The count is the sum of the buckets, not `count`: so the percentiles
 * agree with the count, even while values are recorded. */
void stats_summary(const struct stats_histogram *histogram, struct fm_histogram_summary *ret)
{
	uint64_t bucket[STATS_BUCKETS];
	uint64_t count = 0, max_ns;

	for (unsigned i = 0; i < STATS_BUCKETS; i++) {
		bucket[i] = atomic_load_explicit(&histogram->bucket[i], memory_order_relaxed);
		count += bucket[i];
	}
	max_ns = atomic_load_explicit(&histogram->max_ns, memory_order_relaxed);
	*ret = (struct fm_histogram_summary){.count = count};
	if (!count)
		return;
	ret->p50_ns = percentile(bucket, count, 500, max_ns);
	ret->p99_ns = percentile(bucket, count, 990, max_ns);
	ret->p999_ns = percentile(bucket, count, 999, max_ns);
	ret->max_ns = max_ns;
}

void stats_collect(const struct stats_page *page, struct fm_stats *ret_stats)
{
#define FM_X(name, help)                                                                           \
	ret_stats->name = atomic_load_explicit(&page->name, memory_order_relaxed);
	FM_COUNTERS(FM_X)
	FM_GAUGES(FM_X)
#undef FM_X
#define FM_X(name, help) stats_summary(&page->name, &ret_stats->name);
	FM_HISTOGRAMS(FM_X)
#undef FM_X
}
