/* SPDX-License-Identifier: MIT */
/*
 * Drives a fault from the trap to filemap_fault() and back: finds the mapping, tries until the
 * fault is served, and installs the page. For a fault that may not wait, turns what the fault
 * wants into requests and tickets.
 *
 * Each try takes the map lock shared. An install holds only the page lock. The trap pins the view
 * for the whole fault, so that the view's region and file outlive the fault. May call: all of mm,
 * trap.
 */
#include "mm/fault/drive.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/ticket.h"
#include "mm/base/view.h"
#include "mm/cache/lock.h"
#include "mm/fault/after.h"
#include "mm/fault/attempt.h"
#include "mm/fault/exit.h"
#include "mm/fault/fault.h"
#include "mm/fault/vmf.h"
#include "mm/fault/group_wait.h"
#include "mm/fault/wanted.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/record.h"
#include "mm/fill/share.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/map/map_lock.h"
#include "mm/map/segments.h"
#include "mm/reclaim/wait.h"
#include "mm/view/lost.h"
#include "mm/view/page_tables.h"
#include "mm/view/run_in.h"
#include "mm/view/transfer.h"
#include "mm/view/writable.h"
#include "os/atomic.h"
#include "os/os.h"
#include "trap/trap.h"

#include <errno.h>

/*
 * Find the mm's view at addr and pin its region, for a fault by a call. Returns NULL if the mm
 * has no view there.
 */
struct view *view_find(struct fm_mm *mm, uint64_t addr)
{
	struct view_region *region = region_find(addr);
	struct view *view = region ? region->owner : NULL;

	if (view && view->mm == mm)
		return view;
	if (region)
		region_unpin(region);
	return NULL;
}

/*
 * Keep the errno of the attempt and put the page, after a ticket's wait. The fault may be driven
 * on much later, so the fault must not keep the page pinned. Returns true if the page has come.
 */
bool fault_park(struct fault *vmf, const struct ticket *ticket)
{
	struct page *page = vmf->page;
	if (!page)
		return false;
	fault_take_attempt_error(vmf, ticket);
	bool came = !vmf->error && (atomic_get(&page->state) & (PG_UPTODATE | PG_GONE)) == PG_UPTODATE;
	vmf->waited = false;
	vmf->page = NULL;
	page_unpin(vmf->file->pool, page);
	return came;
}

/*
 * Drop the map lock and install the page under its page lock, after filemap_fault() has returned
 * LOCKED. Returns 0, -EAGAIN if the caller must look again, or the error.
 */
static int install_locked(struct fault *vmf)
{
	struct page *page = vmf->page;
	struct fm_file *ahead = vmf->want == WANT_AHEAD ? vmf->file : NULL;

	if (ahead) /* the mapping's file reference may be put once the lock is dropped */
		file_get(ahead);
	map_unlock_shared(vmf->mm->map);
	fault_put_stale(vmf);
	if (group_wait(vmf, page)) {
		if (ahead) {
			fault_submit_window(vmf);
			file_put(ahead);
		}
		return -EAGAIN;
	}
	/* For a write, a protected page does not count as there. */
	bool there = page_is(page, PG_INSTALLED) &&
		     (!(vmf->flags & FM_FAULT_WRITE) || page_is(page, PG_UNPROTECTED));
	int err = install_run(fault_access(vmf), page);
	/* The file has become shorter, so nothing was installed where the thread waits. The next
	 * try finds that the address is past the end. */
	if (!err && !there && (vmf->byte & (vmf->file->pool->page_size - 1)) / OS_PAGE >= page->shown)
		err = -EAGAIN;
	page_unlock(vmf->file->pool, page);
	if (ahead) { /* the readahead may have to evict pages */
		fault_submit_window(vmf);
		file_put(ahead);
	}
	fault_after_install(
		vmf); /* even if the page was lost: neighbours may be in the view */
	covered_if(err == -EAGAIN, exit_install_again);
	covered_if(err == -ENOMEM, exit_install_no_memory);
	if (err == FOREIGN) /* not mapped, as far as the program's own call has got */
		return -EFAULT;
	if (err) /* -EBUSY: part of the page can be moved neither in nor back for now. For the
		    caller -EBUSY would mean that a ticket is queued. */
		return err == -EBUSY ? -EAGAIN : err;
	if (there && vmf->repeated && !page_really_there(vmf->view, page)) {
		ROW(emptied);
		return -EAGAIN;
	}
	/* Only if there is swap: the call may wait for the kernel's lock. */
	if (there && vmf->repeated && (vmf->flags & FM_FAULT_WRITE) && vmf->file->writable &&
	    trap_has_swap())
		page_unprotect_again(vmf->view, page);
	if (there && !vmf->exact) /* no thread waits in the kernel for a call's page */
		trap_wake(vmf->mm->trap, vmf->addr & ~(uint64_t)(OS_PAGE - 1), OS_PAGE);
	return 0;
}

