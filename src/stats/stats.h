/* SPDX-License-Identifier: MIT */
/*
 * The stats page: counters, gauges and histograms in a sealed memfd, which other processes of the
 * same owner read through /proc/PID/fd. Any thread writes to the page at any time, with relaxed
 * atomics and no lock. Readers (stats_read.c) distrust all bytes of the page.
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

/* Log-linear: 8 buckets for each power of two, from 0 up to 2^40 ns (18 minutes), and a last
 * bucket for larger values. */
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
uint64_t stats_bucket_top_ns(unsigned bucket); /* the largest value that falls into the bucket */
void stats_record(struct stats_histogram *histogram, uint64_t ns);
void stats_summary(const struct stats_histogram *histogram, struct fm_histogram_summary *ret);

/* The writer's side. *ret_page is populated. *ret_fd stays open as long as readers shall see the
 * page. */
int stats_page_create(const char *trap, const char *install, struct stats_page **ret_page,
		      int *ret_fd);
void stats_page_destroy(struct stats_page *page, int fd);
/* Collect the whole page into one structure, for fm_stats(). */
void stats_collect(const struct stats_page *page, struct fm_stats *ret_stats);

/* The reader's side: copy the n-th stats page of a process. Returns -ENOENT if there are no more
 * pages, -EACCES, -ESRCH, or -EPROTO if the file is not a page of this version. Not
 * signal-safe. */
int stats_read_process(int pid, unsigned nth, struct stats_page *ret_copy);
/* Read all pages of a process in one pass, at most 256. Calls fn(arg, 0, copy) for a page, or
 * fn(arg, error, ...) with -EPROTO or the read error, until fn returns false. Returns 0, or an
 * error as stats_read_process(). */
typedef bool (*stats_page_fn)(void *arg, int error, struct stats_page *copy);
int stats_read_all(int pid, stats_page_fn fn, void *arg);

#endif
