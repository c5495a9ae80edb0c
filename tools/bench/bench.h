/* SPDX-License-Identifier: MIT */
/*
 * The parts of the benchmark, and what the parts share.
 *
 *   options.c    the options
 *   verb.c       the plan: the file, the order of the rounds
 *   workloads.c  the tables of workloads and ways, the patterns of access
 *   machine.c    the file, cold caches, the short readahead, the memory cgroup; all are undone
 *   cell.c       one way in one round, in a process of its own: threads, counters
 *   measure.c    the clock, touches, what the process has used
 *   ways.c       the ways over the kernel's mmap() and over pread()
 *   filemap.c    the ways over the library
 *   write.c      the workloads that write: the bytes, the sync, and the check of the bytes
 *   limit.c      the device's limit: io_uring, O_DIRECT
 *   bare.c       a fault served in user space without a library: the least cost of a fault
 *   stats.c      medians and ratios
 *   targets.c    the table of targets, and whether each target is met
 *   report.c     the table and JSON
 *   markdown.c   the results as a page to read
 *   plot.c       the pictures
 *   svg.c        shapes as SVG
 *
 * The coordinator is single-threaded and does not use the library's mappings. For each way of each
 * round, the coordinator executes its own program again. The new process is a *cell*. A cell
 * finds its orders in shared memory and leaves its figures there.
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
#define BENCH_DEPTH       32 /* reads in flight, where the way can choose */

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
	uint32_t page_size;   /* filemap: 0 is the library's default */
	uint32_t trap;        /* filemap: enum fm_trap */
	int advice;           /* kernel: for madvise() over the whole mapping */
	bool short_readahead; /* kernel: readahead of 128 KiB */
	bool copy;            /* bare: COPY instead of MOVE */
	bool protect;         /* bare: a write to a protected page: MOVE out and in again */
	bool overview;        /* in the picture of all workloads, where kernel-mmap is the line */
};

/*
 * Each way is one line: X(name in the enum, name in the output, colour, description, more fields of
 * the way's struct bench_way_info). A way of the library takes part in every workload that has
 * LIBRARY.
 */
#define BENCH_WAYS_FILEMAP(X)                                                                      \
	X(FILEMAP, "filemap", "#1d4ed8", "the library, its defaults", .overview = true)            \
	X(FILEMAP_THREAD, "filemap-thread", "#93b4f5",                                             \
	  "the library; a handler thread serves the faults", .trap = FM_TRAP_THREAD)               \
	X(FILEMAP_HUGE, "filemap-huge", "#0e9fb5", "the library, pages of 2 MiB",                  \
	  .page_size = BENCH_HUGE, .overview = true)
#define BENCH_WAYS_KERNEL(X)                                                                       \
	X(KERNEL, "kernel-mmap", "#c2410c", "mmap(), the machine's default readahead",             \
	  .advice = 0)                                                                             \
	X(KERNEL_128K, "kernel-mmap-128k", "#f59e42", "mmap(), readahead of 128 KiB",              \
	  .short_readahead = true, .overview = true)                                               \
	X(KERNEL_RANDOM, "kernel-mmap-random", "#8a5a20", "mmap(), MADV_RANDOM",                   \
	  .advice = MADV_RANDOM, .overview = true)                                                 \
	X(KERNEL_SEQUENTIAL, "kernel-mmap-sequential", "#d6a678", "mmap(), MADV_SEQUENTIAL",       \
	  .advice = MADV_SEQUENTIAL)                                                               \
	X(KERNEL_WILLNEED, "kernel-willneed", "#f2cfa4",                                           \
	  "mmap(), MADV_WILLNEED before the access", .advice = 0)
#define BENCH_WAYS_PREAD(X)                                                                        \
	X(PREAD, "pread", "#a8a29e", "pread() through the page cache", .advice = 0)                \
	X(PWRITE, "pwrite", "#78716c", "pwrite() through the page cache", .advice = 0)
