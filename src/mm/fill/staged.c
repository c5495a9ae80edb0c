/* SPDX-License-Identifier: MIT */
/* Staged reads: a page is read into a staging slot and moves from the slot into the view. */
#include "mm/fill/staged.h"

#include "mm/base/budget.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/view.h"
#include "mm/cache/lock.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/pages.h"
#include "mm/fill/share.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/view/install.h"
#include "mm/view/later.h"
#include "mm/view/page_tables.h"
#include "os/atomic.h"
#include "os/os.h"
#include "trap/trap.h"

#include <errno.h>

/* Fill a staging slot that was emptied from outside. Returns as pages_fill(): 0 if the slot
 * had no hole, 1 if the slot was filled, or an error. */
int stage_fill(struct frame_pool *pool, const char *stage)
{
	if (!pool->registered || trap_all_present((uint64_t)stage, OS_PAGE))
		return 0;
	int err = trap_fill(pool->mm->trap, (uint64_t)stage, OS_PAGE);
	return err ? err : 1;
}

/* End a staged read whose page has not gone into the view. The page stays as it was, without
 * its memory, or gets the errno. The page is unlocked here. */
static void staged_end(struct fm_file *file, struct page *page, uint64_t bytes, int err,
		       uint32_t epoch)
{
	uint64_t wanted = page_bytes(file, page);
	bool unread = err == -ECANCELED || err == -EAGAIN || (!err && (bytes >= wanted || file->writable));

	mm_uncharge(file->mm, file->pool->page_size);
	covered_if(unread, exit_staged_unread);
	/* The read ended before the page's end. The end may have moved nearer since, but the
	 * page has no memory in which to be uptodate. */
	if (!unread && !err)
		err = file_changed_behind(file, epoch);
	if (unread)
		page_end_unread(file, page);
	else
		page_end_read(file, page, bytes, err, epoch);
}

/* Move a page that was read into a staging slot into the view; with `write`, so that the page
 * can be written to. Called with the page locked; the lock is dropped here. *err becomes
 * -EAGAIN if the object has changed. For `may_wait` see pt_get(). Returns false if the page is
 * not in the view. */
bool staged_install(struct view *view, struct page *page, const char *stage, bool write,
		    bool may_wait, uint64_t bytes, uint32_t epoch, int *err)
{
	struct fm_file *file = view->file;
	bool all = bytes == OS_PAGE && page_bytes(file, page) == OS_PAGE;

	if (*err || !all || !pt_get(view->mm, page, 1, page_addr(view, file->pool, page), may_wait) ||
	    page_install_from(view, page, stage, write) < 0) {
		staged_end(file, page, bytes, *err, epoch);
		return false;
	}
	/* file_forget() skips pages that are not uptodate. Either file_forget() or this test
	 * sees the other. */
	if (atomic_get(&file->reads->epoch) != epoch)
		*err = -EAGAIN;
	page_unlock(file->pool, page);
	return true;
}
