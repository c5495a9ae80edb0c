/* SPDX-License-Identifier: MIT */
/*
 * Frames: the memory of one page size, the descriptors, the free lists and the clock's queues.
 *
 * This file owns struct frame_pool's memory. The pool lock protects the queues and the list
 * links of each page. A thread holds the pool lock only for list operations. The budget is
 * charged for a frame exactly while the frame has memory: in its slot, or moved or copied into
 * a view. PG_HOLE says that the frame has no memory. A frame that is read by way of a staging
 * slot is charged for when the frame is taken.
 */
#include "mm/frames/pool.h"

#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "mm/base/report.h"
#include "mm/base/self.h"
#include "mm/base/ticket.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

/* Take the oldest pages off a list: up to `most` pages whose frames are neighbours and that
 * joined the list in that order. Of a whole group all pages are taken. Takes the pool lock. The
 * pages may have a new identity by the time the caller reads the pages, so the caller must pin
 * each page. */
struct page *lru_take(struct frame_pool *pool, enum page_list list, uint32_t most,
		      uint32_t *ret_count)
{
	struct page *first = NULL;
	uint32_t count = 0;
	os_lock(&pool->lock);
	uint32_t id = pool->queue[list].head;
	if (id != NONE)
		first = &pool->pages[id];
	if (first && most < GROUP_PAGES && group_is_whole(pool, first) &&
	    first == group_first(pool, first))
		most = GROUP_PAGES;
	while (count < most && id != NONE && pool->queue[list].head == id + count) {
		queue_unlink(pool, first + count);
		count++;
	}
	os_unlock(&pool->lock);
	*ret_count = count;
	return first;
}

struct page *lru_take_one(struct frame_pool *pool, enum page_list list)
{
	uint32_t count;
	return lru_take(pool, list, 1, &count);
}

/* Return the number of free frames, both single frames and frames of groups. */
uint32_t pool_spare(struct frame_pool *pool)
{
	return lru_count(pool, LIST_FREE) + groups_free(pool);
}

/* Return whether free frames are few and the budget has no room for another frame. Faults that
 * want a new page will then have to take a frame from another page. */
bool pool_under_pressure(struct frame_pool *pool)
{
	return pool_spare(pool) < pool->free_low &&
	       atomic_get(&pool->mm->charged_bytes) + pool->page_size > pool->mm->budget_bytes;
}

/* Return whether the pool is at the size of the smallest pool. The smallest pool keeps its memory
 * whatever share of the budget page tables take: with less memory, no progress is promised. */
bool pool_at_floor(struct frame_pool *pool)
{
	return pool->page_size == OS_PAGE &&
	       pool->frames - lru_count(pool, LIST_HOLES) <= MM_FRAMES_MIN;
}

/* Return whether the system had no memory just now. */
bool pool_pauses(struct frame_pool *pool)
{
	uint64_t failed_ns = atomic_get(&pool->fill_failed_ns);
	return unlikely(failed_ns) && os_now_ns() < failed_ns + FILL_PAUSE_NS;
}

/* Return whether a hole may be given memory. Returns false for a while after the system had no
 * memory: otherwise a thread that should wait for a frame would not wait. */
bool pool_may_fill(struct frame_pool *pool)
{
	if (pool_pauses(pool))
		return false;
	return lru_count(pool, LIST_HOLES) > 0 &&
	       (pool_at_floor(pool) || atomic_get(&pool->mm->charged_bytes) + pool->page_size <=
					       pool->mm->budget_bytes);
}

/* Return whether a new page gets a frame that another page had. The few free frames have then
 * been freed for this purpose. */
bool pool_evicts(struct frame_pool *pool)
{
	uint32_t spare = pool_spare(pool);
	if (pool_may_fill(pool)) /* memory that COPY discards leaves holes */
		spare += lru_count(pool, LIST_HOLES);
	return spare <= 2 * pool->free_high;
}

/* Put a free frame onto the list for frames of its kind. Takes the pool lock. */
static void free_put(struct frame_pool *pool, struct page *page)
{
	os_lock(&pool->lock);
	queue_unlink(pool, page);
	if (page_is(page, PG_HOLE))
		queue_append(pool, page, LIST_HOLES);
	else if (group_is_whole(pool, page))
		group_park_locked(pool, page);
	else
		queue_append(pool, page, LIST_FREE);
	os_unlock(&pool->lock);
}

/* Put the deferred frames onto their lists. Deferred frames were freed where the pool lock
 * could not be taken. */
