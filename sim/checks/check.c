/* SPDX-License-Identifier: MIT */
/*
 * The checkers of pages: what must hold at every step, and at the end. The checkers of threads are
 * in rules.c.
 *
 * check.c keeps a shadow of each page's state word. A difference shows a change, which check.c
 * records and judges. The rules:
 *   2. Each change of a state word is a transition of transitions.h. What the word says of a page's
 *      bytes (UPTODATE, INSTALLED, DUP, HOLE, ERROR) changes only under the page lock.
 *   3. A page with a pin or the lock keeps its identity. A free page has neither.
 *   4. The device writes only into frames that are pinned and not marked as whole, and into staging
 *      slots that are taken.
 *   6. When all is quiet, a page without pins can be evicted, and no page is older than it may be.
 *      The count of each page table is the number of pages that are there.
 *  10. A page that can be written to in its view is dirty. The bits and counts of dirty pages, of
 *      pages being written and of unflushed pages match the pages.
 *   7. At the end every frame is free, and the charged bytes are the bytes that are there.
 */
#include "sim.h"

#define FRAMES_MAX 256
#define POOLS 3
#define UNDER_LOCK (PG_UPTODATE | PG_INSTALLED | PG_DUP | PG_HOLE | PG_ERROR | PG_SPEC)

static struct {
	uint32_t state[FRAMES_MAX];
	struct fm_file *file[FRAMES_MAX];
	uint64_t index[FRAMES_MAX];
	/* owner of the page lock: thread + 1; 0: no thread, or a request */
	uint8_t owner[FRAMES_MAX];
	bool failed[FRAMES_MAX]; /* the read attempt under the present page lock has failed */
	uint32_t least[FRAMES_MAX]; /* fewest pins since the page was locked */
	bool installed[FRAMES_MAX]; /* the page was installed under the present page lock */
	bool marked[FRAMES_MAX]; /* the page had the readahead mark before the page was locked */
	uint32_t frames;
} shadow[POOLS];

void check_reset(void)
{
	memset(shadow, 0, sizeof(shadow));
	rules_reset();
}

/* ------------------------------------------------------------------ 2, 3: pages */

struct transition {
	const char *name;
	uint32_t sets, may_set, clears, may_clear, needs, forbids;
	int pins;
	uint64_t *count;
};

#define X(name, sets, may_set, clears, may_clear, needs, forbids, pins, help)                  \
	extern uint64_t cover_page_##name;
