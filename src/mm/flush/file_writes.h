/* SPDX-License-Identifier: MIT */
/* What is written of a file, and flushed: the part of struct fm_file that flush/ owns. */
#ifndef FM_MM_FLUSH_FILE_WRITES_H
#define FM_MM_FLUSH_FILE_WRITES_H

#include "mm/base/gate.h"
#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct io_request;
struct write_request;

struct file_writes {
	uint32_t kept;         /* the keeper has it: its place + 1 */
	uint32_t write_requests;            /* under way; atomic */
	uint32_t written_seq;               /* writes that have ended; atomic */
	struct gate ended;                  /* a write or a flush has ended */
	uint64_t retry_ns;                  /* when the background tries again after it; atomic */
	uint64_t last_write_ns;             /* when the last write ended; atomic */
	struct os_lock flush_lock;
	bool flushing;                      /* flush_lock; atomic: the background asks without */
	uint32_t flush_covers, flush_ended; /* what of written_seq the present one, and the last,
					       covers; flush_lock */
	int flush_result;                   /* of the last; flush_lock */
	uint64_t flushed_ns;                /* when the last flush ended, or the file was opened; atomic */
	struct io_request *flush_io;        /* part of the mm's write-back */
	struct write_request *own_write;    /* a request that no other file can take; the write-back's */
	uint32_t resizing; /* futex: 0 free, 1 taken, 2 waited for: truncates and punches are one at
			      a time */
	uint32_t passed_by;   /* so many dirty pages were not written because they were; atomic */
	uint32_t syncs_alone; /* syncs that no punch or truncate is to begin beside; atomic */
	uint32_t swept_seq;   /* the view's unmap_seq, when what may not leave it had left; the
				 write-back's */
	uint32_t sweep_pass;                /* in which it was looked at last; the write-back thread's */
	uint64_t closing_ns; /* since when its last reference has been put, and writes fail; 0: they
				do not */
	uint32_t finished;                  /* the last writeback_finish() that has written the file */
	uint32_t stored_seq;                /* writes that have brought bytes to the store; atomic */
	uint64_t finish_spent_ns; /* how long writeback_finish() has waited for the file's store */
	bool given_up; /* what is still dirty is lost, and no write begins any more; atomic */
};

#endif
