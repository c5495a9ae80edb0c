/* SPDX-License-Identifier: MIT */
/*
 * Forward progress of an instruction that needs several pages at once.
 *
 * The CPU repeats an instruction after its page fault was served. An instruction that straddles
 * pages needs all these pages at once. Under pressure, the first page may be evicted before the
 * second page arrives. So a thread that faults again on the same instruction (same program
 * counter, same registers) takes a pin set. The pin set pins the pages that the thread gets. The
 * pages stay pinned until the thread faults on another instruction, or until the pages are old and
 * another thread needs the pin set.
 *
 * This file owns struct pin_set. The number of pin sets is a quarter of the frames, divided by
 * MM_KEEP_PAGES. Other threads queue for a pin set, and hold nothing meanwhile. Only the thread
 * that sets a pin set's `busy` by compare-and-swap may release the pin set's pages.
 */
#include "mm/reclaim/pin_sets.h"

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

/* The time from the end of an owner's last fault until another thread may take the pin set. In this
 * time the owner needs the processor for one instruction. Too short a time costs reads, but does
 * not stop progress for ever. */
#define KEEP_NS (50 * OS_NSEC_PER_MSEC)
/* The time for which a fault in service holds its pin set. The pin set stays taken however slow the
 * store is: each fault ends in progress_keep() or progress_fail(). */
#define IN_FAULT_NS (3600 * OS_NSEC_PER_SEC)

static uint32_t pin_sets_for(uint32_t frames)
{
	uint32_t count = frames / 4 / MM_KEEP_PAGES;
	return count < 1 ? 1 : count > 64 ? 64 : count;
}

/* Allocate the pin sets of a pool. Returns 0 or -ENOMEM. Threads remember their pin set beyond the
 * life of a pool, so the generations of no two pools overlap soon. */
int progress_open(struct frame_pool *pool)
{
	static uint32_t serial;
	uint32_t count = pin_sets_for(pool->frames);
	struct pin_set *pin_sets = os_meta_alloc(count * sizeof(*pin_sets));
	if (!pin_sets)
		return -ENOMEM;
	uint32_t first = atomic_add(&serial, 1u) << 16;
	for (uint32_t i = 0; i < count; i++)
		pin_sets[i].generation = first;
	pool->pin_sets = pin_sets;
	pool->pin_set_count = count;
	return 0;
}

void progress_close(struct frame_pool *pool)
{
	os_meta_free(pool->pin_sets, pool->pin_set_count * sizeof(*pool->pin_sets));
}

static bool pin_set_enter(struct pin_set *pin_set)
{
	uint32_t idle = 0;
	return atomic_cas(&pin_set->busy, &idle, 1u);
}

static void pin_set_leave(struct pin_set *pin_set)
{
	atomic_set(&pin_set->busy, 0u);
}

/* Drop the pins of a pin set. The caller has set `busy`. */
static void pin_set_empty(struct frame_pool *pool, struct pin_set *pin_set)
{
	uint32_t count = pin_set->count;
	pin_set->count = 0;
	for (uint32_t i = 0; i < count; i++)
		page_unpin(pool, &pool->pages[pin_set->page[i]]);
}

static void pin_set_free(struct frame_pool *pool, struct pin_set *pin_set)
{
	pin_set_empty(pool, pin_set);
	atomic_add(&pin_set->generation, 1u);
	pin_set_leave(pin_set);
	atomic_add(&pool->pin_set_seq, 1u);
	if (atomic_get(&pool->pin_set_waiters))
		os_futex_wake(&pool->pin_set_seq, 1, OS_FUTEX_ANY);
	progress_tick(pool);
}

/*
 * Return the thread's pin set in this pool, with `busy` set, or NULL if the thread has none. A
 * pin set in another pool is left to grow old, because that pool may be gone. May sleep: another
 * thread may set `busy` for a few instructions, to see whether the pin set is old. The function
 * waits for that thread. If the owner gave up at the end of a fault, no thread would record that
 * end. The pin set would then stay taken for IN_FAULT_NS.
 */
static struct pin_set *pin_set_own(struct progress *progress, struct frame_pool *pool)
{
	if (progress->pool != pool)
		progress->pin_set = 0;
	if (!progress->pin_set)
		return NULL;
	struct pin_set *pin_set = &pool->pin_sets[progress->pin_set - 1];
	for (int spin = 0; atomic_get(&pin_set->generation) == progress->generation; spin++) {
		if (pin_set_enter(pin_set)) {
			if (atomic_get(&pin_set->generation) == progress->generation)
				return pin_set;
			pin_set_leave(pin_set);
		} else if (spin < 100) {
			os_relax();
		} else { /* the thread that set `busy` has lost the processor */
			os_sleep_until(os_now_ns() + 20000);
		}
	}
	progress->pin_set = 0;
	return NULL;
}

