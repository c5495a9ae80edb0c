/* SPDX-License-Identifier: MIT */
/*
 * The checkers: what must hold at every step, whenever nobody can run, and at the end.
 *
 * Owns a shadow of each page's state word, by which each change is seen, judged and told. The rules:
 *   1. whoever blocks or enters the kernel has neither the map lock nor a small lock
 *   2. what is said of a page's bytes (UPTODATE, INSTALLED, DUP, HOLE, ERROR) changes only under its page lock
 *   3. a page with a pin or the lock keeps its identity; a free one has neither
 *   4. the device writes only into frames that are pinned and do not claim to be whole
 *   5. nobody sleeps for a page lock that is free, nor has a ticket for it
 *   6. at the end every frame is free, and what is charged is what is there
 * May call: kernel, trace.
 */
#include "sim.h"

#define FRAMES_MAX 256
#define POOLS 3
#define HANG_NS (3600 * OS_NSEC_PER_SEC)
#define UNDER_LOCK (PG_UPTODATE | PG_INSTALLED | PG_DUP | PG_HOLE | PG_ERROR | PG_SPEC)

static struct {
	uint32_t state[FRAMES_MAX];
	struct fm_file *file[FRAMES_MAX];
	uint64_t index[FRAMES_MAX];
	bool failed[FRAMES_MAX]; /* by the attempt that has the page lock */
	uint32_t frames;
} shadow[POOLS];

void check_reset(void)
{
	memset(shadow, 0, sizeof(shadow));
}

/* ------------------------------------------------------------------ 1: blocking */

void check_may_block(const char *what)
{
	const struct thread_local_area *t = self();
	if (!sim.self)
		return;
	if (t->map_held && !sim.hold)
		sim_fail("%s under the map lock", what);
	if (sim.self->small_locks)
		sim_fail("%s with a small lock held", what);
}

/* ------------------------------------------------------------------ 2, 3: pages */

static void page_changed(uint32_t p, uint32_t i, const struct page *page, uint32_t old)
{
	uint32_t now = page->state, changed = old ^ now;
	bool reborn = (old | now) & PG_FREE;

	event(sim_page_state, i, page->index, now, old);
	if ((now & PG_FREE) && (PG_PINS(now) || (now & PG_LOCKED)))
		sim_fail("frame %u: free, with a pin or a lock: %#x", i, now);
	if (PG_PINS(now) > PG_PINS_MAX)
		sim_fail("frame %u: more pins put than taken: %#x", i, now);
	if (!reborn && !((old | now) & PG_LOCKED) && (changed & UNDER_LOCK))
		sim_fail("frame %u: %#x became %#x without the page lock", i, old, now);
	if ((now & PG_INSTALLED) && !(now & (PG_UPTODATE | PG_LOCKED)))
		sim_fail("frame %u: installed, not uptodate, not locked: %#x", i, now);
	if (!reborn && shadow[p].file[i] && (old & PG_LOCKED || PG_PINS(old)) &&
	    (page->file != shadow[p].file[i] || page->index != shadow[p].index[i]))
		sim_fail("frame %u: another page while it was pinned or locked", i);
	if (reborn && !(now & PG_FREE) && (now & PG_FLAGS & ~(PG_LOCKED | PG_HOLE)))
		sim_fail("frame %u: taken with old flags: %#x", i, now);
	if (now & ~old & PG_ERROR)
		shadow[p].failed[i] = true;
	/* The errno can be told from here on, and is told to all who came before the lock was free. */
	if (shadow[p].failed[i] && page->file && !(now & PG_FREE))
		store_note_error((struct sim_store *)page->file->store, page->index * page->file->pool->page_size,
				 page->file->pool->page_size);
	if (!(now & PG_LOCKED))
		shadow[p].failed[i] = false;
	shadow[p].file[i] = now & PG_FREE ? NULL : page->file;
	shadow[p].index[i] = page->index;
	shadow[p].state[i] = now;
}

static void check_pool(uint32_t p, const struct frame_pool *pool)
{
	if (shadow[p].frames != pool->frames) { /* new */
		if (pool->frames > FRAMES_MAX)
			sim_fail("more frames than the checkers know");
		shadow[p].frames = pool->frames;
		for (uint32_t i = 0; i < pool->frames; i++) {
			shadow[p].state[i] = pool->pages[i].state;
			shadow[p].file[i] = pool->pages[i].file;
			shadow[p].index[i] = pool->pages[i].index;
		}
	}
	for (uint32_t i = 0; i < pool->frames; i++)
		if (pool->pages[i].state != shadow[p].state[i])
			page_changed(p, i, &pool->pages[i], shadow[p].state[i]);
}

