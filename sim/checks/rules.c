/* SPDX-License-Identifier: MIT */
/*
 * The checkers of threads: what a thread may do, hold and wait for.
 *
 *   1. A thread that blocks or enters the kernel has neither the map lock nor a small lock.
 *   7. Locks are taken in the order of their ranks (src/mm/base/mm.h): map lock, page lock, small
 *      lock. A thread with a page lock does not sleep for a page lock, a frame or a pin set.
 *      No lock is taken with signals open.
 *   5. No thread sleeps, and no ticket waits, for a thing that is there.
 *   8. A fault ends within some tries once its page is ready.
 *   9. The charged bytes are within the budget, and cover the memory that is there.
 */
#include "sim.h"

#define HANG_NS (3600 * OS_NSEC_PER_SEC)
/*
 * Once its page is found whole and unlocked, a try fails only for two reasons: another thread has
 * the page lock at that moment, or takes the page from the view again. Each thread does that a few
 * times in an operation. The most seen in 120,000 runs: 14 tries. Every other try follows a wait
 * that has ended. The most tries seen in all, in as many runs: 250.
 */
#define READY_TRIES_MAX (4 * SIM_THREADS)
#define TRIES_MAX 5000
/* A wake-up may go to a thread that cannot use the free frame or place. Every other waiter then
 * finds the frame at the next tick (5 ms) or slice (10 ms). Stalls of the kernel (3 ms each) may
 * delay the background thread. */
#define FORGOTTEN_NS (200 * OS_NSEC_PER_MSEC)

static struct {
	const struct fault *fault;
	uint32_t ready;
} tried[64]; /* faults under way, by address */
static uint64_t since_frame[MM_POOLS_MAX],
	since_place[MM_POOLS_MAX]; /* since when the thing was free and waited for */
static uint64_t charged;

void rules_reset(void)
{
	memset(tried, 0, sizeof(tried));
	memset(since_frame, 0, sizeof(since_frame));
	memset(since_place, 0, sizeof(since_place));
	charged = 0;
}

/* ------------------------------------------------------------------ 1, 7: blocking and locks */

void check_may_block(const char *what)
{
	const struct thread_local_area *t = self();
	if (!sim.self)
		return;
	if (t->map_held && !sim.hold)
		sim_fail("%s happens under the map lock", what);
	if (sim.self->small_locks)
		sim_fail("%s happens with a small lock held", what);
}

/* If the machine's clock source has no vDSO, reading the clock is a system call. */
void check_clock(void)
{
	if (sim.self && self()->map_held && !sim.hold)
		sim_fail("the clock is read under the map lock");
}

/* Let check.c see the map lock now: the thread may release the lock before its next point. */
void sim_watch_map_lock(const void *lock);
void sim_watch_map_lock(const void *lock)
{
	(void)lock;
	if (sim.self && !!self()->map_held != sim.self->map_seen)
		check_step();
}

void check_lock_taken(const char *what)
{
	if (sim.self && sim.self->signals_open)
		sim_fail("%s is taken while signals are not blocked", what);
}

void check_map_taken(void)
{
	check_lock_taken("the map lock");
	if (sim.self->small_locks)
		sim_fail("the map lock is taken with a small lock held");
	if (check_page_locks() && !sim.hold)
		sim_fail("the map lock is taken with a page lock held");
}

/* A call or a fault is over: the thread must hold no lock. */
void check_nothing_held(const char *what)
{
	if (self()->map_held)
		sim_fail("%s: the map lock is still held", what);
	if (sim.self->small_locks)
		sim_fail("%s: a small lock is still held", what);
	if (check_page_locks())
		sim_fail("%s: a page lock is still held", what);
}

static bool is_page_word(const struct frame_pool *pool, uint64_t key)
{
	uint64_t at = key - (uint64_t)pool->pages;
	return at < pool->frames * sizeof(struct page) &&
	       key == (uint64_t)&pool->pages[at / sizeof(struct page)].state;
}

