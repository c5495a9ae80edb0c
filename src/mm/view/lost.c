/* SPDX-License-Identifier: MIT */
/*
 * Lost pages: the program has emptied, replaced or unmapped the part of the view where a
 * page's bytes were.
 */
#include "mm/view/lost.h"

#include "filemap.h"
#include "mm/base/budget.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/view.h"
#include "mm/cache/dirty.h"
#include "mm/cache/lock.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/view/later.h"
#include "mm/view/page_tables.h"
#include "mm/view/transfer.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/release.h"
#include "trap/trap.h"

/* Report that a dirty page's bytes are gone; the store has older bytes, if any. The
 * caller holds the page lock. The page is no longer uptodate: a write or a flush that
 * fails just now does not make the page dirty again, or did so before. */
void dirty_emptied(struct frame_pool *pool, struct page *page)
{
	struct fm_file *file = page->file;
	if (!page_is(page, PG_DIRTY))
		return;
	covered(exit_emptied_dirty);
	page_clear_dirty(pool, page);
	stats_add(pool->mm->stats, dirty_lost, 1);
	file_lost_page(file, page->index);
}

/* Record that a page's bytes went with the view's memory. The caller holds the page
 * lock. */
void page_emptied(struct fm_mm *mm, struct frame_pool *pool, struct page *page)
{
	if (mm->install == FM_INSTALL_MOVE && pool->page_size > OS_PAGE && page_is(page, PG_DUP))
		/* fill the pieces that were moved before the rest had to be copied */
		frame_fill(pool, page);
	page_set(page, page_is(page, PG_DUP) ? 0 : PG_HOLE,
		 PG_INSTALLED | PG_UPTODATE | PG_DUP | PG_UNPROTECTED | PG_SOFT);
	stats_sub(mm->stats, pages_installed, 1);
	mm_uncharge(mm, pool->page_size); /* the charge of the only copy, or of the second copy */
}

/* Take out a page that is only partly in the view. The caller holds the page lock. At
 * return the page is not uptodate and is to be read again, unless all its bytes are
 * there after all. A swapped-out page is such a case. `foreign`: the memory that is now
 * in the view is not touched. */
void page_in_pieces(struct view *view, struct page *page, bool foreign)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t addr = page_addr(view, pool, page), len = (uint64_t)page->shown * OS_PAGE;

	/* The slot has the same bytes until the page becomes writable in the view. */
	bool kept = view->file->writable && page_is(page, PG_DUP) && !page_is(page, PG_UNPROTECTED);

	/* the store may be reading from the slot */
	if (kept || (page_is(page, PG_WRITEBACK) &&
		     page_is(page, PG_DUP))) {
		page_set(page, 0, PG_INSTALLED | PG_DUP | PG_UNPROTECTED);
		stats_sub(mm->stats, pages_installed, 1);
		mm_uncharge(mm, pool->page_size);
	} else if (mm->install == FM_INSTALL_MOVE && !page_is(page, PG_DUP)) {
		struct transfer t = {.mm = mm,
				     .dst = (uint64_t)slot_of(pool, page),
				     .src = addr,
				     .len = len,
				     .leaves = page};
		bool out = !foreign && transfer_out(&t) == 0;
		kept = out && !t.missing;
		if (!out)
			trap_discard_ours(mm->trap, addr, len);
		/* keep the bytes that are left, and get memory for the rest */
		if (!kept || len < pool->page_size)
			frame_fill(pool, page);
		page_set(page, 0, PG_INSTALLED | PG_UNPROTECTED | (kept ? 0 : PG_UPTODATE | PG_SOFT));
		stats_sub(mm->stats, pages_installed, 1);
	} else {
		if (len > OS_PAGE) /* the bytes that are left would be seen beside newer bytes */
			trap_discard_ours(mm->trap, addr, len);
		page_emptied(mm, pool, page);
	}
	if (!kept)
		dirty_emptied(pool, page);
	pt_put(mm, page, 1, addr);
}

/* Return true if the program has put other memory, or none, into some of the page's
 * place. */
bool page_is_foreign(const struct view *view, const struct page *page)
{
	uint64_t addr = page_addr(view, view->file->pool, page);

	return region_is_released(&view->region, addr) ||
	       trap_any_foreign(view->mm->trap, addr, (uint64_t)page->shown * OS_PAGE);
}

/* Take out an installed page that is foreign: the bytes that the view had are gone. The
 * caller holds the page lock. */
void page_gone_foreign(struct view *view, struct page *page)
{
	stats_add(view->mm->stats, emptied_behind, 1);
	page_in_pieces(view, page, true);
}

/* Take out an installed page that was emptied in the view behind the library, in
 * whatever way. The caller holds the page lock. */
void page_gone_behind(struct view *view, struct page *page)
{
	stats_add(view->mm->stats, emptied_behind, 1);
	page_in_pieces(view, page, page_is_foreign(view, page));
}

/* Decide whether an emptied slot stays a hole. While the store reads from the slot, the
 * store must meet the hole, and not zeros. The caller holds the page lock, and the page
 * is no longer uptodate. Returns true if the slot stays a hole: the next read of the
 * page fills the slot. */
bool page_hole_stays(struct frame_pool *pool, struct page *page)
{
	if (!page_is(page, PG_WRITEBACK))
		return false;
	page_set(page, PG_HOLE, 0);
	mm_uncharge(pool->mm, pool->page_size);
	return true;
}

bool page_is_there(const struct view *view, const struct page *page)
{
	uint64_t addr = page_addr(view, view->file->pool, page),
		 end = addr + (uint64_t)page->shown * OS_PAGE;
	while (addr < end && trap_has_bytes(addr))
		addr += OS_PAGE;
	return addr == end && !page_is_foreign(view, page);
}

/*
 * Ask the kernel whether an installed page is in the view, after a thread has faulted on
 * the page again. The page is pinned, not locked. Returns false if the page had been
 * emptied behind the library and must be read again, or if its lock is taken.
 */
bool page_really_there(struct view *view, struct page *page)
{
	struct frame_pool *pool = view->file->pool;

	if (page_is_there(view, page))
		return true;
	if (!page_trylock(page))
		return false;
	/* The test is repeated: the page may have been taken out and installed meanwhile. */
	bool there = page_is(page, PG_INSTALLED) && page_is_there(view, page);
	if (!there && page_is(page, PG_INSTALLED))
		page_gone_behind(view, page);
	page_unlock(pool, page);
	return there;
}
