/* SPDX-License-Identifier: MIT */
/*
 * The memory side's structures, and which lock protects what.
 *
 * Lock order (rank):
 *   1 map lock          fm_mm.map, the segments table; no system call but a futex wake and no page
 *                       fault under it; no waiting for anything below with it held
 *   2 page lock         PG_LOCKED; several at once only by trying
 *   3 bucket, pool, page-table and request locks: struct os_lock, some tens of instructions; no other
 *                       is taken with one held but the I/O queue's under the request lock
 *   4 statistics        none
 * Signals are blocked whenever any of these is taken.
 *
 * References:
 *   struct page         pins in the state word; a page with a pin keeps its identity and frame
 *   struct view         pins: a fault from its look-up in the registry to its end
 *   struct fm_file      refs: the program's handle, each segment, each fpin, each request
 */
#ifndef FM_MM_H
#define FM_MM_H

#include "filemap.h"
#include "io/io.h"
#include "os/atomic.h"
#include "os/keeper.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/hotset.h"
#include "store/store.h"
#include "trap/trap.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#ifdef FM_DEBUG
#define mm_assert(cond) assert(cond)
#else
#define mm_assert(cond) ((void)sizeof(cond))
#endif

#define MM_FRAMES_MIN 16 /* the smallest pool: see fm_budget_min() */
#define MM_KEEP_PAGES 4  /* pages that one instruction can need at once */
#define WRITE_STREAMS 4u       /* threads that write page after page, of one file */
#define MM_POOLS_MAX 10  /* 4 KiB to 2 MiB */
#define POOL_STAGES_MAX 64u
#ifdef FM_SIM
#define POOL_STAGE_SHARE 16u /* its pools are small */
#else
#define POOL_STAGE_SHARE 128u /* frames to a staging slot */
#endif
#define NONE UINT32_MAX  /* no page, no entry */

/* What is waited for seldom and comes often: who brings it makes a system call only where somebody sleeps. Who waits takes `seq`
 * before he looks whether he has to. */
struct gate {
	uint32_t seq, sleepers; /* seq: futex */
};

static inline int gate_wait(struct gate *gate, uint32_t seq, uint64_t until_ns)
{
	atomic_add(&gate->sleepers, 1u);
	int err = os_futex_wait(&gate->seq, seq, OS_FUTEX_ANY, until_ns);
	atomic_sub(&gate->sleepers, 1u);
	return err;
}

static inline void gate_open(struct gate *gate)
{
	atomic_add(&gate->seq, 1u);
	if (atomic_get(&gate->sleepers))
		os_futex_wake(&gate->seq, INT32_MAX, OS_FUTEX_ANY);
}

/* ------------------------------------------------------------------ pages and frames */

/* A page's state word: flags below, pins above. Every change is one compare-and-swap. */
enum page_flags {
	PG_LOCKED = 1u << 0,
	PG_WAITERS = 1u << 1,    /* somebody sleeps on the word */
	PG_TICKETS = 1u << 2,    /* somebody queued a ticket */
	PG_UPTODATE = 1u << 3,   /* the bytes are the store's */
	PG_INSTALLED = 1u << 4,  /* they appear in the view */
	PG_DUP = 1u << 5,        /* installed by COPY, and the slot still has memory too */
	PG_MARK = 1u << 6,       /* readahead mark: the next window starts when this is touched */
	PG_SPEC = 1u << 7,       /* read ahead and not touched yet */
	PG_ERROR = 1u << 8,      /* the last read attempt failed: page.error */
	PG_GONE = 1u << 9,       /* out of the index: no longer anybody's page */
	PG_HOLE = 1u << 10,      /* the slot has no memory */
	PG_FREE = 1u << 11,      /* the frame is free, or about to be: cannot be pinned */
	PG_UNPROTECTED = 1u << 12, /* installed by MOVE: protection is to follow; in a file open for writing: may be written to */
	PG_SOFT = 1u << 13,      /* taken out of the view by the clock, still cached */
	PG_HOT = 1u << 14,       /* somebody came back to it: its place is on ACTIVE */
	PG_ASKED = 1u << 15,     /* a call with FM_NOWAIT asked for it, and is yet to be told how it went */
	PG_DIRTY = 1u << 16,     /* its bytes are newer than the store's: see dirty.c */
	PG_WRITEBACK = 1u << 17, /* a write of it is under way: what it reads from stays as it is */
};
#define PG_FLAGS 0x3ffffu
#define PG_PIN 0x40000u
#define PG_PINS(state) ((state) >> 18)
#define PG_PINS_MAX 0x3f00u

/* One descriptor a frame. Identity (file, index) is written before the page can be found and not
 * changed while it is pinned or locked. 48 bytes for 4096: 1.2 %. */
struct page {
	uint32_t state;     /* atomic */
	uint32_t hash_next; /* bucket lock */
	struct fm_file *file;
	uint64_t index;
	uint32_t lru_next, lru_prev; /* pool lock */
	uint32_t attempt;            /* read attempts begun; changed under the page lock */
	int16_t error;               /* of the last attempt; valid with PG_ERROR */
	uint16_t user_pins;          /* fm_pin() count; page lock, but for page_glance(): so is shown */
	uint16_t request;            /* index + 1 of the read_request under way; request lock */
	uint16_t shown;              /* 4096-byte pieces of it that are installed; page lock */
	uint8_t list;                /* enum page_list; pool lock */
	bool uncounted;              /* installed, and not in its range's count; page-table lock */
	bool noted;                  /* its first touch is in the file's record; relaxed */
	bool keep;                   /* the clock is to pass it over once: FM_ADVICE_KEEP; page lock */
};
_Static_assert(sizeof(struct page) <= 48, "frame descriptors must stay under 1.2 % of 4 KiB");

/* AHEAD: not installed yet. YOUNG: installed, and touched by one fault. ACTIVE: installed, and come back to. INACTIVE: taken
 * out of the view, to see whether somebody comes back. COLD: not installed, and COLD_SHOWN: installed; both by FM_ADVICE_COLD. HELD:
 * the clock has met it dirty, or written and not flushed; it comes back when it is neither. See reclaim.c. GROUPS and
 * PARKED: free, and of a group, all of which is, or some: see group.c. */
enum page_list {
	LIST_NONE, LIST_FREE, LIST_HOLES, LIST_AHEAD, LIST_YOUNG, LIST_ACTIVE, LIST_INACTIVE, LIST_COLD, LIST_COLD_SHOWN,
	LIST_HELD, LIST_GROUPS, LIST_PARKED, LIST_COUNT
};

struct page_queue {
	uint32_t head, tail, count;
};

