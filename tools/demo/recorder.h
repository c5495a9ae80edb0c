/* SPDX-License-Identifier: MIT */
/*
 * The probes, and the recorder of a probe's latencies. A recorder has one writer. Others read
 * the recorder after the writer has ended. So there is no lock.
 */
#ifndef FILEMAP_DEMO_RECORDER_H
#define FILEMAP_DEMO_RECORDER_H

#include <stdint.h>

#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC  1000000000ull

/* X(name in enum, name in output, what it does under filemap, what under kernel-mmap) */
#define DEMO_PROBES(X)                                                                             \
	X(MAP, "map-unmap", "fm_map, fm_unmap", "mmap, munmap of anonymous memory")                \
	X(ADVISE, "advise", "fm_advise", "madvise")                                                \
	X(STATS, "stats", "fm_stats", "mincore")                                                   \
	X(FAULT, "fault", "a fault on a fast mapping", "a fault on a cached file")                 \
	X(PROTECT, "protect", "fm_map, fm_unmap of a page that others write to",                   \
	  "mprotect of the range that others write to")                                            \
	X(FORK, "fork", "fork", "fork")                                                            \
	X(CMDLINE, "proc-cmdline", "another process reads /proc/PID/cmdline", "same")              \
	X(SMAPS, "proc-smaps", "another process reads /proc/PID/smaps", "same")                    \
	X(MAPS, "proc-maps", "another process reads /proc/PID/maps", "same")                       \
	X(READER, "reader", "the load: what each slow access took", "same")                        \
	X(MAPPER, "mapper", "the thread whose mmap() the journal stalls", "none")

enum probe {
#define DEMO_X(id, name, fm, kernel) PROBE_##id,
	DEMO_PROBES(DEMO_X)
#undef DEMO_X
		PROBE_COUNT
};
#define PROBE_INSIDE PROBE_CMDLINE /* the probes before this one run in the subject */
#define PROBE_JUDGED PROBE_READER  /* the probes before this one must not stall */
/* These probes run only where a situation asks for them. They are too slow for many samples. */
#define PROBE_SPECIAL (1u << PROBE_PROTECT | 1u << PROBE_FORK)
extern const char *const demo_probe_names[PROBE_COUNT];

/* The histogram is log-linear: exact below 128 ns, then 128 steps for each doubling (0.8 %). */
#define REC_SUB_BITS 7
#define REC_BUCKETS  ((64 - REC_SUB_BITS + 1) << REC_SUB_BITS)
#define REC_SLOT_NS  (20 * NSEC_PER_MSEC) /* the resolution of the picture in time */
#define REC_SLOTS    1500                 /* 30 s; later samples are in the histogram only */

struct recorder {
	uint64_t n, max_ns;
	uint32_t count[REC_BUCKETS];
	uint32_t slot_max_us[REC_SLOTS]; /* the worst that ended in the slot, in us, rounded up */
};

void recorder_add(struct recorder *rec, uint64_t round_start_ns, uint64_t begin_ns,
		  uint64_t end_ns);
/* As recorder_add(). For `processor_ns` of the time, the thread was ready to run while other
 * threads had the processors. The worst includes this time, because the worst must hide
 * nothing. The quantiles leave this time out: on a machine with more threads than processors, a
 * few time slices would decide the quantiles. */
void recorder_add_less(struct recorder *rec, uint64_t round_start_ns, uint64_t begin_ns,
		       uint64_t end_ns, uint64_t processor_ns);
void recorder_merge(struct recorder *into, const struct recorder *from);
/* Return the smallest value that `permille` of the samples do not exceed; 0 without samples. */
uint64_t recorder_quantile(const struct recorder *rec, unsigned permille);

#endif
