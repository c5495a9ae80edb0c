/* SPDX-License-Identifier: MIT */
/*
 * The budget, the clock over frames, waits for a free frame, and the background thread.
 *
 * Two queues, as on the VAX: ACTIVE pages are installed; the clock takes the oldest out of the view and puts
 * them on INACTIVE, still cached. A touch brings them back cheaply and counts as use; one that reaches the
 * head of INACTIVE untouched gives its frame. Pages read ahead start on INACTIVE. Where installed pages can
 * only be discarded (COPY), the background thread alone evicts them, in order of age.
 * A pinned page stays. Nothing here holds a lock across a kernel call but the page lock of the page at hand.
 * May call: page_cache, install, frame_pool, read (deadlines), os, stats.
 */
#include "mm/mm.h"

#include <limits.h>

#define VICTIMS 32
#define PROTECT_DELAY_NS (2 * OS_NSEC_PER_MSEC)

/* ------------------------------------------------------------------ budget */

bool mm_try_charge(struct fm_mm *mm, uint64_t bytes)
{
	uint64_t old = atomic_get(&mm->charged_bytes);
	do {
		if (old + bytes > mm->budget_bytes)
			return false;
	} while (!atomic_cas(&mm->charged_bytes, &old, old + bytes));
	stats_put(mm->stats, charged_bytes, old + bytes);
	return true;
}

void mm_charge(struct fm_mm *mm, uint64_t bytes)
{
	uint64_t old = atomic_add(&mm->charged_bytes, bytes);
	stats_put(mm->stats, charged_bytes, old + bytes);
}

void mm_uncharge(struct fm_mm *mm, uint64_t bytes)
{
	uint64_t old = atomic_sub(&mm->charged_bytes, bytes);
	mm_assert(old >= bytes);
	stats_put(mm->stats, charged_bytes, old - bytes);
}

/* ------------------------------------------------------------------ the clock */

static bool others_hold(const struct page *page) /* one pin is ours */
{
	return PG_PINS(atomic_get(&((struct page *)(uintptr_t)page)->state)) > 1;
}

/* Take the oldest active page out of the view. False when there is none. */
static bool deactivate_one(struct frame_pool *pool)
{
	struct page *page = lru_take(pool, LIST_ACTIVE);
	if (!page)
		return false;
	if (!page_try_pin(page))
		return true; /* free by now */
	enum page_list to = LIST_ACTIVE;
	if (page_trylock(page)) {
		if (page_is(page, PG_GONE)) {
			to = LIST_NONE;
		} else if (!page_is(page, PG_INSTALLED)) {
			to = LIST_INACTIVE;
		} else if (!others_hold(page) &&
			   page_take_out(&page->file->view, page, false) == 0) {
			page_set(page, PG_SOFT, 0);
			stats_add(pool->mm->stats, deactivations, 1);
			to = LIST_INACTIVE;
		}
		lru_set(pool, page, to);
		page_unlock(pool, page);
	} else {
		lru_set(pool, page, to);
	}
	page_unpin(pool, page);
	return true;
}

/* Give the frame of the oldest inactive page back. 1: done; 0: not that one; -1: there is none. */
static int evict_one(struct frame_pool *pool)
{
	struct page *page = lru_take(pool, LIST_INACTIVE);
	int freed = 0;
	if (!page)
		return -1;
	if (!page_try_pin(page))
		return 0;
	if (!page_trylock(page)) {
		lru_set(pool, page, LIST_INACTIVE);
	} else {
		if (page_is(page, PG_GONE)) {
			;
		} else if (page_is(page, PG_INSTALLED)) {
			lru_set(pool, page, LIST_ACTIVE);
		} else if (others_hold(page)) {
			lru_set(pool, page, LIST_INACTIVE);
		} else {
			page_remove(pool, page);
			stats_add(pool->mm->stats, evictions, 1);
			freed = 1;
		}
		page_unlock(pool, page);
	}
	page_unpin(pool, page);
	return freed;
}

