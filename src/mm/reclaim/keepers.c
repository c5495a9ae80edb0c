/* SPDX-License-Identifier: MIT */
/*
 * Forward progress of an instruction that needs several pages at once.
 *
 * The CPU repeats an instruction after its page fault was served. An instruction that straddles
 * pages needs all these pages at once. Under pressure, the first page may be evicted before the
 * second page arrives. So a thread that faults again on the same instruction (same program
 * counter, same registers) takes a keeper. The keeper pins the pages that the thread gets. The
 * pages stay pinned until the thread faults on another instruction, or until the pages are old and
 * another thread needs the keeper.
 *
 * This file owns struct keeper. The number of keepers is a quarter of the frames, divided by
 * MM_KEEP_PAGES. Other threads queue for a keeper, and hold nothing meanwhile. Only the thread that
 * sets a keeper's `busy` by compare-and-swap may release the keeper's pages.
 */
#include "mm/reclaim/keepers.h"

#include "mm/base/bell.h"
#include "mm/base/mm.h"
#include "mm/base/self.h"
#include "mm/base/ticket.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/frames/pool.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>
#include <string.h>

/* The time from the end of an owner's last fault until another thread may take the keeper. In this
 * time the owner needs the processor for one instruction. Too short a time costs reads, but does
 * not stop progress for ever. */
#define KEEP_NS (50 * OS_NSEC_PER_MSEC)
/* The time for which a fault in service holds its keeper. The keeper stays taken however slow the
 * store is: each fault ends in progress_keep() or progress_fail(). */
#define IN_FAULT_NS (3600 * OS_NSEC_PER_SEC)

static uint32_t keepers_for(uint32_t frames)
{
	uint32_t count = frames / 4 / MM_KEEP_PAGES;
	return count < 1 ? 1 : count > 64 ? 64 : count;
}

/* Allocate the keepers of a pool. Returns 0 or -ENOMEM. Threads remember their keeper beyond the
 * life of a pool, so the generations of no two pools overlap soon. */
int progress_open(struct frame_pool *pool)
{
	static uint32_t serial;
	uint32_t count = keepers_for(pool->frames);
	struct keeper *keepers = os_meta_alloc(count * sizeof(*keepers));
	if (!keepers)
		return -ENOMEM;
	uint32_t first = atomic_add(&serial, 1u) << 16;
	for (uint32_t i = 0; i < count; i++)
		keepers[i].generation = first;
	pool->keepers = keepers;
	pool->keeper_count = count;
	return 0;
}

void progress_close(struct frame_pool *pool)
{
	os_meta_free(pool->keepers, pool->keeper_count * sizeof(*pool->keepers));
}

static bool keeper_enter(struct keeper *keeper)
{
	uint32_t idle = 0;
	return atomic_cas(&keeper->busy, &idle, 1u);
}

static void keeper_leave(struct keeper *keeper)
{
	atomic_set(&keeper->busy, 0u);
}

/* Drop the pins of a keeper. The caller has set `busy`. */
static void keeper_empty(struct frame_pool *pool, struct keeper *keeper)
{
	uint32_t count = keeper->count;
	keeper->count = 0;
	for (uint32_t i = 0; i < count; i++)
		page_unpin(pool, &pool->pages[keeper->page[i]]);
}

static void keeper_free(struct frame_pool *pool, struct keeper *keeper)
{
	keeper_empty(pool, keeper);
	atomic_add(&keeper->generation, 1u);
	keeper_leave(keeper);
	atomic_add(&pool->keeper_seq, 1u);
	if (atomic_get(&pool->keeper_waiters))
		os_futex_wake(&pool->keeper_seq, 1, OS_FUTEX_ANY);
	progress_tick(pool);
}

/*
 * Return the thread's keeper in this pool, with `busy` set, or NULL if the thread has none. A
 * keeper in another pool is left to grow old, because that pool may be gone. May sleep: another
 * thread may set `busy` for a few instructions, to see whether the keeper is old. The function
 * waits for that thread. If the owner gave up at the end of a fault, no thread would record that
 * end. The keeper would then stay taken for IN_FAULT_NS.
 */
static struct keeper *keeper_own(struct progress *progress, struct frame_pool *pool)
{
	if (progress->pool != pool)
		progress->keeper = 0;
	if (!progress->keeper)
		return NULL;
	struct keeper *keeper = &pool->keepers[progress->keeper - 1];
	for (int spin = 0; atomic_get(&keeper->generation) == progress->generation; spin++) {
		if (keeper_enter(keeper)) {
			if (atomic_get(&keeper->generation) == progress->generation)
				return keeper;
			keeper_leave(keeper);
		} else if (spin < 100) {
			os_relax();
		} else { /* the thread that set `busy` has lost the processor */
			os_sleep_until(os_now_ns() + 20000);
		}
	}
	progress->keeper = 0;
	return NULL;
}

static bool keeper_take(struct progress *progress, struct frame_pool *pool)
{
	uint64_t now = os_now_ns();
	for (uint32_t i = 0; i < pool->keeper_count; i++) {
		struct keeper *keeper = &pool->keepers[i];
		uint32_t generation = atomic_get(&keeper->generation);
		bool taken = generation & 1;
		if (taken && now < atomic_get(&keeper->since_ns) + KEEP_NS)
			continue;
		if (!keeper_enter(keeper))
			continue;
		if (atomic_get(&keeper->generation) != generation ||
		    (taken && now < atomic_get(&keeper->since_ns) + KEEP_NS)) {
			keeper_leave(keeper);
			continue;
		}
		keeper_empty(pool, keeper);
		generation += taken ? 2 : 1;
		atomic_set(&keeper->since_ns, now + IN_FAULT_NS);
		atomic_set(&keeper->generation, generation);
		progress->pool = pool;
		progress->keeper = i + 1;
		progress->generation = generation;
		keeper_leave(keeper);
		return true;
	}
	return false;
}

