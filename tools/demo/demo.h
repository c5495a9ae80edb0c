/* SPDX-License-Identifier: MIT */
/*
 * The demonstration's parts and what they share.
 *
 *   verb.c             the order of the rounds, one round after another
 *   options.c          the options and the plan
 *   probe.c            recorders; the probe threads; the monitor process
 *   filemap.c          the subject that maps with filemap
 *   kernel.c           the subject that maps with the kernel's mmap()
 *   write.c            which pages are written to, and whether they are in the file at the end
 *   report.c           rows, the judgement, table, JSON, summary
 *   plot.c             the picture
 *   fuse.c             a small FUSE server: a file made slow, bad or dead
 *   situations/        the table of situations and their common set-up; a file for each kind of
 * set-up
 *
 * What was set up is on the list of command/undo.h, which a process of its own keeps and undoes.
 *
 * Processes: the coordinator (single-threaded) sets a situation up; for each round it starts a
 * fresh *subject*, which makes the mappings and runs the load and the in-process probes, and a
 * *monitor*, which reads /proc of the subject. They meet in `struct round`, shared memory. So a
 * subject that hangs in the kernel can't take the coordinator, or the undoing, with it.
 *
 * No locks anywhere: each recorder has one writer, and is read after its writer has ended.
 */
#ifndef FILEMAP_DEMO_H
#define FILEMAP_DEMO_H

#include "command/clock.h"
#include "command/undo.h"
#include "filemap.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define DEMO_PAGE         4096u
#define DEMO_CACHED_BYTES (8u << 20)
#define FILE_PART_BYTES   (8u << 20) /* of the slow file: where the map-unmap probe goes */
#define NSEC_PER_MSEC     1000000ull
#define NSEC_PER_SEC      1000000000ull

/* ------------------------------------------------------------------ probes and recorders */

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
#define PROBE_INSIDE PROBE_CMDLINE /* the probes before it run in the subject */
#define PROBE_JUDGED PROBE_READER  /* the probes before it must not stall */
/* These run only where a situation asks for them, and are too slow for many samples. */
#define PROBE_SPECIAL (1u << PROBE_PROTECT | 1u << PROBE_FORK)
extern const char *const demo_probe_names[PROBE_COUNT];

/* Log-linear: exact below 128 ns, then 128 steps to each doubling (0.8 %). */
#define REC_SUB_BITS 7
#define REC_BUCKETS  ((64 - REC_SUB_BITS + 1) << REC_SUB_BITS)
#define REC_SLOT_NS  (20 * NSEC_PER_MSEC) /* the picture's resolution in time */
#define REC_SLOTS    1500                 /* 30 s; later samples count in the histogram only */

struct recorder {
	uint64_t n, max_ns;
	uint32_t count[REC_BUCKETS];
	uint32_t slot_max_us[REC_SLOTS]; /* the worst that ended in the slot, in us, rounded up */
};

void recorder_add(struct recorder *rec, uint64_t round_start_ns, uint64_t begin_ns,
		  uint64_t end_ns);
/* The same, of which `processor_ns` were spent ready to run, while others had the processors: with
 * them in the worst, which must not hide anything; without them in the quantiles, which a few time
 * slices of a machine with more threads than processors would make. */
void recorder_add_less(struct recorder *rec, uint64_t round_start_ns, uint64_t begin_ns,
		       uint64_t end_ns, uint64_t processor_ns);
void recorder_merge(struct recorder *into, const struct recorder *from);
/* The smallest value that `permille` of the samples do not exceed; 0 when there are none. */
uint64_t recorder_quantile(const struct recorder *rec, unsigned permille);

/* ------------------------------------------------------------------ one round */

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
#define LOAD_TOUCHES_MAX 64 /* a thread */

struct round {
	_Atomic uint32_t phase; /* enum phase; a futex shared by all processes of the round */
	_Atomic uint32_t loads_done;
	_Atomic uint32_t reads;  /* slow accesses that ended, well or not */
	_Atomic uint32_t errors; /* of those: ended in an error, as the situation may intend */
	_Atomic uint32_t wrong;  /* of those: showed bytes that are not the file's */
	_Atomic int32_t last_error;
	_Atomic uintptr_t address; /* where the subject mapped the slow file, for /proc/PID/mem */
	uint64_t start_ns;
	uint64_t store_reads;          /* what fm_stats() says at the end */
	uint64_t lock_held_over_block; /* same */
	char failure[200];             /* of the subject, one line */
	struct recorder rec[PROBE_COUNT];
	struct recorder reader[LOAD_THREADS_MAX];
};

