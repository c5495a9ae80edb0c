/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's parts and what they share.
 *
 *   options.c    the options
 *   verb.c       the file, the order of the rounds
 *   workloads.c  the tables of workloads and of ways, the patterns of access
 *   machine.c    the file, cold caches, the short readahead, the memory cgroup; all undone
 *   cell.c       one way in one round, in a process of its own: threads, counters
 *   measure.c    time, touches, what the process has used
 *   ways.c       the ways over the kernel's mmap() and over pread
 *   filemap.c    the ways over the library
 *   write.c      the workloads that write: what is written where, the sync, and whether it is in
 *                the file then
 *   limit.c      the device's limit: io_uring, O_DIRECT
 *   bare.c       a fault served in user space with no library: the floor of what one costs
 *   stats.c      medians and ratios
 *   targets.c    the table of targets, and whether each is met
 *   report.c     table and JSON
 *   markdown.c   the same as a page to read
 *   plot.c       the pictures
 *   svg.c        shapes as SVG
 *
 * The coordinator is single-threaded and maps nothing. For each way of each round it executes
 * itself anew (a *cell*), which finds its orders in a shared page and leaves its figures there.
 */
#ifndef FILEMAP_BENCH_H
#define FILEMAP_BENCH_H

#include "filemap.h"
#include "command/order.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

struct undo;

#define BENCH_PAGE        4096u
#define BENCH_HUGE        (2u << 20)
#define BENCH_LINE        64u
#define BENCH_WHY         240
#define BENCH_ROUNDS_MAX  99
#define BENCH_THREADS_MAX 16
#define BENCH_DEPTH       32 /* reads in flight where a way may choose */

#define MIB (1ull << 20)
#define GIB (1ull << 30)

/* ------------------------------------------------------------------ ways */

enum bench_family {
	FAMILY_FILEMAP, /* the library */
	FAMILY_KERNEL,  /* mmap() */
	FAMILY_PREAD,
	FAMILY_LIMIT,   /* the device */
	FAMILY_BARE,    /* the mechanism without a library */
};

struct bench_way_info {
	const char *name, *color, *what;
	enum bench_family family;
	uint32_t page_size;   /* filemap: 0 is its default */
	uint32_t trap;        /* filemap: enum fm_trap */
	int advice;           /* kernel: of madvise(), for all of the mapping */
	bool short_readahead; /* kernel: 128 KiB */
	bool copy;            /* bare: COPY, not MOVE */
	bool protect;         /* bare: a write to what COPY protected: MOVE out of the view and in again */
	bool overview;        /* in the picture of all workloads; kernel-mmap is the line there */
};

/*
 * A way is one line here: X(name in enum, name in output, colour, what it is, further fields of its
 * struct bench_way_info). One of the library's takes part in every workload that has LIBRARY.
 */
#define BENCH_WAYS_FILEMAP(X)                                                                      \
	X(FILEMAP, "filemap", "#1d4ed8", "the library, its defaults", .overview = true)            \
	X(FILEMAP_THREAD, "filemap-thread", "#93b4f5", "same, faults served by a handler thread",  \
	  .trap = FM_TRAP_THREAD)                                                                  \
	X(FILEMAP_HUGE, "filemap-huge", "#0e9fb5", "same, page size 2 MiB",                        \
	  .page_size = BENCH_HUGE, .overview = true)
#define BENCH_WAYS_KERNEL(X)                                                                       \
	X(KERNEL, "kernel-mmap", "#c2410c", "mmap(), the machine's readahead", .advice = 0)        \
	X(KERNEL_128K, "kernel-mmap-128k", "#f59e42", "mmap(), readahead of 128 KiB",              \
	  .short_readahead = true, .overview = true)                                               \
	X(KERNEL_RANDOM, "kernel-mmap-random", "#8a5a20", "mmap(), MADV_RANDOM",                   \
	  .advice = MADV_RANDOM, .overview = true)                                                 \
	X(KERNEL_SEQUENTIAL, "kernel-mmap-sequential", "#d6a678", "mmap(), MADV_SEQUENTIAL",       \
	  .advice = MADV_SEQUENTIAL)                                                               \
	X(KERNEL_WILLNEED, "kernel-willneed", "#f2cfa4", "mmap(), MADV_WILLNEED in advance",       \
	  .advice = 0)
