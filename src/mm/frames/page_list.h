/* SPDX-License-Identifier: MIT */
/* The lists that a page of a pool can be on. */
#ifndef FM_MM_FRAMES_PAGE_LIST_H
#define FM_MM_FRAMES_PAGE_LIST_H

#include <stdint.h>

/* AHEAD: not installed yet. YOUNG: installed, and touched by one fault. ACTIVE: installed, and come
 * back to. INACTIVE: taken out of the view, to see whether somebody comes back. COLD: not
 * installed, and COLD_SHOWN: installed; both by FM_ADVICE_COLD. HELD: the clock has met it dirty,
 * or written and not flushed; it comes back when it is neither. See reclaim.c. GROUPS and PARKED:
 * free, and of a group, all of which is, or some: see group.c. */
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
	LIST_HELD,
	LIST_GROUPS,
	LIST_PARKED,
	LIST_COUNT
};

struct page_queue {
	uint32_t head, tail, count;
};

#endif
