/* SPDX-License-Identifier: MIT */
/* The page lock: release of the lock, and waits for the lock by sleep or by ticket. */
#include "mm/cache/lock.h"

#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "mm/base/report.h"
#include "mm/base/ticket.h"
#include "mm/base/ticket_list.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/map/map_lock.h"
#include "os/atomic.h"
#include "os/os.h"

#include <errno.h>
#include <limits.h>

static struct ticket_list *page_queue_of(struct fm_mm *mm, const struct page *page)
{
	uintptr_t hash = ((uintptr_t)page / sizeof(*page)) * 0x9e3779b97f4a7c15ull;
	return &mm->page_tickets[hash >> 58];
}

static void page_run_tickets(struct fm_mm *mm, struct page *page)
{
	struct ticket_list *queue = page_queue_of(mm, page);
	struct ticket *ready = NULL, **ready_tail = &ready;

	os_lock(&queue->lock);
	struct ticket **at = &queue->head;
	while (*at) {
		struct ticket *ticket = *at;
		if (ticket->page != page) {
			at = &ticket->next;
			continue;
		}
		*at = ticket->next;
		ticket->next = NULL;
		*ready_tail = ticket;
		ready_tail = &ticket->next;
	}
	queue->tail = at;
	os_unlock(&queue->lock);
	while (ready) {
		struct ticket *ticket = ready;
		ready = ticket->next;
		ticket->run(ticket);
	}
}

/* Unlock a page, wake the threads that sleep on the page, and run the page's tickets. The caller
 * holds the page lock and a pin, and keeps the pin. Any thread may call this function. */
void page_unlock(struct frame_pool *pool, struct page *page)
{
	uint32_t ends, old = atomic_get(&page->state);
	mm_assert(old & PG_LOCKED);
	while (PG_PINS(old) &&
	       !(old & (PG_WAITERS | PG_TICKETS |
			PG_NOTIFY))) /* no waiter must be told, and a pin keeps the page */
		if (atomic_cas(&page->state, &old, old & ~PG_LOCKED))
			return;
	page_pin(page); /* the state word is still in use after the waiters may go on */
	old = atomic_get(&page->state);
	do { /* the end of PG_NOTIFY sends an event; an error is reported by the next call */
		ends = PG_LOCKED | PG_WAITERS | PG_TICKETS | (old & PG_UPTODATE ? PG_NOTIFY : 0);
	} while (!atomic_cas(&page->state, &old, old & ~ends));
	if (old & PG_WAITERS)
		os_futex_wake(&page->state, INT_MAX, OS_FUTEX_ANY);
	if (old & PG_TICKETS)
		page_run_tickets(pool->mm, page);
	if (unlikely(old & PG_NOTIFY))
		mm_event(pool->mm);
	page_unpin(pool, page);
}

/* Unlock a fresh page that is not read now, and put the page on INACTIVE. Every page without a
 * lock or a pin must be on a list: otherwise its frame would be lost. */
void page_unlock_unread(struct frame_pool *pool, struct page *page)
{
	mm_assert(!page_is(page, PG_UPTODATE));
	lru_set(pool, page, 1, LIST_INACTIVE);
	page_unlock(pool, page);
}

/* Wait until the page is not locked. May block. The caller holds a pin, and no lock. Returns 0,
 * -ETIMEDOUT, or -ECANCELED if the wait is killable and the mm is being destroyed. */
int page_wait(struct fm_mm *mm, struct page *page, bool killable, uint64_t until_ns)
{
	might_block(mm);
	for (;;) {
		uint32_t old = atomic_get(&page->state);
		if (!(old & PG_LOCKED))
			return 0;
		if (killable && atomic_get(&mm->dying))
			return -ECANCELED;
		if (!(old & PG_WAITERS)) {
			if (!atomic_cas(&page->state, &old, old | PG_WAITERS))
				continue;
			old |= PG_WAITERS;
		}
		if (os_futex_wait(&page->state, old, OS_FUTEX_ANY, until_ns) == -ETIMEDOUT)
			return page_is(page, PG_LOCKED) ? -ETIMEDOUT : 0;
	}
}

/* Queue a ticket that runs when the page is unlocked. Returns false, without queueing the ticket,
 * if the page is not locked now. */
bool page_queue_ticket(struct fm_mm *mm, struct page *page, struct ticket *ticket)
{
	struct ticket_list *queue = page_queue_of(mm, page);
	bool queued = false;

	os_lock(&queue->lock);
	uint32_t old = atomic_get(&page->state);
	while (old & PG_LOCKED) {
		if (!atomic_cas(&page->state, &old, old | PG_TICKETS))
			continue;
		ticket->page = page;
		ticket_append(queue, ticket);
		queued = true;
		break;
	}
	os_unlock(&queue->lock);
	return queued;
}

/* Take a ticket out of its queue: the queue of the ticket's page, or else the pool's queue.
 * Returns true if the ticket was queued; the ticket is then in no queue. Returns false if the
 * ticket is being run. The thread that queued the ticket has come back, and no other thread drives
 * the ticket's fault. */
bool ticket_cancel(struct fm_mm *mm, struct frame_pool *pool, struct ticket *ticket)
{
	struct ticket_list *queue = ticket->page ? page_queue_of(mm, ticket->page) : &pool->tickets;
	os_lock(&queue->lock);
	struct ticket **at = &queue->head;
	while (*at && *at != ticket)
		at = &(*at)->next;
	bool found = *at == ticket;
	if (found) {
		if (!ticket->next)
			queue->tail = at;
		atomic_set(at, ticket->next);
	}
	os_unlock(&queue->lock);
	return found;
}

/* Ask for an event when the page is unlocked, for a call with FM_NOWAIT. Returns false if the
 * page is not locked now. */
bool page_set_notify(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	do {
		if (!(old & PG_LOCKED))
			return false;
	} while (!(old & PG_NOTIFY) && !atomic_cas(&page->state, &old, old | PG_NOTIFY));
	return true;
}

/* Withdraw the request of page_set_notify(), because the call has been told the result. The request
 * stays while the page is locked: then the request may belong to a later call. */
void page_clear_notify(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	while ((old & PG_NOTIFY) && !(old & PG_LOCKED) &&
	       !atomic_cas(&page->state, &old, old & ~PG_NOTIFY))
		;
}

/* Record that the read attempt under way has failed. The caller holds the page lock. */
void page_fail(struct page *page, int error)
{
	mm_assert(error < 0);
	page_word_set(page, error, (int16_t)error);
	page_set(page, PG_ERROR, PG_UPTODATE | PG_SPEC | PG_MARK);
}

/* Wait until the present write of the page has ended. Another write may be under way when the
 * function returns. May block. The caller holds a pin, and no lock. Returns 0 or -ETIMEDOUT. */
int page_wait_written(struct fm_mm *mm, struct page *page, uint64_t until_ns)
{
	uint32_t attempt = page_word(page, io_attempt);

	might_block(mm);
	for (;;) {
		uint32_t old = atomic_get(&page->state);
		if (!(old & PG_WRITEBACK) || page_word(page, io_attempt) != attempt)
			return 0;
		if (!(old & PG_WAITERS)) {
			if (!atomic_cas(&page->state, &old, old | PG_WAITERS))
				continue;
			old |= PG_WAITERS;
		}
		uint64_t now = os_now_ns();
		if (now >= until_ns)
			return -ETIMEDOUT;
		uint64_t slice = now + 20 * OS_NSEC_PER_MSEC;
		os_futex_wait(&page->state, old, OS_FUTEX_ANY, slice < until_ns ? slice : until_ns);
	}
}
