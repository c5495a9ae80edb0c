/* SPDX-License-Identifier: MIT */
/*
 * The stats page: counters, gauges and histograms in a sealed memfd, which other processes of the
 * owner read through /proc/PID/fd. Written with relaxed atomics, by anybody, at any time; taking no
 * lock. Readers (stats_read.c) distrust what they find.
 * May call: os.h. Writing is signal-safe and makes no system call.
 */
#ifndef FM_STATS_H
#define FM_STATS_H

#include "filemap.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#define STATS_MAGIC 0x3174617473706d66ull /* "fmpstat1" */
#define STATS_MEMFD_NAME "filemap-stats"

/* Log-linear: 8 buckets to each power of two, from 0 up to 2^40 ns (18 minutes) and one beyond. */
#define STATS_SUB_BITS 3
#define STATS_BUCKETS (((40 - STATS_SUB_BITS + 1) << STATS_SUB_BITS) + 1)

struct stats_histogram {
	_Atomic uint64_t count;
	_Atomic uint64_t sum_ns;
	_Atomic uint64_t max_ns;
	_Atomic uint64_t bucket[STATS_BUCKETS];
};

struct stats_page {
	uint64_t magic;
	uint32_t version, pid;
	uint64_t size_bytes; /* of this structure */
	uint64_t created_unix_ns;
	char trap[16], install[16];
#define FM_X(name, help) _Atomic uint64_t name;
	FM_COUNTERS(FM_X)
	FM_GAUGES(FM_X)
#undef FM_X
#define FM_X(name, help) struct stats_histogram name;
	FM_HISTOGRAMS(FM_X)
#undef FM_X
};

#define stats_add(page, field, n)                                                              \
	((void)atomic_fetch_add_explicit(&(page)->field, (uint64_t)(n), memory_order_relaxed))
#define stats_sub(page, field, n)                                                              \
	((void)atomic_fetch_sub_explicit(&(page)->field, (uint64_t)(n), memory_order_relaxed))
#define stats_put(page, field, n)                                                              \
	atomic_store_explicit(&(page)->field, (uint64_t)(n), memory_order_relaxed)

unsigned stats_bucket(uint64_t ns);
uint64_t stats_bucket_top_ns(unsigned bucket); /* largest value that falls into it */
void stats_record(struct stats_histogram *histogram, uint64_t ns);
void stats_summary(const struct stats_histogram *histogram, struct fm_histogram_summary *ret);

/* The writer's side. *ret_page is populated; *ret_fd stays open as long as the page shall be seen.
 */
int stats_page_create(const char *trap, const char *install, struct stats_page **ret_page,
		      int *ret_fd);
void stats_page_destroy(struct stats_page *page, int fd);
/* All of it as one structure: fm_stats(). */
void stats_collect(const struct stats_page *page, struct fm_stats *ret_stats);

/* The reader's side: copies the n-th stats page of a process. -ENOENT when there are no more,
 * -EACCES, -ESRCH, -EPROTO when what is found is not a page of this version. Not signal-safe. */
int stats_read_process(int pid, unsigned nth, struct stats_page *ret_copy);
/* All of them, in one pass, and at most 256: calls fn(arg, 0, a copy), or with -EPROTO or why it
 * cannot be read, until it returns false. 0, or as stats_read_process(). */
typedef bool (*stats_page_fn)(void *arg, int error, struct stats_page *copy);
int stats_read_all(int pid, stats_page_fn fn, void *arg);

#endif
