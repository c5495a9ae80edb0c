/* SPDX-License-Identifier: MIT */
/*
 * The simulated machine: the declarations that its files share. The build compiles src/mm and
 * src/api a second time, unchanged, with FM_SIM. The simulator links them with this folder in
 * place of src/os, src/trap, src/io and src/store. One seed is one run.
 *
 * Only one coroutine runs at a time, and it stops only at a scheduling point (sim_point()). So
 * nothing here needs a lock. The machine is sequentially consistent. The checkers read the
 * structures of src/mm and change none of them.
 */
#ifndef FM_SIM_H
#define FM_SIM_H

#include "cover.h"
#include "filemap.h"
#include "io/io.h"
#include "machine/watch.h"
#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/self.h"
#include "mm/base/ticket.h"
#include "api/live.h"
#include "mm/base/view.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/fault/vmf.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/request.h"
#include "mm/fill/share.h"
#include "mm/fill/streams.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/request.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "mm/map/map_lock.h"
#include "mm/map/segments.h"
#include "mm/reclaim/clock.h"
#include "mm/reclaim/pin_sets.h"
#include "mm/view/later.h"
#include "mm/view/page_tables.h"
#include "mm/view/run_in.h"
#include "os/atomic.h"
#include "os/keeper.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/hotset.h"
#include "store/store.h"
#include "trap/trap.h"

#include <errno.h>
#include <string.h>
#include <assert.h>
#include <stdnoreturn.h>

#define SIM_THREADS 32
#define SIM_FILES 3
#define SIM_PAGES 48  /* pages of a file that the workload touches */
#define SIM_EVENTS 4
#define SIM_SECTOR 512u
#define SIM_TAGS (OS_PAGE / SIM_SECTOR)
#define SIM_STEPS_MAX 3000000ull