/*
 * Give way to the background thread once if page tables are behind. Only a fault that begins
 * gives way, because such a fault holds nothing. Returns true if the ticket will be run.
 */
static bool give_way(struct fault *vmf, struct ticket *ticket)
{
	if (likely(vmf->tries > 1 || vmf->page || !pt_behind(vmf->mm)))
		return false;
	if (!(vmf->flags & FM_FAULT_RETRY_NOWAIT))
		pt_throttle(vmf->mm);
	else if (ticket)
		frame_queue_last(vmf->file->pool, ticket);
	return (vmf->flags & FM_FAULT_RETRY_NOWAIT) && ticket;
}

/*
 * Make one try. Returns 0 if the fault is served, -EAGAIN if the caller must try again, -EBUSY if
 * the ticket will be run, or the error.
 */
static int fault_try(struct fault *vmf, struct ticket *ticket)
{
	struct fm_mm *mm = vmf->mm;
	bool may_wait = !(vmf->flags & FM_FAULT_RETRY_NOWAIT);

	fault_rows_begin(vmf);
	if (atomic_get(&mm->dying)) {
		covered(exit_dying);
		if (!may_wait && (vmf->flags & FM_FAULT_TRIED))
			ROW(killed);
		return -ECANCELED;
	}
	fault_take_attempt_error(vmf, ticket);
	if (give_way(vmf, ticket))
		return -EBUSY;
	os_populate_stack();
	map_lock_shared(mm->map);
	vmf->vma = mm_find_vma(mm, vmf->addr);
	vmf->unmap_seq = atomic_get(&vmf->view->unmap_seq);
	int err = !vmf->vma ? -EFAULT : (vmf->flags & FM_FAULT_WRITE) && !vmf->vma->writable ? -EACCES : 0;
	if (err) {
		if (vmf->vma)
			ROW(read_only);
		else
			ROW(no_mapping);
		covered_if(!vmf->vma && (vmf->flags & FM_FAULT_TRIED), a1_unmapped_between);
		map_unlock_shared(mm->map);
		return err;
	}
	vmf->advice = vmf->vma->advice;
	vmf->advised_keep = vmf->vma->advised_keep;
	vmf->writable = vmf->vma->writable;
	vmf->on_error = vmf->vma->on_error;
	vmf->on_error_arg = vmf->vma->on_error_arg;
	uint64_t unit = vmf->file->pool->page_size, base = vmf->view->region.base;
	vmf->low = (vmf->vma->start - base + unit - 1) / unit;
	vmf->high = (vmf->vma->end - base) / unit; /* one past the last; maybe no whole page */
	vmf->mapped_end = (vmf->vma->end - base + unit - 1) / unit;
	unsigned ret = filemap_fault(vmf);
	vmf->flags |= FM_FAULT_TRIED;
	if (ret & FM_FAULT_LOCKED)
		return install_locked(vmf);
	if (!(ret & FM_FAULT_RETRY)) {
		map_unlock_shared(mm->map);
		return vmf->error;
	}
	if (fault_may_drop(vmf))
		return -EAGAIN; /* the map lock is dropped */
	if (may_wait)
		fault_wait_under_lock(vmf);
	struct fm_file *file =
		vmf->file; /* after its ticket is queued, the fault may end in another thread */
	file_get(file); /* the mapping's file reference may be put once the lock is dropped */
	map_unlock_shared(mm->map);
	bool under_way = !may_wait && fault_submit_wanted(vmf, ticket);
	file_put(file);
	return under_way ? -EBUSY : -EAGAIN;
}

/*
 * Serve a fault. Without RETRY_NOWAIT: may block, makes as many tries as the fault needs, and
 * returns 0 or the error. Each try after the first follows a wait that ended, so the fault ends
 * once its I/O ends. With RETRY_NOWAIT: returns -EAGAIN when the ticket will be run, or, without
 * a ticket, when the reads have been started.
 */
int fault_drive(struct fault *vmf, struct ticket *ticket)
{
	if ((vmf->flags & FM_FAULT_RETRY_NOWAIT) && !ticket)
		fault_take_notified_error(vmf);
	for (;;) {
		vmf->tries++;
		watched(fault_try, vmf);
		int err = fault_try(vmf, ticket);
		if (err == -EBUSY) /* another thread may have driven the fault on by now */
			return -EAGAIN;
		fault_put_stale(vmf);
		if (!err && unlikely(vmf->file->reads->record))
			record_touch(vmf->file->reads->record, vmf->page);
		if (err != -EAGAIN)
			return err;
	}
}
