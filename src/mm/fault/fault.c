/* SPDX-License-Identifier: MIT */
/*
 * filemap_fault() and its helpers: one try of one fault.
 *
 * The rule: nothing here blocks with the map lock held, on the first try or on a later one. What
 * may block is done after maybe_unlock_map_for_io() has dropped the lock, and then only
 * FM_FAULT_RETRY may be returned.
 *
 * fpin is the file reference taken before the lock is dropped. fpin != NULL means: the lock is
 * gone, the vma must not be touched, every exit goes through out_retry, which puts it. fpin == NULL
 * means: the lock is held.
 *
 * Flags. ALLOW_RETRY: the lock may be dropped. With RETRY_NOWAIT it may not, nor may anything wait:
 * the answer is RETRY with the lock held, and vmf->want says what the caller is to have done once
 * it has dropped the lock itself (its ticket). Without ALLOW_RETRY the same, whatever else is set.
 * KILLABLE: waits end when the mm is being destroyed. TRIED: not the first try; it changes
 * statistics and readahead, never whether we may block.
 *
 * References. vmf->page is pinned, and the pin is the fault's: it survives RETRY, so that the next
 * try finds the page that this one waited for or read, whatever the pressure. LOCKED also carries
 * its page lock. A pin or lock that has to be put is left in vmf->stale*: putting takes small
 * locks, so the caller does it outside.
 *
 */
#include "mm/fault/fault.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/refs.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fault/attempt.h"
#include "mm/fault/staged.h"
#include "mm/fault/vmf.h"
#include "mm/fill/abandon.h"
#include "mm/fill/ahead.h"
#include "mm/fill/demand.h"
#include "mm/fill/share.h"
#include "mm/fill/streams.h"
#include "mm/fill/version.h"
#include "mm/fill/windows.h"
#include "mm/flush/throttle.h"
#include "mm/frames/frame.h"
#include "mm/frames/page.h"
#include "mm/map/map_lock.h"
#include "mm/reclaim/get.h"
#include "mm/reclaim/wait.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>

static bool may_drop(const struct fault *vmf)
{
	return (vmf->flags & (FM_FAULT_ALLOW_RETRY | FM_FAULT_RETRY_NOWAIT)) ==
	       FM_FAULT_ALLOW_RETRY;
}

/*
 * Before anything that may block. Returns the file reference and drops the map lock if the flags
 * allow it; returns fpin as it was if that has been done already; returns NULL, lock held, if the
 * flags forbid it: the caller then must not block.
 */
static struct fm_file *maybe_unlock_map_for_io(struct fault *vmf, struct fm_file *fpin)
{
	if (fpin || !may_drop(vmf))
		return fpin;
	fpin = vmf->file;
	file_get(fpin);
	vmf->vma = NULL;
	map_unlock_shared(vmf->mm->map);
	return fpin;
}

/* Wait for the page lock outside the map lock. 0: it was free for a moment; else the errno that the
 * wait brought: the attempt's that we waited for, -ETIMEDOUT, or -ECANCELED when killed. */
static int wait_on_page(struct fault *vmf, struct page *page)
{
	struct fm_file *file = vmf->file;
	uint64_t begun = os_now_ns();
	fault_note_attempt(vmf, page);
	uint64_t deadline = file->deadline_ns ? begun + file->deadline_ns : OS_FOREVER;

	read_wanted(file, page);
	if (page_is(page, PG_SPEC))
		ra_late(file, vmf->index);
	for (;;) {
		uint64_t now = os_now_ns(), until = now + 20 * OS_NSEC_PER_MSEC;
		int err = page_wait(vmf->mm, page, vmf->flags & FM_FAULT_KILLABLE,
				    until < deadline ? until : deadline);
		if (!err)
			return fault_attempt_error(vmf, page);
		if (err != -ETIMEDOUT)
			return err;
		now = os_now_ns();
		if (now >= deadline) {
			covered(exit_wait_timeout);
			read_abandon_page(vmf->mm, page);
			return -ETIMEDOUT;
		}
		read_is_stuck(file, page, now - begun);
	}
}

