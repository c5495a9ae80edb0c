/* SPDX-License-Identifier: MIT */
/*
 * Runs: neighbouring pages of a file whose frames are neighbours too go into the view, and out
 * of it, by one call.
 */
#ifndef FM_MM_VIEW_RUN_IN_H
#define FM_MM_VIEW_RUN_IN_H

#include <stdint.h>

struct access;
struct page;

#ifdef FM_SIM
#define STREAM_RUN 2u /* its pools are small */
#define COPY_RUN 4u
#define WRITE_RUN 4u
#else
#define STREAM_RUN 8u /* pages */
#define COPY_RUN 16u  /* they are in memory twice for a while */
#define WRITE_RUN 64u /* most of them written back in vain should the writer stop */
#endif

#define WRITE_STREAMS 4u /* threads that write page after page, of one file */

struct writer {
	uint64_t next;  /* the page where it is expected; relaxed */
	uint32_t count; /* how many came in with the last; relaxed */
};

struct write_streams {
	struct writer writer[WRITE_STREAMS];
	uint32_t writers; /* so many have had a place; atomic */
};

int install_run(struct access *access, struct page *page);

#endif