void check_futex_wait(const uint32_t *word)
{
	uint64_t key = (uint64_t)word;
	check_may_block("a futex wait");
	for (uint32_t p = 0; sim.self && sim.mm && p < MM_POOLS_MAX && sim.mm->pool[p]; p++) {
		const struct frame_pool *pool = sim.mm->pool[p];
		bool scarce = is_page_word(pool, key) || word == &pool->free_seq || word == &pool->pin_set_seq;
		if (scarce && check_page_locks())
			sim_fail("a wait for a page lock, a frame or a slot happens with a page lock held");
	}
	for (const struct fm_file *file = sim.self && sim.mm ? sim.mm->files : NULL; file;
	     file = file->next)
		if ((word == &file->writes->ended.seq || word == &file->writes->resizing) && check_page_locks())
			sim_fail("a wait for a write or a change of size happens with a page lock held");
}

/* The locks of the index's buckets are no os_lock: readers look at the bucket's version. So these
 * two functions count the locks. */
void sim_watch_bucket_locked(const void *bucket);
void sim_watch_bucket_locked(const void *bucket)
{
	(void)bucket;
	check_lock_taken("a bucket's lock");
	if (sim.self->small_locks++)
		sim_fail("a bucket's lock is taken with a small lock held");
	if (self()->map_held && !sim.hold)
		sim_fail("a bucket's lock, which may block, is taken under the map lock");
}

void sim_watch_bucket_unlocked(const void *bucket);
void sim_watch_bucket_unlocked(const void *bucket)
{
	(void)bucket;
	sim.self->small_locks--;
}

/* ------------------------------------------------------------------ 5: nobody is forgotten */

/* Return whether a sleeper on this word must have been woken: each change wakes all sleepers. */
static bool every_change_wakes(const uint32_t *word, uint32_t slept_at)
{
	const struct fm_mm *mm = sim.mm;
	if (word == &mm->map->rin) /* arriving readers change the word, too */
		return (*word & 3) != (slept_at & 3);
	return (word == &mm->map->rout || word == &mm->map->wout || word == &mm->pt->release_seq ||
		word == &mm->background_seq) && *word != slept_at;
}

static void check_sleeper(const struct sim_thread *t)
{
	const uint32_t *word = (const uint32_t *)t->key;
	for (uint32_t p = 0; p < MM_POOLS_MAX && sim.mm->pool[p]; p++)
		if (is_page_word(sim.mm->pool[p], t->key) && !(*word & (PG_LOCKED | PG_WRITEBACK)))
			sim_fail("thread %u (%s) sleeps for a page lock that is free: a wake-up is missing", t->id,
				 t->name);
	if (every_change_wakes(word, t->futex_value))
		sim_fail(
			"thread %u (%s) sleeps on a word that has changed: a wake-up is missing",
			t->id, t->name);
}

static bool somebody_sleeps(const uint32_t *word)
{
	for (uint32_t i = 0; i < sim.threads; i++)
		if (sim.thread[i].state == SIM_BLOCKED && sim.thread[i].wait == WAIT_FUTEX &&
		    sim.thread[i].key == (uint64_t)word)
			return true;
	return false;
}

/* Return whether every store could begin a read. A thread that waits in this pool then waits only
 * for a frame. */
static bool room_everywhere(const struct fm_mm *mm)
{
	for (const struct fm_file *file = mm->files; file; file = file->next)
		if (file->reads->inflight || file->reads->requests)
			return false;
	return mm->request_free != NONE;
}

static bool frame_there(const struct frame_pool *pool)
{
	bool floor = pool->page_size == OS_PAGE &&
		     pool->frames - pool->queue[LIST_HOLES].count <= MM_FRAMES_MIN;
	bool pause = pool->fill_failed_ns && sim.now_ns < pool->fill_failed_ns + OS_NSEC_PER_MSEC;
	return pool->queue[LIST_FREE].count || pool->queue[LIST_GROUPS].count ||
	       pool->queue[LIST_PARKED].count ||
	       (pool->queue[LIST_HOLES].count && !pause &&
		(floor || pool->mm->charged_bytes + pool->page_size <= pool->mm->budget_bytes));
}

static bool place_there(const struct frame_pool *pool)
{
	for (uint32_t i = 0; i < pool->pin_set_count; i++)
		if (!(pool->pin_sets[i].generation & 1) && !pool->pin_sets[i].busy)
			return true;
	return false;
}

