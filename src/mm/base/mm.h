/* SPDX-License-Identifier: MIT */
/*
 * An address space, and the order of its locks.
 *
 * Lock order (rank):
 *   1 map lock          fm_mm.map, the segments table. Under the map lock a thread makes no system
 *                       call except a futex wake, takes no page fault, and waits for nothing of a
 *                       higher rank.
 *   2 page lock         PG_LOCKED. A thread takes several page locks only by trying.
 *   3 bucket, pool, page-table and request locks: struct os_lock, held for some tens of
 *                       instructions. A thread that holds one of these locks takes no other lock,
 *                       except the I/O queue's lock under the request lock.
 *   4 statistics        no lock
 * Signals are blocked whenever a thread takes any of these locks.
 *
 * References:
 *   struct page         pins in the state word; a pinned page keeps its identity and its frame
 *   struct view         pins: a fault pins the view from the look-up in the registry to its end
 *   struct fm_file      refs: the program's handle, each segment, each file pin and each request
 *                       hold a reference
 */
#ifndef FM_MM_BASE_MM_H
#define FM_MM_BASE_MM_H

#include "filemap.h"
#include "mm/base/ticket_list.h"
#include "os/keeper.h"
#include "os/os.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct after_work;
struct fm_file;
struct frame_pool;
struct io_engine;
struct map_lock;
struct pt_table;
struct read_request;
struct record;
struct replay;
struct stats_page;
struct trap;
struct vma;
struct writeback;

#define MM_POOLS_MAX 10  /* 4 KiB to 2 MiB */

/* The words that wake the write-back thread. All are atomic. */
struct writer_bell {
	uint32_t seq;    /* futex */
	uint32_t urgent; /* a thread waits for dirty or unflushed pages */
	uint32_t noted;  /* the next pass has work */
	uint32_t merged; /* the log must be told that the program allows pages to be merged */
};

enum background_state { BACKGROUND_RUNS, BACKGROUND_DOZES, BACKGROUND_SLEEPS };

struct fm_mm {
	struct map_lock *map; /* map/ */
	struct vma *segments; /* slab; map lock */
	uint64_t *starts;     /* sorted starts and, in parallel, the slab places; map lock */
	uint32_t *segment_slots;
	uint32_t segment_count, segment_capacity, segment_free;
	uint32_t *segment_free_next;
	void *segment_mem;
	size_t segment_mem_len;

	uint64_t budget_bytes;
	uint64_t charged_bytes; /* atomic: frames with memory, and page tables */
	uint32_t flags, install;
	bool dying; /* atomic */
	bool lost;  /* dirty bytes have been lost by the end of the mm; atomic */
	bool emptied; /* the program has emptied or replaced dirty bytes, and no call has reported
			 the loss; atomic */
	uint32_t finishes; /* calls of writeback_finish(); atomic */
	bool ended;        /* only the process's last instructions remain: no thread waits for
			      write-back; atomic */
	uint32_t late;     /* futex: 1: a write came after the end, 2: the log has been told */
	bool silent;       /* the program's callbacks must no longer be called; atomic */
	uint32_t calling;  /* callbacks of the program that run now; atomic */
	struct stats_page *stats;
	int stats_fd;
	fm_log_fn log;
	void *log_arg;

	struct trap *trap;
	struct io_engine *io;
	struct frame_pool *pool[MM_POOLS_MAX];
	struct os_lock pools_lock; /* only for adding a pool */
	struct os_lock files_lock;
	struct fm_file *files;
	struct fm_file *reap_list, *close_list; /* atomic stacks */
	uint32_t file_count;       /* atomic, futex: 0 when all files are gone */
	uint32_t wants_huge;       /* some file wants huge pages; atomic */

	struct os_lock request_lock;
	struct read_request *requests;
	uint32_t request_count, request_free;
	uint32_t requests_left; /* free requests; request_lock to change; atomic */
	uint32_t requests_busy; /* atomic */

	int event_fd;            /* for fm_event_fd(); -1: never asked for; atomic */
	uint32_t event_signalled; /* no call with FM_NOWAIT since the signal; atomic */
	uint32_t starved;        /* a call with FM_NOWAIT could begin nothing; atomic */

	struct ticket_list page_tickets[64]; /* by page; all waiters of a page share a queue */
	struct pt_table *pt; /* view/ */
	struct after_work *after; /* view/ */

	struct os_thread background;
	uint32_t background_seq; /* futex */
	bool background_stop;
	uint32_t background_state; /* enum background_state; atomic */
	struct os_thread closer;
	uint32_t closer_seq; /* futex */
	bool closer_stop;
	struct record *records;   /* files_lock; the closer walks the list without the lock */
	uint32_t records_wanted;  /* atomic: records up to this number must be written at once */
	uint32_t records_saved;   /* futex */
	uint64_t records_next_ns; /* the closer's */
	struct os_thread replayer;
	struct replay *replays; /* files_lock */
	uint32_t replaying;     /* files that have a replay; files_lock to change */
	uint32_t replayer_begun; /* atomic */
	uint32_t replay_seq;    /* futex */
	bool replay_stop;       /* atomic */
	struct writeback *wb; /* made when the first file is opened for writing; atomic */
	struct writer_bell writer_bell;
	struct os_keeper keeper; /* FM_KEEP */
	void *meta;
	size_t meta_len;
};

#endif