struct bucket {
	uint32_t version; /* odd while a writer is in: lock and sequence count in one; atomic */
	uint32_t head;    /* atomic */
};
#define BUCKET_LINE 8u /* of them in a line of the processor's cache */

struct ticket;
struct wait_queue { /* of tickets */
	struct os_lock lock;
	struct ticket *head, **tail;
};
void ticket_queue(struct wait_queue *queue, struct ticket *ticket);
struct ticket *ticket_take(struct wait_queue *queue);
struct ticket *ticket_take_throttled(struct wait_queue *queue);

/* The frames of one page size, their index and their clock. */
struct frame_pool {
	struct fm_mm *mm;
	uint32_t page_size, shift, frames;
	uint32_t bucket_lines; /* of BUCKET_LINE */
	struct page *pages;
	struct bucket *buckets;
	char *slots;
	size_t slots_len;
	bool registered; /* slots belong to the trap: holes have to be filled by hand */
	bool grows;      /* huge frames get their memory a few at a time, by pool_grow() */
	struct os_lock lock;
	struct page_queue queue[LIST_COUNT];
	uint32_t groups, group_next;  /* how many there may be; where to make the next one: the background thread's */
	uint32_t wants_groups;        /* atomic */
	uint64_t groups_failed_ns;    /* when the system last had no huge page; atomic */
	uint64_t *whole_bits;         /* a bit for each group; atomic */
	uint16_t *group_free;         /* frames of each that is whole that are free; pool lock */
	uint32_t stages;              /* staging slots, behind those of the frames */
	uint64_t stages_free;         /* a bit each; atomic */
	uint32_t stages_charged;      /* for so many the budget is charged */
	uint32_t free_low, free_high; /* the background thread keeps the free frames between */
	uint64_t fill_failed_ns;      /* when the system last had no memory for a hole; atomic */
	uint32_t wants_filled;        /* readers had to fill frames themselves; atomic */
	uint32_t filled, growing;     /* huge frames: how many have been populated; somebody is at it; atomic */
	uint32_t free_seq;            /* futex: changes when a frame becomes free */
	uint32_t free_waiters;        /* threads asleep on it; atomic */
	struct wait_queue tickets;    /* waiting for a frame, oldest first */
	struct keeper *keepers;
	uint32_t keeper_count;
	uint32_t keeper_seq, keeper_waiters;
	struct wait_queue keeper_tickets;
	uint32_t deferred; /* frames freed under the map lock, by page.index: id + 1; atomic stack */
	uint32_t user_pinned; /* frames held by fm_pin(); atomic */
	uint16_t *ghosts;     /* what was evicted from YOUNG of late: see ghost_add(); atomic */
	uint32_t ghost_mask, ghost_clock;
	/* Files open for writing: see dirty.c. A bit a frame; atomic. */
	uint64_t *dirty_bits;     /* PG_DIRTY */
	uint64_t *aged_bits;      /* ...and was by the last tick but one */
	uint64_t *writing_bits;   /* PG_WRITEBACK */
	uint64_t *unflushed_bits; /* written, and no flush has begun since */
	uint64_t *flushing_bits;  /* written before the flush that is under way */
	uint32_t dirty, writing, unflushed; /* pages; atomic; unflushed: also those being flushed */
	uint32_t places;      /* slots without memory, behind the staging slots: for what is taken out for a moment */
	uint64_t places_free; /* a bit each; atomic */
	void *meta;
	size_t meta_len;
};

/* ------------------------------------------------------------------ address space */

/* Disjoint, sorted by address; mapping the same bytes again raises `count`. Map lock. */
struct vma {
	uint64_t start, end;
	struct view *view;
	uint32_t count;
	uint16_t advice; /* on readahead */
	bool keep;       /* FM_ADVICE_KEEP */
	bool writable;   /* FM_MAP_WRITE */
	fm_error_fn on_error;
	void *on_error_arg;
};

struct map_lock {
	uint32_t rin, rout, win, wout; /* phase-fair: see map_lock.c */
	uint64_t writer_since_ns;
	struct stats_page *stats;
};

/* The region in which a file's pages appear. Lives as long as its file. */
struct view {
	struct fm_mm *mm;
	struct fm_file *file;
	struct view_region region; /* what the registry knows: base, len, pins */
	uint32_t unmap_seq;        /* changes with each unmap; atomic */
};

/* One reader's way through a file. Plain numbers, here and in ra_state: races only cost guesses. */
#define RA_STREAMS 16
struct ra_stream {
	uint64_t last;  /* the page it has come to */
	uint64_t edge;  /* the next one, in its direction, that has not been asked for */
	int64_t stride; /* pages from one to the next; 0: not known yet */
	int32_t step;   /* what lay between its first page and another stream's; 0: nothing near */
	uint32_t size;  /* of its last window, in pages */
	uint32_t used;  /* ra_state.clock by then; 0: it is none */
};

struct ra_state {
	struct ra_stream stream[RA_STREAMS];
	uint32_t clock;     /* faults that looked for a stream */
	uint32_t max_pages; /* of a window; 0: no readahead */
	uint32_t most;      /* at present */
	uint32_t wasted;    /* pages thrown away untouched, of late */
};

/* Pages to read beside the wanted one: `count`, each `step` after the one before. In steps of several they go into the view as
 * soon as they have come, from `low` to before `high`, where the mapping shows them. */
struct ra_window {
	uint64_t start, mark;
	uint32_t step, count;
	bool stages;        /* its pages may go into the view by themselves */
	uint32_t unmap_seq; /* the view's, when the mapping was found */
	bool keep;          /* FM_ADVICE_KEEP */
};

/* Whether huge pages can come into its view, which is for streams. */
enum file_huge { HUGE_NO, HUGE_WANTED, HUGE_YES };

enum handle_state { HANDLE_CLOSED, HANDLE_OPEN, HANDLE_IN_THE_MAKING };

