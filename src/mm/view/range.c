/* SPDX-License-Identifier: MIT */
/* Calls on all cached pages of a range: the pages are taken out, kept, cooled or
 * forgotten. */
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
	uint64_t stuck, stuck_end; /* pages that would not go out together */
};

static void out_with_the_next(struct fm_file *file, struct page *page, void *arg)
{
	struct going *going = arg;

	/* PG_INSTALLED is tested first: a frame that is just becoming this page has no reliable
	 * index. */
	if (!page_is(page, PG_INSTALLED))
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

/* Take out of the view all pages that can go together, except pages with a flag of
 * `never`. The rest is left to the caller's pass over each page. */
static void take_out_runs(struct fm_file *file, uint64_t first, uint64_t last, uint32_t never)
{
	struct going going = {last, never, 0, 0};
	if (first < last)
		file_each_cached(file, first, last, out_with_the_next, &going);
}

static bool try_take_out(struct fm_file *file, struct page *page, bool discard)
{
	bool wanted = !page_is(page, PG_GONE) && page_is(page, PG_INSTALLED) && !page->user_pins;
	bool out = !wanted || page_copy_out(&file->view, page) == 0;
	if (!out && page_is_unsaved(file->pool, page)) {
		/* The write-back takes the page out, or the end of the write or of the flush does. */
		page_unlock(file->pool, page);
		return true;
	}
	if (!out && discard)
		page_discard(&file->view, page);
	page_unlock(file->pool, page);
	return out || discard;
}

/* Take one page out of the view. The lock of an installed page is held for a moment
 * only, and over no read. Its holder (a drop of the copy, a pin) may not look again, so
 * this function waits for the lock. A fault that has not installed its page yet does
 * look again. A page that the kernel has pinned for a moment cannot be moved. Such a
 * page is tried again, and at last goes together with its bytes. */
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

/* Take the pages of a range out of the view; the pages stay cached. Pages that are not
 * installed yet are left: their fault tests again whether the page is still wanted. No
 * lock is held at call; may take the kernel's mmap_lock. */
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
	/* One pin is this function's. Any other pin means that a thread relies on the page, so
	 * the page stays. */
	uint32_t state = atomic_get(&page->state);
	bool unwanted = !(state & PG_GONE) && PG_PINS(state) == 1 && !page_is_unsaved(file->pool, page);
	/* On its way out the page may have been in the view again for a moment, and written to:
	 * see move_had_worked(). */
	if (unwanted && (state & PG_INSTALLED))
		unwanted = page_take_out(&file->view, page, true) == 0 && !page_is_unsaved(file->pool, page);
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
		page->advised_keep = true;
		lru_set(file->pool, page, 1, LIST_ACTIVE);
	}
	page_unlock(file->pool, page);
}

/* Take the page out of the view without telling the clock: a touch makes the page YOUNG.
 * A page that cannot be taken out with its bytes, or not now, stays in the view until a
 * thread wants its frame. */
static void cool(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	if (!page_trylock(page))
		return;
	uint32_t state = atomic_get(&page->state);
	/* The one pin is this function's, as in drop(). */
	if (!(state & (PG_GONE | PG_DIRTY)) && (state & PG_UPTODATE) &&
	    PG_PINS(state) == 1) {
		bool shown = (state & PG_INSTALLED) && page_take_out(&file->view, page, false) < 0;
		page->advised_keep = false;
		if (state & (PG_SOFT | PG_HOT))
			page_set(page, 0, PG_SOFT | PG_HOT);
		lru_set(file->pool, page, 1, shown ? LIST_COLD_SHOWN : LIST_COLD);
	}
	page_unlock(file->pool, page);
}

/* Let the pages of a range be the last to be evicted. file_cool() lets the pages be the
 * first. Locks are as in file_take_out(). */
void file_favour(struct fm_file *file, uint64_t first, uint64_t last)
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
			return; /* a read under way tests the epoch at its end */
		if (!page_trylock(page)) {
			page_wait(file->mm, page, false, os_now_ns() + 50000);
			continue;
		}
		if (file->writable) { /* since the caller looked: see file_forget() */
			page_unlock(file->pool, page);
			return;
		}
		bool out = !page_is(page, PG_INSTALLED) || page_take_out(&file->view, page, true) == 0;
		if (!out && ++tries > 20) {
			/* A page that the kernel has pinned, or has no memory for, goes together with its
			 * bytes. */
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

/* Forget all cached bytes of a file whose object has changed: the cached bytes are no
 * longer the object's, whatever pins there are. Locks are as in file_take_out(). The file may
 * become a file for writing meanwhile. The upgrade forgets all pages itself, and takes the lock of
 * each page before a page can be dirty (file_upgrade()). So a page of a file for writing stays. */
void file_forget(struct fm_file *file)
{
	file_each_cached(file, 0, UINT64_MAX >> file->pool->shift, forget_bytes, NULL);
}

/* Drop the unpinned, unlocked pages of a range from view and cache. Locks are as in
 * file_take_out(). */
void file_invalidate(struct fm_file *file, uint64_t first, uint64_t last)
{
	might_block(file->mm);
	take_out_runs(file, first, last, PG_DIRTY);
	file_each_cached(file, first, last, drop, NULL);
}