/* ---- coverage: X(name, description of the count) */
#define SIM_MARKS(X)                                                                           \
	X(access_ok, "accesses that found their page with its own bytes")                      \
	X(access_efault, "accesses that ended in -EFAULT")                                     \
	X(access_eacces, "accesses that ended in -EACCES")                                     \
	X(access_enxio, "accesses that ended in -ENXIO")                                       \
	X(access_eio, "accesses that ended in -EIO")                                           \
	X(access_etimedout, "accesses that ended in -ETIMEDOUT")                               \
	X(access_estale, "accesses that ended in -ESTALE")                                     \
	X(access_ecanceled, "accesses that ended in -ECANCELED")                               \
	X(access_other, "accesses that ended in another errno of the store")                   \
	X(access_gone, "accesses to a view that had gone")                                     \
	X(access_again, "accesses whose page left the view before they were repeated")         \
	X(access_straddles, "accesses that needed several pages at once")                      \
	X(fault_in_ok, "fm_fault_in(): 0")                                                     \
	X(fault_in_error, "fm_fault_in(): an error")                                           \
	X(nowait_ok, "fm_fault_in(NOWAIT): 0")                                                 \
	X(nowait_again, "fm_fault_in(NOWAIT): -EAGAIN")                                        \
	X(nowait_error, "fm_fault_in(NOWAIT): an error")                                       \
	X(nowait_told, "fm_fault_in(NOWAIT): an event announced the page")                     \
	X(batch_begun, "fm_fault_in_batch(): ranges taken")                                    \
	X(batch_full, "fm_fault_in_batch(): the queue was full")                               \
	X(batch_ok, "fm_completions(): ranges that ended with 0")                              \
	X(batch_error, "fm_completions(): ranges that ended with an error")                    \
	X(batch_told, "fm_completions(): ranges after the queue's event")                      \
	X(batch_gone, "fm_completions(): -ECANCELED, or the queue has ended")                  \
	X(batch_left, "queues destroyed with ranges in them")                                  \
	X(pin_ok, "fm_pin(): 0")                                                               \
	X(pin_error, "fm_pin(): an error")                                                     \
	X(destroy_inside, "fm_mm_destroy() with accesses in flight")                           \
	X(futex_blocked, "futex waits that slept")                                             \
	X(futex_timeout, "futex waits that timed out")                                         \
	X(futex_spurious, "futex waits that were woken without a reason")                      \
	X(small_lock_blocked, "small locks that a thread waited for")                          \
	X(time_jumps, "time passed while a thread could have run")                             \
	X(move_busy, "MOVE: EBUSY")                                                            \
	X(move_held, "MOVE: EBUSY for a longer time")                                          \
	X(move_part, "MOVE: EAGAIN part way")                                                  \
	X(move_none, "MOVE: EAGAIN, nothing done")                                             \
	X(move_exists, "MOVE: EEXIST")                                                         \
	X(move_exists_moved, "MOVE: EEXIST, although the page was moved")                      \
	X(move_missing, "MOVE: ENOENT")                                                        \
	X(copy_part, "COPY: EAGAIN part way")                                                  \
	X(copy_exists, "COPY: EEXIST")                                                         \
	X(kernel_stalls, "kernel calls that stalled")                                          \
	X(poisoned, "thread trap: pages poisoned for an error")                                \
	X(copy_over_mark, "thread trap: COPY onto a page poisoned for an error")               \
	X(told_by_signal, "thread trap: writers told by a signal, with their page in the view") \
	X(region_refuses, "thread trap: regions made read-only for a moment, to refuse a write") \
	X(told_unasked, "thread trap: marks that no fault asked for, taken away")              \
	X(unmarked_beside, "thread trap: marks taken away beside an install")                  \
	X(call_refused, "thread trap: accesses of system calls that ended in EFAULT")          \
	X(call_locked, "accesses of system calls that held the lock of an object")             \
	X(lock_waited, "writes and changes of an object that waited for such a lock")          \
	X(message_repeated, "thread trap: messages that were repeated")                        \
	X(emptied, "view memory that the program threw away")                                  \
	X(io_ok, "requests: whole")                                                            \
	X(io_error, "requests: failed")                                                        \
	X(io_ended, "requests: the object ended before its end")                               \
	X(io_cancel_queued, "requests: taken back before they were issued")                    \
	X(io_cancel_issued, "requests: cancelled at the device")                               \
	X(io_cancel_late, "requests: cancelled too late")                                      \
	X(io_cancel_done, "cancels of a request whose end was just reported")                  \
	X(io_promoted, "requests: promoted")                                                   \
	X(inline_reads, "reads in the faulting thread")                                        \
	X(inline_errors, "reads in the faulting thread that failed")                           \
	X(store_changed, "versions of an object that came while it was open")                  \
	X(signals, "signals that arrived")                                                     \
	X(signal_touches, "signals whose handler touched a view")                              \
	X(cancelled, "threads that were cancelled in the middle of their work")                \
	X(exit_early, "threads that ended before their work was done")                         \
	X(exit_in_flight, "threads that ended with requests in flight")                        \
	X(store_punched, "versions of an object that came by a punched hole")                  \
	X(sector_writes, "sectors that a program wrote to")                                           \
	X(pinned_writes, "sectors that I/O wrote through a pinned page")                       \
	X(write_ok, "write requests: whole")                                                   \
	X(write_bad, "write requests: failed")                                                 \
	X(in_place, "write requests with pages that are in the view")                          \
	X(flush_ok, "flushes")                                                                 \
	X(flush_failed, "flushes that failed")                                                 \
	X(sync_ok, "fm_sync(), fm_file_sync(): 0")                                             \
	X(sync_async, "syncs with FM_SYNC_ASYNC")                                              \
	X(sync_error, "fm_sync(), fm_file_sync(): an error")                                   \
	X(shrunk, "fm_truncate(): shorter")                                                    \
	X(grown, "fm_truncate(): longer")                                                      \
	X(resize_error, "fm_truncate(), fm_punch(): an error")                                 \
	X(punched, "fm_punch(): 0")                                                            \
	X(invalidated, "fm_invalidate(): 0")                                                   \
	X(invalidate_error, "fm_invalidate(): an error")                                       \
	X(destroy_lost, "fm_mm_destroy(): -EIO, dirty pages were lost")                        \
	X(destroy_left_behind, "fm_mm_destroy(): a thread waits for a write of a slow store") \
	X(process_ends, "dirty pages written for the end of the process")                      \
	X(meta_refused, "allocations and threads that were refused")                           \
	X(create_refused, "refused allocations by which fm_mm_create() failed")                \
	X(open_refused, "refused allocations by which fm_file_open() failed")                  \
	X(map_refused, "refused allocations by which fm_map() failed")                         \
	X(no_memory, "MOVE, COPY: ENOMEM")                                                     \
	X(hold_mode, "runs with FM_MM_HOLD_LOCK")                                              \
	X(pct_runs, "runs under the priority scheduler")                                       \
	X(tiny_worlds, "runs of a map lock alone, or of an mm that ends as it begins")