static void check_since(uint64_t *since, bool forgotten, const char *what)
{
	/* no tick comes while the threads that can run do not run */
	uint64_t now = sim.now_ns - sim.jumped_ns;
	if (!forgotten)
		*since = 0;
	else if (!*since)
		*since = now;
	else if (now > *since + FORGOTTEN_NS)
		sim_fail("a thread waits for %s, which has been available all the time", what);
}

/* Return whether a ticket waits for a frame. A ticket held back for page tables or for dirty pages
 * does not count. */
static bool ticket_for_frame(const struct ticket *ticket)
{
	while (ticket && (!ticket->file || ticket->throttled))
		ticket = ticket->next;
	return ticket != NULL;
}

static void check_pool_waiters(uint32_t p, const struct frame_pool *pool)
{
	bool frame = somebody_sleeps(&pool->free_seq) || ticket_for_frame(pool->tickets.head);
	bool place = somebody_sleeps(&pool->pin_set_seq) || pool->pin_set_tickets.head;
	check_since(&since_frame[p], frame && frame_there(pool) && room_everywhere(sim.mm), "a frame");
	check_since(&since_place[p], place && place_there(pool),
		    "a slot that keeps an instruction's pages");
}

void check_idle(void)
{
	struct fm_mm *mm = sim.mm;
	if (sim.now_ns > HANG_NS)
		sim_fail("a hang: an hour has passed");
	if (!mm)
		return;
	for (uint32_t i = 0; i < sim.threads; i++)
		if (sim.thread[i].state == SIM_BLOCKED && sim.thread[i].wait == WAIT_FUTEX)
			check_sleeper(&sim.thread[i]);
	check_budget(true);
	for (uint32_t p = 0; p < MM_POOLS_MAX && mm->pool[p]; p++)
		check_pool_waiters(p, mm->pool[p]);
	for (uint32_t q = 0; q < sizeof(mm->page_tickets) / sizeof(*mm->page_tickets); q++)
		for (const struct ticket *t = mm->page_tickets[q].head; t; t = t->next)
			if (!(t->page->state & PG_LOCKED))
				sim_fail("a ticket waits for a page that is not locked");
	for (uint32_t i = 0; i < mm->request_count; i++)
		if (mm->requests[i].busy && !io_knows(&mm->requests[i].io) && !io_between())
			sim_fail("request %u is busy, but no device has the request", i);
}

/* ------------------------------------------------------------------ 8: a fault ends */

static const struct page *page_of(const struct fault *vmf)
{
	const struct frame_pool *pool = vmf->file->pool;
	if (vmf->page)
		return vmf->page;
	for (uint32_t i = 0; i < pool->frames; i++)
		if (pool->pages[i].file == vmf->file && pool->pages[i].index == vmf->index &&
		    !(pool->pages[i].state & (PG_GONE | PG_FREE)))
			return &pool->pages[i];
	return NULL;
}

/* Return whether a fault must wait: for dirty pages, for the write of its page, for an empty place
 * to move the page through, or for a punch. */
static bool held_back(const struct fault *vmf, const struct page *page)
{
	const struct fm_file *file = vmf->file;
	const struct frame_pool *pool = file->pool;
	uint32_t most = pool->frames / 4 < 2 ? 2 : pool->frames / 4,
		 limit = most + pool->user_pinned, now = pool->dirty + pool->writing;
	if (file->writable && page && (page->state & PG_WRITEBACK) && !(page->state & PG_UPTODATE))
		return true;
	if (!file->writable || !(vmf->flags & FM_FAULT_WRITE) || !page)
		return false;
	/* Beyond the limit, a quarter of the limit is for files that use at most an eighth. */
	uint32_t spare = limit / 4 < 2 ? 2 : limit / 4,
		 own = file->dirt->dirty + file->dirt->writing, held = limit + most;
	bool few = own < (spare < 4 ? 2 : (spare + 1) / 2) + pool->user_pinned && now < limit + spare;
	bool over = !(page->state & PG_DIRTY) &&
		    ((now >= limit && !few) || now + pool->unflushed >= held ||
		     own + file->dirt->unflushed >= held - spare);
	bool in_place = (page->state & PG_WRITEBACK) && !(page->state & PG_DUP);
	bool by_a_place = (page->state & PG_DUP) && !pool->spare_slots_free;
	return over || in_place || by_a_place ||
	       (vmf->index >= file->dirt->punch_first && vmf->index <= file->dirt->punch_last);
}