PAGE_TRANSITIONS(X)
#undef X
static uint64_t cover_page_copy_stays;
static const struct transition transitions[] = {
#define X(name, sets, may_set, clears, may_clear, needs, forbids, pins, help)                  \
	{#name, sets, may_set, clears, may_clear, needs, forbids, pins, &cover_page_##name},
	PAGE_TRANSITIONS(X) PAGE_TRANSITIONS_RARE(X)
#undef X
};

static bool transition_fits(const struct transition *t, uint32_t old, uint32_t now)
{
	uint32_t set = now & ~old & PG_FLAGS, cleared = old & ~now & PG_FLAGS;
	return (set & t->sets) == t->sets && !(set & ~(t->sets | t->may_set)) &&
	       (cleared & t->clears) == t->clears && !(cleared & ~(t->clears | t->may_clear)) &&
	       (old & t->needs) == t->needs && !(old & t->forbids) &&
	       (int)PG_PINS(now) - (int)PG_PINS(old) == t->pins;
}

static void check_transition(uint32_t i, uint32_t old, uint32_t now)
{
	for (uint32_t n = 0; n < sizeof(transitions) / sizeof(*transitions); n++)
		if (transition_fits(&transitions[n], old, now)) {
			++*transitions[n].count;
			return;
		}
	sim_fail("frame %u: the change from %#x to %#x is no legal transition", i, old, now);
}

static void note_owner(uint32_t p, uint32_t i, uint32_t old, uint32_t now)
{
	if (now & ~old & PG_LOCKED) {
		check_lock_taken("a page lock");
		shadow[p].owner[i] = sim.self ? (uint8_t)(sim.self->id + 1) : 0;
	} else if (!(now & PG_LOCKED)) {
		shadow[p].owner[i] = 0;
	}
}

/* Return how many page locks the present thread has. */
uint32_t check_page_locks(void)
{
	uint32_t count = 0;
	for (uint32_t p = 0; sim.self && p < POOLS; p++)
		for (uint32_t i = 0; i < shadow[p].frames; i++)
			count += shadow[p].owner[i] == sim.self->id + 1;
	return count;
}

/* A request begins: the locks of its pages belong to the request from now on. */
void check_given_away(const struct io_request *request)
{
	const struct read_request *req = request->owner;
	struct page *pages[READ_PAGES_MAX];
	uint32_t count = request_pages(req, pages);
	for (uint32_t p = 0; p < POOLS && sim.mm && sim.mm->pool[p]; p++)
		for (uint32_t i = 0; req->file->pool == sim.mm->pool[p] && i < count; i++)
			shadow[p].owner[pages[i] - sim.mm->pool[p]->pages] = 0;
}

/* Check that no page with a readahead mark goes into the view beside the page that a fault wants:
 * no fault would meet the mark. A mark that was set after the page was locked does not count,
 * since the library may not have seen such a mark. */
static void check_mark(uint32_t p, uint32_t i, const struct page *page, uint32_t old, uint32_t now)
{
	bool *marked = &shadow[p].marked[i];
	if (!(now & PG_MARK) || (now & PG_FREE))
		*marked = false;
	else if (now & ~old & PG_LOCKED)
		*marked = true;
	bool wanted = sim.self && sim.self->wants_of == page->file && sim.self->wants == page->index;
	if ((now & ~old & PG_INSTALLED) && *marked && !wanted)
		sim_fail("frame %u is installed beside another page, but has a readahead mark: %#x", i, now);
}

/* Check that the view shows a page that is recorded as installed. */
static void check_there(const struct page *page, uint32_t i)
{
	uint64_t addr = page->file->view.region.base + (page->index << page->file->pool->shift);
	for (uint32_t at = 0; (page->state & PG_INSTALLED) && !sim.emptied && at < page->shown; at++) {
		const struct view_page *view = kernel_view(addr + at * OS_PAGE);
		if (!view || view->poison)
			sim_fail("frame %u is marked as installed, but is not in the view: %#x", i, page->state);
	}
}

/* ------------------------------------------------------------------ 10: files written to */

static bool can_be_written_to(const struct page *page)
{
	const struct view_page *view = kernel_view(page->file->view.region.base +
						   (page->index << page->file->pool->shift));
	return view && !view->poison && !view->protected;
}

/* Check a page that MOVE brings into a view, also on the way back: the program can write to the
 * page from now on, so the page must be dirty. */
void check_arrival(uint64_t addr)
{
	for (uint32_t p = 0; sim.mm && p < MM_POOLS_MAX && sim.mm->pool[p]; p++)
		for (uint32_t i = 0; i < sim.mm->pool[p]->frames; i++) {
			const struct page *page = &sim.mm->pool[p]->pages[i];
			if (!page->file || !page->file->writable || (page->state & (PG_DIRTY | PG_GONE | PG_FREE)) ||
			    page->file->view.region.base + (page->index << page->file->pool->shift) != addr)
				continue;
			if (page->state & PG_LOCKED)
				sim_fail("frame %u arrives in the view as writable, but is clean: %#x",
					 i, page->state);
		}
}

static void written_page_changed(const struct page *page, uint32_t i, uint32_t old, uint32_t now)
{
	struct sim_store *s = (struct sim_store *)page->file->store;
	uint32_t n = store_place(s, page->index);
	if ((old & ~now & PG_DIRTY) && page->file->refs &&
	    can_be_written_to(page)) /* a file without references: the memory goes with the view */
		sim_fail("frame %u becomes clean, but is writable in the view: %#x", i, now);
	if ((now & ~old & PG_UNPROTECTED) && !(now & PG_DIRTY))
		sim_fail("frame %u becomes writable, but is clean: %#x", i, now);
	if ((now & ~old & PG_WRITEBACK) && n < SIM_PAGES) {
		s->writing_since[n] = sim.step;
		s->writing_pinned[n] = page->user_pins;
	}
}

/* The program writes to a page in its view, or I/O writes to a pinned page. The page must be
 * dirty. */
void check_written_to(const struct fm_file *file, uint64_t index)
{
	const struct frame_pool *pool = file->pool;
	for (uint32_t i = 0; i < pool->frames; i++) {
		const struct page *page = &pool->pages[i];
		if (page->file == file && page->index == index && !(page->state & (PG_FREE | PG_GONE))) {
			if (!(page->state & PG_DIRTY))
				sim_fail("page %llu is written to, but is clean: %#x",
					 (unsigned long long)index, page->state);
			return;
		}
	}
	sim_fail("page %llu is written to, but is not in the cache", (unsigned long long)index);
}

static bool bit_of(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

/* Return whether the page's bytes are not yet safe in the store. The page may then stay in the
 * view although no mapping is left. */
bool check_is_held(const struct fm_file *file, uint64_t index)
{
	const struct frame_pool *pool = file->pool;
	for (uint32_t i = 0; i < pool->frames; i++) {
		const struct page *page = &pool->pages[i];
		if (page->file == file && page->index == index && !(page->state & (PG_FREE | PG_GONE)))
			return (page->state & (PG_DIRTY | PG_WRITEBACK)) ||
			       bit_of(pool->unflushed_bits, i) || bit_of(pool->flushing_bits, i);
	}
	return false;
}

static uint32_t bits_of(const uint64_t *bits, uint32_t frames)
{
	uint32_t count = 0;
	for (uint32_t word = 0; word < (frames + 63) / 64; word++)
		count += (uint32_t)__builtin_popcountll(bits[word]);
	return count;
}

static void same(const char *what, uint32_t counted, uint32_t there)
{
	if (counted != there)
		sim_fail("%s: the count is %u, but there are %u", what, counted, there);
}

/* Check the bits and counts. Called when no write and no flush is under way or about to begin. */
void check_written_counts(void)
{
	for (uint32_t p = 0; p < POOLS && sim.mm->pool[p]; p++) {
		const struct frame_pool *pool = sim.mm->pool[p];
		uint32_t dirty = 0, writing = 0;
		for (uint32_t i = 0; i < pool->frames; i++) {
			bool d = pool->pages[i].state & PG_DIRTY, w = pool->pages[i].state & PG_WRITEBACK;
			if (d != bit_of(pool->dirty_bits, i) || w != bit_of(pool->writing_bits, i))
				sim_fail("frame %u: state %#x, but the bits say dirty %u, being written %u",
					 i, pool->pages[i].state, bit_of(pool->dirty_bits, i), bit_of(pool->writing_bits, i));
			dirty += d;
			writing += w;
		}
		uint32_t unflushed = bits_of(pool->unflushed_bits, pool->frames) +
				     bits_of(pool->flushing_bits, pool->frames);
		same("dirty pages", pool->dirty, dirty);
		same("pages being written", pool->writing, writing);
		same("unflushed pages", pool->unflushed, unflushed);
		for (const struct fm_file *file = sim.mm->files; file; file = file->next) {
			if (file->pool != pool)
				continue;
			dirty -= file->dirt->dirty;
			writing -= file->dirt->writing;
			unflushed -= file->dirt->unflushed;
		}
		if (dirty || writing || unflushed)
			sim_fail("the counts of the pool and of its files differ by %d dirty, %d written "
				 "and %d unflushed pages",
				 (int)dirty, (int)writing, (int)unflushed);
		if (pool->spare_slots && pool->spare_slots_free != ~0ull >> (64 - pool->spare_slots))
			sim_fail("a spare slot is not given back: %#llx",
				 (unsigned long long)pool->spare_slots_free);
	}
}

static bool is_no_error(const struct page *page)
{
	const struct sim_store *s = (const struct sim_store *)page->file->store;
	return page->error == -EIO && s->writable && !s->refused && !sim.emptied;
}

static void page_changed(uint32_t p, uint32_t i, const struct page *page, uint32_t old)
{
	uint32_t now = page->state, changed = old ^ now;
	bool reborn = (old | now) & PG_FREE;

	event(sim_page_state, i, page->index, now, old);
	check_transition(i, old, now);
	note_owner(p, i, old, now);
	check_mark(p, i, page, old, now);
	if ((now & PG_FREE) && (PG_PINS(now) || (now & PG_LOCKED)))
		sim_fail("frame %u is free, but has a pin or a lock: %#x", i, now);
	if (PG_PINS(now) > PG_PINS_MAX)
		sim_fail("frame %u: more pins are dropped than were taken: %#x", i, now);
	if (!reborn && !((old | now) & PG_LOCKED) && (changed & UNDER_LOCK))
		sim_fail("frame %u changes from %#x to %#x without the page lock", i, old, now);
	if ((now & PG_INSTALLED) && !(now & (PG_UPTODATE | PG_LOCKED)))
		sim_fail("frame %u is installed, but neither uptodate nor locked: %#x", i, now);
	if (!reborn && shadow[p].file[i] && (old & PG_LOCKED || PG_PINS(old)) &&
	    (page->file != shadow[p].file[i] || page->index != shadow[p].index[i]))
		sim_fail("frame %u gets another page while the frame is pinned or locked", i);
	if (reborn && !(now & PG_FREE) && (now & PG_FLAGS & ~(PG_LOCKED | PG_HOLE)))
		sim_fail("frame %u is allocated with old flags: %#x", i, now);
	if ((now & ~old & PG_LOCKED) || PG_PINS(now) < shadow[p].least[i])
		shadow[p].least[i] = PG_PINS(now);
	/* A whole page may leave the cache only if no other thread relies on the page. One pin
	 * belongs to the thread that removes the page. */
	if ((now & ~old & PG_GONE) && (now & PG_UPTODATE) && shadow[p].least[i] > 1 && page->file->refs &&
	    !page->file->writes->resizing && !((const struct sim_store *)page->file->store)->dropping)
		sim_fail("frame %u leaves the cache, but was pinned all the time: %#x", i, now);
	if ((now ^ old) & (PG_DIRTY | PG_WRITEBACK | PG_UNPROTECTED) && page->file && page->file->writable)
		written_page_changed(page, i, old, now);
	if (now & ~old & PG_ERROR)
		shadow[p].failed[i] = true;
	/* From now on the errno can be told. Every thread that came before the lock was free is
	 * told the errno. A file open for writing has no error unless a read of the file has
	 * failed: a read that ends before the file's end is the library's mistake. */
	if (shadow[p].failed[i] && page->file && !(now & PG_FREE) && !is_no_error(page))
		store_note_error((struct sim_store *)page->file->store, page->index * page->file->pool->page_size,
				 page->file->pool->page_size);
	if (!(now & PG_LOCKED) && shadow[p].installed[i])
		check_there(page, i);
	shadow[p].installed[i] =
		(now & PG_LOCKED) &&
		((now & ~old & PG_INSTALLED) || (shadow[p].installed[i] && (now & PG_INSTALLED)));
	if (!(now & PG_LOCKED))
		shadow[p].failed[i] = false;
	shadow[p].file[i] = now & PG_FREE ? NULL : page->file;
	shadow[p].index[i] = page->index;
	shadow[p].state[i] = now;
}

static void check_pool(uint32_t p, const struct frame_pool *pool)
{
	if (shadow[p].frames != pool->frames) { /* a new pool */
		if (pool->frames > FRAMES_MAX)
			sim_fail("there are more frames than the checkers have room for");
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
		if (t->map_held)
			check_map_taken();
		event(t->map_held ? "map lock taken, exclusive %llu" : "map lock given back",
		      t->map_exclusive, 0, 0, 0);
	}
	for (uint32_t p = 0; sim.mm && p < POOLS && sim.mm->pool[p]; p++)
		check_pool(p, sim.mm->pool[p]);
	check_budget(false);
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
		if (i >= pool->frames && pool->stages_free >> (i - pool->frames) & 1)
			sim_fail("the device writes into a staging slot that is not in use");
		if (i >= pool->frames)
			continue;
		uint32_t state = pool->pages[i].state;
		if ((state & (PG_FREE | PG_UPTODATE | PG_INSTALLED)) || !PG_PINS(state))
			sim_fail("the device writes into frame %u, whose state is %#x", i, state);
	}
}

/* ------------------------------------------------------------------ 6: all is quiet */

/* FM_CHANGED_REFRESH: once a change has been found, no older page stays in the cache. */
static void check_fresh(const struct frame_pool *pool, const struct page *page, uint32_t i)
{
	const struct fm_file *file = page->file;
	if (!(page->state & PG_UPTODATE) || file->changed_policy != FM_CHANGED_REFRESH)
		return;
	const struct view_page *view = kernel_view(file->view.region.base + (page->index << pool->shift));
	uint64_t tag = page->state & PG_INSTALLED ? view ? view->tag[0] : 0
						  : *(uint64_t *)slot_of(pool, page);
	if (tag && (tag >> 44 & 15) < file->reads->version.version[0])
		sim_fail("frame %u has version %llu of its page, but version %llu has been found", i,
			 (unsigned long long)(tag >> 44 & 15), (unsigned long long)file->reads->version.version[0]);
}

/* Check the count of each page table. With a count that is too low, the table is released with
 * pages in it. With a count that is too high, the table is never released. */
static void check_tables(const struct fm_mm *mm)
{
	for (uint32_t r = 0; r < mm->pt->entries; r++) {
		uint32_t count = 0;
		for (uint32_t p = 0; mm->pt->range[r].key && p < POOLS && mm->pool[p]; p++)
			for (uint32_t i = 0; i < mm->pool[p]->frames; i++) {
				const struct page *page = &mm->pool[p]->pages[i];
				if ((page->state & PG_LOCKED) && !(page->state & PG_FREE))
					return;
				if ((page->state & PG_INSTALLED) && !page->uncounted)
					count += page_addr(&page->file->view, mm->pool[p], page) >> 21 == mm->pt->range[r].key;
			}
		if (mm->pt->range[r].key && mm->pt->range[r].count != count)
			sim_fail("a page table's count is %u pages, but there are %u",
				 mm->pt->range[r].count, count);
	}
}

static bool held(const struct frame_pool *pool, const struct page *page, uint32_t i)
{
	uint64_t bits = pool->unflushed_bits[i / 64] | pool->flushing_bits[i / 64];
	return (page->state & (PG_DIRTY | PG_WRITEBACK)) || (bits >> (i % 64) & 1);
}

/* Called when no fault, no call and no request is under way, and the background thread sleeps. */
void check_quiet(void)
{
	bool still = true; /* true: no write and no flush is about to end either */
	for (uint32_t i = 0; i < sim.threads; i++)
		still &= &sim.thread[i] == sim.self || sim.thread[i].state != SIM_READY;
	for (uint32_t p = 0; p < POOLS && sim.mm->pool[p]; p++)
		for (uint32_t i = 0; i < sim.mm->pool[p]->frames; i++) {
			const struct page *page = &sim.mm->pool[p]->pages[i];
			if (page->state & (PG_FREE | PG_LOCKED | PG_GONE))
				continue;
			bool listed = page->list != LIST_NONE && page->list != LIST_FREE && page->list != LIST_HOLES;
			if (!PG_PINS(page->state) && !listed)
				sim_fail("frame %u has no owner, and is on no list: %#x", i,
					 page->state);
			if (still && page->list == LIST_UNSAVED && !held(sim.mm->pool[p], page, i))
				sim_fail("frame %u: nothing holds the page, but the clock cannot find it: %#x",
					 i, page->state);
			check_fresh(sim.mm->pool[p], page, i);
			check_there(page, i);
		}
	check_tables(sim.mm);
}

/* ------------------------------------------------------------------ 7: the end */

static void check_frame_memory(const struct frame_pool *pool, uint32_t i)
{
	bool there = true, hole = pool->pages[i].state & PG_HOLE;
	for (uint32_t at = 0; at < pool->page_size && pool->registered; at += OS_PAGE)
		there &= kernel_slot_present((uint64_t)slot_of(pool, &pool->pages[i]) + at);
	/* A frame that could not be filled for lack of memory is filled when a read into the frame
	 * fails. */
	if (pool->registered && !sim.opt.famine_256 && there == hole)
		sim_fail("frame %u is %s memory at the end: %#x", i, hole ? "a hole with" : "no hole, but has no",
			 pool->pages[i].state);
}

static uint32_t frames_listed(const struct frame_pool *pool)
{
	return pool->queue[LIST_FREE].count + pool->queue[LIST_HOLES].count +
	       pool->queue[LIST_GROUPS].count + pool->queue[LIST_PARKED].count;
}

static void check_frames_free(const struct frame_pool *pool)
{
	uint32_t listed = frames_listed(pool);
	for (uint32_t i = 0; i < pool->frames; i++)
		if (!(pool->pages[i].state & PG_FREE))
			sim_fail("frame %u is not free at the end: %#x", i, pool->pages[i].state);
	if (listed != pool->frames && !pool->deferred)
		sim_fail("%u of %u frames are on no list of free frames at the end",
			 pool->frames - listed, pool->frames);
}

void check_balance(void)
{
	struct fm_mm *mm = sim.mm;
	uint64_t charged = mm->charged_bytes, tables = mm->pt->used * (uint64_t)OS_PAGE;
	for (uint32_t p = 0; p < POOLS && mm->pool[p]; p++) {
		/* The last pin may be gone while the frame is still on its way to a free list: let
		 * the thread run that puts the frame there. */
		for (int tries = 0; tries < 100 && frames_listed(mm->pool[p]) != mm->pool[p]->frames; tries++)
			sim_sleep(OS_NSEC_PER_MSEC);
		check_frames_free(mm->pool[p]);
		for (uint32_t i = 0; i < mm->pool[p]->frames; i++)
			check_frame_memory(mm->pool[p], i);
	}
	check_written_counts();
	if (mm->requests_busy)
		sim_fail("%u requests are left at the end", mm->requests_busy);
	uint64_t there = kernel_pages(true) * OS_PAGE;
	bool exact = mm->install == FM_INSTALL_MOVE && !sim.opt.famine_256;
	if (exact ? charged != there + tables : charged < there + tables)
		sim_fail("%llu bytes are charged, but there are %llu of frames and %llu of page tables",
			 (unsigned long long)charged, (unsigned long long)there,
			 (unsigned long long)tables);
	if (kernel_pages(false))
		sim_fail("%llu pages are left in views at the end", (unsigned long long)kernel_pages(false));
}

void check_slots_closed(void)
{
	for (uint32_t p = 0; sim.mm && p < POOLS && sim.mm->pool[p]; p++)
		check_frames_free(sim.mm->pool[p]);
	sim.mm = NULL; /* the mm's memory is freed from now on */
}