struct fm_file {
	struct fm_mm *mm;
	struct fm_store *store;
	struct frame_pool *pool;
	struct view view;
	struct ra_state ra;
	uint32_t huge; /* enum file_huge; atomic */
	uint32_t refs; /* atomic */
	uint32_t handles; /* the program's that are open, of this cache; atomic */
	/* The program's handle: see handle.c. A further handle has only this, `mm`, `error_told` and `on_write_error`. */
	struct fm_file *cache;   /* whose pages it shows: itself, but for a further handle */
	struct fm_file *further; /* the cache's next further handle; atomic, never taken out before the cache's end */
	uint32_t open;           /* enum handle_state; atomic */
	bool may_write;
	uint32_t telling;        /* threads that call the handles' on_write_error; atomic */
	/* Its place among the process's objects: objects_lock, in handle.c. */
	struct fm_file *object_next;
	bool listed;
	bool ending;     /* its last reference has gone */
	bool settling;   /* being opened, or upgraded: it cannot be shared yet */
	bool will_write; /* ...for writing */
	enum { LOCK_NONE, LOCK_READING, LOCK_WRITING } locked; /* against other processes; or, of one being opened, wanted */
	bool alone;      /* it is to have a cache beside another's; the opening thread's */
	uint32_t readahead_bytes; /* as asked for: a private mapping has it from its base */
	uint64_t reserve_bytes;   /* likewise; 0: see view_slack() */
	uint64_t deadline_ns;
	uint64_t latency_ns; /* of its reads, smoothed; atomic */
	uint32_t changed_policy;
	uint32_t changed;    /* found changed behind its snapshot; atomic */
	struct fm_store_version version; /* version_lock; young_ns: could then have been changed again without another version */
	struct os_lock version_lock;
	uint64_t checked; /* io_ends() before the version was last asked for, and was the same; atomic */
	uint32_t epoch; /* changes with each version, under FM_CHANGED_REFRESH; atomic */
	uint32_t inflight; /* frames owned by its reads under way; atomic */
	uint32_t requests; /* of them; atomic */
	struct fm_file *next, **pprev; /* mm->files; mm->files_lock */
	struct fm_file *reap_next;
	/* Open for writing: see writeback.c. */
	_Atomic bool writable; /* false may become true: see file_upgrade() */
	uint32_t kept;         /* the keeper has it: its place + 1 */
	bool scratch;          /* a private mapping's: written back for want of memory only */
	struct fm_file *base;  /* ...whose bytes it has where nothing was written */
	fm_write_error_fn on_write_error;
	void *on_write_error_arg;
	uint32_t dirty, writing, unflushed; /* pages; atomic */
	uint32_t write_requests;            /* under way; atomic */
	uint32_t written_seq;               /* writes that have ended; atomic */
	struct gate ended;                  /* a write or a flush has ended */
	uint32_t error_seq, error_told;     /* failures so far, and how many of them some call has told; atomic */
	int write_error;                    /* of the last failure; atomic */
	uint32_t lost, lost_logged;         /* dirty pages whose bytes were gone; of how many the log has been told; atomic */
	uint64_t lost_first;                /* the first page of those that the log has not been told of; atomic */
	uint32_t failing;                   /* nothing has been written since it; atomic */
	uint64_t retry_ns;                  /* when the background tries again after it; atomic */
	uint64_t write_ns;                  /* a page takes to be written, smoothed; atomic */
	uint64_t last_write_ns;             /* when the last write ended; atomic */
	struct os_lock flush_lock;
	bool flushing;                      /* flush_lock; atomic: the background asks without */
	uint32_t flush_covers, flush_ended; /* what of written_seq the present one, and the last, covers; flush_lock */
	uint32_t flush_failures;            /* atomic */
	int flush_result;                   /* of the last; flush_lock */
	uint64_t flushed_ns;                /* when the last flush ended, or the file was opened; atomic */
	struct io_request *flush_io;        /* part of the mm's write-back */
	struct write_request *own_write;    /* a request that no other file can take; the write-back's */
	uint32_t resizing;                  /* futex: 0 free, 1 taken, 2 waited for: truncates and punches are one at a time */
	uint64_t punch_first, punch_last;   /* pages that are being punched, or truncated; atomic; none: first > last */
	uint32_t passed_by;                 /* so many dirty pages were not written because they were; atomic */
	uint32_t syncs_alone;               /* syncs that no punch or truncate is to begin beside; atomic */
	struct writer {
		uint64_t next;  /* the page where it is expected; relaxed */
		uint32_t count; /* how many came in with the last; relaxed */
	} writer[WRITE_STREAMS];
	uint32_t writers; /* so many have had a place; atomic */
	uint32_t swept_seq;                 /* the view's unmap_seq, when what may not leave it had left; the write-back's */
	uint32_t sweep_pass;                /* in which it was looked at last; the write-back thread's */
	uint64_t closing_ns;                /* since when its last reference has been put, and writes fail; 0: they do not */
	uint32_t finished;                  /* the last writeback_finish() that has written the file */
	uint32_t stored_seq;                /* writes that have brought bytes to the store; atomic */
	uint64_t finish_spent_ns;           /* how long writeback_finish() has waited for the file's store */
	bool given_up;                      /* what is still dirty is lost, and no write begins any more; atomic */
	struct record *record; /* NULL: touches are not noted */
	struct replay *replay; /* the hot set that is being read; files_lock */
	char uri[];
};

/* Empty page tables are given back: how many installed pages each 2 MiB of view has. Where the kernel gives no address by itself, or for
 * a budget beyond a TiB, some go uncounted. 8 bytes for two frames: 0.1 %. */
#define PT_KEYS (1ull << 27)
#define PT_END ((1u << 27) - 1) /* of a chain */
struct pt_range {
	uint64_t key : 27, count : 10, next : 27;
};
_Static_assert(sizeof(struct pt_range) == 8, "two of them for each frame at worst");
struct pt_table {
	struct os_lock lock;
	uint32_t mask, free_head, entries, used, empty;
	uint32_t uncounted; /* pages that are installed without a range: the table was full */
	uint32_t *heads;
	struct pt_range *range;
	uint32_t scan; /* where the search for empty ones goes on */
	uint64_t releasing;   /* the range that is being given back; 0: none */
	uint32_t release_seq; /* futex */
};

#define READ_PAGES_MAX 256u /* of a request; as many of them as have neighbouring frames are one segment */
#ifdef FM_SIM
#define READ_SEGMENTS_MAX 3u /* its pools are small */
#else
#define READ_SEGMENTS_MAX IO_SEGMENTS_MAX
#endif
/* Which pages it reads, the segments tell, which are their slots; of a staged one, `first`. */
struct read_request {
	struct io_request io;
	struct fm_file *file;
	uint32_t page_count;
	uint32_t first; /* its first page */
	uint64_t started_ns, deadline_ns;
	uint32_t epoch; /* of the file, when it was submitted */
	char *stage;        /* the staging slot that it reads its one page into; NULL: into the frame */
	uint64_t stage_addr; /* where the page is wanted */
	uint32_t unmap_seq; /* the view's, when it was */
	uint32_t busy;      /* atomic */
	bool speculative;   /* request lock */
	uint32_t cancelled; /* set under the request lock; atomic */
	uint32_t abandoned; /* its pages have been taken from it; as `cancelled` */
	uint32_t next_free;
};