void sim_watch_fault_try(const void *arg);
void sim_watch_fault_try(const void *arg)
{
	const struct fault *vmf = arg;
	const struct page *page = page_of(vmf);
	uint32_t i = 0, at = SIM_THREADS;
	sim.self->wants_of = vmf->file;
	sim.self->wants = vmf->index;
	while (i < 64 && tried[i].fault != vmf) {
		if (!tried[i].fault && at == SIM_THREADS)
			at = i;
		i++;
	}
	if (i == 64) /* a new fault takes a free place; a known address keeps its place */
		i = at;
	if (vmf->tries == 1)
		tried[i].ready = 0;
	tried[i].fault = vmf;
	if (held_back(vmf, page)) {
		tried[i].ready = 0;
		return;
	}
	if (page && (page->state & (PG_UPTODATE | PG_LOCKED | PG_GONE)) == PG_UPTODATE)
		tried[i].ready++;
	if (tried[i].ready > READY_TRIES_MAX || vmf->tries > TRIES_MAX)
		sim_fail("a fault has not ended after %u tries, although its page was uptodate and "
			 "unlocked at %u of them",
			 vmf->tries, tried[i].ready);
}

/* Check a read that goes straight into the view: its address must be mapped, or must have been
 * mapped when the read was requested. */
void sim_watch_staging(const void *arg);
void sim_watch_staging(const void *arg)
{
	const struct read_request *req = arg;
	if (req->file->view.unmap_seq == req->unmap_seq && !mm_find_vma(req->file->mm, req->stage_addr))
		sim_fail("a page is read for address %#llx of the view, where nothing is mapped",
			 (unsigned long long)req->stage_addr);
}

/* ------------------------------------------------------------------ 9: the budget */

/*
 * Return how much may be charged at most. The sum is:
 *  - the budget
 *  - the page tables, which the library releases in the background
 *  - the copies that COPY leaves in slots until the background thread drops them
 *  - one copy for each locked page, which a thread may be making or dropping
 *  - beside a pool of larger pages, the frames that the smallest pool needs to make progress
 * While threads run, each thread may have charged one more frame, and may then find that another
 * thread has taken the frame.
 */
static uint64_t charged_most(const struct fm_mm *mm)
{
	uint64_t most = mm->budget_bytes + (mm->pt->used + 1) * (uint64_t)OS_PAGE;
	for (uint32_t p = 0; p < MM_POOLS_MAX && mm->pool[p]; p++) {
		const struct frame_pool *pool = mm->pool[p];
		for (uint32_t i = 0; i < pool->frames; i++)
			if (pool->pages[i].state & (PG_DUP | PG_LOCKED))
				most += pool->page_size;
		most += p ? MM_FRAMES_MIN * OS_PAGE : 0;
	}
	return most;
}

/* Return how much must be charged at least. A locked page may have an uncharged copy. */
static uint64_t charged_least(const struct fm_mm *mm)
{
	uint64_t least = (kernel_pages(true) + kernel_pages(false)) * OS_PAGE;
	for (uint32_t p = 0; p < MM_POOLS_MAX && mm->pool[p]; p++)
		for (uint32_t i = 0; i < mm->pool[p]->frames; i++)
			if ((mm->pool[p]->pages[i].state & PG_LOCKED) && least)
				least -= least > mm->pool[p]->page_size ? mm->pool[p]->page_size : least;
	return least;
}

void check_budget(bool idle)
{
	const struct fm_mm *mm = sim.mm;
	if (!mm || (mm->charged_bytes == charged && !idle))
		return;
	charged = mm->charged_bytes;
	uint64_t most = charged_most(mm) + (idle ? 0 : sim.threads * OS_PAGE);
	if (charged > most)
		sim_fail("%llu bytes are charged, but at most %llu are allowed", (unsigned long long)charged,
			 (unsigned long long)most);
	if (!sim.dying && charged < charged_least(mm))
		sim_fail("%llu bytes are charged, but there are at least %llu", (unsigned long long)charged,
			 (unsigned long long)charged_least(mm));
}