#define BENCH_WAYS_PREAD(X)                                                                        \
	X(PREAD, "pread", "#a8a29e", "pread() through the page cache", .advice = 0)                \
	X(PWRITE, "pwrite", "#78716c", "pwrite() through the page cache", .advice = 0)
#define BENCH_WAYS_LIMIT(X)                                                                        \
	X(LIMIT, "limit", "#3f9142", "the device itself: io_uring, O_DIRECT", .overview = true)
#define BENCH_WAYS_BARE(X)                                                                         \
	X(BARE, "bare", "#6b7280", "SIGBUS, MOVE, return; no library", .copy = false)              \
	X(BARE_COPY, "bare-copy", "#b4bac4", "SIGBUS, COPY, return; no library", .copy = true)     \
	X(BARE_PROTECT, "bare-protect", "#4b5563",                                                 \
	  "SIGBUS by a protected page, MOVE out and in, return; no library", .copy = true,         \
	  .protect = true)
#define BENCH_WAYS(X)                                                                              \
	BENCH_WAYS_FILEMAP(X)                                                                      \
	BENCH_WAYS_KERNEL(X) BENCH_WAYS_PREAD(X) BENCH_WAYS_LIMIT(X) BENCH_WAYS_BARE(X)

enum bench_way {
#define BENCH_X(id, ...) BENCH_##id,
	BENCH_WAYS(BENCH_X)
#undef BENCH_X
		BENCH_WAY_COUNT
};
#define BENCH_BIT(way) (1u << BENCH_##way)
#define BENCH_X(id, ...) | BENCH_BIT(id)
enum { BENCH_LIBRARY = 0 BENCH_WAYS_FILEMAP(BENCH_X) }; /* all of the library's ways */
#undef BENCH_X
extern const struct bench_way_info bench_ways[BENCH_WAY_COUNT];

static inline bool bench_way_is_filemap(enum bench_way way)
{
	return bench_ways[way].family == FAMILY_FILEMAP;
}
/* Its pages are the kernel's page cache. */
static inline bool bench_way_is_cached(enum bench_way way)
{
	return bench_ways[way].family == FAMILY_KERNEL || bench_ways[way].family == FAMILY_PREAD;
}

/* ------------------------------------------------------------------ workloads */

enum bench_pattern {
	PATTERN_FORWARD,
	PATTERN_BACKWARD,
	PATTERN_STREAMS, /* several forward scans, a page of each in turn */
	PATTERN_RANDOM,  /* pages, none twice */
	PATTERN_ZIPF,    /* pages, some often */
	PATTERN_WORDS,   /* one word anywhere, independent of each other */
};

#define BENCH_STREAMS     8
#define BENCH_ZIPF_S      0.99
#define BENCH_THREAD_SETS 3
#define BENCH_MAPPINGS    10000 /* of map-scale */

/* Sizes of a workload: of a whole run, or of a --quick one. */
struct bench_scale {
	uint64_t range_bytes; /* at most so much of the file */
	uint64_t ops, warm_ops; /* 0: the range once, no warming */
	unsigned limit_ms;    /* a cell is cut off then, warming too; 0: never */
};

struct bench_workload {
	const char *name, *what;
	enum bench_pattern pattern;
	uint32_t unit;         /* bytes of one operation */
	uint32_t step;         /* from one unit to the next in the file; 0: they touch */
	unsigned budget_part;  /* the budget is this part of the range; 0: all of it fits */
	unsigned threads[BENCH_THREAD_SETS]; /* ends with 0 */
	unsigned ways;         /* BENCH_BIT()s */
	bool hot;              /* all of it is mapped and resident when it begins */
	bool same_pages;       /* all threads visit the same pages in the same order */
	bool memory;           /* filemap ways and bare: a memory store, its pages cached but not mapped */
	bool touch_words;      /* one word of each page, not one of each line */
	bool nowait;           /* filemap: BENCH_DEPTH pages in flight by fm_fault_in() */
	bool each_mapped;      /* each unit by a mapping of its own */
	bool whole;            /* all of the range, however little of it stays cold */
	bool sparse;           /* a memory store of just this size, whatever the file's; nothing cached */
	bool writes; /* to a file of the benchmark's own; what was written is compared afterwards */
	unsigned commit_pages; /* writes: an operation writes to so many pages and syncs; 0: a sync
				  at the end */
	bool random_advice;    /* FM_ADVICE_RANDOM, MADV_RANDOM: a fault installs its own page alone */
	bool with_previous;    /* shares the rounds of the workload before it in the table */
	unsigned passes;       /* over a range of 6/5 budgets, after one for warming; 0: no such thing */
	struct bench_scale full, quick;
};