/* Choose installed pages to discard: out of the index, pinned, still in the view. */
static uint32_t choose_victims(struct frame_pool *pool, uint32_t want, struct page **victim)
{
	uint32_t count = 0, scan = lru_count(pool, LIST_ACTIVE);
	while (count < want && scan--) {
		struct page *page = lru_take(pool, LIST_ACTIVE);
		if (!page)
			break;
		if (!page_try_pin(page))
			continue;
		if (!page_trylock(page)) {
			lru_set(pool, page, LIST_ACTIVE);
			page_unpin(pool, page);
			continue;
		}
		bool take = !page_is(page, PG_GONE) && page_is(page, PG_INSTALLED) &&
			    !others_hold(page);
		if (take) {
			page_remove(pool, page);
			victim[count++] = page; /* its pin keeps frame and identity until it is out */
		} else if (!page_is(page, PG_GONE)) {
			lru_set(pool, page, page_is(page, PG_INSTALLED) ? LIST_ACTIVE
									: LIST_INACTIVE);
		}
		page_unlock(pool, page);
		if (!take)
			page_unpin(pool, page);
	}
	return count;
}

/* Installed by COPY: discard, in the order of their addresses. A new page of the same place that comes
 * meanwhile may be emptied with it; its next fault notices. */
static uint32_t discard_active(struct frame_pool *pool, uint32_t want)
{
	struct page *victim[VICTIMS];
	uint64_t order[VICTIMS];
	uint32_t count = choose_victims(pool, want < VICTIMS ? want : VICTIMS, victim);

	for (uint32_t i = 0; i < count; i++)
		order[i] = (victim[i]->index << 8) | i; /* neighbours of a file become neighbours */
	for (uint32_t i = 1; i < count; i++)
		for (uint32_t j = i; j && order[j - 1] > order[j]; j--) {
			uint64_t swap = order[j];
			order[j] = order[j - 1];
			order[j - 1] = swap;
		}
	for (uint32_t i = 0; i < count; i++) {
		struct page *page = victim[order[i] & 0xff];
		if (page_trylock(page)) { /* nobody else looks at it: out of the index, and pinned */
			page_take_out(&page->file->view, page, true);
			page_unlock(pool, page);
		}
		page_unpin(pool, page);
	}
	stats_add(pool->mm->stats, evictions, count);
	return count;
}

/*
 * Free up to `want` frames. Returns how many. No lock held; blocks on nothing but the kernel's per-region
 * lock, and, in the background, on what a discard takes.
 */
uint32_t reclaim(struct frame_pool *pool, uint32_t want, bool background)
{
	struct fm_mm *mm = pool->mm;
	uint32_t freed = 0, target = pool->frames / 8 + 2;
	uint32_t scan = 2 * (lru_count(pool, LIST_ACTIVE) + lru_count(pool, LIST_INACTIVE)) + 8;
	bool soft = mm->install == FM_INSTALL_MOVE;

	might_block(mm);
	if (background)
		stats_add(mm->stats, reclaim_background, 1);
	else
		stats_add(mm->stats, reclaim_direct, 1);
	while (freed < want && scan--) {
		bool some = false;
		if (soft && lru_count(pool, LIST_INACTIVE) < target) {
			some = deactivate_one(pool);
			some |= deactivate_one(pool);
		}
		int evicted = evict_one(pool);
		if (evicted > 0)
			freed++;
		if (evicted < 0 && !some)
			break;
	}
	if (!soft && background && freed < want)
		freed += discard_active(pool, want - freed);
	return freed;
}

/* ------------------------------------------------------------------ waiting for a frame */

static bool frame_to_be_had(struct frame_pool *pool)
{
	return lru_count(pool, LIST_FREE) > 0 ||
	       (lru_count(pool, LIST_HOLES) > 0 && atomic_get(&pool->mm->charged_bytes) +
			       pool->page_size <= pool->mm->budget_bytes);
}

/* A frame has become free, or a page that could give one has lost its last pin. */
void frame_freed(struct frame_pool *pool)
{
	atomic_add(&pool->free_seq, 1u);
	if (atomic_get(&pool->free_waiters))
		os_futex_wake(&pool->free_seq, 1, OS_FUTEX_ANY);
	struct ticket *ticket = ticket_take(&pool->tickets);
	if (ticket)
		ticket->run(ticket);
}

/* It will be run when a frame is free; by the background thread if one is free by now. */
void frame_queue_ticket(struct frame_pool *pool, struct ticket *ticket)
{
	ticket->page = NULL;
	stats_add(pool->mm->stats, frame_waits, 1);
	ticket_queue(&pool->tickets, ticket);
	background_kick(pool->mm);
}

