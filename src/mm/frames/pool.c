/* SPDX-License-Identifier: MIT */
/*
 * Frames: the memory of one page size, its descriptors, its free lists and its clock's queues.
 *
 * Owns struct frame_pool's memory. The pool lock protects the queues and each page's list links; it
 * is held for list operations only. A frame is charged to the budget exactly while it has memory:
 * in its slot, or moved or copied into a view; PG_HOLE says it has none. One that is to be read by
 * way of a staging slot is charged for when it is taken.
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

/* The oldest pages of a list, off the list: up to `most` whose frames are neighbours, and that came
 * in that order; of a group that is whole all of them. They may be anybody's by the time they are
 * looked at: pin them. */
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

/* Free frames, single ones and groups. */
uint32_t pool_spare(struct frame_pool *pool)
{
	return lru_count(pool, LIST_FREE) + groups_free(pool);
}

/* The next fault that wants a new page will have to take a frame from another. */
bool pool_under_pressure(struct frame_pool *pool)
{
	return pool_spare(pool) < pool->free_low &&
	       atomic_get(&pool->mm->charged_bytes) + pool->page_size > pool->mm->budget_bytes;
}

/* The smallest pool has its memory whatever page tables take of the budget: with less, no progress
 * is promised. */
bool pool_at_floor(struct frame_pool *pool)
{
	return pool->page_size == OS_PAGE &&
	       pool->frames - lru_count(pool, LIST_HOLES) <= MM_FRAMES_MIN;
}

/* The system has just had no memory. */
bool pool_pauses(struct frame_pool *pool)
{
	uint64_t failed_ns = atomic_get(&pool->fill_failed_ns);
	return unlikely(failed_ns) && os_now_ns() < failed_ns + FILL_PAUSE_NS;
}

/* A hole may be given memory; not at once where the system has just had none: who waits for a frame
 * would not wait. */
bool pool_may_fill(struct frame_pool *pool)
{
	if (pool_pauses(pool))
		return false;
	return lru_count(pool, LIST_HOLES) > 0 &&
	       (pool_at_floor(pool) || atomic_get(&pool->mm->charged_bytes) + pool->page_size <=
					       pool->mm->budget_bytes);
}

/* What a new page gets is a frame that another page had: the few that are free have been freed for
 * that. */
bool pool_evicts(struct frame_pool *pool)
{
	uint32_t spare = pool_spare(pool);
	if (pool_may_fill(pool)) /* what COPY discards leaves holes */
		spare += lru_count(pool, LIST_HOLES);
	return spare <= 2 * pool->free_high;
}

/* To where its likes wait. */
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

/* Frames that were freed where the pool lock could not be taken. */
static void take_deferred(struct frame_pool *pool)
{
	uint32_t id = atomic_xchg(&pool->deferred, 0u);
	while (id) {
		struct page *page = &pool->pages[id - 1];
		id = (uint32_t)page->index;
		free_put(pool, page);
	}
}

/* One without memory, which is charged for now. Single ones from the end: at the head lie those
 * that are filled together, or in a row, so that they make runs. */
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

/* A free frame's next page, locked, with one pin and these flags. It is to be counted. */
void frame_begin(struct page *page, uint32_t flags)
{
	mm_assert(page_is(page, PG_FREE));
	page_word_set(page, error, 0);
	page_word_set(page, user_pins, 0);
	page->request = 0;
	page_word_set(page, noted, false);
	atomic_set(&page->state, PG_LOCKED | PG_PIN | flags);
}

/* Called by page_free_if_last() alone, on a word with PG_FREE. */
void frame_free(struct frame_pool *pool, struct page *page)
{
	uint32_t state = atomic_get(&page->state);
	mm_assert((state & PG_FREE) && !PG_PINS(state) && !(state & PG_LOCKED));
	__atomic_store_n(&page->file, NULL,
			 __ATOMIC_RELEASE); /* the file may be freed once evict_all() has seen it */
	stats_sub(pool->mm->stats, frames_used, 1);
	if (unlikely(self()->map_held)) {
		/* The last pin of a page that was found by mistake, in a search under the map lock. */
		uint32_t head = atomic_get(&pool->deferred);
		do {
			/* Not by lru_next: reclaim, which met it locked, may have put it on its
			 * list again. Nor by hash_next, which may still be walked over. */
			__atomic_store_n(&page->index, (uint64_t)head, __ATOMIC_RELAXED);
		} while (!atomic_cas(&pool->deferred, &head, page_id(pool, page) + 1));
		return;
	}
	free_put(pool, page);
	if (!(state & PG_HOLE) ||
	    pool_may_fill(
		    pool)) /* else two that found no memory would wake each other without end */
		frame_freed(pool);
}

/* A frame has become free, or a page that could give one has lost its last pin. */
void frame_freed(struct frame_pool *pool)
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
