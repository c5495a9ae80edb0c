/* SPDX-License-Identifier: MIT */
/* The beginning and the end of a fault, and the errno of the read attempt the fault waited for. */
#include "mm/fault/attempt.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/ticket.h"
#include "mm/base/view.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fault/vmf.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>

void fault_begin(struct fault *vmf, struct view *view, uint64_t addr, uint32_t flags)
{
	*vmf = (struct fault){
		.mm = view->mm,
		.file = view->file,
		.view = view,
		.addr = addr,
		.byte = addr - view->region.base,
		.index = (addr - view->region.base) >> view->file->pool->shift,
		.flags = flags,
		.started_ns = os_now_ns(),
	};
}

void fault_put_stale(struct fault *vmf)
{
	struct frame_pool *pool = vmf->file->pool;
	struct page *locked = vmf->stale_locked, *stale = vmf->stale;

	vmf->stale_locked = vmf->stale = NULL;
	if (locked) {
		page_unlock(pool, locked);
		page_unpin(pool, locked);
	}
	if (stale)
		page_unpin(pool, stale);
}

/*
 * Note the page's error and attempt count before a wait for its page lock. The lock may be held
 * for something other than a read, and the page may carry the errno of an attempt that has ended.
 */
void fault_note_attempt(struct fault *vmf, const struct page *page)
{
	vmf->had_error = page_is(page, PG_ERROR);
	vmf->attempt = page_word(page, io_attempt);
}

/*
 * Return the errno of the attempt that the fault waited for. Called after the wait. Returns 0 if
 * the attempt left no error: the caller looks at the page again.
 */
int fault_attempt_error(const struct fault *vmf, const struct page *page)
{
	int error = page_error(page, page_state(page));
	bool own = !vmf->had_error || page_word(page, io_attempt) != vmf->attempt;
	covered_if(error && !own, a6_older_error);
	return own ? error : 0;
}

/* Put what the fault still holds and count the fault once, however many tries the fault took. */
void fault_end(struct fault *vmf, int error)
{
	struct stats_page *stats = vmf->mm->stats;
	uint64_t ns = os_now_ns() - vmf->started_ns;

	fault_put_stale(vmf);
	if (vmf->page)
		page_unpin(vmf->file->pool, vmf->page);
	vmf->page = NULL;
	stats_add(stats, faults, 1);
	if (error == -EFAULT || error == -EACCES)
		stats_add(stats, faults_segv, 1);
	else if (error && error != -EAGAIN) /* -EAGAIN: the caller is to call again */
		stats_add(stats, faults_sigbus, 1);
	if (vmf->counted_major) {
		stats_record(&stats->fault_major_ns, ns);
	} else {
		stats_add(stats, faults_minor, 1);
		stats_record(&stats->fault_minor_ns, ns);
	}
	if (vmf->tries > 1)
		stats_add(stats, fault_retries, vmf->tries - 1);
}

/* Take the errno of the attempt as the fault's, after a ticket has waited for that attempt. */
void fault_take_attempt_error(struct fault *vmf, const struct ticket *ticket)
{
	if (!vmf->waited || !vmf->page)
		return;
	uint32_t state = atomic_get(&vmf->page->state);
	if (!(state & PG_LOCKED)) {
		int own = fault_attempt_error(vmf, vmf->page);
		if (own)
			vmf->error = own;
		if (!ticket) /* the call returns the errno now, not later */
			page_clear_notify(vmf->page);
		vmf->waited = false;
	}
}

/*
 * Take the errno of an attempt that an earlier call with FM_NOWAIT began. No thread has waited
 * for the attempt, so the next call with FM_NOWAIT reports its errno, once.
 */
void fault_take_notified_error(struct fault *vmf)
{
	struct page *page = page_find(vmf->file, vmf->index);
	if (!page)
		return;
	uint32_t state = atomic_get(&page->state);
	if ((state & PG_NOTIFY) && page_error(page, state)) {
		vmf->error = page_error(page, state);
		page_clear_notify(page);
	}
	page_unpin(vmf->file->pool, page);
}
