/* SPDX-License-Identifier: MIT */
/*
 * Memory for frames: functions that fill holes, make huge frames and groups, and give memory
 * back.
 */
#include "mm/frames/memory.h"

#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>

#define PAUSE_NS (100 * OS_NSEC_PER_MSEC)
#define LOOK_AT 64u /* groups to test under the pool lock */

bool pool_fills_ahead(struct frame_pool *pool)
{
	return atomic_get(&pool->wants_filled) && lru_count(pool, LIST_FREE) < pool->free_low &&
	       pool_may_fill(pool);
}

/* Fill some neighbouring holes, so that readahead finds filled frames. Only the background thread
 * calls this function. Returns false if there are enough filled frames, or no memory for more. */
bool pool_fill_ahead(struct frame_pool *pool)
{
	uint32_t count, done = 0;

	if (pool_fills_ahead(pool) && group_make(pool, true)) { /* fills by one change of a page table */
		group_break(pool);
		pool_wake_waiters(pool);
		return true;
	}
	if (!pool_fills_ahead(pool) || !mm_try_charge(pool->mm, (uint64_t)FILL_PIECE << pool->shift))
		return false;
	struct page *first = lru_take(pool, LIST_HOLES, FILL_PIECE, &count);
	if (count && trap_fill_together(pool->mm->trap, (uint64_t)slot_of(pool, first),
					(uint64_t)count << pool->shift) == 0)
		done = count;
	if (count && !done) {
		trap_discard(pool->mm->trap, (uint64_t)slot_of(pool, first), (uint64_t)count << pool->shift);
		atomic_set(&pool->fill_failed_ns, os_now_ns());
	}
	mm_uncharge(pool->mm, (uint64_t)(FILL_PIECE - done) << pool->shift);
	for (uint32_t i = 0; i < done; i++)
		page_set(first + i, 0, PG_HOLE);
	if (count)
		lru_set(pool, first, count, done ? LIST_FREE : LIST_HOLES);
	if (done)
		pool_wake_waiters(pool);
	return done > 0;
}

/* Give its first memory to a frame that came without memory. Returns -ENOMEM if the system has no
 * memory. The system is then not asked again at once. */
int frame_fill_first(struct frame_pool *pool, struct page *page)
{
	int err = frame_fill(pool, page);
	if (err)
		atomic_set(&pool->fill_failed_ns, os_now_ns());
	return err;
}

/* Give memory to a frame that the budget is charged for. The caller holds the page lock, or no
 * other thread knows the page. */
int frame_fill(struct frame_pool *pool, struct page *page)
{
	int err = 0;
	if (pool->registered)
		err = trap_fill(pool->mm->trap, (uint64_t)slot_of(pool, page), pool->page_size);
	if (!err)
		page_set(page, 0, PG_HOLE);
	return err;
}

/* Take the memory away from up to `frames` free frames. Returns the number of those frames.
 * Only the background thread calls this function, because it takes the kernel's lock. */
uint32_t pool_release_memory(struct frame_pool *pool, uint32_t frames)
{
	uint32_t released = 0;
	for (; released < frames && !pool_at_floor(pool); released++) {
		struct page *page = lru_take_one(pool, LIST_FREE);
		if (!page && group_break(pool))
			page = lru_take_one(pool, LIST_FREE);
		if (!page)
			break;
		trap_discard(pool->mm->trap, (uint64_t)slot_of(pool, page), pool->page_size);
		page_set(page, PG_HOLE, 0);
		lru_set(pool, page, 1, LIST_HOLES);
		mm_uncharge(pool->mm, pool->page_size);
	}
	return released;
}

/* Return whether some huge frames have never had memory, and may get memory now. */
bool pool_may_grow(struct frame_pool *pool)
{
	uint64_t failed_ns = atomic_get(&pool->fill_failed_ns);
	if (!pool->grows || atomic_get(&pool->filled) >= pool->frames ||
	    (unlikely(failed_ns) && os_now_ns() < failed_ns + FILL_PAUSE_NS))
		return false;
	return atomic_get(&pool->mm->charged_bytes) + pool->page_size <= pool->mm->budget_bytes;
}

/* Populate the next `count` huge frames, from `first` on. The budget is charged already. Returns
 * false, and uncharges the budget, if the system has no memory. */
static bool populate(struct frame_pool *pool, uint32_t first, uint32_t count)
{
	uint64_t len = (uint64_t)count << pool->shift;
	char *mem = pool->slots + ((size_t)first << pool->shift);

	if (trap_slots_populate(pool->mm->trap, mem, len) < 0) {
		atomic_set(&pool->fill_failed_ns, os_now_ns());
		mm_uncharge(pool->mm, len);
		return false;
	}
	for (uint32_t i = first; i < first + count; i++)
		atomic_set(&pool->pages[i].state, PG_FREE);
	lru_set(pool, &pool->pages[first], count, LIST_FREE);
	atomic_set(&pool->filled, first + count);
	for (uint32_t i = 0; i < count; i++)
		pool_wake_waiters(pool);
	return true;
}

/* Populate up to `most` more huge frames, within the budget. Holes cannot be filled with huge
 * pages later, so huge frames get their memory before they are registered. Takes the kernel's
 * lock, so a fault must not call this function. Returns false if no frame was populated: there
 * are no more frames to populate, there is no memory, or another thread is populating
 * frames. */
