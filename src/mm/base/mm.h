/* SPDX-License-Identifier: MIT */
/*
 * An address space, and the order of its locks.
 *
 * Lock order (rank):
 *   1 map lock          fm_mm.map, the segments table; no system call but a futex wake and no page
 *                       fault under it; no waiting for anything below with it held
 *   2 page lock         PG_LOCKED; several at once only by trying
 *   3 bucket, pool, page-table and request locks: struct os_lock, some tens of instructions; no
 * other is taken with one held but the I/O queue's under the request lock 4 statistics        none
 * Signals are blocked whenever any of these is taken.
 *
 * References:
 *   struct page         pins in the state word; a page with a pin keeps its identity and frame
 *   struct view         pins: a fault from its look-up in the registry to its end
 *   struct fm_file      refs: the program's handle, each segment, each fpin, each request
 */
#ifndef FM_MM_BASE_MM_H
#define FM_MM_BASE_MM_H

#include "filemap.h"
#include "mm/base/wait_queue.h"
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

/* Wakes the write-back thread. Atomic words. */
struct writer_bell {
	uint32_t seq;    /* futex */
	uint32_t urgent; /* a thread waits for dirty or unflushed pages */
	uint32_t noted;  /* the next pass has something to do */
	uint32_t merged; /* the log is to be told that the program allows pages to be merged */
};

enum background_state { BACKGROUND_RUNS, BACKGROUND_DOZES, BACKGROUND_SLEEPS };

struct fm_mm {
	struct map_lock *map; /* map/ */
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
	bool emptied; /* the program has emptied or replaced something that was dirty, and no call
			 has told it; atomic */
	uint32_t finishes; /* calls of writeback_finish(); atomic */
	bool ended;        /* the process has ended but for its last instructions: nobody waits for
			      write-back; atomic */
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
	struct pt_table *pt; /* view/ */
	struct after_work *after; /* view/ */

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

#endif
