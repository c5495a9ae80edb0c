/* SPDX-License-Identifier: MIT */
/* Runs leave the view together: neighbouring pages of a file whose frames are
 * neighbours. */
#include "mm/view/run.h"

#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty.h"
#include "mm/cache/lock.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/page.h"
#include "mm/view/install.h"
#include "mm/view/later.h"
#include "mm/view/page_tables.h"
#include "mm/view/transfer.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>

bool run_is_of(struct page *page, const struct fm_file *file, uint64_t index)
{
	return __atomic_load_n(&page->file, __ATOMIC_RELAXED) == file &&
	       __atomic_load_n(&page->index, __ATOMIC_RELAXED) == index;
}

void run_leave(struct frame_pool *pool, struct page *page)
{
	page_unlock(pool, page);
	page_unpin(pool, page);
}

/* Try to lock and pin a page. Returns true if the page has this file and index, and its
 * flags among `mask` are exactly `flags`. Returns false otherwise, or if the page is
 * locked. */
bool run_join(struct fm_file *file, struct page *page, uint64_t index, uint32_t mask,
	      uint32_t flags)
{
	if (!run_is_of(page, file, index) || !page_try_pin(page))
		return false;
	if (!page_trylock(page)) {
		page_unpin(file->pool, page);
		return false;
	}
	if (run_is_of(page, file, index) && (atomic_get(&page->state) & mask) == flags)
		return true;
	run_leave(file->pool, page);
	return false;
}

/* Move a run. Returns how many pages went, counted from the first page, and stores the
 * error that stopped the run. The other pages are as before. `leaves`: the first page,
 * if the run leaves the view. */
uint32_t run_move(struct fm_mm *mm, uint64_t dst, uint64_t src, uint32_t count, struct page *leaves,
		  int *ret_err)
{
	uint64_t len = (uint64_t)count * OS_PAGE, at = 0;
	int err = -EAGAIN;

	for (int tries = 0; at < len && (err >= 0 || err == -EAGAIN) && tries < RUN_TRIES; tries++) {
		uint64_t done = 0;
		err = trap_move(mm->trap, dst + at, src + at, len - at, &done);
		at += done;
		if (unlikely(err < 0 && err != -EAGAIN) &&
		    (done = move_uncounted(mm, dst + at, src + at, len - at)) > 0) {
			at += done;
			err = -EAGAIN;
		}
		if (err == -EEXIST) {
			/* The MOVE may have moved the page all the same. If the page goes back into the view,
			 * the page is writable there. */
			if (leaves && leaves->file->writable)
				page_mark_dirty(leaves->file->pool, leaves + at / OS_PAGE);
			err = move_after_exist(mm, dst + at, src + at);
			if (err == 1)
				at += OS_PAGE;
		}
	}
	at += move_uncounted(mm, dst + at, src + at, len - at);
	*ret_err = err;
	return (uint32_t)(at / OS_PAGE);
}

/* Lock and pin the pages that leave the view together with `first`, which the caller has
 * locked and pinned. Returns the number of pages, including `first`. */
uint32_t run_gather_out(struct frame_pool *pool, struct page *first, uint32_t most, bool let_off)
{
	const uint32_t mask = PG_UPTODATE | PG_INSTALLED | PG_GONE | PG_HOLE | PG_DUP | PG_WRITEBACK;
	struct fm_file *file = first->file;
	uint64_t addr = page_addr(&file->view, pool, first);
	uint32_t count = 1;

	if (pool->page_size > OS_PAGE || page_is(first, PG_DUP | PG_WRITEBACK))
		return 1;
	for (; count < most && (addr + count * OS_PAGE) % PT_BYTES; count++) {
		struct page *page = first + count;
		if (!run_join(file, page, first->index + count, mask, PG_UPTODATE | PG_INSTALLED))
			break;
		if (page_is_shared(page) || page_is_unsaved(pool, page) || (let_off && page->advised_keep)) {
			run_leave(pool, page);
			break;
		}
	}
	return count;
}

/* Take `count` pages from `first` on out of the view by one call. The caller holds their
 * locks and pins. Returns how many pages went. */
uint32_t run_take_out_some(struct frame_pool *pool, struct page *first, uint32_t count)
{
	struct fm_mm *mm = pool->mm;
	uint64_t src = page_addr(&first->file->view, pool, first);
	int err;
	bool ours = count > 1 && trap_is_ours(mm->trap, src, (uint64_t)count * OS_PAGE);
	uint32_t went = ours ? run_move(mm, (uint64_t)slot_of(pool, first), src, count, first, &err) : 0;

	if (!went)
		return 0;
	covered_if(group_is_all(pool, first, went), group_out);
	group_split(pool, first, went);
	for (uint32_t i = 0; i < went; i++)
		page_set(first + i, 0, PG_INSTALLED | PG_UNPROTECTED);
	stats_sub(mm->stats, pages_installed, went);
	pt_put(mm, first, went, src);
	return went;
}

/*
 * Take a page out of the view by one call, with up to `most` - 1 pages after it whose
 * frames are neighbours. Only pages that have all of `flags` and none of `never` go. The
 * first page has one pin, the caller's, and no lock. A page that a thread brings back in
 * between, or that may not go just now, stays: nothing is promised. Returns 0 if some
 * pages have gone, else the number of pages of which none would go.
 */
uint32_t take_out_together(struct fm_file *file, struct page *first, uint32_t most, uint32_t flags,
			   uint32_t never)
{
	const uint32_t all = flags | PG_UPTODATE | PG_INSTALLED;
	const uint32_t mask = all | never | PG_WRITEBACK | PG_GONE | PG_HOLE | PG_DUP;
	struct frame_pool *pool = file->pool;
	uint64_t index = first->index, addr = page_addr(&file->view, pool, first);
	uint32_t count = 0;

	if (file->mm->install != FM_INSTALL_MOVE || pool->page_size > OS_PAGE)
		return 1;
	for (; count < most && (!count || (addr + count * OS_PAGE) % PT_BYTES); count++) {
		struct page *page = first + count;
		if (page == pool->pages + pool->frames || !run_join(file, page, index + count, mask, all))
			break;
		/* An instruction may need a page with more pins just now. */
		if (page->user_pins ||
		    PG_PINS(page_state(page)) >
			    (count ? 1u : 2u)) {
			run_leave(pool, page);
			break;
		}
	}
	uint32_t went = run_take_out_some(pool, first, count);
	for (uint32_t i = 0; i < count; i++)
		run_leave(pool, first + i);
	return went ? 0 : count;
}