/*
 * Lock the page. True: locked, the map lock as it was. False: not locked, and
 *   *fpin set      the map lock was dropped (here or before) and the wait is over: return RETRY
 *   *fpin NULL     the lock is held: the flags forbid waiting, vmf->want is WANT_PAGE
 * The trylock comes first: a free lock costs nobody the map lock. NOWAIT is looked at before
 * anything is dropped. Killed: it is this helper that has dropped the lock, so that the caller's
 * RETRY is true, and the kill shows in vmf->error at the next try.
 */
static bool lock_page_maybe_drop_map(struct fault *vmf, struct page *page, struct fm_file **fpin)
{
	if (page_trylock(page))
		return true;
	*fpin = maybe_unlock_map_for_io(vmf, *fpin);
	covered_by(*fpin, locked);
	if (!*fpin) {
		covered_if(vmf->flags & FM_FAULT_RETRY_NOWAIT, a8_nowait);
		vmf->want = WANT_PAGE;
		return false;
	}
	vmf->error = wait_on_page(vmf, page);
	covered_if(vmf->error == -ECANCELED, killed_d);
	covered_if(vmf->error, a2_wait_failed);
	return false;
}

/*
 * The page is not cached. Chooses the readahead window and, if the flags allow, drops the lock and
 * submits what is not read with the page itself. Returns fpin, or NULL with the lock held; then the
 * window stands in vmf->ra for the ticket.
 */
static struct fm_file *do_sync_map_readahead(struct fault *vmf)
{
	/* One window a fault: a try that comes after a wait for room or for a frame only wants its
	 * page. */
	bool window = !(vmf->flags & FM_FAULT_TRIED) && !vmf->exact &&
		      ra_sync_window(fault_access(vmf), fault_reading(vmf));
	struct fm_file *fpin = maybe_unlock_map_for_io(vmf, NULL);

	covered_if(vmf->flags & FM_FAULT_TRIED, a7_no_second_window);
	if (fpin && window) {
		ra_submit(fpin, &vmf->ra, true);
		vmf->ra.count = 0;
	} else if (window) { /* the ticket's request is for the page alone */
		vmf->ra.start -= vmf->more;
		vmf->ra.count += vmf->more;
		vmf->more = 0;
	}
	return fpin;
}

/*
 * The page is cached. If it carries the readahead mark and submitting the next window changes
 * anything, drops the lock and submits: returns fpin. Otherwise NULL, lock held: nothing to do
 * (dropping would only be repeated), or the flags forbid it and the window is left to the caller as
 * vmf->want = WANT_AHEAD.
 */
static struct fm_file *do_async_map_readahead(struct fault *vmf, struct page *page)
{
	if (vmf->exact || !ra_async_window(fault_access(vmf), page, fault_reading(vmf)))
		return NULL;
	struct fm_file *fpin = maybe_unlock_map_for_io(vmf, NULL);
	covered_by(fpin, mark);
	if (!fpin) {
		vmf->want = WANT_AHEAD;
		return NULL;
	}
	ra_submit(fpin, &vmf->ra, true);
	vmf->ra.count = 0;
	return fpin;
}

/* Get a page to read into. Lock gone. 0 with vmf->page pinned; else what the wait for a frame
 * brought, or -EAGAIN when there may be one now. One that comes without memory is read here, and
 * the errno its attempt's. */
static int add_page(struct fault *vmf)
{
	struct fm_file *file = vmf->file;
	bool fresh;
	uint64_t until = fault_deadline(vmf);

	if (!read_has_room(
		    file,
		    true)) { /* a frame taken only to be given back would wake another in vain */
		vmf->page = page_find(file, vmf->index); /* by its own window it may be under way */
		if (vmf->page)
			return 0;
		int wait = read_wait_for_room(file, until);
		covered(no_request_d);
		covered_if(wait == -ETIMEDOUT, exit_room_timeout);
		covered_if(wait == -ECANCELED, a9_room);
		return wait ? wait : -EAGAIN;
	}
	int err =
		page_add(file, vmf->index,
			 ADD_RECLAIM | (read_is_inline(file) && read_may_stage(vmf) ? ADD_HOLE : 0),
			 &vmf->page, &fresh);
	if (!err && fresh && page_is(vmf->page, PG_HOLE))
		err = read_staged(vmf);
	else if (!err && fresh) /* the lock that it came with is taken again in its place below */
		page_unlock_unread(file->pool, vmf->page);
	if (err != -ENOMEM)
		return err;
	err = frame_wait(file, vmf->flags & FM_FAULT_KILLABLE, until);
	covered(no_frame_d);
	covered_if(err == -ETIMEDOUT, exit_frame_timeout);
	covered_if(err == -ECANCELED, a9_frame);
	return err ? err : -EAGAIN;
}

