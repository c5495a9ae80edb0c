/* SPDX-License-Identifier: MIT */
/* What is read of a file, and which version of its object: the part of struct fm_file that fill/
 * owns. */
#ifndef FM_MM_FILL_FILE_READS_H
#define FM_MM_FILL_FILE_READS_H

#include "os/os.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

struct record;
struct replay;

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
};

/* Whether huge pages can come into its view, which is for streams. */
enum file_huge { HUGE_NO, HUGE_WANTED, HUGE_YES };

struct file_reads {
	struct ra_state ra;
	uint32_t huge; /* enum file_huge; atomic */
	uint32_t readahead_bytes; /* as asked for: a private mapping has it from its base */
	uint64_t latency_ns; /* of its reads, smoothed; atomic */
	uint32_t changed;    /* found changed behind its snapshot; atomic */
	struct fm_store_version version; /* version_lock; young_ns: could then have been changed
					    again without another version */
	struct os_lock version_lock;
	uint64_t checked; /* io_ends() before the version was last asked for, and was the same; atomic */
	uint32_t epoch; /* changes with each version, under FM_CHANGED_REFRESH; atomic */
	uint32_t inflight; /* frames owned by its reads under way; atomic */
	uint32_t requests; /* of them; atomic */
	struct record *record; /* NULL: touches are not noted */
	struct replay *replay; /* the hot set that is being read; files_lock */
};

#endif
