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

/* It may have been written to without a fault. Pinned. */
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
			page_dirty(pool, page);
		page_unlock(pool, page);
		return;
	}
}

/*
 * The kernel merges equal pages of a program that has asked for it (prctl(PR_SET_MEMORY_MERGE),
 * systemd's MemoryKSM=), and what it merges loses its protection: later writes come without a
 * fault. Views have opted out; but not against a prctl() that comes later. So this is asked before
 * anybody relies on a page's being clean: before a sync, before pages leave a view, at the end.
 * Where it is so all that is shown of files open for writing is taken for dirty, once. No lock
 * held.
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
	trap_merging_noted(mm->trap); /* not before: who asks meanwhile does all this, too */
	if (!atomic_xchg(&mm->writer_bell.merged, 1u))
		writeback_kick(mm);
}