struct sim_marks {
#define FM_X(name, help) uint64_t name;
	SIM_MARKS(FM_X)
	FM_COUNTERS(FM_X) /* the statistics of src/mm, summed over the runs */
#undef FM_X
};
extern struct sim_marks sim_marks;
#define mark(name) ((void)sim_marks.name++)

/* ---- the rows that the runs must reach (checks/cover.c) */
struct sim_cover {
#define COVER_X(name, help) uint64_t name;
	COVER_ALL
#undef COVER_X
};
void cover_collect(struct sim_cover *ret);
void cover_print(const struct sim_cover *cover, bool json);
int cover_verdict(const struct sim_cover *cover, uint64_t runs, bool json);

/* ---- the operations of the workers */
enum op {
	OP_ACCESS,
	OP_STRADDLE,
	OP_WRITE,
	OP_FAULT_IN,
	OP_NOWAIT,
	OP_PIN,
	OP_MAP,
	OP_UNMAP,
	OP_ADVISE,
	OP_CHANGE,
	OP_EMPTY,
	OP_SLEEP,
	OP_BATCH,
	OP_TAKE,
	OP_SYNC,
	OP_TRUNCATE,
	OP_PUNCH,
	OP_INVALIDATE,
	OP_COUNT,
	OP_END = OP_COUNT, /* end of a small world's program; the rest: small worlds only */
	OP_WILLNEED,
	OP_DONTNEED,
	OP_RECLAIM
};

/* ---- limits: X(name, description) is what --limit may lower, and X(name) what --limit may switch
 * off. Shrinking tries both. The seed's other choices stay the same. */
#define SIM_LIMITS(X)                                                                          \
	X(workers, "threads of the program")                                                   \
	X(ops, "operations of each thread")                                                    \
	X(files, "objects")                                                                    \
	X(pages, "pages of each object")
#define SIM_WITHOUT(X)                                                                             \
	X(straddle)                                                                                \
	X(write) X(fault_in) X(nowait) X(pin) X(map) X(unmap) X(advise) X(change) X(empty)         \
		X(sleep) X(pct) X(jump) X(spurious) X(stall) X(busy) X(part) X(lie) X(error)       \
			X(short) X(slow) X(late) X(bad) X(destroy) X(hold) X(thread_trap) X(copy)  \
				X(inline_reads) X(deadline) X(strides) X(large) X(far)             \
					X(readahead) X(refresh) X(no_version) X(held) X(fashion)   \
						X(signals) X(exits) X(famine) X(refusals) X(batch) \
							X(take) X(writable) X(sync) X(truncate)    \
								X(punch) X(invalidate)
enum sim_without {
#define FM_X(name) WITHOUT_##name,
	SIM_WITHOUT(FM_X)
#undef FM_X
	WITHOUT_COUNT
};
struct sim_limits {
#define FM_X(name, help) uint32_t name; /* 0: no limit */
	SIM_LIMITS(FM_X)
#undef FM_X
	uint64_t without; /* mask of enum sim_without */
};
extern struct sim_limits sim_limits;
#define sim_without(name) (sim_limits.without >> WITHOUT_##name & 1)
static inline uint32_t sim_limited(uint32_t value, uint32_t most)
{
	return most && value > most ? most : value;
}

