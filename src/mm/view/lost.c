/* SPDX-License-Identifier: MIT */
/*
 * Pages whose bytes are not where they were put: the program has emptied, replaced or unmapped
 * that part of the view.
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
#include "trap/trap.h"

/* A page's bytes are gone, and the store has older ones, if any. Page lock held, no longer
 * uptodate: a write or a flush that fails just now does not make it dirty again, or did before. */
void dirty_emptied(struct frame_pool *pool, struct page *page)
{
	struct fm_file *file = page->file;
	if (!page_is(page, PG_DIRTY))
		return;
	covered(exit_emptied_dirty);
	page_clean(pool, page);
	stats_add(pool->mm->stats, dirty_lost, 1);
	file_lost_page(file, page->index);
}

/* Its bytes went with the view's memory. Page lock held. */
void page_emptied(struct fm_mm *mm, struct frame_pool *pool, struct page *page)
{
	if (mm->install == FM_INSTALL_MOVE && pool->page_size > OS_PAGE && page_is(page, PG_DUP))
		frame_fill(pool, page); /* the pieces that were moved before the rest had to be copied */
	page_set(page, page_is(page, PG_DUP) ? 0 : PG_HOLE,
		 PG_INSTALLED | PG_UPTODATE | PG_DUP | PG_UNPROTECTED | PG_SOFT);
	stats_sub(mm->stats, pages_installed, 1);
	mm_uncharge(mm, pool->page_size); /* the only copy, or the second */
}

/* Not all of it is in the view. Page lock held; not uptodate any more, to be read again; but for
 * one that is all there after all, as what has been swapped out is. `foreign`: what is there now is
 * not touched. */
void page_in_pieces(struct view *view, struct page *page, bool foreign)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t addr = page_addr(view, pool, page), len = (uint64_t)page->shown * OS_PAGE;

	/* The same bytes are in its slot until it can be written to in the view. */
	bool kept = view->file->writable && page_is(page, PG_DUP) && !page_is(page, PG_UNPROTECTED);

	if (kept || (page_is(page, PG_WRITEBACK) &&
		     page_is(page, PG_DUP))) { /* which may be being read from */
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
		if (!kept || len < pool->page_size) /* what is left of it, and memory for the rest */
			frame_fill(pool, page);
		page_set(page, 0, PG_INSTALLED | PG_UNPROTECTED | (kept ? 0 : PG_UPTODATE | PG_SOFT));
		stats_sub(mm->stats, pages_installed, 1);
	} else {
		if (len > OS_PAGE) /* what is left of it would be seen beside newer bytes */
			trap_discard_ours(mm->trap, addr, len);
		page_emptied(mm, pool, page);
	}
	if (!kept)
		dirty_emptied(pool, page);
	pt_put(mm, page, 1, addr);
}

/* The program has put other memory, or none, into some of the page's place. */
bool page_is_foreign(const struct view *view, const struct page *page)
{
	return trap_any_foreign(view->mm->trap, page_addr(view, view->file->pool, page),
				(uint64_t)page->shown * OS_PAGE);
}

/* It is installed, and foreign: what the view had of it is gone. Page lock held. */
void page_gone_foreign(struct view *view, struct page *page)
{
	stats_add(view->mm->stats, emptied_behind, 1);
	page_in_pieces(view, page, true);
}

/* The same, where somebody has emptied the view behind us, in whatever way. */
void page_gone_behind(struct view *view, struct page *page)
{
	stats_add(view->mm->stats, emptied_behind, 1);
	page_in_pieces(view, page, page_is_foreign(view, page));
}

/* The page's slot was emptied while the store reads from it, which is to meet the hole, and not
 * zeros. True: so it stays one, and who reads the page anew fills it. Page lock held; not uptodate
 * any more. */
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
 * The page is recorded as installed, yet its thread faulted on it again: ask the kernel whether it
 * is there. Pinned, not locked. False: it had been emptied behind us, and is now to be read again.
 */
bool page_really_there(struct view *view, struct page *page)
{
	struct frame_pool *pool = view->file->pool;

	if (page_is_there(view, page))
		return true;
	if (!page_trylock(page))
		return false;
	/* Asked again: it may have been taken out and installed meanwhile. */
	bool there = page_is(page, PG_INSTALLED) && page_is_there(view, page);
	if (!there && page_is(page, PG_INSTALLED))
		page_gone_behind(view, page);
	page_unlock(pool, page);
	return there;
}
