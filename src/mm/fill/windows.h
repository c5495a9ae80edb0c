/* SPDX-License-Identifier: MIT */
/* Which pages to read beside the one that a fault wants. */
#ifndef FM_MM_FILL_WINDOWS_H
#define FM_MM_FILL_WINDOWS_H

#include <stdbool.h>
#include <stdint.h>

struct access;
struct page;

/* Pages to read beside the wanted one: `count`, each `step` after the one before. In steps of
 * several they go into the view as soon as they have come, from `low` to before `high`, where the
 * mapping shows them. */
struct ra_window {
	uint64_t start, mark;
	uint32_t step, count;
	bool stages;        /* its pages may go into the view by themselves */
	uint32_t unmap_seq; /* the view's, when the mapping was found */
	bool keep;          /* FM_ADVICE_KEEP */
};

/* What is read beside the wanted page. */
struct reading {
	struct ra_window ra; /* readahead to submit */
	uint32_t more;       /* pages to be read with the wanted one, in one read */
};

bool ra_sync_window(const struct access *access, struct reading *reading);
bool ra_async_window(const struct access *access, struct page *page, struct reading *reading);

#endif
