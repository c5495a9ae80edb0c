/* SPDX-License-Identifier: MIT */
/* Taking a frame, and the last pin that frees a page. */
#include "mm/frames/frame.h"

#include "mm/base/bell.h"
#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/lists.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

/* Free the frame of a page that is out of the index, unless the page is locked or pinned. No
 * other function turns such a page into a free frame. */
static void page_free_if_last(struct frame_pool *pool, struct page *page, uint32_t state)
{
	while ((state & PG_GONE) && !(state & (PG_LOCKED | PG_FREE)) && !PG_PINS(state)) {
		if (atomic_cas(&page->state, &state, (state & (PG_HOLE | PG_DUP)) | PG_FREE)) {
			frame_free(pool, page);
			return;
		}
	}
}

/* Drop a pin without waking threads that wait for a frame. For a caller that could not move the
 * page: a woken thread would try the same page and fail too. Returns the state before the
 * call. */
uint32_t page_unpin_quiet(struct frame_pool *pool, struct page *page)
{
	uint32_t old = atomic_sub(&page->state, PG_PIN);
	mm_assert(PG_PINS(old) > 0);
	if (unlikely(old & PG_GONE))
		page_free_if_last(pool, page, old - PG_PIN);
	return old;
}

void page_unpin(struct frame_pool *pool, struct page *page)
{
	uint32_t old = page_unpin_quiet(pool, page);
	if (PG_PINS(old) != 1 || (old & PG_GONE))
		return;
	if (unlikely(atomic_get(&pool->free_waiters)))
		os_futex_wake(&pool->free_seq, 1, OS_FUTEX_ANY); /* the page may be evicted now */
	else if (unlikely(atomic_get(&pool->tickets.head)))
		background_kick(pool->mm);
}

/* Take a frame, by frame_alloc(), and split a group if there is no other frame. Readahead
 * (ADD_STREAM) splits no group, unless ADD_SINGLE asks for single pages: groups are for streams,
 * and readahead does not need the last frames of groups. Returns NULL if there is no frame. */
struct page *frame_get(struct frame_pool *pool, unsigned flags)
{
	struct page *page = frame_alloc(pool, !(flags & ADD_HOLE));
	if (!page && (!(flags & ADD_STREAM) || (flags & ADD_SINGLE)) && group_break(pool))
		page = frame_alloc(pool, !(flags & ADD_HOLE));
	return page;
}

/* Take a free frame with memory. Never blocks. Returns the page, locked and with one pin, or
 * NULL if no frame is free. Without `fill` the frame may be a hole, for which the budget is
 * charged. Before the caller puts the page lock, the hole must get its memory or be
 * uncharged. */
struct page *frame_alloc(struct frame_pool *pool, bool fill)
{
	struct page *page = frame_take(pool, fill);
	if (pool_under_pressure(pool) || (fill && pool_fills_ahead(pool)) ||
	    (pool->grows && lru_count(pool, LIST_FREE) <= GROW_AHEAD / 2 && pool_may_grow(pool)))
		background_kick(pool->mm);
	if (!page)
		return NULL;
	bool hole = page_is(page, PG_HOLE);
	frame_begin(page, hole ? PG_HOLE : 0);
	stats_add(pool->mm->stats, frames_used, 1);
	if (fill && hole && pool->registered && !pool->grows && pool->frames >= 8 * FILL_PIECE)
		atomic_set(&pool->wants_filled, 1u);
	if (fill && hole && frame_fill_first(pool, page) < 0) {
		frame_drop(pool, page);
		return NULL;
	}
	return page;
}

/* Give back a frame that no other thread has found yet. The page is locked and has one pin, as
 * frame_alloc() returned the page. The page lock and the pin are put. */
void frame_drop(struct frame_pool *pool, struct page *page)
{
	if (page_is(page, PG_HOLE))
		mm_uncharge(pool->mm, pool->page_size);
	page_set(page, PG_GONE, PG_LOCKED);
	page_unpin(pool, page);
}

/* Drop the program's pins on a page that must go all the same: at the file's end, or past the
 * end. The caller holds the page lock, and a pin beside the program's pins. */
void page_drop_pins(struct fm_file *file, struct page *page)
{
	if (!page->user_pins)
		return;
	page_word_set(page, user_pins, 0);
	atomic_sub(&file->pool->user_pinned, 1u);
	stats_sub(file->mm->stats, pins, 1);
	page_unpin(file->pool, page);
}