bool pool_grow(struct frame_pool *pool, uint32_t most)
{
	uint32_t count = 0;
	bool some = false;

	if (!pool_may_grow(pool) || atomic_xchg(&pool->growing, 1u))
		return false;
	uint32_t first = atomic_get(&pool->filled);
	while (first + count < pool->frames && count < most && mm_try_charge(pool->mm, pool->page_size))
		count++;
	some = count && populate(pool, first, count);
	atomic_set(&pool->growing, 0u);
	return some;
}

/* Populate huge frames in advance, so that faults find populated frames. Returns false if there
 * are enough populated frames, or no more can be populated. */
bool pool_grow_ahead(struct frame_pool *pool)
{
	uint32_t ahead = pool->frames / 4 < GROW_AHEAD ? pool->frames / 4 : GROW_AHEAD;
	return pool->grows && lru_count(pool, LIST_FREE) < ahead && pool_grow(pool, GROW_PIECE);
}

/* Return whether there are holes enough, and room in the budget, for another group. */
bool group_has_room(struct frame_pool *pool)
{
	uint64_t len = (uint64_t)GROUP_PAGES << pool->shift;
	return lru_count(pool, LIST_HOLES) >= GROUP_PAGES &&
	       atomic_get(&pool->mm->charged_bytes) + len <= pool->mm->budget_bytes;
}

/* Take all frames of a place for a group off the list. Takes the pool lock. Returns the first
 * frame, or NULL if none of the next few places has all its frames on the list. */
static struct page *take_all(struct frame_pool *pool, enum page_list list)
{
	struct page *first = NULL;

	if (lru_count(pool, list) < GROUP_PAGES)
		return NULL;
	os_lock(&pool->lock);
	for (uint32_t tries = 0; !first && tries < LOOK_AT && tries < pool->groups; tries++) {
		first = &pool->pages[pool->group_next * GROUP_PAGES];
		pool->group_next = (pool->group_next + 1) % pool->groups;
		for (struct page *page = first; first && page < first + GROUP_PAGES; page++)
			if (page->list != list)
				first = NULL;
	}
	for (struct page *page = first; first && page < first + GROUP_PAGES; page++)
		queue_unlink(pool, page);
	os_unlock(&pool->lock);
	return first;
}

static void put_all(struct frame_pool *pool, struct page *first, bool whole)
{
	os_lock(&pool->lock);
	if (whole)
		bit_set(pool->whole_bits, group_of(pool, first));
	for (struct page *page = first; page < first + GROUP_PAGES; page++)
		if (whole)
			group_park_locked(pool, page);
		else
			queue_append(pool, page, page_is(page, PG_HOLE) ? LIST_HOLES : LIST_FREE);
	os_unlock(&pool->lock);
}

/* Make a group of frames that are off their list. With `holes` the frames have no memory yet,
 * and the budget is charged for that memory. Returns false if the frames have become single
 * frames. */
static bool make_of(struct frame_pool *pool, struct page *first, bool holes)
{
	uint64_t slot = (uint64_t)slot_of(pool, first), len = (uint64_t)GROUP_PAGES << pool->shift;

	if (!holes) /* small pages, which a huge page replaces */
		trap_discard(pool->mm->trap, slot, len);
	uint64_t done;
	int err = trap_fill_whole(pool->mm->trap, slot, len, &done);
	uint32_t filled = err ? (uint32_t)(done >> pool->shift) : GROUP_PAGES;
	if (err)
		mm_uncharge(pool->mm, len - done);
	if (err && err != -EBUSY)
		atomic_set(&pool->groups_failed_ns, os_now_ns()); /* the system may still have small pages */
	for (uint32_t i = 0; i < GROUP_PAGES; i++)
		page_set(first + i, i < filled ? 0 : PG_HOLE, i < filled ? PG_HOLE : 0);
	put_all(pool, first, !err);
	covered_if(!err && holes, group_made_of_holes);
	covered_if(!err && !holes, group_made_of_free);
	if (!err)
		stats_add(pool->mm->stats, groups_made, 1);
	return !err;
}

/* Return whether the system had no huge page just now. */
static bool pauses(struct frame_pool *pool)
{
	uint64_t failed_ns = atomic_get(&pool->groups_failed_ns);
	return unlikely(failed_ns) && os_now_ns() < failed_ns + PAUSE_NS;
}

/* Make a group of holes, if the budget has room. Otherwise, unless `only_holes` is set, make a
 * group of frames that have become free together, while there are more free frames for others.
 * Making a group of such frames takes the kernel's lock. Returns false if no group could be
 * made. */
bool group_make(struct frame_pool *pool, bool only_holes)
{
	uint64_t len = (uint64_t)GROUP_PAGES << pool->shift;
	struct page *first = NULL;

	if (!pool->groups || pool_pauses(pool) || pauses(pool))
		return false;
	if (group_has_room(pool) && mm_try_charge(pool->mm, len)) {
		first = take_all(pool, LIST_HOLES);
		if (first)
			return make_of(pool, first, true);
		mm_uncharge(pool->mm, len);
	}
	if (!only_holes && lru_count(pool, LIST_FREE) >= 2 * GROUP_PAGES)
		first = take_all(pool, LIST_FREE);
	return first && make_of(pool, first, false);
}

/* Make some groups if streams want groups. Only the background thread calls this function. The
 * streams themselves take out the pages that no thread touches again. Taking pages out is little
 * work, and each change of a page table by another thread would interrupt the streams. */
void groups_fill_ahead(struct frame_pool *pool)
{
	if (!pool->groups || !atomic_xchg(&pool->wants_groups, 0u))
		return;
	for (uint32_t tries = 0;
	     !group_enough(pool) && tries <= pool->groups / LOOK_AT + GROUPS_AHEAD; tries++)
		group_make(pool, false);
}