/* ---- small worlds (worlds/small.c): fixed programs, run under searched or given schedules */
struct small_step {
	enum op op;
	uint32_t first, last; /* pages */
};
#define SMALL_THREADS 3
struct small_world {
	const char *name, *about;
	const char *thread[SMALL_THREADS]; /* the threads' names; NULL: "program" */
	const struct small_step *before; /* the main thread runs this first; NULL: nothing */
	const struct small_step *program[SMALL_THREADS]; /* each program ends with OP_END */
	uint32_t pages;
	bool inline_reads, copy, thread_trap, destroy, scenario;
	uint32_t busy_256, spurious_256, error_256; /* SIM_ASK or 0 */
	/* The device issues a request that no fault asked for only after throttle_ns. */
	uint64_t io_ns, throttle_ns;
	uint64_t readahead_bytes;
};
extern const struct small_world small_worlds[];
extern const uint32_t small_world_count;
#define SIM_ASK 0x1000u /* instead of a chance: the search tries both answers each time */

/* ---- threads: coroutines (machine/sched.c) */
enum sim_state { SIM_NONE, SIM_READY, SIM_BLOCKED, SIM_DONE };
enum sim_wait {
	WAIT_NOTHING,
	WAIT_FUTEX,
	WAIT_SMALL_LOCK,
	WAIT_SLEEP,
	WAIT_JOIN,
	WAIT_CHANNEL,
	WAIT_FAULT
};

struct sim_thread {
	uint32_t id;
	const char *name;
	void *sp;
	char *stack;
	os_thread_fn fn;
	void *arg;
	enum sim_state state;
	enum sim_wait wait;
	uint64_t key, wake_at, order, since_step; /* the wait's key, end, number, first step */
	uint32_t bits, futex_value;
	bool timed_out;
	bool idle; /* a thread of the library: report_deadlock() does not name it */
	uint32_t priority;
	uint32_t small_locks; /* number of small locks that the thread holds */
	bool signals_open; /* a thread of the program, outside the library */
	bool in_handler;   /* a signal's handler runs: no second signal arrives */
	bool may_end;      /* the thread may be cancelled at this point */
	bool map_seen;
	const struct fm_file *wants_of; /* the page that the present fault wants */
	uint64_t wants;
	uint64_t op_step; /* the step at which the thread's present operation began */
	const char *op;
	uint64_t local[OS_THREAD_LOCAL_BYTES / 8];
};

/* The seed's choices for this run. Each kind of failure has its own chance, often none. */
struct sim_options {
	bool pct;
	/* A spinning thread lets no other thread run, as if all other cores were busy. */
	bool stubborn;
	uint32_t switch_256;   /* random scheduler: chance of a switch at a point, of 256 */
	uint32_t changes;      /* PCT: priority changes */
	uint32_t ns_per_step;
	uint32_t jump_1024;    /* chance that time passes although a thread can run */
	uint32_t spurious_256, stall_256, busy_256, held_256, part_256, lie_256;
	uint32_t error_256, short_256, slow_256, late_256;
	uint32_t meta_256, famine_256;
	uint32_t signal_1024, cancel_256, exit_256;
	uint64_t io_ns, throttle_ns;
};

struct sim_run {
	uint64_t seed, random;
	uint64_t step, now_ns, order;
	struct sim_thread *self;
	struct sim_thread thread[SIM_THREADS];
	uint32_t threads;
	uint32_t ready; /* mask of the threads that can run */
	uint64_t next_wake;
	uint64_t pct_change[8];
	uint32_t lowest; /* PCT: lower than all priorities given so far */
	struct sim_options opt;
	const struct small_world *small; /* NULL: the run is a seed's run */
	bool choosing; /* small world: the search makes each choice from now on */
	struct fm_mm *mm;
	bool dying;  /* fm_mm_destroy() has begun */
	bool emptied; /* the program has thrown away a part of a view */
	bool hold;   /* FM_MM_HOLD_LOCK */
	void (*on_signal)(void); /* the program's handler */
	uint64_t allocated; /* bytes allocated and not freed */
	uint64_t switches;
	uint32_t jumps;
	uint64_t jumped_ns; /* sum over all jumps */
};
extern struct sim_run sim;

