/* SPDX-License-Identifier: MIT */
/*
 * Runs enter the view by one call: neighbouring pages of a file whose frames are
 * neighbours too. One call also takes such a run out of the view.
 */
#ifndef FM_MM_VIEW_RUN_IN_H
#define FM_MM_VIEW_RUN_IN_H

#include <stdint.h>

struct access;
struct page;

#ifdef FM_SIM
#define STREAM_RUN 2u /* the simulator's pools are small */
#define COPY_RUN 4u
#define WRITE_RUN 4u
#else
#define STREAM_RUN 8u /* pages */
#define COPY_RUN 16u  /* the pages are in memory twice for a while */
#define WRITE_RUN 64u /* if the writer stops, most of the pages are written back in vain */
#endif

#define WRITE_STREAMS 4u /* threads that write page after page of one file */

struct writer {
	uint64_t next;  /* index of the page where the next write is expected; relaxed */
	uint32_t count; /* pages that came in with the last write; relaxed */
};

struct write_streams {
	struct writer writer[WRITE_STREAMS];
	uint32_t writers; /* number of writers that have had an entry; atomic */
};

int install_run(struct access *access, struct page *page);

#endif
