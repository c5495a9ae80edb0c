/* SPDX-License-Identifier: MIT */
/*
 * Serves what a fault wants that may not wait. Submits requests and queues tickets, after the map
 * lock is dropped.
 */
#include "mm/fault/wanted.h"

#include "mm/base/bell.h"
#include "mm/base/budget.h"
#include "mm/base/file.h"
#include "mm/base/report.h"
#include "mm/base/ticket.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fault/attempt.h"
#include "mm/fault/exit.h"
#include "mm/fault/vmf.h"
#include "mm/fault/staged.h"
#include "mm/fill/abandon.h"
#include "mm/fill/ahead.h"
#include "mm/fill/demand.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/request.h"
#include "mm/fill/share.h"
#include "mm/fill/version.h"
#include "mm/flush/throttle.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/map/map_lock.h"
#include "mm/reclaim/get.h"
#include "mm/reclaim/wait.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>

/*
 * Do what the fault wants, and wait, with the map lock held. Only for the experiment
 * FM_MM_HOLD_LOCK, which behaves like a fault path without the rule of fault.c. Blocks.
 */
void fault_wait_under_lock(struct fault *vmf)
{
	struct fm_file *file = vmf->file;
	bool fresh;

	might_block(vmf->mm); /* counts */
	fault_put_stale(vmf);
	if (vmf->want == WANT_SIZE) {
		(void)file_look(file);
		return;
	}
	if (vmf->want == WANT_THROTTLE) {
		if (!vmf->error && !page_is(vmf->page, PG_UPTODATE))
			vmf->error = page_wait_written(vmf->mm, vmf->page, fault_deadline(vmf));
		else if (!vmf->error)
			vmf->error = dirty_wait(fault_access(vmf));
		return;
	}
	if (!vmf->page) {
		int err = page_add(file, vmf->index, ADD_RECLAIM, &vmf->page, &fresh);
		if (err) {
			frame_wait(file, true, OS_FOREVER);
			return;
		}
		if (fresh)
			page_unlock_unread(file->pool, vmf->page);
	}
	struct page *page = vmf->page;
	while (!page_trylock(page))
		if (page_wait(vmf->mm, page, true, OS_FOREVER) < 0)
			return;
	if (page_is(page, PG_UPTODATE | PG_GONE | PG_WRITEBACK))
		page_unlock(file->pool, page);
	else
		vmf->error = read_page(file, page, 0);
	if (vmf->error == -EBUSY)
		vmf->error = read_wait_for_room(file, OS_FOREVER);
}

/*
 * Start the read that a fault wants. Returns 0 if the page is under way, or was read or removed
 * meanwhile. Returns an errno if no frame or no request is free: then the fault must wait in the
 * pool's queue.
 */
static int start_wanted_read(struct fault *vmf, bool told_later)
{
	struct fm_file *file = vmf->file;
	bool fresh = false;
	int err = 0;
	/* Staging is not for a thread that waits in the kernel. Such a thread would go on before its
	 * fault has ended. */
	unsigned how = ADD_RECLAIM | (vmf->exact && read_may_stage(vmf) ? ADD_HOLE : 0);

	if (!vmf->page &&
	    !read_has_room(file,
			   false)) /* taking and returning a frame would wake a waiter in vain */
		vmf->page = page_find(file, vmf->index);
	if (!vmf->page)
		err = read_has_room(file, false) ? page_add(file, vmf->index, how, &vmf->page, &fresh) : -EAGAIN;
	bool staged = !err && fresh && page_is(vmf->page, PG_HOLE);
	if (err == -ENOMEM)
		ROW(no_frame);
	else if (err)
		ROW(no_request);
	if (err)
		return err;
	if (!fresh && !page_trylock(vmf->page))
		return 0;
	if (page_is(vmf->page, PG_UPTODATE | PG_GONE | PG_WRITEBACK)) {
		page_unlock(file->pool, vmf->page);
		return 0;
	}
	if (atomic_get(&file->reads->changed)) {
		covered(exit_stale_n);
		if (staged) /* the frame gets no memory, which was charged already */
			mm_uncharge(vmf->mm, file->pool->page_size);
		page_unlock_unread(file->pool, vmf->page);
		vmf->error = -ESTALE;
		return 0;
	}
	if (told_later)
		page_set(vmf->page, PG_NOTIFY, 0);
	err = staged ? read_submit_staged(fault_access(vmf)) : read_submit(file, &vmf->page, 1, false);
	vmf->no_stage |= staged; /* if this read fails, the next is not staged */
	vmf->had_error = false;
	if (!err) {
		vmf->waited = true; /* the read's errno is the fault's, even if the read has ended */
		return 0;
	}
	/* A thread that waits may hold no frame. So an unread page that only this fault wants is
	 * given back. */
	if (PG_PINS(atomic_get(&vmf->page->state)) == 1) {
		covered(exit_unread_dropped_n);
		page_remove(file->pool, vmf->page);
		page_unlock(file->pool, vmf->page);
	} else {
		covered(exit_unread_kept_n);
		page_unlock_unread(file->pool, vmf->page);
	}
	page_unpin(file->pool, vmf->page);
	vmf->page = NULL;
	return err;
}