static bool pin_set_take(struct progress *progress, struct frame_pool *pool)
{
	uint64_t now = os_now_ns();
	for (uint32_t i = 0; i < pool->pin_set_count; i++) {
		struct pin_set *pin_set = &pool->pin_sets[i];
		uint32_t generation = atomic_get(&pin_set->generation);
		bool taken = generation & 1;
		if (taken && now < atomic_get(&pin_set->since_ns) + KEEP_NS)
			continue;
		if (!pin_set_enter(pin_set))
			continue;
		if (atomic_get(&pin_set->generation) != generation ||
		    (taken && now < atomic_get(&pin_set->since_ns) + KEEP_NS)) {
			pin_set_leave(pin_set);
			continue;
		}
		pin_set_empty(pool, pin_set);
		generation += taken ? 2 : 1;
		atomic_set(&pin_set->since_ns, now + IN_FAULT_NS);
		atomic_set(&pin_set->generation, generation);
		progress->pool = pool;
		progress->pin_set = i + 1;
		progress->generation = generation;
		pin_set_leave(pin_set);
		return true;
	}
	return false;
}

/*
 * Prepare forward progress at the beginning of a fault. The caller holds nothing. `instruction` is
 * 0 if the trap does not know the instruction. A repeated instruction needs a pin set and waits for
 * a free pin set. Without a ticket, the thread sleeps. With a ticket, the function queues the
 * ticket and returns true; the fault begins when the ticket runs.
 */
bool progress_begin(struct progress *progress, struct frame_pool *pool, uint64_t instruction,
		    struct ticket *ticket)
{
	bool repeated = instruction && instruction == progress->instruction;
	struct pin_set *own = pin_set_own(progress, pool);

	progress->instruction = instruction;
	if (own && !repeated) {
		pin_set_free(pool, own);
		progress->pin_set = 0;
		own = NULL;
	}
	if (own) {
		/* No other thread may take the pin set while the fault is served. */
		atomic_set(&own->since_ns, os_now_ns() + IN_FAULT_NS);
		pin_set_leave(own);
		return false;
	}
	if (!repeated || !pool_evicts(pool) || pin_set_take(progress, pool))
		return false;
	stats_add(pool->mm->stats, progress_waits, 1);
	if (ticket) {
		ticket_queue(&pool->pin_set_tickets, ticket);
		background_kick(pool->mm);
		return true;
	}
	atomic_add(&pool->pin_set_waiters, 1u);
	do {
		uint32_t seq = atomic_get(&pool->pin_set_seq);
		if (pin_set_take(progress, pool))
			break;
		os_futex_wait(&pool->pin_set_seq, seq, OS_FUTEX_ANY, os_now_ns() + KEEP_NS);
	} while (!atomic_get(&pool->mm->dying) && pool_evicts(pool));
	covered_if(pool->mm->dying, a9_keeper);
	atomic_sub(&pool->pin_set_waiters, 1u);
	return false;
}

/* Run the oldest ticket that waits for a pin set, because a pin set may have grown old. */
void progress_tick(struct frame_pool *pool)
{
	struct ticket *ticket = ticket_take(&pool->pin_set_tickets);
	if (ticket)
		ticket->run(ticket);
}

/* Give the installed page of a fault to the thread's pin set, and record the end of the fault.
 * Returns true if the caller's pin now belongs to the pin set. */
bool progress_keep(struct progress *progress, struct frame_pool *pool, struct page *page)
{
	struct pin_set *own = pin_set_own(progress, pool);
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
	pin_set_leave(own);
	return kept;
}

/* Free the thread's pin set after a fault that ended in an error: that fault does not let the
 * instruction complete. */
void progress_fail(struct progress *progress, struct frame_pool *pool)
{
	struct pin_set *own = pin_set_own(progress, pool);
	if (own)
		pin_set_free(pool, own);
	progress->pin_set = 0;
}

/*
 * Free the pin sets that have grown old. A thread that does not fault again would keep its pages
 * for ever. Perhaps no other thread needs the pin set. But with fm_pin() at its limit, the pin sets
 * have all other frames, and a thread that waits for a frame would wait for that owner. The
 * background thread calls this function.
 */
void progress_drop_old(struct frame_pool *pool, uint64_t now_ns)
{
	for (uint32_t i = 0; i < pool->pin_set_count; i++) {
		struct pin_set *pin_set = &pool->pin_sets[i];
		if (!(atomic_get(&pin_set->generation) & 1) ||
		    now_ns < atomic_get(&pin_set->since_ns) + KEEP_NS || !pin_set_enter(pin_set))
			continue;
		if ((atomic_get(&pin_set->generation) & 1) && now_ns >= atomic_get(&pin_set->since_ns) + KEEP_NS)
			pin_set_free(pool, pin_set);
		else
			pin_set_leave(pin_set);
	}
}

/* Free all pin sets, because the mm is being destroyed. No fault is inside the mm. */
void progress_drop_all(struct frame_pool *pool)
{
	for (uint32_t i = 0; i < pool->pin_set_count; i++) {
		struct pin_set *pin_set = &pool->pin_sets[i];
		if (!pin_set_enter(pin_set))
			continue;
		if (atomic_get(&pin_set->generation) & 1)
			pin_set_free(pool, pin_set);
		else /* free: another generation would make the pin set taken, with no owner, for ever */
			pin_set_leave(pin_set);
	}
}