void round_set_phase(struct round *round, enum phase phase);
/* Wait until the phase is `phase` or a later one; the phase then. */
enum phase round_wait_phase(struct round *round, enum phase phase);
void round_fail(struct round *round, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline bool round_over(struct round *round)
{
	return atomic_load_explicit(&round->phase, memory_order_relaxed) >= PHASE_STOP;
}

/* ------------------------------------------------------------------ what a subject runs */

/* How the load gets at the slow bytes. */
enum load {
	LOAD_TOUCH,   /* threads touch cold pages of a mapping */
	LOAD_REMOTE,  /* another process reads the mapping's pages through /proc/PID/mem */
	LOAD_JOURNAL, /* threads mmap() a file of a busy ext4, or write to a page of it */
	LOAD_WRITE,   /* threads write to a mapping, the last one syncs it */
	LOAD_UNMAP,   /* threads map a few pages, write to them, unmap them, all the time */
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
	unsigned threads, touches; /* touches: by each thread */
	unsigned pages;            /* of each writing thread */
	unsigned pause_ms;         /* of it between two writes */
	unsigned probes;           /* of PROBE_SPECIAL: bits */
	bool random;               /* advise so: no readahead */
	int nice;                  /* of the load threads */
	unsigned delay_ms;         /* of the store itself, filemap ways only; 0: none */
	uint64_t deadline_ns;      /* of a read, filemap ways only; 0: none */
	uint64_t min_ns;           /* the load goes on at least so long */
	uint64_t max_ns;           /* and is cut off then, whatever is missing; 0: never */
};

/* One operation of a probe; called in a loop. Records by itself, so that it may record more than
 * one latency, or leave preparation out. */
typedef void (*probe_fn)(void *subject, struct round *round, struct recorder *rec);

struct subject_ops {
	/* In a fresh single-threaded process. 0, or a negative errno after round_fail(). */
	int (*open)(const struct round_spec *spec, struct round *round, void **ret_subject);
	probe_fn probe[PROBE_INSIDE];
	/* The body of load thread `index`. Returns at the end of its touches or of the round. */
	void (*load)(void *subject, struct round *round, unsigned index);
	/* Before the mappings go: figures into the round. May be NULL. */
	void (*close)(void *subject, struct round *round);
};

void subject_probe_fork(void *subject, struct round *round, struct recorder *rec);
extern const struct subject_ops filemap_subject;
extern const struct subject_ops kernel_subject;

/* Run a subject in this process: open, threads, close. The exit status. */
int subject_run(const struct round_spec *spec, struct round *round);
/* Read /proc/PID/{cmdline,smaps,maps} in a loop until the round is over. The exit status. */
int monitor_run(pid_t pid, struct round *round);
/* LOAD_REMOTE: threads that read the subject's slow mapping. The exit status. */
int remote_run(const struct round_spec *spec, pid_t pid, struct round *round);

/* The page that load thread `index` touches at its turn `turn`, spread over the file so that
 * readahead for one does not bring in another; and the pages' true bytes, read beforehand. */
struct load_plan {
	uint64_t file_bytes;
	unsigned threads, touches;
	unsigned char *truth; /* threads * touches pages; anonymous memory */
};
int load_plan_make(const struct round_spec *spec, struct round *round, struct load_plan *ret_plan);
uint64_t load_plan_offset(const struct load_plan *plan, unsigned index, unsigned turn);
const unsigned char *load_plan_truth(const struct load_plan *plan, unsigned index, unsigned turn);

/* The pages of each writing thread, and what it wrote to them last; for LOAD_WRITE and LOAD_UNMAP.
 */
struct write_plan {
	uint64_t file_bytes;
	unsigned writers, pages; /* pages: of each */
	uint64_t *last;          /* writers * pages; 0: nothing was */
};
int write_plan_make(const struct round_spec *spec, struct round *round,
		    struct write_plan *ret_plan);
static inline uint64_t write_plan_offset(const struct write_plan *plan, unsigned index,
					 unsigned page)
{
	return ((uint64_t)index * plan->pages + page) * DEMO_PAGE;
}
/* Scattered, so that a page is also written to again while it is on its way to the store. */
unsigned write_plan_page(const struct write_plan *plan, unsigned turn);
/* Write to a page the next value for it; the caller may be stopped in between. */
void write_plan_write(struct write_plan *plan, unsigned index, unsigned page, unsigned char *at);
/* What is in the file by now, read plainly: pages that are not as they were written last are
 * `wrong`. */
void write_plan_check(const struct write_plan *plan, const struct round_spec *spec,
		      struct round *round);

/* ------------------------------------------------------------------ the FUSE server */

/* Serve `backing_fd` as FILE/data on the mount point `dir`, for ever, from a process of its own.
 * Mounts; 0 or a negative errno and one line in `why`. */
int fuse_mount(const char *dir, bool read_only, int *ret_fuse_fd, char *why, size_t why_len);
void fuse_serve(int fuse_fd, int backing_fd, bool read_only, struct fuse_control *control)
	__attribute__((noreturn));

/* ------------------------------------------------------------------ situations */

struct demo {
	/* options */
	const char *file; /* whose bytes are served; NULL until chosen */
	unsigned delay_ms;
	bool json;
	const char *plot;
	/* state */
	struct undo *undo;
	char tmp_dir[200];
	char file_made[PATH_MAX]; /* the file we wrote ourselves, when none was given */
	char cached_path[PATH_MAX], hole_path[300];
	struct fuse_control *control;
	struct round *round;
	pid_t coordinator;
	/* what the present situation set up */
	char slow_path[PATH_MAX], journal_path[PATH_MAX];
	char cgroup[2][PATH_MAX];
	char limit_path[PATH_MAX], limit_text[64];
	pid_t server;
};

#define SITUATION_WHY       240
#define DEMO_SITUATIONS_MAX 12

struct situation {
	const char *name, *what;
	unsigned ways;       /* WAY_BIT()s */
	unsigned setup_ways; /* of those: need the set-up */
	enum load load;
	unsigned delay_ms; /* where it is not the one asked for */
	int expect_error;  /* errno with which every slow access is to end; 0: with the bytes */
	/* Probes that the situation may stall by the kernel's own doing, in a filemap way. */
	unsigned excused;
	unsigned probes; /* of PROBE_SPECIAL, bits: those it runs */
	/* Once. 0, or -1 and why it can't run here, with what to do about it. NULL: nothing. */
	int (*setup)(struct demo *demo, const struct situation *situation, char *why);
	void (*fill)(struct demo *demo, struct round_spec *spec);
	/* Around the measured part of a round that is no control. */
	void (*begin)(struct demo *demo);
	void (*end)(struct demo *demo);
	/* The body of a process that runs beside each such round; its exit status. May be NULL. */
	int (*helper)(struct demo *demo, const struct round_spec *spec, struct round *round,
		      pid_t subject);
};

extern const struct situation demo_situations[];
extern const size_t demo_situation_count;

/* Fork a process that is recorded in the undo list. In the child: 0. */
pid_t demo_fork(struct demo *demo);

int situation_fuse_setup(struct demo *demo, const char *backing, bool read_only, char *why);
int situation_journal_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_journal_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			     pid_t subject);
int situation_blkio_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_blkio_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			   pid_t subject);
int situation_memory_cgroup(struct demo *demo, size_t index, char *why);
void situation_blkio_fill(struct demo *demo, struct round_spec *spec);
void situation_blkio_begin(struct demo *demo);
void situation_blkio_end(struct demo *demo);