/* Work that must wait for the background thread: protection to be put on, copies to be dropped. */
struct after_work {
	struct os_lock lock;
	uint32_t capacity, head, count;
	uint32_t passes; /* that have ended; atomic */
	bool overflowed;
	struct after_item {
		uint16_t pool, count;
		uint32_t page;
	} *item;
};

/* Wakes the write-back thread. Atomic words. */
struct writer_bell {
	uint32_t seq;    /* futex */
	uint32_t urgent; /* a thread waits for dirty or unflushed pages */
	uint32_t noted;  /* the next pass has something to do */
	uint32_t merged; /* the log is to be told that the program allows pages to be merged */
};

enum background_state { BACKGROUND_RUNS, BACKGROUND_DOZES, BACKGROUND_SLEEPS };

struct fm_mm {
	struct map_lock map;
	struct vma *segments; /* slab; map lock */
	uint64_t *starts;     /* sorted starts and, beside them, their slab places; map lock */
	uint32_t *places;
	uint32_t segment_count, segment_capacity, segment_free;
	uint32_t *segment_free_next;
	void *segment_mem;
	size_t segment_mem_len;

	uint64_t budget_bytes;
	uint64_t charged_bytes; /* atomic: frames with memory, and page tables */
	uint32_t flags, install;
	bool dying; /* atomic */
	bool lost;  /* by its end, something that was dirty; atomic */
	bool emptied; /* the program has emptied or replaced something that was dirty, and no call has told it; atomic */
	uint32_t finishes; /* calls of writeback_finish(); atomic */
	bool ended;        /* the process has ended but for its last instructions: nobody waits for write-back; atomic */
	uint32_t late;     /* futex: 1: written to since, 2: the log has been told */
	bool silent;       /* the program's callbacks are not called any more; atomic */
	uint32_t calling;  /* callbacks of the program that run now; atomic */
	struct stats_page *stats;
	int stats_fd;
	fm_log_fn log;
	void *log_arg;

	struct trap *trap;
	struct io_engine *io;
	struct frame_pool *pool[MM_POOLS_MAX];
	struct os_lock pools_lock; /* only for adding one */
	struct os_lock files_lock;
	struct fm_file *files;
	struct fm_file *reap_list, *close_list; /* atomic stacks */
	uint32_t file_count;       /* atomic, futex: 0 when all are gone */
	uint32_t wants_huge;       /* some file does; atomic */

	struct os_lock request_lock;
	struct read_request *requests;
	uint32_t request_count, request_free;
	uint32_t requests_left; /* free; request_lock to change, atomic */
	uint32_t requests_busy; /* atomic */

	int event_fd;            /* fm_event_fd()'s; -1: nobody asked; atomic */
	uint32_t event_signalled; /* and no call with FM_NOWAIT since; atomic */
	uint32_t starved;        /* such a call could begin nothing; atomic */

	struct wait_queue page_tickets[64]; /* by page; each page's waiters in one of them */
	struct pt_table pt;
	struct after_work after;

	struct os_thread background;
	uint32_t background_seq; /* futex */
	bool background_stop;
	uint32_t background_state; /* enum background_state; atomic */
	struct os_thread closer;
	uint32_t closer_seq; /* futex */
	bool closer_stop;
	struct record *records;   /* files_lock; walked by the closer without */
	uint32_t records_wanted;  /* atomic: to be written at once, up to this number */
	uint32_t records_saved;   /* futex */
	uint64_t records_next_ns; /* the closer's */
	struct os_thread replayer;
	struct replay *replays; /* files_lock */
	uint32_t replaying;     /* files that have one; files_lock to change */
	uint32_t replayer_begun; /* atomic */
	uint32_t replay_seq;    /* futex */
	bool replay_stop;       /* atomic */
	struct writeback *wb; /* made with the first file that is opened for writing; atomic */
	struct writer_bell writer_bell;
	struct os_keeper keeper; /* FM_KEEP */
	void *meta;
	size_t meta_len;
};

/* ------------------------------------------------------------------ the fault */

enum fault_flags {
	FM_FAULT_WRITE = 1u << 0,        /* the access was a write */
	FM_FAULT_ALLOW_RETRY = 1u << 1,  /* the map lock may be dropped */
	FM_FAULT_RETRY_NOWAIT = 1u << 2, /* ...but not to wait: RETRY with a ticket */
	FM_FAULT_KILLABLE = 1u << 3,     /* waits end when the mm is destroyed */
	FM_FAULT_TRIED = 1u << 4,        /* not the first try */
};

enum fault_result {
	FM_FAULT_RETRY = 1u << 0,  /* ALLOW_RETRY without NOWAIT: the map lock is gone */
	FM_FAULT_MAJOR = 1u << 1,  /* the page was not in the cache */
	FM_FAULT_LOCKED = 1u << 2, /* vmf->page is uptodate, pinned and locked */
	FM_FAULT_NOPAGE = 1u << 3, /* nothing to install */
	FM_FAULT_OOM = 1u << 4,
	FM_FAULT_SIGBUS = 1u << 5, /* vmf->error says why */
};
_Static_assert((FM_FAULT_WRITE | FM_FAULT_ALLOW_RETRY | FM_FAULT_RETRY_NOWAIT |
		FM_FAULT_KILLABLE | FM_FAULT_TRIED) == 31, "fault flags must not overlap");

/* What a fault that may not block wants done for it, once its caller has dropped the map lock. */
enum fault_want {
	WANT_NOTHING,
	WANT_PAGE,  /* vmf->page is locked by somebody: be told when it is not */
	WANT_READ,  /* vmf->page (or, if NULL, vmf->index) has to be read */
	WANT_AHEAD, /* LOCKED: submit the readahead that a mark asked for */
	WANT_THROTTLE, /* a write: too much is dirty, or the page can't be written to for a moment */
	WANT_SIZE, /* past the end that is known: the store is to be asked whether the file has grown */
};

