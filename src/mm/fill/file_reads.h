/* SPDX-License-Identifier: MIT */
/* The part of struct fm_file that fill/ owns: the state of the file's reads, and the version
 * of the object that is read. */
#ifndef FM_MM_FILL_FILE_READS_H
#define FM_MM_FILL_FILE_READS_H

#include "os/os.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

struct record;
struct replay;

/* The way of a single reader through a file. This struct and ra_state hold plain numbers: a
 * race only costs a wrong guess. */
#define RA_STREAMS 16

struct ra_stream {
	uint64_t last;  /* the page that the stream has reached */
	uint64_t edge;  /* the next page in the stream's direction that no read was asked for */
	int64_t stride; /* distance to the next page, in pages; 0: not known yet */
	/* distance of the first page from another stream's page; 0: no stream was near */
	int32_t step;
	uint32_t size;  /* size of the last window, in pages */
	uint32_t used;  /* ra_state.clock at the last move; 0: no stream is in this place */
};

struct ra_state {
	struct ra_stream stream[RA_STREAMS];
	uint32_t clock;     /* faults that looked for a stream */
	uint32_t max_pages; /* largest window; 0: no readahead */
	uint32_t most;      /* largest window at present */
};

/* Whether the file's view can have huge pages, which are for streams. */
enum file_huge { HUGE_NO, HUGE_WANTED, HUGE_YES };

struct file_reads {
	struct ra_state ra;
	uint32_t huge; /* enum file_huge; atomic */
	/* as asked for; a private mapping takes the value of its base file */
	uint32_t readahead_bytes;
	uint64_t latency_ns; /* latency of the file's reads, smoothed; atomic */
	uint32_t changed;    /* the object was found changed behind the file's snapshot; atomic */
	/* Guarded by version_lock. With young_ns set, the object could have been changed again
	 * without a new version. */
	struct fm_store_version version;
	struct os_lock version_lock;
	/* io_ends() before the last query that found the version unchanged; atomic */
	uint64_t checked;
	uint32_t epoch; /* changes with each version, under FM_CHANGED_REFRESH; atomic */
	uint32_t inflight; /* frames owned by the file's reads under way; atomic */
	uint32_t requests; /* requests under way for the file; atomic */
	struct record *record; /* NULL: touches are not recorded */
	struct replay *replay; /* the hot set that is being read; files_lock */
};

#endif