extern const struct bench_workload bench_workloads[];
extern const size_t bench_workload_count;

/* All of the range, page after page in some direction, from the device. */
static inline bool bench_is_scan(const struct bench_workload *workload)
{
	return !workload->step && !workload->memory && !workload->writes &&
	       (workload->pattern == PATTERN_FORWARD || workload->pattern == PATTERN_BACKWARD ||
		workload->pattern == PATTERN_STREAMS);
}

/* ------------------------------------------------------------------ one cell */

#define BENCH_SUMS 40

/* The coordinator writes `in` before, the cell `out`. Shared memory. */
struct bench_cell {
	struct {
		uint32_t magic;
		unsigned workload, way, threads;
		char path[PATH_MAX];
		int fd;              /* the file, already open; -1: open it yourself */
		char cgroup[200];    /* cgroup.procs to join first; "" for none */
		uint64_t file_bytes, range_bytes, budget_bytes, ops, warm_ops;
		uint64_t limit_ns;
		uint64_t seed;       /* writes: of the bytes, different in each cell */
	} in;
	struct {
		bool done, wrong; /* wrong: what was written is not there */
		char why[BENCH_WHY]; /* why it could not run */
		uint64_t ns, ops, bytes, device_bytes, written_bytes, cpu_ns, rss_bytes;
		uint64_t cached_bytes, metadata_bytes; /* filemap ways: its pages at the end, and
							  memory beside them */
		uint64_t sum;               /* of all that was touched */
		uint64_t sums[BENCH_SUMS];  /* same, after each thread's first 2^i operations; 0: not reached */
		struct fm_stats stats;      /* filemap ways: what the measured part added; gauges as they are */
	} out;
};

#define BENCH_MAGIC 0x66626e63u

struct bench_run; /* cell.c: a cell at work */

/* One thread of it. */
struct bench_worker {
	struct bench_run *run;
	unsigned index;
	uint64_t ops, sum;
	uint64_t sums[BENCH_SUMS];
};

struct bench_run {
	struct bench_cell *cell;
	const struct bench_workload *workload;
	const struct bench_way_ops *ops;
	enum bench_way way;
	unsigned threads;
	uint64_t range_bytes;
	uint64_t slots;          /* units in the range */
	uint64_t clock_mask; /* the clock is read at every operation whose turn has none of these
				bits */
	struct order order;      /* random patterns */
	uint32_t *zipf;          /* page numbers, one an operation; warming first */
	int fd;                  /* of the file */
	const unsigned char *map;
	const unsigned char **maps; /* of each of several mappings; NULL: one */
	void *private;
};

struct bench_way_ops {
	/* In a fresh process, before the clock runs. 0, or -1 after bench_why(). */
	int (*open)(struct bench_run *run);
	/* After warming, before the clock runs. NULL: nothing. */
	void (*begin)(struct bench_run *run);
	/* After it has stopped: figures. NULL: nothing. */
	void (*end)(struct bench_run *run);
	/* Operations `from` to `to` of a worker, until `deadline_ns`; NULL: touch the mapping. */
	int (*work)(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns);
	/* Workloads that write: all that was written by now is durable. 0, or -1 after bench_why(). */
	int (*sync)(struct bench_run *run);
	/* Bytes as they are in the store. 0, or -1 after bench_why(). NULL: of the file, by O_DIRECT. */
	int (*read_back)(struct bench_run *run, void *to, size_t len, uint64_t offset);
};

extern const struct bench_way_ops bench_kernel_ops, bench_pread_ops, bench_filemap_ops,
	bench_limit_ops, bench_bare_ops;

