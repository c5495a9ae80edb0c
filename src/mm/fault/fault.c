/* SPDX-License-Identifier: MIT */
/*
 * filemap_fault() makes one try of one fault.
 *
 * The rule: nothing here blocks with the map lock held, neither on the first try nor on a later
 * try. Work that may block is done after maybe_unlock_map_for_io() has dropped the map lock. From
 * then on only FM_FAULT_RETRY may be returned.
 *
 * fpin is the file reference taken before the map lock is dropped. If fpin is not NULL, the lock
 * is dropped and the vma must not be touched. Every exit then goes through out_retry, which puts
 * fpin. If fpin is NULL, the lock is held.
 *
 * Flags:
 *   ALLOW_RETRY   The map lock may be dropped.
 *   RETRY_NOWAIT  The map lock may not be dropped, and nothing may wait. The answer is RETRY with
 *                 the lock held. vmf->want says what the caller must do (with its ticket) after the
 *                 caller drops the lock. A fault without ALLOW_RETRY is treated the same way,
 *                 whatever other flags are set.
 *   KILLABLE      Waits end when the mm is being destroyed.
 *   TRIED         This try is not the first. The flag changes statistics and readahead, never
 *                 whether the fault may block.
 *
 * References: vmf->page is pinned, and the fault owns the pin. The pin survives RETRY. So the
 * next try finds the page that this try waited for or read, under any memory pressure. With
 * LOCKED the fault also owns the page lock. A pin or lock that must be put is left in
 * vmf->stale*. Putting takes small locks, so the caller puts the pin or lock after the map lock
 * is dropped.
 */
#include "mm/fault/fault.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/refs.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fault/attempt.h"
#include "mm/fault/exit.h"
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

/*
 * Take a file reference and drop the map lock, if the flags allow. Called before anything that
 * may block. Returns the reference, or fpin unchanged if the lock was dropped before. Returns
 * NULL with the lock held if the flags forbid the drop: then the caller must not block.
 */
static struct fm_file *maybe_unlock_map_for_io(struct fault *vmf, struct fm_file *fpin)
{
	if (fpin || !fault_may_drop(vmf))
		return fpin;
	fpin = vmf->file;
	file_get(fpin);
	vmf->vma = NULL;
	map_unlock_shared(vmf->mm->map);
	return fpin;
}

/*
 * Wait until the page lock is free. Called without the map lock. Blocks. Returns 0 if the page
 * lock was free for a moment. Otherwise returns the errno of the attempt the fault waited for,
 * -ETIMEDOUT, or -ECANCELED if the fault was killed.
 */
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
			read_abandon_page(vmf->mm, page);
			return -ETIMEDOUT;
		}
		read_is_stuck(file, page, now - begun);
	}
}

/*
 * Lock the page. Returns true if the page is locked: the map lock is as it was. Returns false if
 * the page is not locked, with
 *   *fpin set      the map lock was dropped (here or before) and the wait is over: return RETRY
 *   *fpin NULL     the map lock is held: the flags forbid waiting, vmf->want is WANT_PAGE
 * The trylock comes first, so that a free page lock never costs the map lock. NOWAIT is tested
 * before anything is dropped. If the fault is killed, this helper has dropped the map lock, so
 * the caller's RETRY is correct. The next try finds the kill in vmf->error.
 */
static bool lock_page_maybe_drop_map(struct fault *vmf, struct page *page, struct fm_file **fpin)
{
	if (page_trylock(page))
		return true;
	ROW(locked);
	*fpin = maybe_unlock_map_for_io(vmf, *fpin);
	if (*fpin)
		vmf->error = wait_on_page(vmf, page);
	else
		vmf->want = WANT_PAGE;
	return false;
}

/*
 * Choose the readahead window of a page that is not cached. If the flags allow, drop the map lock
 * and submit the pages that are not read together with the wanted page. Returns fpin, or NULL
 * with the lock held. In the latter case vmf->ra keeps the window for the ticket.
 */