/* One fault, from the trap to its end, over all its tries. */
struct fault {
	struct fm_mm *mm;
	struct fm_file *file; /* pinned by the view for the whole fault */
	struct view *view;    /* pinned by the trap */
	const struct vma *vma; /* map lock; do not touch once fpin is set */
	uint64_t addr, index, byte; /* byte: the offset in the file, of the touched address */
	uint32_t flags;
	uint32_t advice; /* copied from the vma: needed after the drop, as are these: */
	bool keep, writable;
	fm_error_fn on_error;
	void *on_error_arg;
	struct page *page; /* carried over the retry, with its pin, which belongs to the fault */
	int error;         /* carried over the retry: the errno of the attempt we waited for */
	enum fault_want want;
	uint64_t low, high;  /* the mapping's first and last page that it has whole; copied from the vma */
	uint64_t mapped_end; /* the end of what the mapping shows, also in part */
	uint64_t run_first, run_last; /* the pages that were installed with it */
	struct ra_window ra; /* readahead to submit */
	uint32_t more;       /* pages to be read with the wanted one, in one read */
	uint32_t unmap_seq;        /* the view's, when vma was found */
	bool counted_major;
	bool no_stage;     /* it is to be read into a frame of its own */
	bool exact;        /* a call says itself what is to be read: nothing beside it */
	bool repeated;     /* this very access faulted before, and was served */
	bool paced;        /* a write: it has been held back once for what is dirty */
	bool asked_size;   /* the store has been asked whether the file has grown */
	bool waited_for_group; /* for the rest of its page's */
	bool waited;       /* a ticket's wait is over: the attempt's errno is ours */
	bool had_error;    /* when the wait began the page had one already: an older attempt's */
	uint32_t attempt;  /* the page's attempts by then */
	struct page *stale;        /* its pin is to be put after the map lock is dropped */
	struct page *stale_locked; /* so is this one's, and its lock */
	uint32_t tries;
	uint64_t started_ns;
};

/* A place in a queue. `run` is called once, in whichever thread ends the wait, with no lock held. */
struct ticket {
	struct ticket *next;
	struct page *page; /* what it waits for; NULL: a frame */
	struct fm_file *file; /* whose share of frames it waits for, too; or NULL */
	bool throttled;       /* it waits for room for dirty pages of `file` in place of a frame */
	uint64_t until_ns;    /* ...or until then */
	void (*run)(struct ticket *ticket);
	bool (*ready)(const struct ticket *ticket); /* whether `run` is worth calling; NULL: always */
	int error; /* of the attempt that it waited for; 0 if none */
};

/* Changes with fm_truncate(), and where another version of the object is taken over. The store keeps the only account. */
static inline uint64_t file_size(const struct fm_file *file)
{
	return store_size(file->store);
}

/* address_space.c */
int mm_map_range(struct view *view, uint64_t offset, size_t len,
		 const struct fm_map_options *options, void **ret_addr);
int mm_sync_range(struct fm_mm *mm, uint64_t start, uint64_t end, unsigned flags);
int mm_unmap_range(struct fm_mm *mm, uint64_t start, uint64_t end);
int mm_advise_range(struct fm_mm *mm, uint64_t start, uint64_t end, enum fm_advice advice);
int mm_residency_range(struct fm_mm *mm, uint64_t start, uint64_t end, unsigned char *vec);
bool mm_range_mapped(struct fm_mm *mm, uint64_t addr);
bool mm_range_allows(struct fm_mm *mm, uint64_t addr, bool written);
const struct vma *mm_find_vma(struct fm_mm *mm, uint64_t addr); /* map lock */
void mm_unmap_all(struct fm_mm *mm);

/* fault.c */
unsigned filemap_fault(struct fault *vmf);
/* From the fault's beginning: it may wait many times, and the store be dead all the while. */
static inline uint64_t fault_deadline(const struct fault *vmf)
{
	return vmf->file->deadline_ns ? vmf->started_ns + vmf->file->deadline_ns : OS_FOREVER;
}

/* fault_path.c: what traps and calls go through */
static inline uint32_t fault_flags(const struct fm_mm *mm, uint32_t flags)
{
	return flags | FM_FAULT_KILLABLE | (mm->flags & FM_MM_HOLD_LOCK ? 0 : FM_FAULT_ALLOW_RETRY);
}
struct view *view_find(struct fm_mm *mm, uint64_t addr);
void fault_begin(struct fault *vmf, struct view *view, uint64_t addr, uint32_t flags);
int fault_drive(struct fault *vmf, struct ticket *ticket);
void fault_end(struct fault *vmf, int error);
void fault_after_install(struct fault *vmf);
void fault_note_attempt(struct fault *vmf, const struct page *page);
int fault_attempt_error(const struct fault *vmf, const struct page *page);
bool fault_park(struct fault *vmf, const struct ticket *ticket);
extern const struct trap_client fault_trap_client;

/* page_cache.c */
struct page *page_find(struct fm_file *file, uint64_t index);
struct page_glance {
	uint32_t state;
	uint16_t user_pins, shown;
};
bool page_glance(struct fm_file *file, uint64_t index, struct page_glance *ret_glance);
enum page_add_flags {
	ADD_RECLAIM = 1u << 0, /* when no frame is free, take one from another page */
	ADD_HOLE = 1u << 1,    /* the frame may come without memory, see frame_alloc() */
	ADD_STREAM = 1u << 2,  /* readahead has foreseen it */
	ADD_SINGLE = 1u << 3,  /* and wants frames for single pages, also of groups */
};
struct page *page_insert(struct fm_file *file, uint64_t index, struct page *fresh, unsigned flags);
int page_add(struct fm_file *file, uint64_t index, unsigned flags, struct page **ret_page, bool *ret_new);
bool page_try_pin(struct page *page);
void page_pin(struct page *page);
void page_unpin(struct frame_pool *pool, struct page *page);
uint32_t page_unpin_quiet(struct frame_pool *pool, struct page *page);
bool page_trylock(struct page *page);
int page_wait(struct fm_mm *mm, struct page *page, bool killable, uint64_t until_ns);
void page_unlock(struct frame_pool *pool, struct page *page);
void page_unlock_unread(struct frame_pool *pool, struct page *page);
bool page_queue_ticket(struct fm_mm *mm, struct page *page, struct ticket *ticket);
bool ticket_cancel(struct fm_mm *mm, struct frame_pool *pool, struct ticket *ticket);
bool page_ask(struct page *page);
void page_unask(struct page *page);
void page_set(struct page *page, uint32_t set, uint32_t clear);
void page_remove(struct frame_pool *pool, struct page *page);
void page_fail(struct page *page, int error);
void page_check(struct frame_pool *pool, const struct page *page);
typedef void (*page_fn)(struct fm_file *file, struct page *page, void *arg);
void file_each_cached(struct fm_file *file, uint64_t first, uint64_t last, page_fn fn, void *arg);
void file_invalidate(struct fm_file *file, uint64_t first, uint64_t last);
void file_keep(struct fm_file *file, uint64_t first, uint64_t last);
void file_cool(struct fm_file *file, uint64_t first, uint64_t last);
void file_forget(struct fm_file *file);
void file_take_out(struct fm_file *file, uint64_t first, uint64_t last);
uint64_t file_pages(struct fm_file *file);
/* An attempt's number and errno are written under the page lock, and read by those who waited for it without. */
#define page_word(page, field) __atomic_load_n(&(page)->field, __ATOMIC_RELAXED)
#define page_word_set(page, field, v) __atomic_store_n(&(page)->field, v, __ATOMIC_RELAXED)
static inline uint32_t page_state(const struct page *page)
{
	return atomic_get(&((struct page *)(uintptr_t)page)->state);
}
/* Somebody beside us has a pin. */
static inline bool page_is_shared(const struct page *page)
{
	return PG_PINS(page_state(page)) > 1;
}
static inline bool page_is(const struct page *page, uint32_t flag)
{
	return (page_state(page) & flag) != 0;
}
/* The errno of the attempt that has ended last, by the state that was read; 0: there is none, or the next is under way. */
static inline int page_error(const struct page *page, uint32_t state)
{
	return (state & PG_ERROR) && !(state & (PG_UPTODATE | PG_LOCKED)) ? page_word(page, error) : 0;
}