void sim_start(os_thread_fn main_fn, void *arg); /* returns when all threads have ended */
struct sim_thread *sim_spawn(const char *name, os_thread_fn fn, void *arg);
noreturn void sim_thread_exit(void);
void sim_signal_arrives(struct sim_thread *self);
void sim_join(struct sim_thread *thread);
void sim_point(void); /* another thread may go on here */
void sim_sleep(uint64_t ns);
void sim_events_reset(void);
uint32_t sim_events_open(void);
uint64_t sim_event_signals(int fd);
bool sim_event_wait(int fd, bool edge, uint64_t seen, uint64_t until_ns);
/* Wait for a notice or until a time. A channel is any address. Returns true on a timeout. */
bool sim_wait_for(enum sim_wait wait, uint64_t key, uint64_t until_ns);
void sim_notify(enum sim_wait wait, uint64_t key);
void sim_interrupt(struct sim_thread *thread); /* ends any kind of wait */
void sim_pass_time_to(uint64_t ns); /* wakes the threads that waited for that time */

uint64_t sim_random(void);
/* A small world has no chance: sim_below() returns the middle, and the search answers SIM_ASK. */
static inline uint32_t sim_below(uint32_t n)
{
	return sim.small ? n / 2 : (uint32_t)((sim_random() >> 32) * n >> 32);
}
static inline bool sim_chance(uint32_t of_256)
{
	if (sim.small)
		return of_256 == SIM_ASK && explore_ask();
	return of_256 && (sim_random() >> 56) < of_256;
}

/* ---- events and failures (trace.c) */
void sim_trace_reset(void);
void sim_event(const char *format, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
#define event(format, a, b, c, d)                                                              \
	sim_event(format, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d))
noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
noreturn void sim_abort(void);
uint64_t sim_trace_hash(void);
void sim_trace_install_handlers(void);
extern const char sim_page_state[]; /* a format: frame, page, state, old state */
extern bool sim_tracing; /* keep every event */
void sim_trace_print(uint64_t most, bool brief); /* prints the last `most` events; 0: all events */
struct sim_failure {
	uint32_t failed; /* atomic: 0, then 1 */
	bool quiet; /* print nothing */
	uint64_t seed, step;
	char words[400], kind[400];
};
extern bool sim_planted; /* a harmless event counts as a failure */
extern struct sim_failure *sim_failure; /* shared by the processes */

/* ---- checkers (checks/check.c, checks/rules.c) */
void check_map_taken(void);
void check_budget(bool idle);
void rules_reset(void);
void check_quiet(void);    /* nothing is under way */
void check_balance(void);  /* no mapping and no file is left */
void check_written_to(const struct fm_file *file, uint64_t index);
void check_written_counts(void);
bool check_is_held(const struct fm_file *file, uint64_t index);
void check_reset(void);

/* ---- memory and the kernel's page table (machine/memory.c, machine/kernel.c) */
void kernel_init(void);
void kernel_reset(void);
void *sim_calloc(size_t n, size_t size);
void sim_free(void *mem);
struct view_page {
	uint64_t tag[SIM_TAGS];
	bool poison, protected;
};
struct view_page *kernel_view(uint64_t addr); /* NULL: no page there */
bool kernel_read(uint64_t addr,
		 uint64_t *ret_tag); /* in a slot or a view; false: no page there */
bool kernel_slot_present(uint64_t addr);
bool kernel_refuses(void); /* an allocation, a thread, an address range */
void kernel_empty(uint64_t addr); /* the program's own MADV_DONTNEED */
int kernel_poison(uint64_t addr);
bool kernel_unmark(uint64_t addr);
void kernel_protect_region(uint64_t base, uint64_t len, bool on);
bool kernel_refuses_write(uint64_t addr);
void kernel_region_gone(uint64_t base, uint64_t len);
uint64_t kernel_pages(bool slots);
uint64_t kernel_view_addr(uint32_t n); /* the n-th page in the views; 0: fewer pages */

/* ---- machine/trap.c */
struct trap {
	enum fm_trap kind;
	bool move;
};
/* Try an instruction once. Returns 1 when done, 0 to try again, or an errno. Every failure of a
 * system call (`call`, thread trap only) is -EHWPOISON. */
int sim_access(uint64_t addr, bool write, bool call, uint64_t instruction);