static struct fm_file *do_sync_map_readahead(struct fault *vmf)
{
	/* Each fault has one window. A try after a wait for room or for a frame only wants the
	 * page. */
	bool window = !(vmf->flags & FM_FAULT_TRIED) && !vmf->exact &&
		      ra_sync_window(fault_access(vmf), fault_reading(vmf));
	struct fm_file *fpin = maybe_unlock_map_for_io(vmf, NULL);

	if (fpin && window) {
		ra_submit(fpin, &vmf->ra, true);
		vmf->ra.count = 0;
	} else if (window) { /* the ticket's request reads the page alone */
		vmf->ra.start -= vmf->more;
		vmf->ra.count += vmf->more;
		vmf->more = 0;
	}
	return fpin;
}

/*
 * Submit the next readahead window of a cached page. If the page carries the readahead mark and
 * the submission changes anything, drop the map lock, submit, and return fpin. Otherwise return
 * NULL with the lock held. There may be nothing to do (the drop would only be repeated). Or the
 * flags forbid the drop: then the window is left to the caller as vmf->want = WANT_AHEAD.
 */
static struct fm_file *do_async_map_readahead(struct fault *vmf, struct page *page)
{
	if (vmf->exact || !ra_async_window(fault_access(vmf), page, fault_reading(vmf)))
		return NULL;
	ROW(mark);
	struct fm_file *fpin = maybe_unlock_map_for_io(vmf, NULL);
	if (!fpin) {
		vmf->want = WANT_AHEAD;
		return NULL;
	}
	ra_submit(fpin, &vmf->ra, true);
	vmf->ra.count = 0;
	return fpin;
}

/*
 * Get a page to read into. Called without the map lock. May block. A page that comes without
 * memory is read here. Returns 0 with vmf->page pinned, or -EAGAIN if a frame may be free now.
 * Otherwise returns the errno of the wait for a frame or of the attempt made here.
 */
static int add_page(struct fault *vmf)
{
	struct fm_file *file = vmf->file;
	bool fresh;
	uint64_t until = fault_deadline(vmf);

	if (!read_has_room(
		    file,
		    true)) { /* taking and returning a frame would wake a waiter in vain */
		vmf->page = page_find(file, vmf->index); /* the fault's own window may have begun the read */
		if (vmf->page)
			return 0;
		ROW(no_request);
		int wait = read_wait_for_room(file, until);
		return wait ? wait : -EAGAIN;
	}
	int err =
		page_add(file, vmf->index,
			 ADD_RECLAIM | (read_is_inline(file) && read_may_stage(vmf) ? ADD_HOLE : 0),
			 &vmf->page, &fresh);
	if (!err && fresh && page_is(vmf->page, PG_HOLE))
		err = read_staged(vmf);
	else if (!err && fresh) /* the page comes locked; its lock is taken again below */
		page_unlock_unread(file->pool, vmf->page);
	if (err != -ENOMEM)
		return err;
	ROW(no_frame);
	err = frame_wait(file, vmf->flags & FM_FAULT_KILLABLE, until);
	return err ? err : -EAGAIN;
}

/*
 * Wait until the store has room for another read. The store has its share of frames, so the fault
 * puts its own page before the wait.
 */
static void wait_for_room(struct fault *vmf)
{
	struct fm_file *file = vmf->file;

	ROW(no_request);
	page_unpin(file->pool, vmf->page);
	vmf->page = NULL;
	vmf->error = read_wait_for_room(file, fault_deadline(vmf));
}

/*
 * Leave a locked page to the caller because the flags forbid waiting. Leaves the page lock, and a
 * pin for the lock, in vmf->stale_locked, and tells the caller what is wanted. The map lock is
 * held.
 */
static void leave_to_caller(struct fault *vmf, struct page *page, enum fault_want want)
{
	vmf->stale_locked = page;
	page_pin(page);
	vmf->want = want;
}

