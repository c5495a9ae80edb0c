/* SPDX-License-Identifier: MIT */
/* Making an installed page writable, and protecting it again. */
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

/* What by_a_place() could not bring back goes to its slot. MOVE may have had it in the view for a
 * moment after all (see move_after_exist()), where it could be written to: so these bytes count,
 * and not those that the slot has. While the store reads from that, the view is tried on. True: it
 * is in the view. */
static bool back_from_place(struct view *view, struct page *page, uint64_t addr, uint64_t place)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	int err = -EBUSY;

	while (err && page_is(page, PG_WRITEBACK)) {
		err = move_page(mm, addr, place);
		if (err == -ENOENT) /* somebody has emptied that, too: the slot's are all there is */
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

/* Its slot has memory: the view's page goes by way of an empty one. */
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

/* By way of its own slot, where it stays if it can't go back. */
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
 * A page of a file open for writing, installed and protected, is to be written to. Page lock and a
 * pin held. It goes out of the view and in again by MOVE, so that it arrives writable; only where
 * the kernel moves nothing (partly locked memory, Linux before 6.8), has it pinned, or fm_pin()
 * holds it, so that a system call may have its address, its protection is taken off, which may wait
 * for the kernel's lock. 0; -EAGAIN: look again.
 */
int page_make_writable(struct view *view, struct page *page)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t addr = page_addr(view, pool, page);
	int err = -EINVAL;

	if (page_is(page, PG_UNPROTECTED)) {
		page_dirty(pool, page); /* it is; but for what fm_pin() holds, which is written where it is */
		return 0;
	}
	if (unlikely(page_is_foreign(view, page))) {
		page_gone_foreign(view, page);
		return -EAGAIN;
	}
	page_dirty(pool, page);
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
 * It can be written to, as far as is known here, and yet a write of it has faulted once more: what
 * is swapped out keeps its protection on its way through a slot, since the kernel moves the entry
 * that it has for it as it is (seen on Linux 6.18). Pinned, not locked.
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
