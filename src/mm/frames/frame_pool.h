/* SPDX-License-Identifier: MIT */
/* The pool: the frames of one page size, their index and their clock. */
#ifndef FM_MM_FRAMES_FRAME_POOL_H
#define FM_MM_FRAMES_FRAME_POOL_H

#include "mm/base/ticket_list.h"
#include "mm/frames/page_list.h"
#include "mm/frames/page.h"
#include "os/os.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fm_mm;
struct pin_set;

#define MM_FRAMES_MIN 16 /* frames of the smallest pool: see fm_budget_min() */

struct bucket {
	uint32_t version; /* odd while a writer is active: lock and sequence count in one; atomic */
	uint32_t head;    /* atomic */
};

#define BUCKET_LINE 8u /* buckets in a line of the processor's cache */

/* The frames of one page size, with their index and their clock. */
struct frame_pool {
	struct fm_mm *mm;
	uint32_t page_size, shift, frames;
	uint32_t bucket_lines; /* each of BUCKET_LINE buckets */
	struct page *pages;
	struct bucket *buckets;
	char *slots;
	size_t slots_len;
	bool registered; /* the trap has the slots: the pool must fill holes itself */
	bool grows;      /* huge frames get their memory a few at a time, by pool_grow() */
	struct os_lock lock;
	struct page_queue queue[LIST_COUNT];
	uint32_t groups, group_next;  /* most groups; where to make the next group: only
					 the background thread's */
	uint32_t wants_groups;        /* atomic */
	uint64_t groups_failed_ns;    /* when the system last had no huge page; atomic */
	uint64_t *whole_bits;         /* a bit for each group; atomic */
	uint16_t *group_free;         /* free frames of each whole group; pool lock */
	uint32_t stages;              /* staging slots, behind the frames' slots */
	uint64_t stages_free;         /* a bit each; atomic */
	uint32_t stages_charged;      /* staging slots that the budget is charged for */
	uint32_t free_low, free_high; /* the background thread keeps the free frames in between */
	uint64_t fill_failed_ns;      /* when the system last had no memory for a hole; atomic */
	uint32_t wants_filled;        /* readers had to fill frames themselves; atomic */
	uint32_t filled,
		growing; /* huge frames: number populated; a thread is populating; atomic */
	uint32_t free_seq;            /* futex: changes when a frame becomes free */
	uint32_t free_waiters;        /* threads asleep on free_seq; atomic */
	struct ticket_list tickets;    /* tickets that wait for a frame, oldest first */
	struct pin_set *pin_sets;
	uint32_t pin_set_count;
	uint32_t pin_set_seq, pin_set_waiters;
	struct ticket_list pin_set_tickets;
	uint32_t deferred; /* frames freed under the map lock, linked by page.index: id + 1; atomic */
	uint32_t user_pinned; /* frames held by fm_pin(); atomic */
	uint16_t *ghosts;     /* pages recently evicted from YOUNG: see ghost_add(); atomic */
	uint32_t ghost_mask, ghost_clock;
	/* For files open for writing: see cache/dirty.c. A bit for each frame; atomic. */
	uint64_t *dirty_bits;     /* PG_DIRTY */
	uint64_t *aged_bits;      /* PG_DIRTY, and dirty at the last tick but one */
	uint64_t *writing_bits;   /* PG_WRITEBACK */
	uint64_t *unflushed_bits; /* written, and no flush has begun since the write */
	uint64_t *flushing_bits;  /* written before the flush under way began */
	uint32_t dirty, writing, unflushed; /* pages; atomic; unflushed: with pages being flushed */
	uint32_t spare_slots; /* slots without memory, behind the staging slots: for pages that are
			    out of the view for a moment */
	uint64_t spare_slots_free; /* a bit each; atomic */
	void *meta;
	size_t meta_len;
};

static inline char *slot_of(const struct frame_pool *pool, const struct page *page)
{
	return pool->slots + ((size_t)(page - pool->pages) << pool->shift);
}

#endif
