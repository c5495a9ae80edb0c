/* SPDX-License-Identifier: MIT */
/*
 * The budget, the clock over frames, waits for a free frame, and the background thread.
 *
 * Soft faults tell use, as on the VAX: the clock takes the oldest installed pages out of the view and puts them on INACTIVE,
 * still cached. A touch brings one back cheaply and counts as use; one that reaches the head of INACTIVE untouched gives its
 * frame. Which installed pages are next is as in S3-FIFO: those that one fault has touched (YOUNG) before those that somebody
 * came back to (ACTIVE), in the view, on INACTIVE, or not long after their eviction, which ghosts tell. So a scan pushes out
 * itself; what a stream brought goes from YOUNG at once, without a second chance. What is read ahead waits on AHEAD; what has to
 * be written and flushed first, on HELD, where nobody looks at it in vain. Advice: what was called cold goes first; a page to be
 * kept comes to ACTIVE by its first touch, and is passed over once. Where installed pages can only be discarded (COPY), the
 * background thread alone evicts them, in the same order.
 * A pinned page stays. Nothing here holds a lock across a kernel call but the page lock of the page at hand.
 * May call: page_cache, install, frame_pool, read (deadlines), os, stats.
 */
#include "mm/mm.h"

#include <limits.h>

#define RUN_DIRECT 16u /* pages; a fault wants one */
#define RUN_BACKGROUND 256u
#define LET_OFF_DIRECT 64u /* pages that a fault looks at before it passes over none any more */
#define FAILED_MOST 16u /* evictions, until both lists are tried */
#define TICK_NS (5 * OS_NSEC_PER_MSEC)
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

/* A page that was taken from a list: give its frame back, or put it where it belongs. */
static bool evict_page(struct frame_pool *pool, struct page *page, enum page_list from)
{
	bool freed = false;

	if (!page_try_pin(page))
		return false;
	if (!page_trylock(page)) {
		lru_set(pool, page, 1, from);
	} else {
		if (page_is(page, PG_GONE)) {
			;
		} else if (page_hold(pool, page)) {
			;
		} else if (page_is(page, PG_INSTALLED)) {
			lru_set(pool, page, 1, LIST_ACTIVE);
		} else if (page_is_shared(page)) {
			covered(a5_carried_over_reclaim);
			lru_set(pool, page, 1, from);
		} else {
			if (!page_is(page, PG_HOT | PG_SPEC | PG_ERROR))
				ghost_add(pool, page);
			page_remove(pool, page);
			stats_add(pool->mm->stats, evictions, 1);
			freed = true;
		}
		page_unlock(pool, page);
	}
	page_unpin_quiet(pool, page); /* one that stays is not to be tried again at once */
	return freed;
}

/* Give the frame of the oldest page of INACTIVE or AHEAD back, or of all of a group. How many; -1: the list is empty. */
static int evict_some(struct frame_pool *pool, enum page_list from)
{
	uint32_t count;
	struct page *first = lru_take(pool, from, 1, &count);
	int freed = 0;

	for (uint32_t i = 0; i < count; i++)
		freed += evict_page(pool, first + i, from);
	return first ? freed : -1;
}

/* S3-FIFO: what nobody came back to, or has come to yet, makes way first, but for an eighth. After `in_vain` pages that did not,
 * all of that list may be pinned: then the other's. */
static enum page_list oldest_installed(struct frame_pool *pool, uint32_t in_vain)
{
	uint32_t young = lru_count(pool, LIST_YOUNG), cold = lru_count(pool, LIST_COLD_SHOWN);
	if (cold && in_vain <= cold)
		return LIST_COLD_SHOWN;
	bool many = young + lru_count(pool, LIST_AHEAD) > pool->frames / 8 && young > pool->frames / 64;
	enum page_list list = many || !lru_count(pool, LIST_ACTIVE) ? LIST_YOUNG : LIST_ACTIVE;
	enum page_list other = list == LIST_YOUNG ? LIST_ACTIVE : LIST_YOUNG;
	return in_vain > lru_count(pool, list) && lru_count(pool, other) ? other : list;
}

static uint32_t installed_count(struct frame_pool *pool)
{
	return lru_count(pool, LIST_YOUNG) + lru_count(pool, LIST_ACTIVE) + lru_count(pool, LIST_COLD_SHOWN);
}

/*
 * Installed by COPY: the oldest pages are discarded. The kernel's lock is waited for with the page's lock held, so
 * that no new install of the page can come between; until the discard has happened the page is in the view, so that
 * nobody faults on it.
 */