/* read.c: requests */
#define READ_INLINE_MOST 64 /* pages; their list is on a signal handler's stack */
int store_error(int err);
int read_page(struct fm_file *file, struct page *page, uint32_t more);
bool read_is_inline(const struct fm_file *file);
uint32_t read_pages_most(const struct frame_pool *pool, uint32_t wanted);
bool read_fits(struct page **pages, uint32_t count, uint32_t *segments);
uint32_t request_pages(const struct read_request *req, struct page **pages);
bool read_may_stage(const struct fault *vmf);
int read_staged(struct fault *vmf);
int read_submit_staged(struct fault *vmf);
int read_submit_ahead(struct fm_file *file, struct page *page, char *stage, uint32_t unmap_seq);
int read_submit(struct fm_file *file, struct page **pages, uint32_t count, bool speculative);
void read_wanted(struct fm_file *file, struct page *page);
bool read_is_stuck(struct fm_file *file, struct page *page, uint64_t waited_ns);
void read_expire(struct fm_mm *mm, uint64_t now_ns, uint64_t *ret_next_ns);
void read_abandon_page(struct fm_mm *mm, struct page *page);
bool read_has_room(struct fm_file *file, bool may_wait);
int read_wait_for_room(struct fm_file *file, uint64_t until_ns);
void read_cancel_all(struct fm_mm *mm, struct fm_file *file);
void request_send(struct fm_mm *mm, struct io_request *io);
bool requests_hold(struct fm_mm *mm);
void requests_send(struct fm_mm *mm);
bool file_may_grow(const struct fm_file *file);
int file_look(struct fm_file *file);
int snapshot_renew(struct fm_file *file, bool *ret_changed);
int file_recheck(struct fm_file *file, uint32_t epoch, uint64_t ended);

/* install.c */
#define FOREIGN (-EADDRNOTAVAIL) /* the program has put other memory, or none, where the page would go: to the program -EFAULT */
bool page_is_foreign(const struct view *view, const struct page *page);
void page_gone_foreign(struct view *view, struct page *page);
int page_install(struct fault *vmf, struct page *page);
int page_make_writable(struct view *view, struct page *page);
void page_unprotect_again(struct view *view, struct page *page);
enum installed_by {
	BY_MOVE,
	BY_COPY,  /* the slot has memory, too */
	BY_STAGE, /* from elsewhere: the page had no bytes before, and its slot has no memory */
	BY_STAGE_WRITABLE,
};
void pages_installed(struct view *view, struct page *first, uint32_t count, uint64_t bytes, enum installed_by by);
int page_install_from(struct view *view, struct page *page, const char *stage, bool write);
uint64_t page_addr(const struct view *view, const struct frame_pool *pool, const struct page *page);
uint64_t move_uncounted(struct fm_mm *mm, uint64_t dst, uint64_t src, uint64_t len);
int move_after_exist(struct fm_mm *mm, uint64_t dst, uint64_t src);
bool page_is_there(const struct view *view, const struct page *page);
void page_gone_behind(struct view *view, struct page *page);
bool pt_get(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr, bool may_wait);
void pt_put(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr);
int page_take_out(struct view *view, struct page *page, bool may_block);
int page_bring_out(struct view *view, struct page *page);
void page_forget(struct view *view, struct page *page);
void page_discard(struct view *view, struct page *page);
void dirty_emptied(struct frame_pool *pool, struct page *page);
bool page_hole_stays(struct frame_pool *pool, struct page *page);
bool page_really_there(struct view *view, struct page *page);
void page_drop_copy(struct fm_mm *mm, struct frame_pool *pool, struct page *page);
void after_add(struct fm_mm *mm, struct frame_pool *pool, struct page *page, uint32_t count);
bool after_work_run(struct fm_mm *mm);
bool after_work_waits(struct fm_mm *mm);
bool pt_behind(struct fm_mm *mm);
void pt_throttle(struct fm_mm *mm);
void pt_release_empty(struct fm_mm *mm, uint32_t most);
int pt_init(struct fm_mm *mm);

/* dirty.c */
void page_dirty(struct frame_pool *pool, struct page *page);
bool page_clean(struct frame_pool *pool, struct page *page);
void page_writing(struct frame_pool *pool, struct page *page, bool keep_dirty);
void page_stored(struct frame_pool *pool, struct page *page);
void page_written(struct frame_pool *pool, struct page *page, int error, uint32_t flush_failures);
void page_flushing(struct frame_pool *pool, struct page *page);
void page_flushed(struct frame_pool *pool, struct page *page, uint64_t *bits, bool failed);
void page_drop_dirty(struct frame_pool *pool, struct page *page);
bool page_is_held(struct frame_pool *pool, const struct page *page);
bool page_hold(struct frame_pool *pool, struct page *page);
int page_wait_written(struct fm_mm *mm, struct page *page, uint64_t until_ns);
bool dirty_must_wait(const struct fault *vmf, const struct page *page, int *ret_error);
bool dirty_may_come(const struct fault *vmf);
bool dirty_may_go_on(const struct fm_file *file);
void dirty_pace(struct fault *vmf);
int dirty_wait(struct fault *vmf);
bool dirty_many(const struct frame_pool *pool);
bool dirty_few(const struct frame_pool *pool);
uint32_t dirty_room(const struct fm_file *file);
bool unflushed_many(const struct frame_pool *pool);
char *place_take(struct frame_pool *pool);
void place_put(struct frame_pool *pool, const char *place);
static inline bool bit_is(const uint64_t *bits, uint32_t id)
{
	return atomic_get(&((uint64_t *)(uintptr_t)bits)[id / 64]) >> (id % 64) & 1;
}
static inline bool bit_set(uint64_t *bits, uint32_t id)
{
	return atomic_or(&bits[id / 64], 1ull << (id % 64)) >> (id % 64) & 1;
}
static inline bool bit_clear(uint64_t *bits, uint32_t id)
{
	return atomic_and(&bits[id / 64], ~(1ull << (id % 64))) >> (id % 64) & 1;
}

