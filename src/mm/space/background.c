/* SPDX-License-Identifier: MIT */
/* The background thread of an address space. */
#include "mm/space/background.h"

#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/ticket.h"
#include "mm/fill/abandon.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/share.h"
#include "mm/fill/streams.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/memory.h"
#include "mm/frames/pool.h"
#include "mm/reclaim/clock.h"
#include "mm/reclaim/pin_sets.h"
#include "mm/space/file_end.h"
#include "mm/view/later.h"
#include "mm/view/page_tables.h"
#include "os/atomic.h"
#include "os/os.h"
#include "trap/trap.h"

#define TICK_NS (5 * OS_NSEC_PER_MSEC)
#define PROTECT_DELAY_NS (2 * OS_NSEC_PER_MSEC)

/*
 * Take memory from the other pools. The pool `poor`, of another page size, needs memory and has
 * none of its own to free.
 */
static void shrink_others(struct fm_mm *mm, struct frame_pool *poor)
{
	for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++) {
		struct frame_pool *pool = mm->pool[i];
		if (pool == poor)
			continue;
		uint32_t frames = poor->page_size * 4u / pool->page_size + 1;
		uint32_t spare = pool_spare(pool);
		if (spare < frames)
			reclaim(pool, frames - spare, true);
		if (pool_release_memory(pool, frames)) /* else a woken waiter would only ask for this again */
			pool_wake_waiters(poor);
	}
}

static void balance(struct fm_mm *mm, struct frame_pool *pool)
{
	groups_fill_ahead(pool);
	while (pool_grow_ahead(pool) || pool_fill_ahead(pool))
		;
	uint64_t charged = atomic_get(&mm->charged_bytes);
	if (charged > mm->budget_bytes) {
		uint32_t over = (uint32_t)((charged - mm->budget_bytes) >> pool->shift) + 1;
		uint32_t spare = pool_spare(pool);
		pt_release_empty(mm, 1024);
		if (spare < over && !pool_at_floor(pool))
			reclaim(pool, over - spare, true);
		pool_release_memory(pool, over);
	}
	uint32_t spare = pool_spare(pool);
	bool poor = !pool_may_fill(pool);
	if (spare < pool->free_low && poor) {
		uint32_t freed = reclaim(pool, pool->free_high - spare, true);
		if (!freed && !spare &&
		    atomic_get(&pool->free_waiters) + (atomic_get(&pool->tickets.head) != NULL))
			shrink_others(mm, pool);
	}
}

/*
 * Run a throttled write's ticket. The event that a write waits for may have come in a way that
 * ticket_ready() does not know. A ticket that ticket_ready() passes by gets its turn here.
 */
static void run_throttled(struct frame_pool *pool)
{
	struct ticket *ticket = ticket_take_throttled(&pool->tickets);
	if (ticket)
		ticket->run(ticket);
}

/*
 * Let the oldest tickets try. A pin set may have grown old. A request, or memory of
 * another page size, may have become free without a signal to the ticket that waits for a frame.
 * Runs at most once per TICK_NS, because a try that fails queues its ticket again.
 */
static void run_tickets(struct fm_mm *mm, uint64_t now_ns, uint64_t *last_ns)
{
	if (now_ns < *last_ns + TICK_NS)
		return;
	*last_ns = now_ns;
	for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++) {
		if (atomic_get(&mm->pool[i]->tickets.head) || atomic_get(&mm->pool[i]->free_waiters))
			progress_drop_old(mm->pool[i], now_ns);
		if (atomic_get(&mm->pool[i]->tickets.head) || atomic_get(&mm->starved))
			pool_wake_waiters(mm->pool[i]);
		run_throttled(mm->pool[i]);
		progress_tick(mm->pool[i]);
	}
}

static bool somebody_waits(struct fm_mm *mm)
{
	for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++)
		if (atomic_get(&mm->pool[i]->tickets.head) ||
		    atomic_get(&mm->pool[i]->pin_set_tickets.head) ||
		    atomic_get(&mm->pool[i]->free_waiters))
			return true;
	return atomic_get(&mm->starved) != 0;
}

static void *background_main(void *arg)
{
	struct fm_mm *mm = arg;
	uint64_t last_ns = 0;
	for (;;) {
		uint32_t seq = atomic_get(&mm->background_seq); /* first: the stop comes with a kick */
		if (atomic_get(&mm->background_stop))
			return NULL;
		uint64_t now = os_now_ns(), next = OS_FOREVER;
		groups_open_views(mm);
		bool did = after_work_run(
			mm); /* first: dropped copies save evictions */
		for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++)
			balance(mm, mm->pool[i]);
		run_tickets(mm, now, &last_ns);
		if (atomic_get(&mm->pt->empty) > mm->pt->entries / 8)
			pt_release_empty(mm, mm->pt->entries);
		file_reap(mm);
		read_expire(mm, now, &next);
		if ((somebody_waits(mm) || atomic_get(&mm->reap_list)) && next > now + TICK_NS)
			next = now + TICK_NS;
		/* While there are pages to protect, this thread wakes up by itself. So no other
		 * thread has to wake this thread, and many pages are protected together. Work that
		 * is noted before this thread sets its state is seen below. Work that is noted later
		 * comes with a kick. */
		atomic_set(&mm->background_state, did ? BACKGROUND_DOZES : BACKGROUND_SLEEPS);
		if ((did || after_work_waits(mm)) && next > now + PROTECT_DELAY_NS)
			next = now + PROTECT_DELAY_NS;
		os_futex_wait(&mm->background_seq, seq, OS_FUTEX_ANY, next);
		atomic_set(&mm->background_state, BACKGROUND_RUNS);
	}
}

int background_start(struct fm_mm *mm)
{
	return os_thread_start(&mm->background, "fm-reclaim", background_main, mm);
}

void background_stop(struct fm_mm *mm)
{
	atomic_set(&mm->background_stop, true);
	background_kick(mm);
	os_thread_join(&mm->background);
}

/*
 * Open views for huge pages. Only the views of files that streams read are opened: opening
 * another view would hold up that view's faults. Called in the background thread.
 */
void groups_open_views(struct fm_mm *mm)
{
	struct fm_file *file;

	if (likely(!atomic_get(&mm->wants_huge)) || !atomic_xchg(&mm->wants_huge, 0u))
		return;
	do {
		os_lock(&mm->files_lock);
		for (file = mm->files;
		     file && (atomic_get(&file->reads->huge) != HUGE_WANTED || !file_try_get(file));
		     file = file->next)
			;
		os_unlock(&mm->files_lock);
		if (file) {
			trap_region_huge(&file->view.region);
			atomic_set(&file->reads->huge, (uint32_t)HUGE_YES);
			file_put(file);
		}
	} while (file);
}