/* The store has its share of frames: wait for a place, holding none. */
static void wait_for_room(struct fault *vmf)
{
	struct fm_file *file = vmf->file;

	covered(exit_read_no_room);
	page_unpin(file->pool, vmf->page);
	vmf->page = NULL;
	vmf->error = read_wait_for_room(file, fault_deadline(vmf));
}

/* The flags forbid waiting, and the page is locked: its lock, and a pin for that, are left to be
 * put, and the caller is told what is wanted. The map lock is held. */
static void leave_to_caller(struct fault *vmf, struct page *page, enum fault_want want)
{
	vmf->stale_locked = page;
	page_pin(page);
	vmf->want = want;
}

/* Whether the touched byte is past the end, which is that of the last 4096-byte page. */
static bool past_end(const struct fault *vmf)
{
	return vmf->byte >= ((file_size(vmf->file) + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1));
}

/*
 * Past the end that is known, and the file may have grown: the store is asked, once for each fault.
 * Returns fpin with the map lock dropped; or NULL with the lock held, and vmf->want tells the
 * caller to ask.
 */
static struct fm_file *ask_size(struct fault *vmf)
{
	struct fm_file *fpin = maybe_unlock_map_for_io(vmf, NULL);

	vmf->asked_size = true;
	covered_by(fpin, size_asked);
	if (fpin)
		(void)file_look(fpin);
	else
		vmf->want = WANT_SIZE;
	return fpin;
}

static void count_major(struct fault *vmf)
{
	if (!vmf->counted_major)
		stats_add(vmf->mm->stats, faults_major, 1);
	vmf->counted_major = true;
}

/*
 * One try. Called with the map lock shared and vmf->vma found. Returns
 *   LOCKED         the lock is held; vmf->page is uptodate, within the file, pinned and locked
 *   RETRY          may_drop(): the lock is gone; look everything up again. Else: the lock is held,
 * vmf->want is set SIGBUS, OOM    the lock is held; vmf->error says why with MAJOR beside it when
 * the page had to be read. An error of a read comes with the retry: this try puts it into
 * vmf->error and returns RETRY, the next one returns SIGBUS, so that the signal is raised from one
 * place, and the one after it would read anew.
 */
