/* SPDX-License-Identifier: MIT */
/* Taking one page out of its view. */
#include "mm/view/out.h"

#include "filemap.h"
#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/view.h"
#include "mm/cache/dirty.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/view/install.h"
#include "mm/view/later.h"
#include "mm/view/lost.h"
#include "mm/view/page_tables.h"
#include "mm/view/transfer.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>

/* The region goes, and the page's memory in it. Page lock held. */
void page_forget(struct view *view, struct page *page)
{
	struct frame_pool *pool = view->file->pool;
	group_split(pool, page, 1);
	if (!page_is(page, PG_DUP) &&
	    page->shown <
		    pool->page_size / OS_PAGE) /* what it had not shown is still in the slot */
		trap_discard(view->mm->trap, (uint64_t)slot_of(pool, page), pool->page_size);
	page_emptied(view->mm, view->file->pool, page);
	pt_put(view->mm, page, 1, page_addr(view, view->file->pool, page));
}

/* Out of the view, whatever becomes of its bytes, which the store has too, or nobody is to have.
 * Page lock held; may wait for the kernel's lock. */
void page_discard(struct view *view, struct page *page)
{
	mm_assert(!page_is(page, PG_WRITEBACK));
	trap_discard_ours(view->mm->trap, page_addr(view, view->file->pool, page),
			  view->file->pool->page_size);
	if (page_is(page, PG_DIRTY)) /* not before: until then it could be written to */
		page_drop_dirty(view->file->pool, page);
	if (!page_is(page, PG_DUP)) /* MOVE may have met something there */
		trap_discard(view->mm->trap, (uint64_t)slot_of(view->file->pool, page),
			     view->file->pool->page_size);
	page_forget(view, page);
}

/*
 * Page lock and a pin held; the page is installed. 0: it is out of the view; it is still uptodate
 * where its bytes could be kept. -EBUSY: it stays (the kernel has a pin, a write of it is under
 * way, or it takes a call that may block and the caller must not). -EINVAL: it stays, since the
 * kernel cannot move it.
 */
int page_take_out(struct view *view, struct page *page, bool may_block)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	struct transfer t = {.mm = mm, .dst = (uint64_t)slot_of(pool, page),
			     .src = page_addr(view, pool, page),
			     .len = (uint64_t)page->shown * OS_PAGE, .leaves = page};
	mm_assert(page_is(page, PG_INSTALLED) && page_is(page, PG_LOCKED));
	group_split(pool, page, 1);
	if (page_is(page, PG_WRITEBACK)) /* what the store reads from stays where it is */
		return -EBUSY;
	if (unlikely(page_is_foreign(view, page))) {
		page_gone_foreign(view, page);
		return 0;
	}
	if (page_is(page, PG_DUP) &&
	    page_is(page, PG_DIRTY)) { /* the slot's bytes are the older ones, or as good */
		if (!may_block)
			return -EBUSY;
		page_drop_copy(mm, pool, page);
	}
	/* By COPY its bytes would be gone: the store has them, but for a flush that may still fail. */
	if (mm->install == FM_INSTALL_COPY &&
	    (page_is(page, PG_DIRTY) || (!page_is(page, PG_DUP) && page_is_held(pool, page))))
		return -EINVAL;

	if (mm->install == FM_INSTALL_MOVE && !page_is(page, PG_DUP)) {
		int err = transfer_out(&t);
		if (err) {
			struct transfer back = {.mm = mm, .dst = t.src, .src = t.dst, .len = t.done};
			stats_add(mm->stats, install_busy, 1);
			trap_writable_begin(mm->trap);
			int stuck = transfer_back(&back);
			trap_writable_end(mm->trap);
			if (back.copied || back.existed) {
				page_set(page, PG_DUP, view->file->writable ? PG_UNPROTECTED : 0);
				mm_charge(mm, pool->page_size);
				after_add(mm, pool, page, 1);
			}
			if (stuck) { /* a large page in two halves, no memory to join them: the store has it all */
				mm_assert(!view->file->writable);
				page_in_pieces(view, page, false);
				return 0;
			}
			return err == -EINVAL ? err : -EBUSY;
		}
		if (t.missing) {
			stats_add(mm->stats, emptied_behind, 1);
			page_set(page, 0, PG_UPTODATE);
			dirty_emptied(pool, page);
		}
		if (t.missing || t.len < pool->page_size) /* or: a copy that was dropped took the
							     part past the end with it */
			frame_fill(pool, page);
		page_set(page, 0, PG_INSTALLED | PG_UNPROTECTED);
		stats_sub(mm->stats, pages_installed, 1);
	} else {
		if (!may_block)
			return -EBUSY;
		trap_discard(mm->trap, t.src, t.len);
		if (page_is(page, PG_DUP)) { /* the slot has the bytes */
			if (mm->install == FM_INSTALL_MOVE && pool->page_size > OS_PAGE) {
				/* ...but for the pieces that were moved before the rest had to be copied */
				frame_fill(pool, page);
				page_set(page, 0, PG_UPTODATE);
			}
			page_set(page, 0, PG_INSTALLED | PG_DUP | PG_UNPROTECTED);
			mm_uncharge(mm, pool->page_size);
			stats_sub(mm->stats, pages_installed, 1);
		} else {
			page_emptied(mm, pool, page);
		}
	}
	pt_put(mm, page, 1, t.src);
	return 0;
}

/*
 * As page_take_out(), also of what the kernel does not move and the store does not have yet
 * (installed by COPY, or in locked memory; of a file open for writing): its bytes are copied to the
 * slot, protected meanwhile, so that no write is missed. Waits for the kernel's lock.
 */
int page_bring_out(struct view *view, struct page *page)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t addr = page_addr(view, pool, page), slot = (uint64_t)slot_of(pool, page);
	int err = page_take_out(view, page, true);

	if (err != -EINVAL || !view->file->writable)
		return err;
	mm_assert(!page_is(page, PG_DUP | PG_WRITEBACK) && pool->page_size == OS_PAGE);
	err = frame_fill(pool, page);
	if (!err)
		err = trap_protect(mm->trap, addr, OS_PAGE);
	if (!err) {
		page_set(page, 0, PG_UNPROTECTED);
		err = trap_fetch(mm->trap, slot, addr);
	}
	if (err) {
		trap_discard(mm->trap, slot, OS_PAGE);
		if (err == -EFAULT)
			page_gone_behind(view, page);
		return err == -EFAULT ? 0 : -EBUSY;
	}
	trap_discard(mm->trap, addr, OS_PAGE);
	page_set(page, 0, PG_INSTALLED);
	stats_sub(mm->stats, pages_installed, 1);
	pt_put(mm, page, 1, addr);
	return 0;
}
