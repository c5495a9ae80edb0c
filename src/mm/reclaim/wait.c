/* SPDX-License-Identifier: MIT */
/* Waits for a free frame, or for room for dirty pages. */
#include "mm/reclaim/wait.h"

#include "mm/base/bell.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/ticket.h"
#include "mm/cache/dirty_limit.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/memory.h"
#include "mm/frames/pool.h"
#include "mm/map/map_lock.h"
#include "mm/reclaim/clock.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>

bool frame_to_be_had(struct frame_pool *pool)
{
	return pool_spare(pool) > 0 || pool_may_fill(pool);
}

/* Return whether more pages of the ticket's file may become dirty, or the ticket's time is over. */
static bool ticket_may_go_on(const struct ticket *ticket)
{
	return dirty_may_go_on(ticket->file) ||
	       (ticket->until_ns != OS_FOREVER && os_now_ns() >= ticket->until_ns);
}

/* Queue the ticket of a write fault that is held back. The ticket runs when more pages of the file
 * may become dirty, or at `until_ns`, or when the background thread checks the tickets. */
void frame_queue_throttled(struct fm_file *file, struct ticket *ticket, uint64_t until_ns)
{
	ticket->page = NULL;
	ticket->file = file;
	ticket->throttled = true;
	ticket->ready = ticket_may_go_on;
	ticket->until_ns = until_ns;
	ticket_queue(&file->pool->tickets, ticket);
	background_kick(file->mm);
}

/* Queue a ticket that runs when the background thread has given a page table back, or checks the
 * tickets. */
void frame_queue_last(struct frame_pool *pool, struct ticket *ticket)
{
	ticket->page = NULL;
	ticket->file = NULL;
	ticket->throttled = false;
	ticket->ready = NULL;
	ticket_queue(&pool->tickets, ticket);
	background_kick(pool->mm);
}

/* Wait until a frame may be available. May block. The caller holds no lock and no page lock.
 * Returns 0, -ETIMEDOUT or -ECANCELED. The wait is cut into slices: a thread may drop the last pin
 * of a page without knowing of this waiter. */
int frame_wait(struct fm_file *file, bool killable, uint64_t until_ns)
{
	struct frame_pool *pool = file->pool;
	int ret = 0;

	might_block(pool->mm);
	stats_add(pool->mm->stats, frame_waits, 1);
	atomic_add(&pool->free_waiters, 1u);
	for (;;) {
		uint32_t seq = atomic_get(&pool->free_seq);
		if (frame_to_be_had(pool) || (!pool_may_grow(pool) && reclaim(pool, 2, false) > 0))
			break;
		if (killable && atomic_get(&pool->mm->dying)) {
			ret = -ECANCELED;
			break;
		}
		uint64_t now = os_now_ns(), slice = now + 10 * OS_NSEC_PER_MSEC;
		if (now >= until_ns) {
			ret = -ETIMEDOUT;
			break;
		}
		background_kick(pool->mm);
		os_futex_wait(&pool->free_seq, seq, OS_FUTEX_ANY,
			      slice < until_ns ? slice : until_ns);
	}
	atomic_sub(&pool->free_waiters, 1u);
	return ret;
}