static void take_deferred(struct frame_pool *pool)
{
	uint32_t id = atomic_xchg(&pool->deferred, 0u);
	while (id) {
		struct page *page = &pool->pages[id - 1];
		id = (uint32_t)page->index;
		free_put(pool, page);
	}
}

/* Take a hole, and charge the budget for its memory. Single frames come from the end of the
 * list. At the head lie holes that are filled together, or in a row, so that the frames make
 * runs. Returns NULL if there is no hole or no room in the budget. */
static struct page *hole_take(struct frame_pool *pool, bool single)
{
	if (!lru_count(pool, LIST_HOLES))
		return NULL;
	if (pool_at_floor(pool))
		mm_charge(pool->mm, pool->page_size);
	else if (!mm_try_charge(pool->mm, pool->page_size))
		return NULL;
	struct page *page = single ? lru_take_last(pool, LIST_HOLES) : lru_take_one(pool, LIST_HOLES);
	if (!page)
		mm_uncharge(pool->mm, pool->page_size);
	return page;
}

struct page *frame_take(struct frame_pool *pool, bool filled)
{
	if (unlikely(atomic_get(&pool->deferred)))
		take_deferred(pool);
	struct page *page = filled ? lru_take_one(pool, LIST_FREE) : hole_take(pool, true);
	if (!page)
		page = filled ? hole_take(pool, false) : lru_take_one(pool, LIST_FREE);
	return page;
}

/* Begin the next page of a free frame: locked, with one pin and `flags`. The caller must count
 * the page in the statistics. */
void frame_begin(struct page *page, uint32_t flags)
{
	mm_assert(page_is(page, PG_FREE));
	page_word_set(page, error, 0);
	page_word_set(page, user_pins, 0);
	page->request = 0;
	page_word_set(page, noted, false);
	atomic_set(&page->state, PG_LOCKED | PG_PIN | flags);
}

/* Free the frame of a page whose state word has PG_FREE. Only page_free_if_last() calls this
 * function. */
void frame_free(struct frame_pool *pool, struct page *page)
{
	uint32_t state = atomic_get(&page->state);
	mm_assert((state & PG_FREE) && !PG_PINS(state) && !(state & PG_LOCKED));
	__atomic_store_n(&page->file, NULL,
			 __ATOMIC_RELEASE); /* the file may be freed once evict_all() has seen it */
	stats_sub(pool->mm->stats, frames_used, 1);
	if (unlikely(self()->map_held)) {
		/* A search under the map lock found the page by mistake, and drops the last pin. */
		uint32_t head = atomic_get(&pool->deferred);
		do {
			/* lru_next cannot link the frames: reclaim, which found the page locked,
			 * may have put the page back on a list. Another thread may still walk
			 * over hash_next. */
			__atomic_store_n(&page->index, (uint64_t)head, __ATOMIC_RELAXED);
		} while (!atomic_cas(&pool->deferred, &head, page_id(pool, page) + 1));
		return;
	}
	free_put(pool, page);
	if (!(state & PG_HOLE) ||
	    pool_may_fill(
		    pool)) /* else two threads that found no memory wake each other endlessly */
		pool_wake_waiters(pool);
}

/* Tell a waiting thread and the oldest ready ticket that a frame has become free, or that a page
 * that could give a frame has lost its last pin. */
void pool_wake_waiters(struct frame_pool *pool)
{
	atomic_add(&pool->free_seq, 1u);
	if (atomic_get(&pool->free_waiters))
		os_futex_wake(&pool->free_seq, 1, OS_FUTEX_ANY);
	struct ticket *ticket = ticket_take(&pool->tickets);
	if (ticket)
		ticket->run(ticket);
	if (unlikely(atomic_get(&pool->mm->starved)) && atomic_xchg(&pool->mm->starved, 0u))
		mm_event(pool->mm);
}

void page_check(struct frame_pool *pool, const struct page *page)
{
	uint32_t state = page_state(page);
	mm_assert(!((state & PG_INSTALLED) && !(state & PG_UPTODATE)));
	mm_assert(!((state & PG_FREE) && PG_PINS(state)));
	mm_assert(!((state & PG_HOLE) && (state & PG_UPTODATE)));
	mm_assert(!((state & PG_DIRTY) && !(state & PG_UPTODATE)));
	mm_assert((size_t)(page - pool->pages) < pool->frames);
	(void)state;
	(void)pool;
	(void)page;
}
