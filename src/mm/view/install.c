/* SPDX-License-Identifier: MIT */
/*
 * Installs: a page's bytes appear in its view.
 *
 * The files of this folder own the meaning of PG_INSTALLED, PG_DUP and PG_UNPROTECTED,
 * the page-table account, and the work that is left to the background thread. All
 * functions run without the map lock. The state of a page tells where its frame's memory
 * is:
 *
 *   not INSTALLED   in the slot (with PG_HOLE: nowhere)
 *   INSTALLED       in the view; the slot is empty
 *   INSTALLED|DUP   in the view, and the slot still has memory (after a COPY)
 *
 * In a file open for writing (pages of 4096 bytes), a page that is installed for a read
 * comes by COPY, protected from its first moment. A page that is installed for a write
 * comes by MOVE, and so does a page that is dirty anyway where the mapping allows
 * writes. After such a MOVE the page is writable, which PG_UNPROTECTED then means. The
 * bytes in the view and in the slot of a DUP page are the same until the page becomes
 * writable.
 *
 * The program may put other memory into a part of the view, or unmap a part. So
 * trap_is_ours() must be asked before any page is taken out of the view, moved or
 * discarded: the memory could be the program's. Bytes that were only in the view are
 * lost, and the loss is reported.
 *
 * The fault path uses MOVE and COPY only. A discard takes the kernel's mmap_lock, which
 * another thread's stalled mmap() may hold. So only the background thread discards, and
 * callers that unmap or advise.
 */
#include "mm/view/install.h"

#include "filemap.h"
#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/view.h"
#include "mm/cache/dirty.h"
#include "mm/base/access.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/lists.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "mm/map/map_lock.h"
#include "mm/view/later.h"
#include "mm/view/lost.h"
#include "mm/view/page_tables.h"
#include "mm/view/transfer.h"
#include "mm/view/writable.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>

/* Record that `count` pages whose frames are neighbours are in the view, `bytes` of each
 * page. The caller holds the page locks and pins. */
void pages_installed(struct view *view, struct page *first, uint32_t count, uint64_t bytes,
		     enum installed_by by)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint32_t soft = 0, spec = 0, hot = 0, set = PG_INSTALLED, clear = PG_SOFT | PG_SPEC;

	group_installed(pool, first, count);
	if (by == BY_COPY)
		set |= PG_DUP;
	if (by == BY_STAGE || by == BY_STAGE_WRITABLE) {
		set |= PG_UPTODATE | (by == BY_STAGE ? 0 : PG_UNPROTECTED);
		clear |= PG_HOLE;
	} else if (mm->install == FM_INSTALL_MOVE && (!view->file->writable || by == BY_MOVE)) {
		set |= PG_UNPROTECTED;
	}

	for (struct page *page = first; page < first + count; page++) {
		uint32_t state = atomic_get(&page->state);
		/* kept in the page: the file may be shorter by the time the page is taken out */
		page_word_set(page, shown,
			      (uint16_t)(bytes / OS_PAGE));
		page_set(page, set | (state & PG_SOFT ? PG_HOT : 0), clear);
		soft += (state & PG_SOFT) != 0;
		spec += (state & PG_SPEC) != 0;
		hot += (state & (PG_SOFT | PG_HOT)) != 0 || page->advised_keep;
	}
	if (by == BY_COPY) /* the pages are in memory twice until the slots' copies are dropped */
		mm_charge(mm, (uint64_t)count * pool->page_size);
	stats_add(mm->stats, pages_installed, count);
	stats_add(mm->stats, reactivations, soft);
	stats_add(mm->stats, ra_hits, spec);
	if (by == BY_MOVE)
		stats_add(mm->stats, installs_move, count);
	else
		stats_add(mm->stats, installs_copy, count);
	/* The pages of a run mostly share their fate, so the majority decides. A page that
	 * comes while there is room stays until a better page needs the frame. */
	lru_set(pool, first, count, 2 * hot > count || !pool_evicts(pool) ? LIST_ACTIVE : LIST_YOUNG);
	/* In the other cases the pages have their final protection already and are in memory
	 * once. */
	if (by == BY_COPY ||
	    (by == BY_MOVE &&
	     !view->file->writable))
		after_add(mm, pool, first, count);
}

/* Undo an install that got stuck. `to_write`: the page is dirty only because the fault
 * was going to write to the page. Returns -EAGAIN if the page is no longer uptodate,
 * else `err`. */