/* The cell's whole life. The exit status. */
int bench_cell_main(int cell_fd);
int bench_why(struct bench_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t bench_now_ns(void);
uint64_t bench_rss_bytes(void); /* of this process */
/* Of this process's I/O; `key`: read_bytes or write_bytes. Calls bench_why() where the kernel does
 * not tell. */
uint64_t bench_device_bytes(struct bench_run *run, const char *key);
/* Of all threads, also those that have ended. */
uint64_t bench_cpu_ns(void);
/* Operations of each worker; those of all are a multiple of it. */
uint64_t bench_share(const struct bench_run *run, uint64_t ops);
/* Where in the range operation `turn` of a worker goes. */
uint64_t bench_offset(const struct bench_worker *worker, uint64_t turn);
uint64_t bench_sum_lines(const unsigned char *at, size_t len);
uint64_t bench_sum_pages(const unsigned char *at, size_t len); /* the first word of each */
/* An operation is done: counted, and the sum so far kept where it is to be compared. */
static inline void bench_done(struct bench_worker *worker, uint64_t sum)
{
	worker->sum += sum;
	worker->ops++;
	if (!(worker->ops & (worker->ops - 1)))
		worker->sums[__builtin_ctzll(worker->ops)] = worker->sum;
}
/* Time is up; asked often enough, and seldom enough not to be measured. */
static inline bool bench_over(const struct bench_worker *worker, uint64_t turn,
			      uint64_t deadline_ns)
{
	return deadline_ns && !(turn & worker->run->clock_mask) && bench_now_ns() >= deadline_ns;
}
/* The default of `work`. */
int bench_touch(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns);
/* The same for workloads that write, by all ways. */
int bench_write(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns);
/* After the clock has stopped: is what these operations wrote in the store? 0, or -1 after
 * bench_why(). */
int bench_write_check(struct bench_run *run, unsigned index, uint64_t from, uint64_t ops);
/* Page numbers by Zipf's law, scattered over the range; NULL: no memory. */
uint32_t *bench_zipf_make(uint64_t pages, uint64_t count);

/* ------------------------------------------------------------------ the machine */

struct bench_machine {
	struct undo *undo;
	const char *path;
	uint64_t file_bytes;
	char made[PATH_MAX]; /* the file we wrote; "" when one was given */
	char scratch[PATH_MAX]; /* the file that is written to; "" until one is wanted */
	uint64_t scratch_bytes;
	char readahead_path[128], readahead_text[32]; /* the disk's readahead, and what it is */
	char cgroup[200];    /* a directory; "" when there is none */
	char no_readahead[BENCH_WHY], no_cgroup[BENCH_WHY]; /* why not */
	void *held;          /* memory kept warm for the next cell */
	uint64_t held_bytes;
	bool warned;         /* the cache could not be dropped: said once */
};

/* Write a file of `bytes` under `dir`. 0, or -1 and one line on stderr. */
int bench_make_file(struct bench_machine *machine, const char *dir, uint64_t bytes);
/* Have a file of `bytes` or more that may be written to. 0, or -1 and one line on stderr. */
int bench_make_scratch(struct bench_machine *machine, const char *dir, uint64_t bytes);
/* Set up what there is to be had. Why something is not, is in no_*. */
void bench_machine_open(struct bench_machine *machine);
void bench_hold_memory(struct bench_machine *machine, uint64_t bytes);
void bench_release_memory(struct bench_machine *machine);
/* Take a file out of the page cache; the second one sees to it. */
void bench_forget(const char *path);
void bench_drop(struct bench_machine *machine, const char *path, uint64_t bytes);
/* The file opened with a readahead of 128 KiB; negative: none. The disk's own setting is back at
 * return. */
int bench_open_128k(struct bench_machine *machine);
int bench_limit_cgroup(struct bench_machine *machine, uint64_t bytes);

/* ------------------------------------------------------------------ results */

/* One way, one workload, one number of threads. */
struct bench_row {
	const struct bench_workload *workload;
	enum bench_way way;
	unsigned threads, rounds;
	bool left_out;
	char why[BENCH_WHY]; /* it was left out */
	/* of each round */
	double ns_per_op[BENCH_ROUNDS_MAX], seconds[BENCH_ROUNDS_MAX], ops[BENCH_ROUNDS_MAX],
		bytes[BENCH_ROUNDS_MAX], written_bytes[BENCH_ROUNDS_MAX],
		device_bytes[BENCH_ROUNDS_MAX], cpu_s[BENCH_ROUNDS_MAX], rss_mib[BENCH_ROUNDS_MAX],
		cached_bytes[BENCH_ROUNDS_MAX], budget_bytes[BENCH_ROUNDS_MAX],
		metadata_bytes[BENCH_ROUNDS_MAX]; /* these three: filemap ways */
	/* once all rounds are there: the round with the median time an operation */
	struct {
		double seconds, ops, bytes, ns_per_op, device_bytes, written_bytes, cpu_s, rss_mib;
		double ratio; /* median of the speeds over kernel-mmap's in the same round; 0: no kernel-mmap */
	} mid;
};

double bench_median(const double *values, unsigned count);
void bench_row_add(struct bench_row *row, const struct bench_cell *cell);
void bench_row_finish(struct bench_row *row, const struct bench_row *kernel);

/* NULL: there is none, or it was left out. */
const struct bench_row *bench_row_find(const struct bench_row *rows, size_t count,
				       const char *workload, unsigned threads, enum bench_way way);

/* ------------------------------------------------------------------ targets */

/* What is judged. With something that it is compared with: ours over theirs. */
enum bench_figure {
	FIGURE_SPEED,
	FIGURE_TIME,         /* an operation */
	FIGURE_CPU,          /* a byte */
	FIGURE_DEVICE,       /* bytes from the device, an operation */
	FIGURE_DEVICE_ASKED, /* bytes from the device, a byte that was asked for */
	FIGURE_READ_ONCE, /* bytes from the device, a byte that is cached at the end: 1 when nothing
			     was read twice */
	FIGURE_METADATA,  /* part of the budget */
};

enum bench_bound { AT_LEAST, AT_MOST };

struct bench_target {
	const char *workload;
	unsigned threads;
	unsigned ways;                /* BENCH_BIT()s; the best of them counts */
	enum bench_figure figure;
	enum bench_way against;       /* BENCH_WAY_COUNT: nothing */
	const char *against_workload; /* NULL: the same one */
	enum bench_bound bound;
	double need, aim;             /* aim 0: none */
};

enum bench_verdict { VERDICT_NOT_MEASURED, VERDICT_MISSED, VERDICT_MET };

struct bench_judgement {
	enum bench_verdict verdict;
	enum bench_way way;       /* the one that counts */
	double figure, low, high; /* the median, and the ends, over the rounds */
};

extern const struct bench_target bench_targets[];
extern const size_t bench_target_count;
extern const char *const bench_figure_names[], *const bench_verdict_names[];

/* `count` rows of finished rounds. */
struct bench_judgement bench_judge(const struct bench_target *target, const struct bench_row *rows,
				   size_t count);
bool bench_reached(const struct bench_target *target, double figure, double wanted);
/* Each returns `text`. */
const char *bench_target_text(const struct bench_target *target, enum bench_way way, char *text,
			      size_t len);
const char *bench_need_text(const struct bench_target *target, char *text, size_t len);

/* ------------------------------------------------------------------ reports */

void bench_table_head(void);
void bench_table_row(const struct bench_row *row);
void bench_json_row(const struct bench_row *row);
/* What can be judged by these rows. */
void bench_table_targets(const struct bench_row *rows, size_t count);
void bench_json_targets(const struct bench_row *rows, size_t count);
/* A page to read: this machine, the targets, the rows, links to the pictures in `plot` (NULL:
 * none). 0 or -1 and one line on stderr. */
int bench_markdown(const struct bench_machine *machine, const struct bench_row *rows, size_t count,
		   unsigned rounds, const char *path, const char *plot);
/* One line on stderr about the counters of a cell, for --counters. */
void bench_counters(const struct bench_cell *cell);
/* SVG into a folder that is there. 0 or a negative errno. */
int bench_plot(const struct bench_row *rows, size_t count, const char *dir);

#endif