/* ---- machine/store.c: objects whose bytes say which bytes they are */
struct sim_store {
	struct fm_store store;
	uint32_t id;
	bool open, inline_reads, aborted, no_version;
	uint32_t page_size;
	uint64_t base, stride; /* the workload touches pages base + n * stride, of 4096 bytes */
	uint32_t pages;
	uint32_t version;
	uint64_t size[16], holes[16]; /* per version; holes: a bit for each punched page */
	uint64_t since[16];           /* step at which the version came */
	bool bad[SIM_PAGES];              /* reads and writes of the page fail */
	uint64_t error_step[SIM_PAGES];   /* step of the page's last failed read; 0: never */
	uint64_t any_error_step;
	/* A system call holds the lock. Writes and changes wait for the lock, and so do reads
	 * unless `lockless`. */
	bool locked;
	bool lockless;     /* opened with FM_STORE_OPEN_LOCKLESS */
	uint32_t refused; /* reads of the object that the machine let fail */
	uint32_t dropping; /* fm_invalidate() calls under way, which may remove pinned pages */
	/* The rest is for an object that is open for writing. size[0] is the present size. */
	bool writable;
	uint32_t ended;                    /* number of ended writes */
	bool lost[SIM_PAGES];              /* the program has thrown away bytes of the page */
	uint64_t writing_since[SIM_PAGES]; /* step at which the page's last write began */
	/* fm_pin() held the page at that step: the bytes may change during the write */
	bool writing_pinned[SIM_PAGES];
	/* number + 1 of the page whose bytes past the object's end may be old; 0: none */
	uint32_t ragged;
	uint32_t write_failures;           /* failed writes and flushes */
	uint32_t failures_known;           /* those that the library has been told of */
	uint32_t told;                     /* write_failures at the last sync that failed */
};
extern struct sim_store sim_store[SIM_FILES];
void store_lock(struct sim_store *s);
void store_unlock(struct sim_store *s);
uint64_t store_tag(uint32_t file, uint32_t version, uint64_t index, uint32_t sector);
/* Act as the device at one moment: fill sectors [from, to) of a read. Bytes past the object's end
 * stay untouched. */
void store_write(struct sim_store *s, const struct iovec *iov, int iov_count, uint64_t offset,
		 uint64_t from, uint64_t to);
bool store_has_memory(const struct iovec *iov, int iov_count);
/* Returns how many of `part` bytes from `offset` on the object has now. */
uint64_t store_part(const struct sim_store *s, uint64_t offset, uint64_t part);
void store_note_error(struct sim_store *s, uint64_t offset, uint64_t len);
bool store_is_bad(struct sim_store *s, uint64_t offset, uint64_t len);
int store_random_error(void);
void store_change(struct sim_store *s, uint64_t size);
void store_punch(struct sim_store *s, uint32_t n, uint32_t count);
uint32_t store_place(const struct sim_store *s,
		     uint64_t index); /* number of the workload's page; SIM_PAGES: no such page */
void check_content(struct sim_store *s, uint64_t index, const struct view_page *page);

/* ---- checks/written.c: what programs write, and where the bytes go. A page is given by its
 * number in the workload, a sector by 0 to SIM_TAGS - 1. */
uint64_t written_new(struct sim_store *s, uint32_t n, uint32_t i);
void written_zeroing(struct sim_store *s, uint64_t from,
		     uint64_t to); /* sectors, counted from the object's first page */
void written_zeroed(struct sim_store *s, uint64_t from, uint64_t to, bool well);
void written_lost(struct sim_store *s, uint32_t n);
void written_need(struct sim_store *s, uint32_t first, uint32_t last, uint32_t (*need)[SIM_TAGS]);
void written_acknowledged(struct sim_store *s, uint32_t first, uint32_t last,
			  uint32_t (*need)[SIM_TAGS], uint64_t size);
void written_check_stored(struct sim_store *s, uint32_t (*need)[SIM_TAGS], uint64_t size);

/* ---- machine/io.c */
bool io_writes_beyond(const struct sim_store *s, uint64_t size);
uint32_t io_new_flight(void);
void io_reset(void);
void written_reset(void);
bool io_knows(const struct io_request *request);
bool io_between(void);
void io_look_again(void);
void io_hurry(struct sim_store *s);

/* ---- worlds/world.c */
void world_run(uint64_t seed);
void world_run_small(const struct small_world *world, bool hold);
void tiny_world_run(void); /* worlds/tiny.c */

#endif
