/* SPDX-License-Identifier: MIT */
/* The frames of one page size, their index and their clock. */
#ifndef FM_MM_FRAMES_FRAME_POOL_H
#define FM_MM_FRAMES_FRAME_POOL_H

#include "mm/base/wait_queue.h"
#include "mm/frames/page_list.h"
#include "mm/frames/page.h"
#include "os/os.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fm_mm;
struct keeper;

#define MM_FRAMES_MIN 16 /* the smallest pool: see fm_budget_min() */

struct bucket {
	uint32_t version; /* odd while a writer is in: lock and sequence count in one; atomic */
	uint32_t head;    /* atomic */
};

#define BUCKET_LINE 8u /* of them in a line of the processor's cache */

/* The frames of one page size, their index and their clock. */
struct frame_pool {
	struct fm_mm *mm;
	uint32_t page_size, shift, frames;
	uint32_t bucket_lines; /* of BUCKET_LINE */
	struct page *pages;
	struct bucket *buckets;
	char *slots;
	size_t slots_len;
	bool registered; /* slots belong to the trap: holes have to be filled by hand */
	bool grows;      /* huge frames get their memory a few at a time, by pool_grow() */
	struct os_lock lock;
	struct page_queue queue[LIST_COUNT];
	uint32_t groups, group_next;  /* how many there may be; where to make the next one: the
					 background thread's */
	uint32_t wants_groups;        /* atomic */
	uint64_t groups_failed_ns;    /* when the system last had no huge page; atomic */
	uint64_t *whole_bits;         /* a bit for each group; atomic */
	uint16_t *group_free;         /* frames of each that is whole that are free; pool lock */
	uint32_t stages;              /* staging slots, behind those of the frames */
	uint64_t stages_free;         /* a bit each; atomic */
	uint32_t stages_charged;      /* for so many the budget is charged */
	uint32_t free_low, free_high; /* the background thread keeps the free frames between */
	uint64_t fill_failed_ns;      /* when the system last had no memory for a hole; atomic */
	uint32_t wants_filled;        /* readers had to fill frames themselves; atomic */
	uint32_t filled,
		growing; /* huge frames: how many have been populated; somebody is at it; atomic */
	uint32_t free_seq;            /* futex: changes when a frame becomes free */
	uint32_t free_waiters;        /* threads asleep on it; atomic */
	struct wait_queue tickets;    /* waiting for a frame, oldest first */
	struct keeper *keepers;
	uint32_t keeper_count;
	uint32_t keeper_seq, keeper_waiters;
	struct wait_queue keeper_tickets;
	uint32_t deferred; /* frames freed under the map lock, by page.index: id + 1; atomic stack */
	uint32_t user_pinned; /* frames held by fm_pin(); atomic */
	uint16_t *ghosts;     /* what was evicted from YOUNG of late: see ghost_add(); atomic */
	uint32_t ghost_mask, ghost_clock;
	/* Files open for writing: see dirty.c. A bit a frame; atomic. */
	uint64_t *dirty_bits;     /* PG_DIRTY */
	uint64_t *aged_bits;      /* ...and was by the last tick but one */
	uint64_t *writing_bits;   /* PG_WRITEBACK */
	uint64_t *unflushed_bits; /* written, and no flush has begun since */
	uint64_t *flushing_bits;  /* written before the flush that is under way */
	uint32_t dirty, writing, unflushed; /* pages; atomic; unflushed: also those being flushed */
	uint32_t places; /* slots without memory, behind the staging slots: for what is taken out
			    for a moment */
	uint64_t places_free; /* a bit each; atomic */
	void *meta;
	size_t meta_len;
};

static inline char *slot_of(const struct frame_pool *pool, const struct page *page)
{
	return pool->slots + ((size_t)(page - pool->pages) << pool->shift);
}

#endif