int situation_scratch_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_throttle_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_sync_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			  pid_t subject);
int situation_frozen_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_frozen_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			    pid_t subject);
void situation_frozen_end(struct demo *demo);
void situation_write_fill(struct demo *demo, struct round_spec *spec);
void situation_ext4_fill(struct demo *demo, struct round_spec *spec);
void situation_throttle_fill(struct demo *demo, struct round_spec *spec);

/* ------------------------------------------------------------------ the report */

#define DEMO_FAILURES_MAX 64

/* One way in one situation. */
struct cell {
	struct recorder *rec;   /* [PROBE_COUNT], all rounds together; NULL: did not run */
	struct recorder *first; /* the first round alone, for the picture */
	uint64_t first_ns;
	unsigned rounds;
	uint32_t reads, errors, wrong, reads_min; /* of reads and writes; reads_min: of a round */
	uint64_t samples_min;                     /* of a judged probe in a round */
	uint64_t held_over_block;
	int last_error;
	char skipped[SITUATION_WHY]; /* why it did not run */
	/* the judgement */
	uint64_t bound_ns;      /* worst latency that is still noise; 0: no control */
	unsigned stalled, slow; /* probes, bits: worst, or p99, above its bound */
};

struct report {
	unsigned delay_ms, rounds;
	const char *file;
	struct cell cell[WAY_COUNT][DEMO_SITUATIONS_MAX];
	char failure[DEMO_FAILURES_MAX][300];
	size_t failure_count;
};

int report_add_round(struct report *report, enum way way, size_t situation,
		     const struct round *round, uint64_t round_ns);
void report_skip(struct report *report, enum way way, size_t situation, const char *why);
void report_failure(struct report *report, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* In this situation nobody stalled under filemap, yet some probe's p99 is above its bound: a few
 * ms, which may be this machine's noise. More rounds tell. */
bool report_is_close(const struct report *report, size_t situation);
/* Bounds and verdicts; failures for what the demonstration is to show and did not. */
void report_judge(struct report *report);
void report_table(const struct report *report);
void report_json(const struct report *report);
void report_summary(const struct report *report, FILE *out);
void report_free(struct report *report);
int report_plot(const struct report *report, const char *svg_path);

int verb_demo(int argc, char **argv);

#endif
