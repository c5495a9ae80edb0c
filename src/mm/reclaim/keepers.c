/* SPDX-License-Identifier: MIT */
/*
 * Forward progress that reaches as far as the instruction.
 *
 * The CPU repeats an instruction after its fault was served, and one that straddles pages needs
 * them all at once. Under pressure, its first page may be gone when the second has come. So a
 * thread that faults again on one and the same instruction (same program counter, same registers)
 * becomes a keeper: the pages it gets stay pinned until it faults on another instruction, or until
 * they are old and another thread needs the place.
 *
 * Owns struct keeper. There are a quarter of the frames' worth of places, MM_KEEP_PAGES each;
 * others queue for them, holding nothing. A keeper's places are released by whoever changes its
 * `owner` by compare-and-swap.
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

/* From the end of its last fault a keeper has this long before another may take its place. It then
 * needs processor time for one instruction; too short costs reads, not progress for ever. */
#define KEEP_NS (50 * OS_NSEC_PER_MSEC)
/* While its fault is served it keeps its place however slow the store is: each fault ends, in
 * progress_keep() or progress_fail(). */
#define IN_FAULT_NS (3600 * OS_NSEC_PER_SEC)

static uint32_t keepers_for(uint32_t frames)
{
	uint32_t count = frames / 4 / MM_KEEP_PAGES;
	return count < 1 ? 1 : count > 64 ? 64 : count;
}

/* Threads remember their place beyond the life of a pool: generations of no two pools overlap soon.
 */
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

/* Busy held. */
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
 * The thread's own place in this pool, entered; NULL when it has none any more. One in another pool
 * is left to grow old: that pool may be gone. Another thread may be inside for a few instructions,
 * to see whether the place has grown old: it is waited for. Were the place taken for lost at the
 * end of a fault, nobody would say that the fault has ended, and it would stay taken for
 * IN_FAULT_NS.
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
		} else { /* it has lost the processor */
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
 * At the head of a fault, holding nothing. `instruction` is 0 where the trap cannot tell. A
 * repeated one wants a keeper's place, and waits for it: asleep, or, where a ticket is given, by
 * that: then true is returned, and the fault begins when the ticket is run.
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
		/* Not to be taken away while the fault is served. */
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

/* Let the oldest ticket try: a place may have grown old. */
void progress_tick(struct frame_pool *pool)
{
	struct ticket *ticket = ticket_take(&pool->keeper_tickets);
	if (ticket)
		ticket->run(ticket);
}

/* The fault's page is installed. True: its pin is the keeper's now. */
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
	if (own->count == MM_KEEP_PAGES) { /* more than an instruction can need: the oldest goes */
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

/* The fault ended in an error: the instruction will not complete by it. */
void progress_fail(struct progress *progress, struct frame_pool *pool)
{
	struct keeper *own = keeper_own(progress, pool);
	if (own)
		keeper_free(pool, own);
	progress->keeper = 0;
}

/*
 * A thread that does not fault again would keep its pages for ever. Nobody may need its place; but
 * with fm_pin() at its limit the keepers have all the other frames, and whoever waits for one would
 * wait for that thread. Background thread.
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

/* The mm is going; no fault is in it. */
void progress_drop_all(struct frame_pool *pool)
{
	for (uint32_t i = 0; i < pool->keeper_count; i++) {
		struct keeper *keeper = &pool->keepers[i];
		if (!keeper_enter(keeper))
			continue;
		if (atomic_get(&keeper->generation) & 1)
			keeper_free(pool, keeper);
		else /* nobody's: one generation more would make it taken, by nobody, for ever */
			keeper_leave(keeper);
	}
}