/* Wait until a frame may be had; no lock, no page lock held. 0, -ETIMEDOUT or -ECANCELED. The waits are cut
 * into pieces because a page's last pin may go without anybody knowing that we wait for it. */
int frame_wait(struct fm_file *file, bool killable, uint64_t until_ns)
{
	struct frame_pool *pool = file->pool;
	int ret = 0;

	might_block(pool->mm);
	stats_add(pool->mm->stats, frame_waits, 1);
	atomic_add(&pool->free_waiters, 1u);
	for (;;) {
		uint32_t seq = atomic_get(&pool->free_seq);
		if (frame_to_be_had(pool) || reclaim(pool, 2, false) > 0)
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

/* ------------------------------------------------------------------ the background thread */

void background_kick(struct fm_mm *mm)
{
	atomic_add(&mm->background_seq, 1u);
	if (atomic_get(&mm->background_asleep))
		os_futex_wake(&mm->background_seq, 1, OS_FUTEX_ANY);
}

/* Another page size needs memory and has none of its own to give. */
static void shrink_others(struct fm_mm *mm, struct frame_pool *poor)
{
	for (int i = 0; i < MM_POOLS_MAX && mm->pool[i]; i++) {
		struct frame_pool *pool = mm->pool[i];
		if (pool == poor)
			continue;
		uint32_t frames = poor->page_size * 4u / pool->page_size + 1;
		uint32_t spare = lru_count(pool, LIST_FREE);
		if (spare < frames)
			reclaim(pool, frames - spare, true);
		pool_release_memory(pool, frames);
		frame_freed(poor);
	}
}

static void balance(struct fm_mm *mm, struct frame_pool *pool)
{
	while (lru_count(pool, LIST_FREE) < pool->free_low && pool_grow(pool))
		;
	uint64_t charged = atomic_get(&mm->charged_bytes);
	if (charged > mm->budget_bytes) {
		uint32_t over = (uint32_t)((charged - mm->budget_bytes) >> pool->shift) + 1;
		uint32_t spare = lru_count(pool, LIST_FREE);
		pt_release_empty(mm, 1024);
		if (spare < over)
			reclaim(pool, over - spare, true);
		pool_release_memory(pool, over);
	}
	uint32_t spare = lru_count(pool, LIST_FREE);
	bool poor = !lru_count(pool, LIST_HOLES) ||
		    atomic_get(&mm->charged_bytes) + pool->page_size > mm->budget_bytes;
	if (spare < pool->free_low && poor) {
		uint32_t freed = reclaim(pool, pool->free_high - spare, true);
		if (!freed && !spare && atomic_get(&pool->free_waiters) + (pool->tickets.head != NULL))
			shrink_others(mm, pool);
	}
	/* A ticket also waits for a request: what it waits for is seen only by trying. */
	if (atomic_get(&pool->tickets.head))
		frame_freed(pool);
	progress_tick(pool);
}

static bool somebody_waits(struct fm_mm *mm)
{
	for (int i = 0; i < MM_POOLS_MAX && mm->pool[i]; i++)
		if (atomic_get(&mm->pool[i]->tickets.head) ||
		    atomic_get(&mm->pool[i]->keeper_tickets.head) ||
		    atomic_get(&mm->pool[i]->free_waiters))
			return true;
	return false;
}

static void *background_main(void *arg)
{
	struct fm_mm *mm = arg;
	while (!atomic_get(&mm->background_stop)) {
		uint32_t seq = atomic_get(&mm->background_seq);
		uint64_t now = os_now_ns(), next = OS_FOREVER;
		for (int i = 0; i < MM_POOLS_MAX && mm->pool[i]; i++)
			balance(mm, mm->pool[i]);
		after_work_run(mm);
		if (mm->pt.empty > mm->pt.entries / 8)
			pt_release_empty(mm, mm->pt.entries);
		file_reap(mm);
		read_expire(mm, now, &next);
		if (somebody_waits(mm) && next > now + 5 * OS_NSEC_PER_MSEC)
			next = now + 5 * OS_NSEC_PER_MSEC;
		/* Let some protecting come together: one call for many pages. */
		if (!somebody_waits(mm))
			os_sleep_until(os_now_ns() + PROTECT_DELAY_NS / 8);
		atomic_set(&mm->background_asleep, 1u);
		os_futex_wait(&mm->background_seq, seq, OS_FUTEX_ANY, next);
		atomic_set(&mm->background_asleep, 0u);
	}
	return NULL;
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
