/* SPDX-License-Identifier: MIT */
/*
 * One round: one way to map in one situation. `struct round` is memory that all processes of
 * the round share; `struct round_spec` says what they do.
 */
#ifndef FILEMAP_DEMO_ROUND_H
#define FILEMAP_DEMO_ROUND_H

#include "demo/recorder.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define DEMO_PAGE         4096u
#define DEMO_CACHED_BYTES (8u << 20)

enum way { WAY_CONTROL, WAY_FILEMAP, WAY_HOLD, WAY_KERNEL_CONTROL, WAY_KERNEL, WAY_COUNT };
extern const char *const demo_way_names[WAY_COUNT];
#define WAY_BIT(way) (1u << (way))

static inline bool way_is_control(enum way way)
{
	return way == WAY_CONTROL || way == WAY_KERNEL_CONTROL;
}
static inline bool way_is_kernel(enum way way)
{
	return way == WAY_KERNEL_CONTROL || way == WAY_KERNEL;
}

enum phase { PHASE_PREPARE, PHASE_READY, PHASE_MEASURE, PHASE_STOP, PHASE_FAILED };

#define LOAD_THREADS_MAX 16

struct round {
	_Atomic uint32_t phase; /* enum phase; a futex shared by all processes of the round */
	_Atomic uint32_t loads_done;
	_Atomic uint32_t reads;      /* slow accesses that ended, with or without an error */
	_Atomic uint32_t errors;     /* accesses that ended in an error */
	_Atomic uint32_t wrong;      /* accesses that showed bytes other than those of the file */
	_Atomic int32_t last_error;
	_Atomic uintptr_t address;   /* where the subject mapped the slow file, for /proc/PID/mem */
	uint64_t start_ns;
	uint64_t store_reads;          /* from fm_stats() at the end */
	uint64_t lock_held_over_block; /* from fm_stats() at the end */
	char failure[200];             /* why the round failed, one line */
	struct recorder rec[PROBE_COUNT];
	struct recorder reader[LOAD_THREADS_MAX];
	_Atomic uint32_t handover[LOAD_THREADS_MAX]; /* futexes; see remote.h */
};

/* How the load accesses the slow bytes. */
enum load {
	LOAD_TOUCH,   /* threads touch cold pages of a mapping */
	LOAD_REMOTE,  /* another process reads the pages of the mapping through /proc/PID/mem */
	LOAD_JOURNAL, /* threads mmap() a file of a busy ext4, or write to a page of the file */
	LOAD_WRITE,   /* threads write to a mapping, and the last thread syncs the mapping */
	LOAD_UNMAP,   /* threads map a few pages, write to them and unmap them, all the time */
};
static inline bool load_writes(enum load load)
{
	return load == LOAD_WRITE || load == LOAD_UNMAP;
}

struct round_spec {
	enum way way;
	enum load load;
	const char *path;          /* the slow file */
	const char *truth;         /* a fast file with the same bytes, to compare with */
	const char *journal_path;  /* a file on the ext4 whose journal is slow, or NULL */
	const char *cached_path;   /* a file of DEMO_CACHED_BYTES that stays cached */
	const char *cgroup[2];     /* cgroup.procs files to join, or NULL */
	unsigned threads, touches; /* of the load; touches of each thread */
	unsigned pages;            /* of each writing thread */
	unsigned pause_ms;         /* between two writes of a thread */
	unsigned probes;           /* of PROBE_SPECIAL, bits */
	bool random;               /* the mapping has no readahead */
	int nice;                  /* of the load threads */
	uint64_t budget_bytes;     /* of the page cache, filemap ways only; 0: the default */
	unsigned delay_ms;         /* of the store itself, filemap ways only; 0: none */
	uint64_t deadline_ns;      /* of a read, filemap ways only; 0: none */
	uint64_t min_ns;           /* the load goes on for at least so long */
	uint64_t max_ns;           /* the load is cut off then; 0: never */
};

void round_set_phase(struct round *round, enum phase phase);
/* Wait until the phase is `phase` or a later one. Returns the phase then. */
enum phase round_wait_phase(struct round *round, enum phase phase);
void round_fail(struct round *round, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline bool round_over(struct round *round)
{
	return atomic_load_explicit(&round->phase, memory_order_relaxed) >= PHASE_STOP;
}
/* Record an access of load thread `index`, and its negative errno or 0. */
void round_count_access(struct round *round, unsigned index, uint64_t begin_ns, int error);

#endif