void fault_submit_window(struct fault *vmf)
{
	if (!vmf->ra.count)
		return;
	ra_submit(vmf->file, &vmf->ra, true);
	vmf->ra.count = 0;
}

static bool past_deadline(const struct fault *vmf)
{
	uint64_t until = fault_deadline(vmf);
	return until != OS_FOREVER && os_now_ns() >= until;
}

/*
 * Begin what a fault wants that may not wait. Called after the map lock is dropped. Returns true
 * if the ticket will be run, or, without a ticket, if the reads are under way. Returns false if
 * the caller must try again at once.
 */
bool fault_submit_wanted(struct fault *vmf, struct ticket *ticket)
{
	fault_put_stale(vmf);
	if (vmf->want == WANT_SIZE) {
		(void)file_look(vmf->file);
		return false;
	}
	if (vmf->want == WANT_READ) {
		if (vmf->ra.count && vmf->ra.mark == vmf->index) /* in its window: read with a group */
			fault_submit_window(vmf);
		int err = start_wanted_read(vmf, !ticket);
		if (!err && vmf->page && !vmf->waited)
			read_wanted(vmf->file, vmf->page);
		fault_submit_window(vmf);
		if (err && past_deadline(vmf)) {
			covered(exit_frame_timeout_n);
			vmf->error = -ETIMEDOUT;
			return false;
		}
		if (err && ticket)
			frame_queue_ticket(vmf->file, ticket);
		else if (err)
			frame_ask(vmf->file);
		if (err)
			return true;
	} else if (vmf->want == WANT_THROTTLE) {
		if (vmf->error)
			return false;
		if (past_deadline(vmf)) {
			vmf->error = -ETIMEDOUT;
			return false;
		}
		stats_add(vmf->mm->stats, write_throttled, 1);
		if (ticket)
			frame_queue_throttled(vmf->file, ticket, fault_deadline(vmf));
		else
			frame_ask(vmf->file);
		writeback_urge(vmf->mm);
		return true;
	} else if (vmf->page) {
		read_wanted(vmf->file, vmf->page);
	}
	if (vmf->error || !vmf->page || !page_is(vmf->page, PG_LOCKED))
		return false;
	if (!vmf->waited)
		fault_note_attempt(vmf, vmf->page);
	vmf->waited = true;
	return ticket ? page_queue_ticket(vmf->mm, vmf->page, ticket) : page_set_notify(vmf->page);
}

/*
 * Note that a call with FM_NOWAIT could begin nothing. The program gets an event when a new call
 * may succeed.
 */
void frame_ask(struct fm_file *file)
{
	atomic_set(&file->mm->starved, 1u);
	if (frame_to_be_had(file->pool) && read_has_room(file, false) &&
	    atomic_xchg(&file->mm->starved, 0u))
		mm_event(file->mm);
	background_kick(file->mm);
}

/* Tell whether the store of the ticket's file has room for another read. */
static bool ticket_read_has_room(const struct ticket *ticket)
{
	return read_has_room(ticket->file, false);
}

/*
 * Queue a ticket that is run when a frame is freed or a request is done. If a frame and a request
 * are both free by now, the event this ticket waits for may have come before the ticket was
 * queued. Then the oldest ticket is run at once.
 */
void frame_queue_ticket(struct fm_file *file, struct ticket *ticket)
{
	struct frame_pool *pool = file->pool;
	ticket->page = NULL;
	ticket->file = file;
	ticket->throttled = false;
	ticket->ready = ticket_read_has_room;
	stats_add(pool->mm->stats, frame_waits, 1);
	ticket_queue(&pool->tickets, ticket);
	if (frame_to_be_had(pool) && read_has_room(file, false)) {
		struct ticket *oldest = ticket_take(&pool->tickets);
		if (oldest)
			oldest->run(oldest);
	}
	/* It is possible that no thread ever frees a frame. The background thread may have looked
	 * for waiting tickets just before this ticket was queued. Without a kick, the thread would
	 * sleep and run no ticket. */
	background_kick(pool->mm);
}