static uint32_t discard_active(struct frame_pool *pool, uint32_t want)
{
	uint32_t freed = 0, count, in_vain = 0, scan = 2 * installed_count(pool);
	while (freed < want && scan--) {
		struct page *page = lru_take(pool, oldest_installed(pool, in_vain++), 1, &count);
		if (!page)
			break;
		if (!page_try_pin(page))
			continue;
		if (!page_trylock(page)) {
			lru_set(pool, page, 1, LIST_ACTIVE);
			page_unpin(pool, page);
			continue;
		}
		if (page_is(page, PG_GONE)) {
			;
		} else if (page_hold(pool, page)) {
			;
		} else if (!page_is(page, PG_INSTALLED)) {
			lru_set(pool, page, 1, LIST_INACTIVE);
		} else if (page->keep || page_is_shared(page)) {
			page->keep = false;
			lru_set(pool, page, 1, LIST_ACTIVE);
		} else {
			page_take_out(&page->file->view, page, true);
			page_remove(pool, page);
			freed++;
			in_vain = 0;
		}
		page_unlock(pool, page);
		page_unpin(pool, page);
	}
	stats_add(pool->mm->stats, evictions, freed);
	return freed;
}

/*
 * Free up to `want` frames. Returns how many. No lock held; blocks on nothing but the kernel's per-region
 * lock, and, in the background, on what a discard takes.
 */
uint32_t reclaim(struct frame_pool *pool, uint32_t want, bool background)
{
	struct fm_mm *mm = pool->mm;
	uint32_t freed = 0, target = pool->frames / 8 + 2, run = background ? RUN_BACKGROUND : RUN_DIRECT;
	uint32_t cached = lru_count(pool, LIST_INACTIVE) + lru_count(pool, LIST_AHEAD) + lru_count(pool, LIST_COLD);
	uint32_t scan = 2 * (installed_count(pool) + cached) + 8;
	uint32_t failed = 0, in_vain = 0; /* evictions, and installed pages looked at, since a frame was freed */
	bool soft = mm->install == FM_INSTALL_MOVE;

	might_block(mm);
	writeback_look_for_merging(mm);
	if (background)
		stats_add(mm->stats, reclaim_background, 1);
	else
		stats_add(mm->stats, reclaim_direct, 1);
	if (run > target / 2)
		run = target / 2;
	for (uint32_t looked = 0; freed < want && looked < scan; looked++) {
		bool some = false;
		/* All that is inactive may be under way to a store that is stuck: then the active pages have to give. */
		uint32_t cold = lru_count(pool, LIST_COLD), ahead = lru_count(pool, LIST_AHEAD);
		uint32_t inactive = lru_count(pool, LIST_INACTIVE) + cold;
		if (soft && (inactive < target || failed >= inactive + ahead)) {
			bool let_off = background || looked < LET_OFF_DIRECT;
			uint32_t passed_by = 0;
			uint32_t count = deactivate_run(pool, oldest_installed(pool, in_vain), run, let_off, &passed_by);
			some = count > 0;
			looked += count;
			freed += passed_by;
			if (passed_by)
				continue;
			in_vain += count;
		}
		/* What is ahead may be pinned, all of it: by faults that wait for room for dirty pages. Then each list in turn. */
		bool first = (ahead > pool->frames / 8 && failed < FAILED_MOST) || (failed & 1);
		int evicted = failed < cold ? evict_some(pool, LIST_COLD) : -1;
		if (evicted < 0)
			evicted = evict_some(pool, first ? LIST_AHEAD : LIST_INACTIVE);
		if (evicted < 0)
			evicted = evict_some(pool, first ? LIST_INACTIVE : LIST_AHEAD);
		failed = evicted > 0 ? 0 : failed + 1;
		if (evicted > 0) {
			freed += (uint32_t)evicted;
			in_vain = 0;
		}
		if (evicted < 0 && !some)
			break;
	}
	if (!soft && background && freed < want)
		freed += discard_active(pool, want - freed);
	if (freed < want && lru_count(pool, LIST_HELD))
		writeback_urge(mm);
	return freed;
}

/* ------------------------------------------------------------------ waiting for a frame */

static bool frame_to_be_had(struct frame_pool *pool)
{
	return pool_spare(pool) > 0 || pool_may_fill(pool);
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
	if (unlikely(atomic_get(&pool->mm->starved)) && atomic_xchg(&pool->mm->starved, 0u))
		mm_event(pool->mm);
}