static int install_undo(struct view *view, struct page *page, struct transfer *t, bool to_write,
			int err)
{
	struct fm_mm *mm = view->mm;
	struct transfer back = {.mm = mm, .dst = t->src, .src = t->dst, .len = t->done};
	/* the kernel has a part of the page pinned, so the part cannot go back */
	bool torn = !t->copied && t->done &&
		    transfer_out(&back) < 0;

	if (t->done && (t->copied || torn))
		trap_discard(mm->trap, t->dst, t->done);
	pt_put(mm, page, 1, t->dst);
	if (err == FOREIGN && to_write)
		page_clear_dirty(view->file->pool, page);
	if (err != -ENOENT && !torn)
		return err;
	page_set(page, 0, PG_UPTODATE);
	if (!page_hole_stays(view->file->pool, page))
		frame_fill(view->file->pool, page);
	if (to_write)
		page_clear_dirty(view->file->pool, page);
	dirty_emptied(view->file->pool, page);
	return -EAGAIN;
}

/* Return true if the page goes into the view by MOVE. In a file open for writing only a
 * page that is writable from then on goes by MOVE. Such a page does not go by MOVE while
 * the store reads from its slot. */
static bool moves_in(const struct access *access, const struct page *page, bool write)
{
	if (access->mm->install != FM_INSTALL_MOVE)
		return false;
	return !access->file->writable ||
	       ((write || (page_is(page, PG_DIRTY) && access->writable)) &&
		!page_is(page, PG_WRITEBACK));
}

/*
 * Install a page in its view. The caller holds the page lock and a pin, and the page is
 * uptodate. May block. Returns 0 if the page is in the view, and writable where the
 * fault wants a write. Returns -EAGAIN if the caller must look again: the slot was
 * emptied, so that the page is no longer uptodate, or the page now lies past the end.
 * Else returns -ENOMEM or a similar error.
 */
int page_install(struct access *access, struct page *page)
{
	bool write = access->flags & FM_FAULT_WRITE;
	struct view *view = access->view;
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	struct transfer t = {.mm = mm, .dst = page_addr(view, pool, page),
			     .src = (uint64_t)slot_of(pool, page),
			     .len = page_shown_bytes(view->file, page)};
	bool move = moves_in(access, page, write);

	might_block(mm);
	page_check(pool, page);
	if (page_is(page, PG_INSTALLED))
		return write ? page_make_writable(view, page) : 0;
	covered_if(t.len < pool->page_size, a12_clipped);
	covered_if(!t.len, a10_shrunk_before_install);
	/* The file has become shorter since the fault looked. If the page were recorded as
	 * installed, its slot would still have memory. Under COPY the page would be taken for a
	 * page whose slot has none. */
	if (!t.len)
		return -EAGAIN;
	pt_get(mm, page, 1, t.dst, true);
	bool to_write = write && move && !page_is(page, PG_DIRTY);
	if (to_write)
		page_mark_dirty(pool, page);
	uint32_t unmarks = trap_unmarks(mm->trap);
	bool guarded = move && view->file->writable;
	if (guarded)
		trap_writable_begin(mm->trap);
	int err = transfer_in(&t, move);
	if (guarded)
		trap_writable_end(mm->trap);
	if (err)
		return install_undo(view, page, &t, to_write, err);
	/* The kernel wakes waiters for pages that the call moves or copies. For a page that the
	 * call met there, the kernel only says so. Seen on Linux 6.18: about one MOVE in 30,000
	 * under load moves the page, and then fails with EEXIST. */
	if (t.existed)
		trap_wake(mm->trap, t.dst, t.len);
	pages_installed(view, page, 1, t.len, t.copied || t.existed ? BY_COPY : BY_MOVE);
	if (unlikely(!trap_kept(mm->trap, unmarks, t.dst, t.len))) {
		page_gone_behind(view, page);
		return -EAGAIN;
	}
	return write ? page_make_writable(view, page) : 0;
}

/* Install a page from a staging slot; with `write` the page is writable in the view. The
 * caller holds the page lock and a pin. The page is a hole, and the frame and the page
 * table are charged for. The page is neither uptodate nor past the end. Returns 0 if the
 * page is uptodate and in the view; on an error the page is as before. */
int page_install_from(struct view *view, struct page *page, const char *stage, bool write)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t dst = page_addr(view, pool, page), done;
	int err = -EAGAIN;

	if (write) {
		page_mark_dirty(pool, page);
		trap_writable_begin(mm->trap);
	}
	uint32_t unmarks = trap_unmarks(mm->trap);
	for (int tries = 0; err == -EAGAIN && tries < BUSY_TRIES; tries++)
		err = (write ? trap_copy_writable : trap_copy)(mm->trap, dst, (uint64_t)stage, OS_PAGE, &done);
	if (write)
		trap_writable_end(mm->trap);
	if (err == -ENOMEM)
		atomic_set(&pool->fill_failed_ns, os_now_ns());
	if (err) {
		page_clear_dirty(pool, page); /* no thread has seen the page's bytes */
		pt_put(mm, page, 1, dst);
		return err;
	}
	pages_installed(view, page, 1, OS_PAGE, write ? BY_STAGE_WRITABLE : BY_STAGE);
	if (unlikely(!trap_kept(mm->trap, unmarks, dst, OS_PAGE)))
		page_gone_behind(view, page);
	return 0;
}
