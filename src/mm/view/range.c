/* SPDX-License-Identifier: MIT */
/* What is done to all cached pages of a range: taken out, kept, cooled, forgotten. */
#include "mm/view/range.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/cache/dirty.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/cache/merged.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/map/map_lock.h"
#include "mm/view/out.h"
#include "mm/view/run.h"
#include "os/atomic.h"
#include "os/os.h"

struct going {
	uint64_t last;
	uint32_t never;
	uint64_t stuck, stuck_end; /* pages that would not go together */
};

static void out_with_the_next(struct fm_file *file, struct page *page, void *arg)
{
	struct going *going = arg;

	if (!page_is(page, PG_INSTALLED)) /* asked first: one that is just being made this page has
					     no index to be relied upon */
		return;
	uint64_t index = page->index, after = going->last - index;
	if (index >= going->last || (index >= going->stuck && index < going->stuck_end))
		return;
	going->stuck = index;
	going->stuck_end =
		index + take_out_together(file, page,
					  (uint32_t)(after < UINT16_MAX ? after + 1 : UINT16_MAX),
					  0, going->never);
}

/* What goes out of the view together, goes; none of those pages that have one of `never`. The rest
 * is left to whoever looks at each page. */
static void take_out_runs(struct fm_file *file, uint64_t first, uint64_t last, uint32_t never)
{
	struct going going = {last, never, 0, 0};
	if (first < last)
		file_each_cached(file, first, last, out_with_the_next, &going);
}

static bool try_take_out(struct fm_file *file, struct page *page, bool discard)
{
	bool wanted = !page_is(page, PG_GONE) && page_is(page, PG_INSTALLED) && !page->user_pins;
	bool out = !wanted || page_bring_out(&file->view, page) == 0;
	if (!out && page_is_held(file->pool, page)) { /* writing it back takes it out, or the
							 write's or the flush's end does */
		page_unlock(file->pool, page);
		return true;
	}
	if (!out && discard)
		page_discard(&file->view, page);
	page_unlock(file->pool, page);
	return out || discard;
}

/* The lock of an installed page is held for a moment only, over no read: who has it (a copy being
 * dropped, a pin) may not look again, so it is waited for. A fault that has not installed yet does
 * look again. What the kernel has pinned for a moment cannot be moved; it goes all the same, at
 * last with its bytes. */
static void take_out(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	for (int tries = 0; page_is(page, PG_INSTALLED);) {
		if (!page_trylock(page)) {
			page_wait(file->mm, page, false, OS_FOREVER);
			continue;
		}
		if (try_take_out(file, page, ++tries > 20))
			return;
		os_sleep_until(os_now_ns() + 50000);
	}
}

/* Take the pages of a range out of the view; they stay cached. Pages not installed yet are left:
 * their fault looks again whether it is still wanted. No lock held; may take the kernel's. */
void file_take_out(struct fm_file *file, uint64_t first, uint64_t last)
{
	might_block(file->mm);
	if (file->writable)
		writeback_look_for_merging(file->mm);
	take_out_runs(file, first, last, 0);
	file_each_cached(file, first, last, take_out, NULL);
}

static void drop(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	if (!page_trylock(page))
		return;
	/* One pin is ours. Any other: somebody relies on the page, so it stays. */
	uint32_t state = atomic_get(&page->state);
	bool unwanted = !(state & PG_GONE) && PG_PINS(state) == 1 && !page_is_held(file->pool, page);
	if (unwanted && (state & PG_INSTALLED)) /* on its way out it may have been there again for a
						   moment, and written to: move_had_worked() */
		unwanted = page_take_out(&file->view, page, true) == 0 && !page_is_held(file->pool, page);
	if (unwanted)
		page_remove(file->pool, page);
	page_unlock(file->pool, page);
}

static void keep(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	if (!page_trylock(page))
		return;
	if (page_is(page, PG_INSTALLED) && !page_is(page, PG_GONE)) {
		page->keep = true;
		lru_set(file->pool, page, 1, LIST_ACTIVE);
	}
	page_unlock(file->pool, page);
}

/* Out of the view without a word to the clock: a touch makes it YOUNG. What cannot be taken out
 * with its bytes, or not now, stays there until somebody wants its frame. */
static void cool(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	if (!page_trylock(page))
		return;
	uint32_t state = atomic_get(&page->state);
	if (!(state & (PG_GONE | PG_DIRTY)) && (state & PG_UPTODATE) &&
	    PG_PINS(state) == 1) { /* ours; as in drop() */
		bool shown = (state & PG_INSTALLED) && page_take_out(&file->view, page, false) < 0;
		page->keep = false;
		if (state & (PG_SOFT | PG_HOT))
			page_set(page, 0, PG_SOFT | PG_HOT);
		lru_set(file->pool, page, 1, shown ? LIST_COLD_SHOWN : LIST_COLD);
	}
	page_unlock(file->pool, page);
}

/* Let the pages of a range be the last, or the first, to be evicted. As file_take_out(). */
void file_keep(struct fm_file *file, uint64_t first, uint64_t last)
{
	file_each_cached(file, first, last, keep, NULL);
}

void file_cool(struct fm_file *file, uint64_t first, uint64_t last)
{
	might_block(file->mm);
	take_out_runs(file, first, last, PG_DIRTY);
	file_each_cached(file, first, last, cool, NULL);
}

static void forget_bytes(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	for (int tries = 0;;) {
		uint32_t state = atomic_get(&page->state);
		if ((state & PG_GONE) || !(state & PG_UPTODATE))
			return; /* a read under way looks at the epoch when it has ended */
		if (!page_trylock(page)) {
			page_wait(file->mm, page, false, os_now_ns() + 50000);
			continue;
		}
		bool out = !page_is(page, PG_INSTALLED) || page_take_out(&file->view, page, true) == 0;
		if (!out && ++tries > 20) { /* what the kernel has pinned, or has no memory for,
					       goes with its bytes */
			page_discard(&file->view, page);
			out = true;
		}
		if (out)
			page_set(page, 0, PG_UPTODATE | PG_SPEC | PG_MARK | PG_SOFT);
		page_unlock(file->pool, page);
		if (out)
			return;
		os_sleep_until(os_now_ns() + 50000);
	}
}

/* The object has changed: what is cached of it is not its bytes any more, whoever holds a pin. As
 * file_take_out(). */
void file_forget(struct fm_file *file)
{
	mm_assert(!file->writable);
	file_each_cached(file, 0, UINT64_MAX >> file->pool->shift, forget_bytes, NULL);
}

/* Drop the unpinned, unlocked pages of a range from view and cache. As file_take_out(). */
void file_invalidate(struct fm_file *file, uint64_t first, uint64_t last)
{
	might_block(file->mm);
	take_out_runs(file, first, last, PG_DIRTY);
	file_each_cached(file, first, last, drop, NULL);
}