/*
 * Prepare forward progress at the beginning of a fault. The caller holds nothing. `instruction` is
 * 0 if the trap does not know the instruction. A repeated instruction needs a keeper and waits for
 * a free keeper. Without a ticket, the thread sleeps. With a ticket, the function queues the
 * ticket and returns true; the fault begins when the ticket runs.
 */
bool progress_begin(struct progress *progress, struct frame_pool *pool, uint64_t instruction,
		    struct ticket *ticket)
{
	bool repeated = instruction && instruction == progress->instruction;
	struct keeper *own = keeper_own(progress, pool);

	progress->instruction = instruction;
	if (own && !repeated) {
		keeper_free(pool, own);
		progress->keeper = 0;
		own = NULL;
	}
	if (own) {
		/* No other thread may take the keeper while the fault is served. */
		atomic_set(&own->since_ns, os_now_ns() + IN_FAULT_NS);
		keeper_leave(own);
		return false;
	}
	if (!repeated || !pool_evicts(pool) || keeper_take(progress, pool))
		return false;
	stats_add(pool->mm->stats, progress_waits, 1);
	if (ticket) {
		ticket_queue(&pool->keeper_tickets, ticket);
		background_kick(pool->mm);
		return true;
	}
	atomic_add(&pool->keeper_waiters, 1u);
	do {
		uint32_t seq = atomic_get(&pool->keeper_seq);
		if (keeper_take(progress, pool))
			break;
		os_futex_wait(&pool->keeper_seq, seq, OS_FUTEX_ANY, os_now_ns() + KEEP_NS);
	} while (!atomic_get(&pool->mm->dying) && pool_evicts(pool));
	covered_if(pool->mm->dying, a9_keeper);
	atomic_sub(&pool->keeper_waiters, 1u);
	return false;
}

/* Run the oldest ticket that waits for a keeper, because a keeper may have grown old. */
void progress_tick(struct frame_pool *pool)
{
	struct ticket *ticket = ticket_take(&pool->keeper_tickets);
	if (ticket)
		ticket->run(ticket);
}

/* Give the installed page of a fault to the thread's keeper, and record the end of the fault.
 * Returns true if the caller's pin now belongs to the keeper. */
bool progress_keep(struct progress *progress, struct frame_pool *pool, struct page *page)
{
	struct keeper *own = keeper_own(progress, pool);
	uint32_t id = (uint32_t)(page - pool->pages);
	bool kept = false;

	if (!own)
		return false;
	for (uint32_t i = 0; i < own->count; i++)
		if (own->page[i] == id)
			goto out;
	if (own->count == MM_KEEP_PAGES) { /* more than an instruction needs: drop the oldest */
		page_unpin(pool, &pool->pages[own->page[0]]);
		memmove(&own->page[0], &own->page[1], sizeof(own->page) - sizeof(own->page[0]));
		own->count--;
	}
	own->page[own->count++] = id;
	kept = true;
	if (own->count == 1)
		stats_add(pool->mm->stats, progress_keeps, 1);
out:
	atomic_set(&own->since_ns, os_now_ns());
	keeper_leave(own);
	return kept;
}

/* Free the thread's keeper after a fault that ended in an error: that fault does not let the
 * instruction complete. */
void progress_fail(struct progress *progress, struct frame_pool *pool)
{
	struct keeper *own = keeper_own(progress, pool);
	if (own)
		keeper_free(pool, own);
	progress->keeper = 0;
}

/*
 * Free the keepers that have grown old. A thread that does not fault again would keep its pages for
 * ever. Perhaps no other thread needs the keeper. But with fm_pin() at its limit, the keepers have
 * all other frames, and a thread that waits for a frame would wait for that owner. The background
 * thread calls this function.
 */
void progress_drop_old(struct frame_pool *pool, uint64_t now_ns)
{
	for (uint32_t i = 0; i < pool->keeper_count; i++) {
		struct keeper *keeper = &pool->keepers[i];
		if (!(atomic_get(&keeper->generation) & 1) || now_ns < atomic_get(&keeper->since_ns) + KEEP_NS ||
		    !keeper_enter(keeper))
			continue;
		if ((atomic_get(&keeper->generation) & 1) && now_ns >= atomic_get(&keeper->since_ns) + KEEP_NS)
			keeper_free(pool, keeper);
		else
			keeper_leave(keeper);
	}
}

/* Free all keepers, because the mm is being destroyed. No fault is inside the mm. */
void progress_drop_all(struct frame_pool *pool)
{
	for (uint32_t i = 0; i < pool->keeper_count; i++) {
		struct keeper *keeper = &pool->keepers[i];
		if (!keeper_enter(keeper))
			continue;
		if (atomic_get(&keeper->generation) & 1)
			keeper_free(pool, keeper);
		else /* free: another generation would make the keeper taken, with no owner, for ever */
			keeper_leave(keeper);
	}
}