/* writeback.c */
int writeback_open(struct fm_mm *mm);
struct write_request *writeback_request_alloc(void);
void writeback_stop(struct fm_mm *mm);
void writeback_free(struct fm_mm *mm);
void writeback_kick(struct fm_mm *mm);
void writeback_note(struct fm_mm *mm);
void writeback_urge(struct fm_mm *mm);
int writeback_range(struct fm_file *file, uint64_t first, uint64_t last, bool wait);
int file_flush(struct fm_file *file);
int file_sync(struct fm_file *file, uint64_t first, uint64_t last, unsigned flags, uint32_t *error_told);
bool writeback_close(struct fm_file *file);
void writeback_finish(struct fm_mm *mm);
void writeback_cancel(struct fm_mm *mm);
void writeback_late(struct fm_mm *mm, bool may_wait);
int writeback_all(struct fm_file *file);
void file_write_failed(struct fm_file *file, int error);
void writeback_look_for_merging(struct fm_mm *mm);
void file_lost_page(struct fm_file *file, uint64_t index);
void file_tell_lost(struct fm_file *file);
static inline bool range_is_punched(const struct fm_file *file, uint64_t index)
{
	return index >= atomic_get(&((struct fm_file *)(uintptr_t)file)->punch_first) &&
	       index <= atomic_get(&((struct fm_file *)(uintptr_t)file)->punch_last);
}

/* keep.c */
int keep_start(struct fm_mm *mm);
void keep_stop(struct fm_mm *mm);
int keep_file(struct fm_file *file);
void keep_forget(struct fm_file *file);
void keep_alive(struct fm_mm *mm);
int keeper_wait(const char *path, uint64_t timeout_ns);

/* resize.c */
int file_truncate(struct fm_file *file, uint64_t size);
int file_punch(struct fm_file *file, uint64_t offset, uint64_t len);
int file_drop(struct fm_file *file, uint64_t offset, uint64_t len);
int file_refresh(struct fm_file *file, bool *ret_changed);
int file_invalidate_range(struct fm_file *file, uint64_t offset, uint64_t len);
int file_reserve(struct fm_file *file, uint64_t offset, uint64_t len);

/* run.c */
int install_run(struct fault *vmf, struct page *page);
bool group_wait(struct fault *vmf, struct page *page);
uint32_t take_out_together(struct fm_file *file, struct page *first, uint32_t most, uint32_t flags, uint32_t never);
uint32_t deactivate_run(struct frame_pool *pool, enum page_list from, uint32_t most, bool let_off, uint32_t *freed);

/* readahead.c */
void ra_init(struct fm_file *file, uint32_t max_bytes);
bool ra_sync_window(struct fault *vmf);
bool ra_async_window(struct fault *vmf, struct page *page);
uint64_t ra_submit(struct fm_file *file, const struct ra_window *window, bool evict);
void ra_late(struct fm_file *file, uint64_t index);
void ra_wasted(struct fm_file *file);
uint64_t ra_range(struct view *view, uint64_t at, uint64_t end, uint64_t ahead);
void ra_shrink(struct fm_file *file);

/* frame_pool.c */
int pool_create(struct fm_mm *mm, uint32_t page_size, struct frame_pool **ret_pool);
void pool_destroy(struct frame_pool *pool);
void pool_drop(struct frame_pool *pool);
struct page *frame_alloc(struct frame_pool *pool, bool fill);
void frame_drop(struct frame_pool *pool, struct page *page);
void frame_begin(struct page *page, uint32_t flags);
int frame_fill_first(struct frame_pool *pool, struct page *page);
char *stage_take(struct frame_pool *pool, bool last);
void stage_put(struct frame_pool *pool, const char *stage);
void frame_free(struct frame_pool *pool, struct page *page);
int frame_fill(struct frame_pool *pool, struct page *page);
void queue_unlink(struct frame_pool *pool, struct page *page);
void queue_append(struct frame_pool *pool, struct page *page, enum page_list list);
void lru_set(struct frame_pool *pool, struct page *first, uint32_t count, enum page_list list);
void lru_move(struct frame_pool *pool, struct page *page, enum page_list from, enum page_list to);
struct page *lru_take(struct frame_pool *pool, enum page_list list, uint32_t most, uint32_t *ret_count);
void ghost_add(struct frame_pool *pool, const struct page *page);
bool ghost_take(struct frame_pool *pool, const struct fm_file *file, uint64_t index, bool stream);
uint32_t lru_count(struct frame_pool *pool, enum page_list list);
uint32_t pool_release_memory(struct frame_pool *pool, uint32_t frames);
#define GROW_PIECE 4u /* huge frames at a time: some ms */
bool pool_may_grow(struct frame_pool *pool);
bool pool_grow(struct frame_pool *pool, uint32_t most);
bool pool_grow_ahead(struct frame_pool *pool);
bool pool_fill_ahead(struct frame_pool *pool);
bool pool_under_pressure(struct frame_pool *pool);
uint32_t pool_spare(struct frame_pool *pool);
uint32_t groups_free(struct frame_pool *pool);

/* ---- group.c */
#ifdef FM_SIM
#define GROUP_PAGES 4u
#else
#define GROUP_PAGES (TRAP_TOGETHER / OS_PAGE)
#endif
uint32_t groups_for(const struct frame_pool *pool);
bool group_is_whole(const struct frame_pool *pool, const struct page *page);
struct page *group_first(const struct frame_pool *pool, const struct page *page);
bool group_is_all(const struct frame_pool *pool, const struct page *first, uint32_t count);
void group_split(struct frame_pool *pool, const struct page *first, uint32_t count);
void group_park_locked(struct frame_pool *pool, struct page *page);
void group_installed(struct frame_pool *pool, const struct page *first, uint32_t count);
void group_split_locked(struct frame_pool *pool, uint32_t group);
bool group_make(struct frame_pool *pool, bool only_holes);
bool group_break(struct frame_pool *pool);
struct page *group_take(struct frame_pool *pool, bool evict);
void groups_fill_ahead(struct frame_pool *pool);
void groups_open_views(struct fm_mm *mm);

bool pool_may_fill(struct frame_pool *pool);
bool pool_pauses(struct frame_pool *pool);
bool pool_evicts(struct frame_pool *pool);
bool pool_at_floor(struct frame_pool *pool);
static inline char *slot_of(const struct frame_pool *pool, const struct page *page)
{
	return pool->slots + ((size_t)(page - pool->pages) << pool->shift);
}

