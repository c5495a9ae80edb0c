/* SPDX-License-Identifier: MIT */
/* A page that is read into a staging slot and goes from there into the view. */
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

/* Somebody emptied a staging slot behind us. As pages_fill(): 0 where there was no hole. */
int stage_fill(struct frame_pool *pool, const char *stage)
{
	if (!pool->registered || trap_all_present((uint64_t)stage, OS_PAGE))
		return 0;
	int err = trap_fill(pool->mm->trap, (uint64_t)stage, OS_PAGE);
	return err ? err : 1;
}

/* What was read has not gone into the view: the page is what it was without its memory, or bears
 * the errno. Unlocked here. */
static void staged_end(struct fm_file *file, struct page *page, uint64_t bytes, int err,
		       uint32_t epoch)
{
	uint64_t wanted = page_bytes(file, page);
	bool unread = err == -ECANCELED || err == -EAGAIN || (!err && (bytes >= wanted || file->writable));

	mm_uncharge(file->mm, file->pool->page_size);
	covered_if(unread, exit_staged_unread);
	if (!unread && !err) /* it ended before its end; which may have come nearer since, and the
				page has no memory to be uptodate in */
		err = file_changed_behind(file, epoch);
	if (unread)
		page_end_unread(file, page);
	else
		page_end_read(file, page, bytes, err, epoch);
}

/* What was read into a staging slot goes into the view, with `write` to be written to. Page locked,
 * which ends here. *err becomes -EAGAIN where the object has changed. `may_wait`: see pt_get().
 * False: it is not in the view. */
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
	/* file_forget() passes by what is not uptodate: one of the two sees the other. */
	if (atomic_get(&file->reads->epoch) != epoch)
		*err = -EAGAIN;
	page_unlock(file->pool, page);
	return true;
}