#define BENCH_WAYS_LIMIT(X)                                                                        \
	X(LIMIT, "limit", "#3f9142", "the device itself: io_uring, O_DIRECT", .overview = true)
#define BENCH_WAYS_BARE(X)                                                                         \
	X(BARE, "bare", "#6b7280", "SIGBUS, MOVE, return; no library", .copy = false)              \
	X(BARE_COPY, "bare-copy", "#b4bac4", "SIGBUS, COPY, return; no library", .copy = true)     \
	X(BARE_PROTECT, "bare-protect", "#4b5563",                                                 \
	  "SIGBUS at a protected page, MOVE out and in, return; no library", .copy = true,         \
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
/* Return whether the way's pages are in the kernel's page cache. */
static inline bool bench_way_is_cached(enum bench_way way)
{
	return bench_ways[way].family == FAMILY_KERNEL || bench_ways[way].family == FAMILY_PREAD;
}

/* ------------------------------------------------------------------ workloads */

enum bench_pattern {
	PATTERN_FORWARD,
	PATTERN_BACKWARD,
	PATTERN_STREAMS, /* several forward scans, one page of each in turn */
	PATTERN_RANDOM,  /* random pages, no page twice */
	PATTERN_ZIPF,    /* random pages, some pages often */
	PATTERN_WORDS,   /* one random word at a time; no word depends on another */
};

#define BENCH_STREAMS     8
#define BENCH_ZIPF_S      0.99
#define BENCH_THREAD_SETS 3
#define BENCH_MAPPINGS    10000 /* of the workloads map-one and map-scale */

/* Sizes of a workload, for a full run or for a --quick run. */
struct bench_scale {
	uint64_t range_bytes; /* the range is at most this large */
	uint64_t ops, warm_ops; /* 0 ops: the range once; 0 warm_ops: no warming */
	unsigned limit_ms;    /* time limit of the warming, and of the measurement; 0: none */
};

struct bench_workload {
	const char *name, *what;
	enum bench_pattern pattern;
	uint32_t unit;         /* bytes of one operation */
	uint32_t step;         /* from one unit to the next; 0: the units are adjacent */
	unsigned budget_part;  /* the budget is the range divided by this; 0: the range fits */
	unsigned threads[BENCH_THREAD_SETS]; /* the list ends with 0 */
	unsigned ways;         /* BENCH_BIT()s */
	bool hot;              /* all of the range is mapped and resident at the begin */
	bool same_pages;       /* all threads visit the same pages in the same order */
	bool memory;           /* filemap ways and bare: a memory store, cached, not mapped */
	bool touch_words;      /* touch one word of each page, not one word of each line */
	bool nowait;           /* filemap: BENCH_DEPTH pages in flight by fm_fault_in_batch() */
	bool each_mapped;      /* each unit has a mapping of its own */
	bool whole;            /* make all operations, even if few pages of the range stay cold */
	bool sparse;           /* a memory store of exactly range_bytes; nothing is cached */
	bool writes;           /* to the benchmark's own file; the bytes are compared afterwards */
	unsigned commit_pages; /* writes: pages for each sync; 0: one sync at the end */
	bool random_advice;    /* FM_ADVICE_RANDOM, MADV_RANDOM: a fault installs one page */
	bool with_previous;    /* shares the rounds of the previous workload in the table */
	unsigned passes;       /* over a range of 6/5 budgets, after one for warming; 0: none */
	struct bench_scale full, quick;
};

extern const struct bench_workload bench_workloads[];
extern const size_t bench_workload_count;

/* Return whether all of the range is read from the device, page after page in some direction. */
static inline bool bench_is_scan(const struct bench_workload *workload)
{
	return !workload->step && !workload->memory && !workload->writes &&
	       (workload->pattern == PATTERN_FORWARD || workload->pattern == PATTERN_BACKWARD ||
		workload->pattern == PATTERN_STREAMS);
}

/* ------------------------------------------------------------------ one cell */

#define BENCH_SUMS 40

/* Shared memory. The coordinator writes `in` before the cell starts, and the cell writes `out`. */
struct bench_cell {
	struct {
		uint32_t magic;
		unsigned workload, way, threads;
		char path[PATH_MAX];
		int fd;              /* the open file; -1: the cell opens `path` */
		char cgroup[200];    /* cgroup.procs to join first; "" for none */
		uint64_t file_bytes, range_bytes, budget_bytes, ops, warm_ops;
		uint64_t limit_ns;
		uint64_t seed;       /* writes: seed of the bytes, different in each cell */
	} in;
	struct {
		bool done, wrong; /* wrong: the written bytes are not in the store */
		char why[BENCH_WHY]; /* why the cell could not run */
		uint64_t ns, ops, bytes, device_bytes, written_bytes, cpu_ns, rss_bytes;
		uint64_t cached_bytes, metadata_bytes; /* filemap ways, at the end */
		uint64_t sum;               /* of all words that were touched */
		uint64_t sums[BENCH_SUMS];  /* after each thread's first 2^i operations; 0: not reached */
		struct fm_stats stats;      /* filemap ways: counters of the measured part */
	} out;
};

#define BENCH_MAGIC 0x66626e63u

struct bench_run; /* a running cell; see cell.c */

/* One thread of a cell. */
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
	uint64_t clock_mask; /* the clock is read at each turn that has none of these bits */
	struct order order;      /* for random patterns */
	uint32_t *zipf;          /* page number of each operation, first of the warming */
	int fd;                  /* the open file */
	const unsigned char *map;
	const unsigned char **maps; /* one for each of several mappings; NULL: one mapping, `map` */
	void *private;
};

