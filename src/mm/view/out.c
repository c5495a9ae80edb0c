/* SPDX-License-Identifier: MIT */
/* A single page is taken out of its view here. */
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

/* Record that the region goes, and with it the page's memory in the view. The caller
 * holds the page lock. */
void page_forget(struct view *view, struct page *page)
{
	struct frame_pool *pool = view->file->pool;
	group_split(pool, page, 1);
	/* The part that was not shown is still in the slot. */
	if (!page_is(page, PG_DUP) &&
	    page->shown <
		    pool->page_size / OS_PAGE)
		trap_discard(view->mm->trap, (uint64_t)slot_of(pool, page), pool->page_size);
	page_emptied(view->mm, view->file->pool, page);
	pt_put(view->mm, page, 1, page_addr(view, view->file->pool, page));
}

/* Take a page out of the view, whatever becomes of its bytes: the store has the bytes
 * too, or no reader is to have them. The caller holds the page lock; may wait for the
 * kernel's mmap_lock. */
void page_discard(struct view *view, struct page *page)
{
	mm_assert(!page_is(page, PG_WRITEBACK));
	trap_discard_ours(view->mm->trap, page_addr(view, view->file->pool, page),
			  view->file->pool->page_size);
	/* not earlier: until the discard the program could write to the page */
	if (page_is(page, PG_DIRTY))
		page_drop_dirty(view->file->pool, page);
	if (!page_is(page, PG_DUP)) /* MOVE may have met memory in the slot */
		trap_discard(view->mm->trap, (uint64_t)slot_of(view->file->pool, page),
			     view->file->pool->page_size);
	page_forget(view, page);
}

/*
 * Take an installed page out of the view. The caller holds the page lock and a pin.
 * Returns 0 if the page is out of the view; the page is still uptodate where its bytes
 * could be kept. Returns -EBUSY if the page stays: the kernel has a pin, or a write of
 * the page is under way. The function also returns -EBUSY if a call is needed that may
 * block and `may_block` is false. Returns -EINVAL if the page stays because the kernel
 * cannot move the page.
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
	if (page_is(page, PG_WRITEBACK)) /* a page that the store reads from keeps its place */
		return -EBUSY;
	if (unlikely(page_is_foreign(view, page))) {
		page_gone_foreign(view, page);
		return 0;
	}
	if (page_is(page, PG_DUP) && page_is(page, PG_DIRTY)) { /* the slot's bytes are no newer */
		if (!may_block)
			return -EBUSY;
		page_drop_copy(mm, pool, page);
	}
	/* Under COPY the bytes would be gone, and a flush of the store's copy may still fail. */
	if (mm->install == FM_INSTALL_COPY &&
	    (page_is(page, PG_DIRTY) || (!page_is(page, PG_DUP) && page_is_unsaved(pool, page))))
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
			if (stuck) {
				/* No memory can join the two halves of the page: the store has all bytes. */
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
		/* Memory is also needed if a dropped copy took the part past the end with it. */
		if (t.missing || t.len < pool->page_size)
			frame_fill(pool, page);
		page_set(page, 0, PG_INSTALLED | PG_UNPROTECTED);
		stats_sub(mm->stats, pages_installed, 1);
	} else {
		if (!may_block)
			return -EBUSY;
		trap_discard(mm->trap, t.src, t.len);
		if (page_is(page, PG_DUP)) { /* the slot has the bytes */
			if (mm->install == FM_INSTALL_MOVE && pool->page_size > OS_PAGE) {
				/* The slot lacks the pieces that were moved before the rest had to be copied. */
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
 * Take a page out of the view as page_take_out() does, even if the kernel does not move
 * the page and the store does not have its bytes yet. Such a page of a file open for
 * writing was installed by COPY, or is in locked memory. Its bytes are copied to the
 * slot. The page is protected meanwhile, so that no write is missed. Waits for the
 * kernel's mmap_lock.
 */
int page_copy_out(struct view *view, struct page *page)
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
