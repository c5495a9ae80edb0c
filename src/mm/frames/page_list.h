/* SPDX-License-Identifier: MIT */
/* The lists that a page of a pool can be on. */
#ifndef FM_MM_FRAMES_PAGE_LIST_H
#define FM_MM_FRAMES_PAGE_LIST_H

#include <stdint.h>

/* AHEAD: pages not installed yet. YOUNG: installed, and touched by one fault. ACTIVE:
 * installed, and touched again. INACTIVE: taken out of the view, to see whether a thread
 * touches the page again. COLD: not installed, and COLD_SHOWN: installed; both by
 * FM_ADVICE_COLD. HELD: the clock has found the page dirty, or written and not flushed. The
 * page leaves HELD when the page is neither. See reclaim/clock.c. GROUPS: free frames of a
 * group that is all free. PARKED: free frames of a group that is free in part. See group.c. */
enum page_list {
	LIST_NONE,
	LIST_FREE,
	LIST_HOLES,
	LIST_AHEAD,
	LIST_YOUNG,
	LIST_ACTIVE,
	LIST_INACTIVE,
	LIST_COLD,
	LIST_COLD_SHOWN,
	LIST_UNSAVED,
	LIST_GROUPS,
	LIST_PARKED,
	LIST_COUNT
};

struct page_queue {
	uint32_t head, tail, count;
};

#endif