struct bench_way_ops {
	/* Set up the way before the clock runs. Returns 0, or -1 after bench_why(). */
	int (*open)(struct bench_run *run);
	/* Called after warming, before the clock runs. May be NULL. */
	void (*begin)(struct bench_run *run);
	/* Collect figures, after the clock has stopped. May be NULL. */
	void (*end)(struct bench_run *run);
	/* Do a worker's operations `from` to `to`, until `deadline_ns`. NULL: bench_touch(). */
	int (*work)(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns);
	/* Make all written bytes durable. Returns 0, or -1 after bench_why(). */
	int (*sync)(struct bench_run *run);
	/* Read bytes as they are in the store. Returns 0, or -1 after bench_why(). NULL: the bytes
	 * are read from the file, by O_DIRECT. */
	int (*read_back)(struct bench_run *run, void *to, size_t len, uint64_t offset);
};

extern const struct bench_way_ops bench_kernel_ops, bench_pread_ops, bench_filemap_ops,
	bench_limit_ops, bench_bare_ops;

/* Run a cell, and exit. Returns -1 only if `cell_fd` is not the shared memory of a cell. */
int bench_cell_main(int cell_fd);
int bench_why(struct bench_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t bench_now_ns(void);
uint64_t bench_rss_bytes(void); /* of this process */
/* Return how many bytes this process has read or written at the device. `key` is read_bytes or
 * write_bytes. Calls bench_why() if the kernel does not tell. */
uint64_t bench_device_bytes(struct bench_run *run, const char *key);
/* Return the CPU time of all threads, including threads that have ended. */
uint64_t bench_cpu_ns(void);
/* Return each worker's part of `ops`, which is a multiple of the number of workers. */
uint64_t bench_share(const struct bench_run *run, uint64_t ops);
/* Return the offset in the range of a worker's operation `turn`. */
uint64_t bench_offset(const struct bench_worker *worker, uint64_t turn);
uint64_t bench_sum_lines(const unsigned char *at, size_t len);
uint64_t bench_sum_pages(const unsigned char *at, size_t len); /* the first word of each page */
/* Count an operation that is done. After 2^i operations, keep the sum so far, to be compared. */
static inline void bench_done(struct bench_worker *worker, uint64_t sum)
{
	worker->sum += sum;
	worker->ops++;
	if (!(worker->ops & (worker->ops - 1)))
		worker->sums[__builtin_ctzll(worker->ops)] = worker->sum;
}
/* Return whether the time is up. The clock is read often enough for the limit, and seldom enough
 * not to be measured. */
static inline bool bench_over(const struct bench_worker *worker, uint64_t turn,
			      uint64_t deadline_ns)
{
	return deadline_ns && !(turn & worker->run->clock_mask) && bench_now_ns() >= deadline_ns;
}
/* Touch the mapping: the default of `work`. */
int bench_touch(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns);
/* Write: the `work` of all ways, in workloads that write. */
int bench_write(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns);
/* Check that the store has what these operations wrote. Returns 0, or -1 after bench_why(). */
int bench_write_check(struct bench_run *run, unsigned index, uint64_t from, uint64_t ops);
/* Return page numbers by Zipf's law, scattered over the range, or NULL if there is no memory. */
uint32_t *bench_zipf_make(uint64_t pages, uint64_t count);

/* ------------------------------------------------------------------ the machine */

struct bench_machine {
	struct undo *undo;
	const char *path;
	uint64_t file_bytes;
	char made[PATH_MAX]; /* the file that the benchmark wrote; "" if the user gave a file */
	char scratch[PATH_MAX]; /* the file for writing; "" until needed */
	uint64_t scratch_bytes;
	char readahead_path[128], readahead_text[32]; /* the disk's setting, its value */
	char cgroup[200];    /* a directory; "" if there is none */
	char no_readahead[BENCH_WHY], no_cgroup[BENCH_WHY]; /* why not, or "" */
	void *held;          /* memory kept warm for the next cell */
	uint64_t held_bytes;
	bool warned;         /* the user knows that the cache could not be dropped */
};

/* Write a file of `bytes` bytes in `dir`. Returns 0, or -1 after one line on stderr. */
int bench_make_file(struct bench_machine *machine, const char *dir, uint64_t bytes);
/* Provide a file for writing, of `bytes` bytes or more. Returns like bench_make_file(). */
int bench_make_scratch(struct bench_machine *machine, const char *dir, uint64_t bytes);
/* Set up what the machine allows. no_readahead and no_cgroup tell what is missing, and why. */
void bench_machine_open(struct bench_machine *machine);
void bench_hold_memory(struct bench_machine *machine, uint64_t bytes);
void bench_release_memory(struct bench_machine *machine);
/* Drop a file from the page cache. bench_drop() also checks that the file's pages are gone. */
void bench_forget(const char *path);
void bench_drop(struct bench_machine *machine, const char *path, uint64_t bytes);
/* Open the file with a readahead of 128 KiB. Returns the descriptor, or a negative value if that is
 * impossible. The disk's own setting is restored at return. */
int bench_open_128k(struct bench_machine *machine);
int bench_limit_cgroup(struct bench_machine *machine, uint64_t bytes);

/* ------------------------------------------------------------------ results */

/* The results of one way, one workload and one number of threads. */
struct bench_row {
	const struct bench_workload *workload;
	enum bench_way way;
	unsigned threads, rounds;
	bool left_out;
	char why[BENCH_WHY]; /* why the way was left out */
	/* one value for each round */
	double ns_per_op[BENCH_ROUNDS_MAX], seconds[BENCH_ROUNDS_MAX], ops[BENCH_ROUNDS_MAX],
		bytes[BENCH_ROUNDS_MAX], written_bytes[BENCH_ROUNDS_MAX],
		device_bytes[BENCH_ROUNDS_MAX], cpu_s[BENCH_ROUNDS_MAX], rss_mib[BENCH_ROUNDS_MAX],
		cached_bytes[BENCH_ROUNDS_MAX], budget_bytes[BENCH_ROUNDS_MAX],
		metadata_bytes[BENCH_ROUNDS_MAX]; /* the last three: filemap ways */
	/* set after the last round: the round with the median time of an operation */
	struct {
		double seconds, ops, bytes, ns_per_op, device_bytes, written_bytes, cpu_s, rss_mib;
		double ratio; /* median of the speeds relative to kernel-mmap; 0: no kernel-mmap */
	} mid;
};

double bench_median(const double *values, unsigned count);
void bench_row_add(struct bench_row *row, const struct bench_cell *cell);
void bench_row_finish(struct bench_row *row, const struct bench_row *kernel);

/* Find a row. Returns NULL if there is no such row, or if the row was left out. */
const struct bench_row *bench_row_find(const struct bench_row *rows, size_t count,
				       const char *workload, unsigned threads, enum bench_way way);

/* ------------------------------------------------------------------ targets */

/* The figure that is judged. If the target compares with another way, the figure is divided by the
 * figure of that way. */
enum bench_figure {
	FIGURE_SPEED,
	FIGURE_TIME,         /* of an operation */
	FIGURE_CPU,          /* for each byte */
	FIGURE_DEVICE,       /* bytes from the device for each operation */
	FIGURE_DEVICE_ASKED, /* bytes from the device for each byte that was wanted */
	FIGURE_READ_ONCE, /* bytes from the device for each cached byte; 1: no page was read twice */
	FIGURE_METADATA,  /* as a part of the budget */
};

enum bench_bound { AT_LEAST, AT_MOST };

struct bench_target {
	const char *workload;
	unsigned threads;
	unsigned ways;                /* BENCH_BIT()s; the best of these ways counts */
	enum bench_figure figure;
	enum bench_way against;       /* BENCH_WAY_COUNT: no comparison */
	const char *against_workload; /* NULL: the same workload */
	enum bench_bound bound;
	double need, aim;             /* aim 0: no aim */
};

enum bench_verdict { VERDICT_NOT_MEASURED, VERDICT_MISSED, VERDICT_MET };

struct bench_judgement {
	enum bench_verdict verdict;
	enum bench_way way;       /* the way that counts */
	double figure, low, high; /* the median, the least and the most over the rounds */
};

extern const struct bench_target bench_targets[];
extern const size_t bench_target_count;
extern const char *const bench_figure_names[], *const bench_verdict_names[];

/* Judge a target by `count` rows of finished rounds. */
struct bench_judgement bench_judge(const struct bench_target *target, const struct bench_row *rows,
				   size_t count);
bool bench_reached(const struct bench_target *target, double figure, double wanted);
/* Each of these two functions returns `text`. */
const char *bench_target_text(const struct bench_target *target, enum bench_way way, char *text,
			      size_t len);
const char *bench_need_text(const struct bench_target *target, char *text, size_t len);

/* ------------------------------------------------------------------ reports */

void bench_table_head(void);
void bench_table_row(const struct bench_row *row);
void bench_json_row(const struct bench_row *row);
/* Print the targets that these rows can judge. */
void bench_table_targets(const struct bench_row *rows, size_t count);
void bench_json_targets(const struct bench_row *rows, size_t count);
/* Write a page: the machine, the targets, the rows, and links to the pictures in `plot` (NULL: no
 * links). Returns 0, or -1 after one line on stderr. */
int bench_markdown(const struct bench_machine *machine, const struct bench_row *rows, size_t count,
		   unsigned rounds, const char *path, const char *plot);
/* Print the counters of a cell as one line on stderr, for --counters. */
void bench_counters(const struct bench_cell *cell);
/* Write the pictures as SVG into an existing folder. Returns 0 or a negative errno. */
int bench_plot(const struct bench_row *rows, size_t count, const char *dir);

#endif
