/* SPDX-License-Identifier: MIT */
/* A file: the members that every folder uses, and those that belong to one folder each. */
#ifndef FM_MM_BASE_FILE_H
#define FM_MM_BASE_FILE_H

#include "filemap.h"
#include "mm/base/gate.h"
#include "mm/base/view.h"
#include "mm/fill/streams.h"
#include "os/os.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;
struct frame_pool;
struct io_request;
struct record;
struct replay;
struct write_request;

#define WRITE_STREAMS 4u       /* threads that write page after page, of one file */

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

/* Changes with fm_truncate(), and where another version of the object is taken over. The store keeps the only account. */
static inline uint64_t file_size(const struct fm_file *file)
{
	return store_size(file->store);
}

#endif