unsigned filemap_fault(struct fault *vmf)
{
	struct fm_file *file = vmf->file, *fpin = NULL;
	struct page *page;
	unsigned ret = 0;

	vmf->want = WANT_NOTHING;
	if (vmf->error) {
		covered_if(vmf->flags & FM_FAULT_TRIED, a6_error_carried);
		if (vmf->error == -ENOMEM) {
			covered_by(may_drop(vmf), no_memory);
			return FM_FAULT_OOM;
		}
		if (vmf->error == -ETIMEDOUT)
			covered_by(may_drop(vmf), deadline);
		else
			covered_by(may_drop(vmf), read_failed);
		return FM_FAULT_SIGBUS;
	}
	if (past_end(vmf)) {
		if (!vmf->asked_size && file_may_grow(file)) {
			fpin = ask_size(vmf);
			goto out_retry;
		}
		covered_by(may_drop(vmf), past_end);
		vmf->error = -ENXIO;
		return FM_FAULT_SIGBUS;
	}
	if (vmf->page && page_is(vmf->page, PG_GONE)) {
		covered(exit_carried_gone);
		vmf->stale = vmf->page; /* a carried page is only good while it is in the cache */
		vmf->page = NULL;
	}
	if (!vmf->page)
		vmf->page = page_find(file, vmf->index);
	page = vmf->page;

	if (page) {
		fpin = do_async_map_readahead(vmf, page);
	} else {
		count_major(vmf); /* here: after the drop the vma's statistics are out of reach */
		ret = FM_FAULT_MAJOR;
		fpin = do_sync_map_readahead(vmf);
		covered_by(fpin, absent);
		if (!fpin) {
			vmf->want = WANT_READ;
			return ret | FM_FAULT_RETRY;
		}
		int err = add_page(vmf);
		if (err) {
			covered(a2_no_frame);
			covered(a3_no_page);
			vmf->error = err == -EAGAIN ? 0 : err;
			goto out_retry; /* no page to put, but the file */
		}
		page = vmf->page;
	}
	mm_assert(page->file == file && page->index == vmf->index); /* its pin keeps both */

	if (!lock_page_maybe_drop_map(vmf, page, &fpin))
		goto out_retry;

	/* Truncated, dropped or abandoned while we waited: look it up again, with the fpin we have. */
	if (page_is(page, PG_GONE)) {
		vmf->stale_locked = page;
		vmf->page = NULL;
		fpin = maybe_unlock_map_for_io(vmf, fpin);
		covered_by(fpin, truncated);
		vmf->want = WANT_READ;
		goto out_retry;
	}
	if (!page_is(page, PG_UPTODATE))
		goto page_not_uptodate;

	/* The lock was dropped on the way (readahead): what we know of the mapping is old. */
	if (fpin) {
		covered(exit_dropped_uptodate);
		page_unlock(file->pool, page);
		goto out_retry;
	}
	if ((vmf->flags & FM_FAULT_WRITE) && dirty_must_wait(fault_access(vmf), page, &vmf->error))
		goto throttled;
	covered_by(may_drop(vmf), uptodate);
	if (vmf->flags & FM_FAULT_WRITE) {
		if (page_is(page, PG_DIRTY))
			covered_by(may_drop(vmf), write_again);
		else
			covered_by(may_drop(vmf), write_clean);
	}
	return ret | FM_FAULT_LOCKED;

	/* A write that has to wait. Where it can't end well, vmf->error is set: told by the next try. */
throttled:
	fpin = maybe_unlock_map_for_io(vmf, NULL);
	covered_by(fpin, throttled);
	if (!fpin) {
		leave_to_caller(vmf, page, WANT_THROTTLE);
		return ret | FM_FAULT_RETRY;
	}
	page_unlock(file->pool, page);
	if (!vmf->error)
		vmf->error = dirty_wait(fault_access(vmf));
	covered_if(vmf->error, exit_throttled_error);
	goto out_retry;

page_not_uptodate:
	count_major(vmf);
	ret |= FM_FAULT_MAJOR;
	fpin = maybe_unlock_map_for_io(vmf, fpin);
	/* Emptied behind us while it was being written from the view: not to be read beside that write. */
	if (page_is(page, PG_WRITEBACK)) {
		if (!fpin) {
			leave_to_caller(vmf, page, WANT_THROTTLE);
			return ret | FM_FAULT_RETRY;
		}
		page_unlock(file->pool, page);
		vmf->error = page_wait_written(vmf->mm, page, fault_deadline(vmf));
		goto out_retry;
	}
	covered_by(fpin, unread);
	if (!fpin) {
		leave_to_caller(vmf, page, WANT_READ); /* whoever reads it takes the lock again */
		return ret | FM_FAULT_RETRY;
	}
	vmf->error = read_page(file, page, vmf->more);
	covered_if(vmf->error && vmf->error != -EBUSY, exit_read_error);
	covered_if(vmf->error == -ETIMEDOUT, exit_read_timeout);
	covered_if(vmf->error == -ECANCELED, a9_read);
	if (vmf->error == -EBUSY)
		wait_for_room(vmf);
	vmf->more = 0;
out_retry:
	/* The page keeps its pin for the next try; the file's is put here, on every way out. */
	if (fpin)
		file_put(fpin);
	return ret | FM_FAULT_RETRY;
}
