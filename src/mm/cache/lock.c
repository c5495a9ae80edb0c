/* SPDX-License-Identifier: MIT */
/* The page lock: taking it, giving it back, and waiting for it by sleep or by ticket. */
#include "mm/cache/lock.h"

#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "mm/base/report.h"
#include "mm/base/ticket.h"
#include "mm/base/wait_queue.h"
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

static struct wait_queue *page_queue_of(struct fm_mm *mm, const struct page *page)
{
	uintptr_t hash = ((uintptr_t)page / sizeof(*page)) * 0x9e3779b97f4a7c15ull;
	return &mm->page_tickets[hash >> 58];
}

static void page_run_tickets(struct fm_mm *mm, struct page *page)
{
	struct wait_queue *queue = page_queue_of(mm, page);
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

/* Called with the page locked and pinned, in any thread; the pin stays the caller's. */
void page_unlock(struct frame_pool *pool, struct page *page)
{
	uint32_t ends, old = atomic_get(&page->state);
	mm_assert(old & PG_LOCKED);
	while (PG_PINS(old) &&
	       !(old & (PG_WAITERS | PG_TICKETS |
			PG_ASKED))) /* nobody is to be told, and somebody keeps it */
		if (atomic_cas(&page->state, &old, old & ~PG_LOCKED))
			return;
	page_pin(page); /* the word is still looked at after the waiters are free to go */
	old = atomic_get(&page->state);
	do { /* who asked is told now; of an error, by the next call */
		ends = PG_LOCKED | PG_WAITERS | PG_TICKETS | (old & PG_UPTODATE ? PG_ASKED : 0);
	} while (!atomic_cas(&page->state, &old, old & ~ends));
	if (old & PG_WAITERS)
		os_futex_wake(&page->state, INT_MAX, OS_FUTEX_ANY);
	if (old & PG_TICKETS)
		page_run_tickets(pool->mm, page);
	if (unlikely(old & PG_ASKED))
		mm_event(pool->mm);
	page_unpin(pool, page);
}

/* A fresh page whose read does not come now: every page that nobody holds is on a list, else its
 * frame were lost. */
void page_unlock_unread(struct frame_pool *pool, struct page *page)
{
	mm_assert(!page_is(page, PG_UPTODATE));
	lru_set(pool, page, 1, LIST_INACTIVE);
	page_unlock(pool, page);
}

/* Wait until the page is not locked. The caller has a pin, and no lock. 0, -ETIMEDOUT, or
 * -ECANCELED when the wait is killable and the mm is going. */
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

/* True: the ticket will be run when the page is unlocked. False: it is not locked now. */
bool page_queue_ticket(struct fm_mm *mm, struct page *page, struct ticket *ticket)
{
	struct wait_queue *queue = page_queue_of(mm, page);
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

/* True: it was in one of the two queues it can be in, and is in none now. False: it is being run.
 * Who queued it has come back, and nobody else drives its fault. */
bool ticket_cancel(struct fm_mm *mm, struct frame_pool *pool, struct ticket *ticket)
{
	struct wait_queue *queue = ticket->page ? page_queue_of(mm, ticket->page) : &pool->tickets;
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

/* A call with FM_NOWAIT wants to be told when the page is unlocked. False: it is not locked now. */
bool page_ask(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	do {
		if (!(old & PG_LOCKED))
			return false;
	} while (!(old & PG_ASKED) && !atomic_cas(&page->state, &old, old | PG_ASKED));
	return true;
}

/* It has been told how it went. While the page is locked the question may be a later one's. */
void page_unask(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	while ((old & PG_ASKED) && !(old & PG_LOCKED) && !atomic_cas(&page->state, &old, old & ~PG_ASKED))
		;
}

/* The read attempt under way has failed. Page lock held. */
void page_fail(struct page *page, int error)
{
	mm_assert(error < 0);
	page_word_set(page, error, (int16_t)error);
	page_set(page, PG_ERROR, PG_UPTODATE | PG_SPEC | PG_MARK);
}

/* Until no write of the page is under way, or the one that was has ended and there is another.
 * Pinned; no lock held. 0 or -ETIMEDOUT. */
int page_wait_written(struct fm_mm *mm, struct page *page, uint64_t until_ns)
{
	uint32_t attempt = page_word(page, attempt);

	might_block(mm);
	for (;;) {
		uint32_t old = atomic_get(&page->state);
		if (!(old & PG_WRITEBACK) || page_word(page, attempt) != attempt)
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
