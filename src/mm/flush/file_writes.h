/* SPDX-License-Identifier: MIT */
/* The state of a file's writes and flushes: the part of struct fm_file that flush/ owns. */
#ifndef FM_MM_FLUSH_FILE_WRITES_H
#define FM_MM_FLUSH_FILE_WRITES_H

#include "mm/base/gate.h"
#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct io_request;
struct write_request;

struct file_writes {
	uint32_t kept;         /* the file's place in the keeper, plus 1 */
	uint32_t write_requests;            /* requests under way; atomic */
	uint32_t written_seq;               /* number of writes that have ended; atomic */
	struct gate ended;                  /* a write or a flush has ended */
	uint64_t retry_ns;                  /* when the background tries again after a failure; atomic */
	uint64_t last_write_ns;             /* when the last write ended; atomic */
	struct os_lock flush_lock;
	bool flushing;                      /* a flush is under way; flush_lock; atomic: the
					       background reads without the lock */
	uint32_t flush_covers, flush_ended; /* written_seq that the present flush, and the
					       last ended flush, covers; flush_lock */
	int flush_result;                   /* of the last flush; flush_lock */
	uint64_t flushed_ns;                /* when the last flush ended, or the file was opened; atomic */
	struct io_request *flush_io;        /* the flush request; part of the mm's write-back */
	struct write_request *own_write;    /* a request only for this file; the write-back's */
	uint32_t resizing; /* futex: 0 free, 1 taken, 2 waited for: one truncate or punch at a
			      time */
	uint32_t passed_by;   /* dirty pages not written because of a punch; atomic */
	uint32_t syncs_alone; /* syncs during which no punch or truncate may begin; atomic */
	uint32_t swept_seq;   /* view's unmap_seq when the pages that could not leave the view at
				 an unmap had left the view; the write-back's */
	uint32_t sweep_pass;                /* last pass over the file; the write-back thread's */
	uint64_t closing_ns; /* since when writes fail after the last reference was put; 0: writes
				do not fail */
	uint32_t finished;                  /* number of the last writeback_finish() that wrote the file */
	uint32_t stored_seq;                /* number of writes that brought bytes to the store; atomic */
	uint64_t finish_spent_ns; /* how long writeback_finish() has waited for the file's store */
	bool given_up; /* remaining dirty pages are lost, and no write begins any more; atomic */
};

#endif