/* Tell whether the touched byte is past the end of the file's last 4096-byte page. */
static bool past_end(const struct fault *vmf)
{
	return vmf->byte >= ((file_size(vmf->file) + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1));
}

/*
 * Ask the store whether the file has grown. The fault is past the known end. Each fault asks
 * once. Returns fpin with the map lock dropped. Or returns NULL with the lock held, and vmf->want
 * tells the caller to ask.
 */
static struct fm_file *ask_size(struct fault *vmf)
{
	struct fm_file *fpin = maybe_unlock_map_for_io(vmf, NULL);

	ROW(size_asked);
	vmf->asked_size = true;
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
 * The first step: what the fault knows before it looks for a page. An errno that an earlier try
 * left is told now, and an address past the end of the file is refused. Map lock held. Returns 0
 * to go on, else the result of the try.
 */
static unsigned fault_told(struct fault *vmf, struct fm_file **fpin)
{
	if (vmf->error == -ENOMEM) {
		ROW(no_memory);
		return FM_FAULT_OOM;
	}
	if (vmf->error == -ETIMEDOUT) {
		ROW(deadline);
		return FM_FAULT_SIGBUS;
	}
	if (vmf->error) {
		ROW(read_failed);
		return FM_FAULT_SIGBUS;
	}
	if (!past_end(vmf))
		return 0;
	if (!vmf->asked_size && file_may_grow(vmf->file)) {
		*fpin = ask_size(vmf);
		return FM_FAULT_RETRY;
	}
	ROW(past_end);
	vmf->error = -ENXIO;
	return FM_FAULT_SIGBUS;
}

/*
 * The second step: find the page in the cache and read ahead as its mark asks. If the page is not
 * cached, choose a window, drop the map lock and get a page to read into. Returns 0 to go on with
 * vmf->page pinned, else the result of the try. Sets *fpin if the map lock was dropped.
 */
static unsigned fault_find(struct fault *vmf, struct fm_file **fpin)
{
	if (vmf->page && page_is(vmf->page, PG_GONE)) {
		covered(exit_carried_gone);
		vmf->stale = vmf->page; /* a page from an earlier try is only valid while cached */
		vmf->page = NULL;
	}
	if (!vmf->page)
		vmf->page = page_find(vmf->file, vmf->index);
	if (vmf->page) {
		*fpin = do_async_map_readahead(vmf, vmf->page);
		return 0;
	}
	ROW(absent);
	count_major(vmf); /* before the drop, after which the vma's statistics are out of reach */
	*fpin = do_sync_map_readahead(vmf);
	if (!*fpin) {
		vmf->want = WANT_READ;
		return FM_FAULT_RETRY | FM_FAULT_MAJOR;
	}
	int err = add_page(vmf);
	if (err) { /* no page to put, only the file */
		vmf->error = err == -EAGAIN ? 0 : err;
		return FM_FAULT_RETRY | FM_FAULT_MAJOR;
	}
	return FM_FAULT_MAJOR;
}

/*
 * The third step: lock the page, and make sure that the page is still cached. Returns 0 to go on
 * with the page locked, or RETRY.
 */
static unsigned fault_lock(struct fault *vmf, struct fm_file **fpin)
{
	struct page *page = vmf->page;

	mm_assert(page->file == vmf->file && page->index == vmf->index); /* the pin keeps both */
	if (!lock_page_maybe_drop_map(vmf, page, fpin))
		return FM_FAULT_RETRY;
	if (!page_is(page, PG_GONE))
		return 0;
	/* The page left the cache during the wait. Look the page up again, with the same fpin. */
	ROW(truncated);
	vmf->stale_locked = page;
	vmf->page = NULL;
	vmf->want = WANT_READ;
	*fpin = maybe_unlock_map_for_io(vmf, *fpin);
	return FM_FAULT_RETRY;
}

/* Read the locked page, which is not uptodate. Returns RETRY. */
static unsigned fault_read(struct fault *vmf, struct fm_file **fpin)
{
	struct page *page = vmf->page;

	ROW(unread);
	count_major(vmf);
	*fpin = maybe_unlock_map_for_io(vmf, *fpin);
	/* The page was emptied while a write reads it from the view: no read beside that write. */
	if (page_is(page, PG_WRITEBACK)) {
		if (!*fpin) {
			leave_to_caller(vmf, page, WANT_THROTTLE);
			return FM_FAULT_RETRY;
		}
		page_unlock(vmf->file->pool, page);
		vmf->error = page_wait_written(vmf->mm, page, fault_deadline(vmf));
		return FM_FAULT_RETRY;
	}
	if (!*fpin) {
		leave_to_caller(vmf, page, WANT_READ); /* the reader takes the page lock again */
		return FM_FAULT_RETRY;
	}
	vmf->error = read_page(vmf->file, page, vmf->more);
	if (vmf->error == -EBUSY)
		wait_for_room(vmf);
	vmf->more = 0;
	return FM_FAULT_RETRY;
}

/* Hold back a write to the locked page. If the write cannot succeed, the next try reports
 * vmf->error. Returns RETRY. */
static unsigned fault_throttle(struct fault *vmf, struct fm_file **fpin)
{
	ROW(throttled);
	*fpin = maybe_unlock_map_for_io(vmf, NULL);
	if (!*fpin) {
		leave_to_caller(vmf, vmf->page, WANT_THROTTLE);
		return FM_FAULT_RETRY;
	}
	page_unlock(vmf->file->pool, vmf->page);
	if (!vmf->error)
		vmf->error = dirty_wait(fault_access(vmf));
	return FM_FAULT_RETRY;
}

/*
 * The last step: a locked page that is not uptodate is read, and a write may have to wait. Returns
 * LOCKED with the map lock held, or RETRY.
 */
static unsigned fault_read_or_throttle(struct fault *vmf, struct fm_file **fpin)
{
	struct page *page = vmf->page;

	if (!page_is(page, PG_UPTODATE))
		return fault_read(vmf, fpin) | FM_FAULT_MAJOR;
	/* The map lock was dropped for readahead, so the fault's knowledge of the mapping is old. */
	if (*fpin) {
		covered(exit_dropped_uptodate);
		page_unlock(vmf->file->pool, page);
		return FM_FAULT_RETRY;
	}
	if ((vmf->flags & FM_FAULT_WRITE) && dirty_must_wait(fault_access(vmf), page, &vmf->error))
		return fault_throttle(vmf, fpin);
	ROW(uptodate);
	return FM_FAULT_LOCKED;
}

/*
 * Make one try. Called with the map lock held shared and vmf->vma found. Returns
 *   LOCKED         The map lock is held. vmf->page is uptodate, within the file, pinned and locked.
 *   RETRY          If the fault may drop the map lock, the lock is dropped and the caller looks
 *                  everything up again. Otherwise the lock is held and vmf->want is set.
 *   SIGBUS, OOM    The map lock is held. vmf->error holds the errno.
 * MAJOR is added when the page had to be read. A read error comes with the retry. This try puts
 * the errno into vmf->error and returns RETRY. The next try returns SIGBUS, so that the signal is
 * raised from one place. The try after that would read again.
 */
unsigned filemap_fault(struct fault *vmf)
{
	struct fm_file *fpin = NULL;
	unsigned ret;

	vmf->want = WANT_NOTHING;
	ret = fault_told(vmf, &fpin);
	if (ret)
		goto out_retry;
	ret = fault_find(vmf, &fpin);
	if (ret & FM_FAULT_RETRY)
		goto out_retry;
	ret |= fault_lock(vmf, &fpin);
	if (ret & FM_FAULT_RETRY)
		goto out_retry;
	ret |= fault_read_or_throttle(vmf, &fpin);
out_retry:
	/* The page keeps its pin for the next try. The file reference is put here, on every way out. */
	if (fpin)
		file_put(fpin);
	return fault_exit(vmf, fpin, ret);
}