/* A call with FM_NOWAIT could begin nothing. It is told when that may have changed. */
void frame_ask(struct fm_file *file)
{
	atomic_set(&file->mm->starved, 1u);
	if (frame_to_be_had(file->pool) && read_has_room(file, false) && atomic_xchg(&file->mm->starved, 0u))
		mm_event(file->mm);
	background_kick(file->mm);
}

/* The store of the ticket's file has room for another read. */
static bool ticket_read_has_room(const struct ticket *ticket)
{
	return read_has_room(ticket->file, false);
}

/* It will be run when a frame is freed or a request is done. If both are to be had by now, the end that this ticket was
 * queued for may have come before it: the oldest is run at once. */
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
	/* Nobody may ever free a frame, and it may have looked whether somebody waits just before this one was queued: about to
	 * sleep until it is called, it would call none of those that wait. */
	background_kick(pool->mm);
}

/* More pages of the ticket's file may be dirty, or its time is over. */
static bool ticket_may_go_on(const struct ticket *ticket)
{
	return dirty_may_go_on(ticket->file) || (ticket->until_ns != OS_FOREVER && os_now_ns() >= ticket->until_ns);
}

/* A write: it will be run when more of its file may be dirty, or until then, or when the background thread looks around. */
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

/* It will be run when the background thread has given a page table back, or looks around. */
void frame_queue_last(struct frame_pool *pool, struct ticket *ticket)
{
	ticket->page = NULL;
	ticket->file = NULL;
	ticket->throttled = false;
	ticket->ready = NULL;
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

/* ------------------------------------------------------------------ the background thread */

void background_kick(struct fm_mm *mm)
{
	atomic_add(&mm->background_seq, 1u);
	if (atomic_get(&mm->background_state) != BACKGROUND_RUNS)
		os_futex_wake(&mm->background_seq, 1, OS_FUTEX_ANY);
}

/* There is something to do that can wait for PROTECT_DELAY_NS. */
void background_note(struct fm_mm *mm)
{
	if (atomic_get(&mm->background_state) == BACKGROUND_SLEEPS)
		background_kick(mm);
}

/* Another page size needs memory and has none of its own to give. */
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
		if (pool_release_memory(pool, frames)) /* else who is told would only call this again */
			frame_freed(poor);
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
		if (!freed && !spare && atomic_get(&pool->free_waiters) + (atomic_get(&pool->tickets.head) != NULL))
			shrink_others(mm, pool);
	}
}

/* What a write waits for may have come in a way that ticket_ready() does not know: one that it passes by has its turn all the same. */
static void run_throttled(struct frame_pool *pool)
{
	struct ticket *ticket = ticket_take_throttled(&pool->tickets);
	if (ticket)
		ticket->run(ticket);
}

/* Let the oldest tickets try: a keeper's place may have grown old, and what a ticket for a frame waits for (a request,
 * memory of another page size) may have come without a word. At most every TICK_NS: a try that fails queues again. */
static void run_tickets(struct fm_mm *mm, uint64_t now_ns, uint64_t *last_ns)
{
	if (now_ns < *last_ns + TICK_NS)
		return;
	*last_ns = now_ns;
	for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++) {
		if (atomic_get(&mm->pool[i]->tickets.head) || atomic_get(&mm->pool[i]->free_waiters))
			progress_drop_old(mm->pool[i], now_ns);
		if (atomic_get(&mm->pool[i]->tickets.head) || atomic_get(&mm->starved))
			frame_freed(mm->pool[i]);
		run_throttled(mm->pool[i]);
		progress_tick(mm->pool[i]);
	}
}

static bool somebody_waits(struct fm_mm *mm)
{
	for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++)
		if (atomic_get(&mm->pool[i]->tickets.head) ||
		    atomic_get(&mm->pool[i]->keeper_tickets.head) ||
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
		bool did = after_work_run(mm); /* first: copies that it drops need not be made up for by evictions */
		for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++)
			balance(mm, mm->pool[i]);
		run_tickets(mm, now, &last_ns);
		if (atomic_get(&mm->pt.empty) > mm->pt.entries / 8)
			pt_release_empty(mm, mm->pt.entries);
		file_reap(mm);
		read_expire(mm, now, &next);
		if ((somebody_waits(mm) || atomic_get(&mm->reap_list)) && next > now + TICK_NS)
			next = now + TICK_NS;
		/* While there is protecting to do, it looks around by itself, so that nobody has to wake it, and many pages come
		 * together. What is noted just before it says that it sleeps is seen here, what comes after calls. */
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