/* reclaim.c */
uint32_t reclaim(struct frame_pool *pool, uint32_t want, bool background);
int frame_wait(struct fm_file *file, bool killable, uint64_t until_ns);
void frame_queue_ticket(struct fm_file *file, struct ticket *ticket);
void frame_queue_throttled(struct fm_file *file, struct ticket *ticket, uint64_t until_ns);
void frame_queue_last(struct frame_pool *pool, struct ticket *ticket);
void frame_freed(struct frame_pool *pool);
void frame_ask(struct fm_file *file);
void background_kick(struct fm_mm *mm);
void background_note(struct fm_mm *mm);
int background_start(struct fm_mm *mm);
void background_stop(struct fm_mm *mm);
void mm_charge(struct fm_mm *mm, uint64_t bytes);
bool mm_try_charge(struct fm_mm *mm, uint64_t bytes);
void mm_uncharge(struct fm_mm *mm, uint64_t bytes);

/* progress.c: instructions that need several pages at once */
struct keeper {
	uint64_t since_ns;   /* of its last fault's end; atomic */
	uint32_t generation; /* odd: taken; atomic */
	uint32_t count;
	uint32_t page[MM_KEEP_PAGES];
	uint32_t busy; /* its owner is inside a fault, or somebody empties it; atomic */
};
struct progress { /* one thread's, kept by the trap */
	uint64_t instruction; /* program counter and registers at its last fault, mixed */
	struct frame_pool *pool;
	uint32_t keeper, generation; /* keeper: place + 1, 0 none */
};
bool progress_begin(struct progress *progress, struct frame_pool *pool, uint64_t instruction,
		    struct ticket *ticket);
void progress_tick(struct frame_pool *pool);
bool progress_keep(struct progress *progress, struct frame_pool *pool, struct page *page);
void progress_fail(struct progress *progress, struct frame_pool *pool);
void progress_drop_old(struct frame_pool *pool, uint64_t now_ns);
void progress_drop_all(struct frame_pool *pool);
int progress_open(struct frame_pool *pool);
void progress_close(struct frame_pool *pool);

/* record.c */
int record_begin(struct fm_file *file);
void record_list(struct fm_file *file);
void record_end(struct fm_file *file);
void record_touch(struct record *record, struct page *page);
void record_index(struct record *record, uint64_t index);
uint64_t records_save(struct fm_mm *mm);
void records_flush(struct fm_mm *mm, uint64_t until_ns);

/* hotset.c */
int file_hotset(struct fm_file *file, const char *path);
int replay_ask(struct fm_file *file);
void replay_begin(struct fm_file *file);
void replay_unlist(struct fm_file *file);
void replay_end(struct fm_file *file);
void replay_room(struct fm_mm *mm);
void replayer_stop(struct fm_mm *mm);
static inline bool replays_under_way(const struct fm_mm *mm)
{
	return __atomic_load_n(&mm->replaying, __ATOMIC_RELAXED) != 0;
}

/* queue.c */
int queue_create(struct fm_mm *mm, uint32_t entries, struct fm_queue **ret_queue);
int queue_destroy(struct fm_queue *queue);
int queue_fd(struct fm_queue *queue, int *ret_fd);
int queue_begin(struct fm_queue *queue, const struct fm_range *ranges, size_t count, size_t *ret_begun);
int queue_completions(struct fm_queue *queue, struct fm_range *ranges, size_t count, uint64_t timeout_ns,
		      size_t *ret_count);
void queues_end(struct fm_mm *mm);
void queues_forget(void);

/* map_lock.c */
void map_lock_shared(struct map_lock *lock);
void map_unlock_shared(struct map_lock *lock);
void map_lock_exclusive(struct map_lock *lock);
void map_unlock_exclusive(struct map_lock *lock);
/* Stands at the head of every function that can block. */
void might_block(struct fm_mm *mm);

/* file.c and mm.c */
int pool_open(struct fm_mm *mm, uint32_t page_size, struct frame_pool **ret_pool);
void pool_close(struct frame_pool *pool);
int mm_create(const struct fm_mm_options *options, struct fm_mm **ret_mm);
void mm_finish(struct fm_mm *mm);
int mm_destroy(struct fm_mm *mm);
/* How long an end, or a call that is not fm_sync(), waits for a store that refuses or does not answer: 10 seconds, as
 * filemap.h says. A variable for the tests' sake. */
extern uint64_t mm_patience_ns;
int file_open(struct fm_mm *mm, const char *uri, int fd, const struct fm_file_options *options,
	      struct fm_file **ret_file);
int file_open_private(struct fm_file *base, struct fm_file **ret_file);
int file_prepare_writing(struct fm_file *file);
void file_get(struct fm_file *file);
bool file_try_get(struct fm_file *file);
void file_put(struct fm_file *file);
void file_drop_pins(struct fm_file *file);
void page_drop_pins(struct fm_file *file, struct page *page);
void file_reap(struct fm_mm *mm);
bool mm_call_begin(struct fm_mm *mm);
void mm_call_end(struct fm_mm *mm);
void mm_event(struct fm_mm *mm);
int mm_event_fd(struct fm_mm *mm, int *ret_fd);

/* handle.c */
int object_enter(struct fm_file *fresh, bool write, struct fm_file **ret_handle);
void object_settled(struct fm_file *file);
void object_leave(struct fm_file *file);
void object_ending(struct fm_file *file);
void objects_forget(void);
void handle_close(struct fm_file *handle);
void handles_tell(struct fm_file *cache, uint64_t offset, uint64_t len, int error);
void handles_free(struct fm_file *cache);
int closer_start(struct fm_mm *mm);
void closer_kick(struct fm_mm *mm);
void closer_stop(struct fm_mm *mm);
void mm_log(struct fm_mm *mm, enum fm_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ../api: the process ends; with `last` nothing of the library runs after the call. */
void api_process_ends(bool last);

/* What a thread of the program remembers: in os_thread_local(). */
struct thread_local_area {
	uint32_t map_held; /* map locks held: 0 or 1 */
	uint32_t finishing; /* calls of fm_mm_destroy() that the thread is inside, and that still write */
	bool map_exclusive;
	uint64_t map_since_ns;
	bool plugged, unsent; /* requests are kept for io_kick(); there are some */
	uint64_t last_instruction, last_addr; /* inline trap: see fault_repeats() */
	uint32_t repeats;
	struct progress progress;
	struct guard *guard;
};
_Static_assert(sizeof(struct thread_local_area) <= OS_THREAD_LOCAL_BYTES, "thread-locals");
static inline struct thread_local_area *self(void)
{
	return os_thread_local();
}

#endif