void check_step(void)
{
	const struct thread_local_area *t = self();
	if (!!t->map_held != sim.self->map_seen) {
		sim.self->map_seen = t->map_held;
		event(t->map_held ? "map lock taken, exclusive %llu" : "map lock given back",
		      t->map_exclusive, 0, 0, 0);
	}
	for (uint32_t p = 0; sim.mm && p < POOLS && sim.mm->pool[p]; p++)
		check_pool(p, sim.mm->pool[p]);
}

/* ------------------------------------------------------------------ 4: the device */

void check_device_writes(uint64_t slot)
{
	if (!kernel_slot_present(slot))
		sim_fail("the device writes into a slot without memory");
	for (uint32_t p = 0; sim.mm && p < POOLS && sim.mm->pool[p]; p++) {
		struct frame_pool *pool = sim.mm->pool[p];
		if (slot - (uint64_t)pool->slots >= pool->slots_len)
			continue;
		uint32_t i = (uint32_t)((slot - (uint64_t)pool->slots) >> pool->shift);
		uint32_t state = pool->pages[i].state;
		if ((state & (PG_FREE | PG_UPTODATE | PG_INSTALLED)) || !PG_PINS(state))
			sim_fail("the device writes into frame %u, whose state is %#x", i, state);
	}
}

/* ------------------------------------------------------------------ 5: nobody is forgotten */

static void check_page_waiters(const struct frame_pool *pool)
{
	for (uint32_t i = 0; i < sim.threads; i++) {
		const struct sim_thread *t = &sim.thread[i];
		uint64_t at = t->key - (uint64_t)pool->pages;
		if (t->state != SIM_BLOCKED || t->wait != WAIT_FUTEX ||
		    at >= pool->frames * sizeof(struct page))
			continue;
		const struct page *page = &pool->pages[at / sizeof(struct page)];
		if (&page->state == (uint32_t *)t->key && !(page->state & PG_LOCKED))
			sim_fail("thread %u (%s) sleeps for the lock of frame %llu, which nobody has: a wake-up was forgotten",
				 i, t->name, (unsigned long long)(at / sizeof(struct page)));
	}
}

void check_idle(void)
{
	if (sim.now_ns > HANG_NS)
		sim_fail("a hang: an hour has passed");
	for (uint32_t p = 0; sim.mm && p < POOLS && sim.mm->pool[p]; p++)
		check_page_waiters(sim.mm->pool[p]);
	for (uint32_t q = 0; sim.mm && q < sizeof(sim.mm->page_tickets) / sizeof(*sim.mm->page_tickets); q++)
		for (const struct ticket *t = sim.mm->page_tickets[q].head; t; t = t->next)
			if (!(t->page->state & PG_LOCKED))
				sim_fail("a ticket waits for a page that nobody has locked");
}

/* ------------------------------------------------------------------ 6: the end */

static void check_frames_free(const struct frame_pool *pool)
{
	uint32_t listed = pool->queue[LIST_FREE].count + pool->queue[LIST_HOLES].count;
	for (uint32_t i = 0; i < pool->frames; i++)
		if (!(pool->pages[i].state & PG_FREE))
			sim_fail("frame %u is not free at the end: %#x", i, pool->pages[i].state);
	if (listed != pool->frames && !pool->deferred)
		sim_fail("%u of %u frames are on no list of free ones", pool->frames - listed, pool->frames);
}

void check_balance(void)
{
	struct fm_mm *mm = sim.mm;
	uint64_t charged = mm->charged_bytes, tables = mm->pt.used * (uint64_t)OS_PAGE;
	for (uint32_t p = 0; p < POOLS && mm->pool[p]; p++)
		check_frames_free(mm->pool[p]);
	if (mm->requests_busy)
		sim_fail("%u requests are left over", mm->requests_busy);
	uint64_t there = kernel_pages(true) * OS_PAGE;
	if (mm->install == FM_INSTALL_MOVE ? charged != there + tables : charged < there + tables)
		sim_fail("charged are %llu bytes; %llu of frames and %llu of page tables are there",
			 (unsigned long long)charged, (unsigned long long)there,
			 (unsigned long long)tables);
	if (kernel_pages(false))
		sim_fail("%llu pages are left in views", (unsigned long long)kernel_pages(false));
}

void check_slots_closed(void)
{
	for (uint32_t p = 0; sim.mm && p < POOLS && sim.mm->pool[p]; p++)
		check_frames_free(sim.mm->pool[p]);
	sim.mm = NULL; /* from here on its memory goes */
}
