/* SPDX-License-Identifier: MIT */
/* An installed page becomes writable here, also if the page kept its protection. */
#include "mm/view/writable.h"

#include "filemap.h"
#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/view.h"
#include "mm/cache/dirty.h"
#include "mm/cache/lock.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/frames/staging.h"
#include "mm/view/later.h"
#include "mm/view/lost.h"
#include "mm/view/page_tables.h"
#include "mm/view/transfer.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>

/* Put a page that by_a_place() could not bring back into its slot. MOVE may have had the
 * page in the view for a moment after all (see move_after_exist()), where the program
 * could write. So the bytes in `place` count, and not the slot's bytes. While the store
 * reads from the slot, the function keeps trying the view. May block. Returns true if
 * the page is in the view. */
static bool back_from_place(struct view *view, struct page *page, uint64_t addr, uint64_t place)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	int err = -EBUSY;

	while (err && page_is(page, PG_WRITEBACK)) {
		err = move_page(mm, addr, place);
		/* the place has been emptied, too: only the slot's bytes are left */
		if (err == -ENOENT)
			break;
		if (err)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
	}
	if (!err)
		return true;
	if (err != -ENOENT) {
		page_drop_copy(mm, pool, page);
		while ((err = move_page(mm, (uint64_t)slot_of(pool, page), place)) < 0 && err != -ENOENT)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		if (err)
			frame_fill(pool, page);
		page_set(page, 0, PG_INSTALLED | (err ? PG_UPTODATE : 0));
	} else {
		page_set(page, 0, PG_INSTALLED | PG_DUP);
		mm_uncharge(mm, pool->page_size);
	}
	stats_sub(mm->stats, pages_installed, 1);
	pt_put(mm, page, 1, addr);
	if (!page_is(page, PG_UPTODATE))
		dirty_emptied(pool, page);
	return false;
}

/* Make a page writable whose slot has memory: the view's page goes out to an empty place
 * and back. Returns 0 or an error; -EAGAIN: the caller looks again. */
static int by_a_place(struct view *view, struct page *page, uint64_t addr)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	char *place = place_take(pool);

	if (!place) {
		os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		return -EAGAIN;
	}
	int err = move_page(mm, (uint64_t)place, addr);
	if (!err && move_page(mm, addr, (uint64_t)place) < 0 &&
	    !back_from_place(view, page, addr, (uint64_t)place))
		err = -EAGAIN;
	place_put(pool, place);
	return err;
}

/* Make a page writable by a move to its own slot and back. If the page cannot go back,
 * the page stays in the slot: -EAGAIN. */
static int by_its_slot(struct view *view, struct page *page, uint64_t addr)
{
	struct fm_mm *mm = view->mm;
	uint64_t slot = (uint64_t)slot_of(view->file->pool, page);
	int err = move_page(mm, slot, addr);

	if (!err && move_page(mm, addr, slot) < 0) {
		page_set(page, 0, PG_INSTALLED);
		stats_sub(mm->stats, pages_installed, 1);
		pt_put(mm, page, 1, addr);
		return -EAGAIN;
	}
	return err;
}

/*
 * Make a page writable that is installed and protected, in a file open for writing. The
 * caller holds the page lock and a pin. The page goes out of the view and in again by
 * MOVE, so that the page arrives writable. In three cases the protection is taken off in
 * place, which may wait for the kernel's mmap_lock. First, the kernel moves nothing
 * (partly locked memory, Linux before 6.8). Second, the kernel has the page pinned.
 * Third, fm_pin() holds the page, so that a system call may have its address. Returns 0,
 * -EAGAIN if the caller must look again, or another error.
 */
int page_make_writable(struct view *view, struct page *page)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t addr = page_addr(view, pool, page);
	int err = -EINVAL;

	if (page_is(page, PG_UNPROTECTED)) {
		/* The page is dirty already, unless fm_pin() holds the page: such a page is written
		 * back where the page is. */
		page_mark_dirty(pool, page);
		return 0;
	}
	if (unlikely(page_is_foreign(view, page))) {
		page_gone_foreign(view, page);
		return -EAGAIN;
	}
	page_mark_dirty(pool, page);
	uint32_t unmarks = trap_unmarks(mm->trap);
	if (mm->install == FM_INSTALL_MOVE && !page->user_pins) {
		trap_writable_begin(mm->trap);
		err = page_is(page, PG_DUP) ? by_a_place(view, page, addr) : by_its_slot(view, page, addr);
		trap_writable_end(mm->trap);
	}
	if (err == -EINVAL || err == -EBUSY)
		err = trap_unprotect(mm->trap, addr, OS_PAGE);
	if (err == -ENOENT || err == -EFAULT) {
		page_gone_behind(view, page);
		return -EAGAIN;
	}
	if (err)
		return err;
	page_set(page, PG_UNPROTECTED, 0);
	if (unlikely(!trap_kept(mm->trap, unmarks, addr, OS_PAGE))) {
		page_gone_behind(view, page);
		return -EAGAIN;
	}
	return 0;
}

/*
 * Take the protection off a page whose state says writable, after a write to the page
 * has faulted once more. A swapped-out page keeps its protection on its way through a
 * slot, since the kernel moves the page's entry unchanged (seen on Linux 6.18). The page
 * is pinned, not locked.
 */
void page_unprotect_again(struct view *view, struct page *page)
{
	if (!page_trylock(page))
		return;
	if ((page_state(page) & (PG_GONE | PG_INSTALLED | PG_UNPROTECTED)) ==
	    (PG_INSTALLED | PG_UNPROTECTED))
		trap_unprotect(view->mm->trap, page_addr(view, view->file->pool, page), OS_PAGE);
	page_unlock(view->file->pool, page);
}
