/* SPDX-License-Identifier: MIT */
/* Pages that the kernel has merged with equal pages (KSM). */
#include "mm/cache/merged.h"

#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty.h"
#include "mm/cache/lock.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "os/atomic.h"
#include "os/os.h"
#include "trap/trap.h"

/* Mark a protected page in the view dirty, because a thread may have written to the page without a
 * fault. The caller holds a pin. */
static void dirty_if_shown(struct frame_pool *pool, struct page *page)
{
	for (int tries = 0;
	     tries < 200 &&
	     (page_state(page) & (PG_INSTALLED | PG_UNPROTECTED | PG_GONE)) == PG_INSTALLED &&
	     page->file->writable;
	     tries++) {
		if (!page_trylock(page)) {
			page_wait(pool->mm, page, false, os_now_ns() + 20 * OS_NSEC_PER_MSEC);
			continue;
		}
		if ((page_state(page) & (PG_INSTALLED | PG_UNPROTECTED | PG_GONE)) ==
			    PG_INSTALLED &&
		    page->file->writable)
			page_mark_dirty(pool, page);
		page_unlock(pool, page);
		return;
	}
}

/*
 * Check whether the kernel has merged pages, and if so mark the pages in the views dirty.
 *
 * The kernel merges equal pages of a program that has asked for merging
 * (prctl(PR_SET_MEMORY_MERGE), systemd's MemoryKSM=). A merged page loses its protection, so later
 * writes to the page raise no fault. Views have opted out, but not against a later prctl(). So the
 * function is called before a caller relies on a page being clean: before a sync, before pages
 * leave a view, and at the end. If pages were merged, all installed pages of files open for
 * writing become dirty, once. The caller holds no lock.
 */
void writeback_look_for_merging(struct fm_mm *mm)
{
	if (!atomic_get(&mm->wb) || likely(!trap_was_merged(mm->trap)))
		return;
	for (int p = 0; p < MM_POOLS_MAX && atomic_get(&mm->pool[p]); p++)
		for (uint32_t i = 0; i < mm->pool[p]->frames; i++) {
			struct page *page = &mm->pool[p]->pages[i];
			if (!page_is(page, PG_INSTALLED) || !page_try_pin(page))
				continue;
			dirty_if_shown(mm->pool[p], page);
			page_unpin(mm->pool[p], page);
		}
	trap_merging_noted(mm->trap); /* last: a concurrent caller must mark the pages, too */
	if (!atomic_xchg(&mm->writer_bell.merged, 1u))
		writeback_kick(mm);
}
