/* SPDX-License-Identifier: MIT */
/* Choose the pages to read beside the page that a fault wants. */
#ifndef FM_MM_FILL_WINDOWS_H
#define FM_MM_FILL_WINDOWS_H

#include <stdbool.h>
#include <stdint.h>

struct access;
struct page;

/* A window: `count` pages to read beside the wanted page, each `step` pages after the previous
 * page. With a step of more than 1, each page goes into the view as soon as the page is read.
 * The mapping must show the page. */
struct ra_window {
	uint64_t start, mark;
	uint32_t step, count;
	bool stages;        /* the pages may go into the view without a fault */
	uint32_t unmap_seq; /* the view's unmap_seq when the mapping was found */
	bool advised_keep;  /* FM_ADVICE_KEEP */
};

/* The reads beside the wanted page. */
struct reading {
	struct ra_window ra; /* readahead to submit */
	uint32_t more;       /* pages to read together with the wanted page, in a single read */
};

/* What was asked of a window, for the simulator's check of what came out. */
struct ra_asked {
	const struct access *access;
	const struct ra_window *set;
	int64_t stride;
	uint64_t from;
	uint32_t count;
};

bool ra_sync_window(const struct access *access, struct reading *reading);
bool ra_async_window(const struct access *access, struct page *page, struct reading *reading);

#endif
