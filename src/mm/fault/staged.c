/* SPDX-License-Identifier: MIT */
/* Reads a wanted page by way of a staging slot. */
#include "mm/fault/staged.h"

#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/submit.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fault/after.h"
#include "mm/fault/vmf.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/pages.h"
#include "mm/fill/share.h"
#include "mm/fill/staged.h"
#include "mm/fill/version.h"
#include "mm/flush/throttle.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/frames/pool.h"
#include "mm/frames/staging.h"
#include "mm/map/map_lock.h"
#include "mm/view/range.h"
#include "os/atomic.h"
#include "os/os.h"
#include "store/store.h"

#include <errno.h>

/*
 * Tell whether the fault's page may be read by way of a staging slot. Such a page is wanted by
 * one fault alone and has a frame without memory. The page is read into the staging slot and
 * copied into the view. The frame's slot stays empty, as after a MOVE. But no slot has to be
 * filled before or protected afterwards, and no other core is interrupted.
 */
bool read_may_stage(const struct fault *vmf)
{
	struct frame_pool *pool = vmf->file->pool;
	return atomic_get(&pool->stages_free) && !pool_pauses(pool) && !vmf->no_stage &&
	       !vmf->more &&
	       !(vmf->exact &&
		 (vmf->flags & FM_FAULT_WRITE)) && /* a page that is read for a call is installed protected */
	       (vmf->flags & FM_FAULT_ALLOW_RETRY) &&
	       !atomic_get(&vmf->file->reads->changed) && /* else the hole has to be
								  filled; another frame is not */
	       (vmf->index + 1) << pool->shift <= file_size(vmf->file);
}

/*
 * Give the frame memory of its own because no staging slot is to be had, and put the page lock.
 * Returns -ENOMEM if there is no memory: then the page is removed from the cache, unlocked and
 * unpinned.
 */
static int fill_instead(struct frame_pool *pool, struct page *page)
{
	if (frame_fill_first(pool, page) == 0) {
		page_unlock_unread(pool, page);
		return 0;
	}
	mm_uncharge(pool->mm, pool->page_size);
	page_remove(pool, page);
	page_unlock(pool, page);
	page_unpin(pool, page);
	return -ENOMEM;
}

/*
 * Read vmf->page into a staging slot and install the page from there. The page is fresh: locked,
 * pinned, and a hole. May block. Returns 0 if the caller must look at the page again, -ENOMEM if
 * there is no frame, or the errno of the attempt.
 */
int read_staged(struct fault *vmf)
{
	struct fm_file *file = vmf->file;
	struct frame_pool *pool = file->pool;
	struct page *page = vmf->page;
	uint32_t more = 0;
	char *stage = atomic_get(&file->reads->changed) ? NULL : stage_take(pool, true);

	might_block(file->mm);
	if (stage && !read_inline_begin(file, &more)) {
		stage_put(pool, stage);
		stage = NULL;
	}
	if (!stage) {
		int err = fill_instead(pool, page);
		if (err) {
			vmf->page = NULL;
			vmf->no_stage = true; /* a frame that has memory may be free */
		}
		return err;
	}
	struct iovec iov = {stage, OS_PAGE};
	uint64_t started = os_now_ns();
	uint32_t epoch = atomic_get(&file->reads->epoch);
	size_t bytes = 0;
	unsigned shorts = 0;

	page_word_set(page, io_attempt, page->io_attempt + 1);
	int err = store_read_full(file->store, &iov, 1, page->index << pool->shift, &bytes, &shorts);
	if (err == -EFAULT) {
		int filled = stage_fill(pool, stage);
		err = filled < 0 ? filled : filled ? -ECANCELED : err;
	}
	err = store_error(err);
	read_note_latency(file, os_now_ns() - started);
	read_count(file->mm, bytes, shorts, err);
	if (!err || err == -EIO)
		err = file_recheck_after(file, epoch, UINT64_MAX, err);
	int own = 0;
	page->advised_keep = vmf->advised_keep;
	bool write = (vmf->flags & FM_FAULT_WRITE) && dirty_may_come(fault_access(vmf));
	if (staged_install(vmf->view, page, stage, write, true, bytes, epoch, &err)) {
		vmf->run_first = vmf->run_last = vmf->index;
		fault_after_install(vmf);
	} else {
		vmf->no_stage = true; /* what kept the page out of the view may do so again */
		own = page_error(page, page_state(page));
	}
	stage_put(pool, stage);
	if (err == -EAGAIN)
		file_forget(file);
	read_inline_end(file, 1);
	if (write)
		dirty_pace(fault_access(vmf));
	return own;
}
