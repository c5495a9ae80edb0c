/* SPDX-License-Identifier: MIT */
/*
 * Dirty pages: which they are, how many there may be, and who waits when there are more.
 *
 * Owns PG_DIRTY, PG_WRITEBACK, a pool's bits of the five kinds and their counts, and the places for pages that are out of the
 * view for a moment. What writes them is in writeback.c; how a page becomes writable, in install.c. The states of a page of a
 * file open for writing, and the function behind each transition:
 *
 *   UPTODATE, protected or not in the view
 *     --write fault: page_dirty, then MOVE--> DIRTY, writable while it is in the view (INSTALLED|UNPROTECTED)
 *     --writeback: page_take_out, page_writing--> WRITEBACK, in its slot, which the store reads from
 *         a read brings it into the view by a copy, protected: INSTALLED|DUP
 *         a write makes that copy writable: DIRTY again, while the slot stays as it is: no torn page, and nobody waits
 *     --page_stored, page_written, well--> clean, and unflushed; badly--> DIRTY
 *     --flush, well--> nothing to remember; badly--> DIRTY
 *
 * Invariants
 *   1. A page that somebody can write to is DIRTY: the flag is set before the page is made writable, and cleared only under the
 *      page lock, with the page out of the view or protected. But a page under fm_pin() stays both.
 *   2. While WRITEBACK is set nothing changes what the store reads from: the slot; or, where the page could not be taken out
 *      (INSTALLED without DUP), the view, in which it is then protected, unless the program has it pinned for writing.
 *   3. What is dirty, being written, or written and not flushed yet is held: it keeps its frame. Should the flush fail, it
 *      is dirty again.
 *   4. A bit is set after its flag and cleared before it; who looks for dirty pages by their bits misses none that was
 *      written to before.
 * The page lock protects DIRTY's end and WRITEBACK's beginning; a write's or flush's end takes no lock.
 * May call: page_cache, frame_pool, os, stats.
 */
#include "mm/mm.h"

#include <limits.h>

#define WAIT_SLICE_NS (5 * OS_NSEC_PER_MSEC)
#define WAIT_SLICE_MOST_NS (20 * OS_NSEC_PER_MSEC)
#define PAUSE_LEAST_NS 20000u
#define BIT_PAUSE_NS 1000u
#define ROOM_MOST 64u /* pages */
#define PAUSE_MOST_NS (50 * OS_NSEC_PER_MSEC)

static uint32_t id_of(const struct frame_pool *pool, const struct page *page)
{
	return (uint32_t)(page - pool->pages);
}

/* ------------------------------------------------------------------ flags, bits and counts */

static void count_dirty(struct frame_pool *pool, struct page *page)
{
	atomic_add(&page->file->dirty, 1u);
	uint32_t before = atomic_add(&pool->dirty, 1u);
	bit_set(pool->dirty_bits, id_of(pool, page)); /* last: see page_clean() */
	stats_add(pool->mm->stats, dirty_pages, 1);
	stats_add(pool->mm->stats, dirtied, 1);
	if (!before || dirty_many(pool))
		writeback_note(pool->mm);
}

/* It may be written to from here on. Page lock and a pin held. */
void page_dirty(struct frame_pool *pool, struct page *page)
{
	uint32_t old = atomic_get(&page->state);

	do {
		if (old & PG_DIRTY)
			return;
	} while (!atomic_cas(&page->state, &old, old | PG_DIRTY));
	count_dirty(pool, page);
}

/* A write or a flush of it has failed. Pinned, not locked: it may have lost its bytes meanwhile, or be dropped just now, which
 * page_remove() looks at after PG_GONE is set. One that is dirty already can be found by its bit when this returns; whoever is to
 * set that waits for nothing. */
static void dirty_again(struct frame_pool *pool, struct page *page)
{
	uint32_t old = atomic_get(&page->state);

	do {
		while ((old & (PG_DIRTY | PG_GONE)) == PG_DIRTY && !bit_is(pool->dirty_bits, id_of(pool, page))) {
			os_sleep_until(os_now_ns() + BIT_PAUSE_NS);
			old = atomic_get(&page->state);
		}
		if (old & (PG_DIRTY | PG_GONE))
			return;
		if (!(old & PG_UPTODATE)) {
			stats_add(pool->mm->stats, dirty_lost, 1);
			file_lost_page(page->file, page->index);
			return;
		}
	} while (!atomic_cas(&page->state, &old, old | PG_DIRTY));
	count_dirty(pool, page);
}

/* Dirty or being written, or not flushed yet. A write that ends well sets the bit before WRITEBACK goes, one that ends badly, and
 * a flush, set DIRTY before WRITEBACK or the bit goes: so the word is looked at before the bits, and after. */
static bool is_held(struct frame_pool *pool, const struct page *page)
{
	return page_is(page, PG_DIRTY | PG_WRITEBACK) || bit_is(pool->unflushed_bits, id_of(pool, page)) ||
	       bit_is(pool->flushing_bits, id_of(pool, page)) || page_is(page, PG_DIRTY | PG_WRITEBACK);
}

/* Its frame must not be another's. Page lock held; a write's or a flush's end may come at any time. */
bool page_is_held(struct frame_pool *pool, const struct page *page)
{
	return unlikely(page->file->writable) && is_held(pool, page);
}

/* Something that held it has ended: to the clock with it. Pinned. */
static void let_go(struct frame_pool *pool, struct page *page)
{
	if (!is_held(pool, page))
		lru_move(pool, page, LIST_HELD, page_is(page, PG_INSTALLED) ? LIST_ACTIVE : LIST_INACTIVE);
}

/* The clock has met it. Held by what ends by itself, as a pin of the program's does not, it need not be met again until then: true,
 * and on a list of its own. What has ended meanwhile has not found it there. Off its list, page lock held. */
bool page_hold(struct frame_pool *pool, struct page *page)
{
	if (page->user_pins || !page_is_held(pool, page))
		return false;
	lru_set(pool, page, 1, LIST_HELD);
	let_go(pool, page);
	return true;
}

/* Page lock held; nobody can write to it. False: it was clean. */
bool page_clean(struct frame_pool *pool, struct page *page)
{
	uint32_t old = atomic_get(&page->state);

	if (!(old & PG_DIRTY))
		return false;
	/* A flush that has failed made it dirty without the lock, and is about to set the bit: set later it would be the next page's. */
	while (!bit_is(pool->dirty_bits, id_of(pool, page)))
		os_sleep_until(os_now_ns() + BIT_PAUSE_NS);
	bit_clear(pool->aged_bits, id_of(pool, page));
	bit_clear(pool->dirty_bits, id_of(pool, page));
	page_set(page, 0, PG_DIRTY);
	atomic_sub(&page->file->dirty, 1u);
	atomic_sub(&pool->dirty, 1u);
	stats_sub(pool->mm->stats, dirty_pages, 1);
	let_go(pool, page);
	return true;
}

/* A write of it begins. Page lock and a pin held, which is the request's from here on. */
void page_writing(struct frame_pool *pool, struct page *page, bool keep_dirty)
{
	mm_assert(page_is(page, PG_LOCKED) && !page_is(page, PG_WRITEBACK));
	page_set(page, PG_WRITEBACK, 0);
	bit_set(pool->writing_bits, id_of(pool, page));
	page_word_set(page, attempt, page->attempt + 1);
	atomic_add(&page->file->writing, 1u);
	atomic_add(&pool->writing, 1u);
	stats_add(pool->mm->stats, writeback_pages, 1);
	if (!keep_dirty)
		page_clean(pool, page);
}

/* One of the two kinds: a page that is of both for a moment counts twice. */
static void unflushed_add(struct frame_pool *pool, struct page *page, uint64_t *bits)
{
	if (bit_set(bits, id_of(pool, page)))
		return;
	atomic_add(&page->file->unflushed, 1u);
	atomic_add(&pool->unflushed, 1u);
	stats_add(pool->mm->stats, unflushed_pages, 1);
}

static void unflushed_end(struct frame_pool *pool, struct page *page, uint64_t *bits)
{
	if (!bit_clear(bits, id_of(pool, page)))
		return;
	atomic_sub(&page->file->unflushed, 1u);
	atomic_sub(&pool->unflushed, 1u);
	stats_sub(pool->mm->stats, unflushed_pages, 1);
	let_go(pool, page);
}

/* A flush has ended: of one of its bits. Or what had been written since is not to be relied upon. */
void page_flushed(struct frame_pool *pool, struct page *page, uint64_t *bits, bool failed)
{
	if (failed)
		dirty_again(pool, page);
	unflushed_end(pool, page, bits);
}

/* The store has it, by a write that is still recorded. It is to be flushed; unless it has been written to meanwhile, or is pinned: then
 * it is dirty, held by that, and written again. A flush that fails can do no more. But for who is only about to write to it: until the
 * bit is set no sync finds it. No lock needed. */
void page_stored(struct frame_pool *pool, struct page *page)
{
	bool again = page_is(page, PG_DIRTY) && bit_is(pool->dirty_bits, id_of(pool, page));
	if (!page->file->scratch && !again)
		unflushed_add(pool, page, pool->unflushed_bits);
}

/* The write of it has ended; page_stored() was called if it ended well. No lock needed; the pin is put by the caller. What it
 * becomes is set before WRITEBACK goes: see is_held(). `flush_failures`: the file's, when the write began: a flush that has
 * failed since may have lost it; one that is to end yet finds the bit. */
void page_written(struct frame_pool *pool, struct page *page, int error, uint32_t flush_failures)
{
	struct fm_file *file = page->file;
	uint32_t old = atomic_get(&page->state);

	mm_assert(old & PG_WRITEBACK);
	if (error || (!file->scratch && atomic_get(&file->flush_failures) != flush_failures))
		page_flushed(pool, page, pool->unflushed_bits, true);
	bit_clear(pool->writing_bits, id_of(pool, page));
	atomic_sub(&file->writing, 1u);
	atomic_sub(&pool->writing, 1u);
	stats_sub(pool->mm->stats, writeback_pages, 1);
	old = atomic_get(&page->state);
	while (!atomic_cas(&page->state, &old, old & ~(uint32_t)(PG_WRITEBACK | PG_WAITERS)))
		;
	let_go(pool, page);
	if (old & PG_WAITERS)
		os_futex_wake(&page->state, INT_MAX, OS_FUTEX_ANY);
}

/* A flush begins for one page. Pinned, not locked: it may be dropped just now, which page_remove() looks at after
 * PG_GONE is set. */
void page_flushing(struct frame_pool *pool, struct page *page)
{
	if (!bit_is(pool->unflushed_bits, id_of(pool, page)))
		return;
	unflushed_add(pool, page, pool->flushing_bits); /* or it is of one that failed; it is dirty, too */
	unflushed_end(pool, page, pool->unflushed_bits);
	if (page_is(page, PG_GONE))
		unflushed_end(pool, page, pool->flushing_bits);
}

/* It is going, or is gone: truncated, punched, given up. Page lock held, no write of it under way. */
void page_drop_dirty(struct frame_pool *pool, struct page *page)
{
	page_clean(pool, page);
	unflushed_end(pool, page, pool->unflushed_bits);
	unflushed_end(pool, page, pool->flushing_bits);
}

/* Until no write of the page is under way, or the one that was has ended and there is another. Pinned; no lock held. 0 or
 * -ETIMEDOUT. */
int page_wait_written(struct fm_mm *mm, struct page *page, uint64_t until_ns)
{
	uint32_t attempt = page_word(page, attempt);

	might_block(mm);
	for (;;) {
		uint32_t old = atomic_get(&page->state);
		if (!(old & PG_WRITEBACK) || page_word(page, attempt) != attempt)
			return 0;
		if (!(old & PG_WAITERS)) {
			if (!atomic_cas(&page->state, &old, old | PG_WAITERS))
				continue;
			old |= PG_WAITERS;
		}
		uint64_t now = os_now_ns();
		if (now >= until_ns)
			return -ETIMEDOUT;
		uint64_t slice = now + 20 * OS_NSEC_PER_MSEC;
		os_futex_wait(&page->state, old, OS_FUTEX_ANY, slice < until_ns ? slice : until_ns);
	}
}

/* ------------------------------------------------------------------ how much may be dirty */

/* What is pinned for writing is dirty as long as it is, and nobody's fault. */
static uint32_t dirty_limit(const struct frame_pool *pool)
{
	uint32_t most = pool->frames / 4;
	return (most < 2 ? 2 : most) + atomic_get(&((struct frame_pool *)(uintptr_t)pool)->user_pinned);
}

/* With what waits for a flush: then who reads has the other half. */
static uint32_t held_limit(const struct frame_pool *pool)
{
	uint32_t most = pool->frames / 4;
	return dirty_limit(pool) + (most < 2 ? 2 : most);
}

static uint32_t dirty_now(const struct frame_pool *pool)
{
	struct frame_pool *p = (struct frame_pool *)(uintptr_t)pool;
	return atomic_get(&p->dirty) + atomic_get(&p->writing);
}

/* From here on writers are slowed down. */
static uint32_t dirty_free(const struct frame_pool *pool)
{
	uint32_t limit = dirty_limit(pool);
	return limit - limit / 4;
}

/*
 * `more` pages of a file may become dirty beside those that are. One whose store is dead, or refuses everything, comes to have as many
 * as it may, and keeps them: so it leaves some room for others, who may use it while they themselves have a few.
 */
static bool room_for(const struct fm_file *const_file, uint32_t more)
{
	struct fm_file *file = (struct fm_file *)(uintptr_t)const_file;
	struct frame_pool *pool = file->pool;
	uint32_t limit = dirty_limit(pool), most = held_limit(pool), spare = limit / 4 < 2 ? 2 : limit / 4;
	uint32_t few = spare < 4 ? 2 : (spare + 1) / 2; /* one instruction may write to two pages */
	uint32_t now = dirty_now(pool) + more, held = now + atomic_get(&pool->unflushed);
	uint32_t own_now = atomic_get(&file->dirty) + atomic_get(&file->writing) + more, own_held = own_now + atomic_get(&file->unflushed);

	if (held > most || own_held > most - spare)
		return false;
	return now <= limit || (now <= limit + spare && own_now <= few + atomic_get(&pool->user_pinned)); /* what is pinned stays dirty */
}

/* How many pages of a file may become dirty before its writers are slowed down. */
uint32_t dirty_room(const struct fm_file *file)
{
	uint32_t now = dirty_now(file->pool), free = dirty_free(file->pool), room = now < free ? free - now : 0;
	while (room && !room_for(file, room))
		room /= 2;
	return room;
}

/* No more of a file may become dirty for now. */
static bool dirty_over(const struct fm_file *file)
{
	return !room_for(file, 1);
}

/* Who has been held back goes on when there is room for some: with one page's for each, it would sleep and wake for every page. */
static bool dirty_has_room(const struct fm_file *file)
{
	uint32_t limit = dirty_limit(file->pool), some = limit / 16 < ROOM_MOST ? limit / 16 : ROOM_MOST;
	return room_for(file, 1 + some);
}

/* A write that had been held back, of this file, is worth another try. It is also where nothing of the file is on its way: no end of
 * a write would tell. */
bool dirty_may_go_on(const struct fm_file *const_file)
{
	struct fm_file *file = (struct fm_file *)(uintptr_t)const_file;
	bool idle = !atomic_get(&file->dirty) && !atomic_get(&file->writing);
	return atomic_get(&file->failing) || dirty_has_room(file) || (idle && !dirty_over(file));
}

/* The background begins to write without waiting for pages to grow old, and goes on until there are few. */
bool dirty_many(const struct frame_pool *pool)
{
	return atomic_get(&((struct frame_pool *)(uintptr_t)pool)->dirty) > dirty_limit(pool) / 2;
}

bool dirty_few(const struct frame_pool *pool)
{
	uint32_t limit = dirty_limit(pool);
	return atomic_get(&((struct frame_pool *)(uintptr_t)pool)->dirty) <= limit / 2 - limit / 8;
}

bool unflushed_many(const struct frame_pool *pool)
{
	return atomic_get(&((struct frame_pool *)(uintptr_t)pool)->unflushed) > dirty_limit(pool) / 2;
}

/* From three quarters of the limit on, each page that becomes dirty costs the more time the nearer the limit is: writers slow down
 * to what the store takes, instead of going and stopping. */
static uint64_t pause_ns(const struct fm_file *file, const struct frame_pool *pool)
{
	uint64_t now = dirty_now(pool), limit = dirty_limit(pool), free = dirty_free(pool);
	if (now <= free || limit < 64)
		return 0;
	uint64_t pause = 2 * atomic_get(&((struct fm_file *)(uintptr_t)file)->write_ns) * (now - free) / (limit - free);
	if (pause < PAUSE_LEAST_NS)
		return 0;
	return pause < PAUSE_MOST_NS ? pause : PAUSE_MOST_NS;
}

/* Written from where it is, in the view: it may not be changed until that has ended. */
static bool is_written_in_place(uint32_t state)
{
	return (state & (PG_WRITEBACK | PG_INSTALLED)) == (PG_WRITEBACK | PG_INSTALLED) && !(state & (PG_DUP | PG_UNPROTECTED));
}

/*
 * A write fault, page lock held, the map lock maybe: is the page not to be made writable now? With *ret_error set, not at
 * all: the store refuses what is to be written back, so that there will be no room.
 */
bool dirty_must_wait(const struct fault *vmf, const struct page *page, int *ret_error)
{
	struct fm_file *file = vmf->file;
	uint32_t state = page_state(page);

	*ret_error = 0;
	if (range_is_punched(file, vmf->index) || is_written_in_place(state))
		return true;
	if (state & PG_DIRTY)
		return false;
	if (dirty_over(file)) {
		if (atomic_get(&file->failing))
			*ret_error = atomic_get(&file->write_error);
		return true;
	}
	return !vmf->paced && !(vmf->flags & FM_FAULT_RETRY_NOWAIT) && pause_ns(file, file->pool) > 0;
}

/* A write fault has read a fresh page, locked: may it be written to at once? What it has to pause for comes after. */
bool dirty_may_come(const struct fault *vmf)
{
	return !range_is_punched(vmf->file, vmf->index) && !dirty_over(vmf->file);
}

/* The pause of a page that has become dirty. No lock held. */
void dirty_pace(struct fault *vmf)
{
	uint64_t pause = vmf->paced ? 0 : pause_ns(vmf->file, vmf->file->pool);
	if (!pause)
		return;
	might_block(vmf->mm);
	vmf->paced = true;
	stats_add(vmf->mm->stats, write_throttled, 1);
	stats_record(&vmf->mm->stats->throttle_ns, pause);
	os_sleep_until(os_now_ns() + pause);
}

/* What is waited for has ended, or the wait ends with an error. `over`: too much was dirty. */
static bool wait_is_over(struct fault *vmf, bool over, uint64_t until, int *ret_error)
{
	struct fm_file *file = vmf->file;

	if (atomic_get(&vmf->mm->dying))
		*ret_error = -ECANCELED;
	else if (os_now_ns() >= until)
		*ret_error = -ETIMEDOUT;
	else if (range_is_punched(file, vmf->index) || (vmf->page && is_written_in_place(page_state(vmf->page))))
		return false;
	else if (!over || dirty_has_room(file) || (vmf->page && page_is(vmf->page, PG_DIRTY)))
		return true;
	else if (atomic_get(&file->failing))
		*ret_error = atomic_get(&file->write_error);
	else
		return false;
	return true;
}

/* No lock held, vmf->page pinned. 0: look again; else the error that the fault ends with. */
int dirty_wait(struct fault *vmf)
{
	struct fm_file *file = vmf->file;
	uint64_t begun = os_now_ns(), until = fault_deadline(vmf), pause = pause_ns(file, file->pool), slice = WAIT_SLICE_NS;
	bool over = dirty_over(file), urge = true;
	int error = 0;

	might_block(vmf->mm);
	stats_add(vmf->mm->stats, write_throttled, 1);
	while (!wait_is_over(vmf, over, until, &error)) {
		uint32_t seq = atomic_get(&file->ended.seq);
		if (urge)
			writeback_urge(vmf->mm);
		if (wait_is_over(vmf, over, until, &error))
			break;
		urge = gate_wait(&file->ended, seq, os_now_ns() + slice) == -ETIMEDOUT;
		if (urge && slice < WAIT_SLICE_MOST_NS) /* nothing ends: a store that is all but dead is not asked again and again */
			slice *= 2;
	}
	if (!error && !vmf->paced && pause) {
		vmf->paced = true;
		os_sleep_until(begun + pause);
	}
	stats_record(&vmf->mm->stats->throttle_ns, os_now_ns() - begun);
	return error;
}

/* ------------------------------------------------------------------ places */

/* An empty slot, for a page that is out of the view for a moment while its own slot has memory. NULL: there is none just now. */
char *place_take(struct frame_pool *pool)
{
	uint64_t before = atomic_get(&pool->places_free);
	do {
		if (!before)
			return NULL;
	} while (!atomic_cas(&pool->places_free, &before, before & (before - 1)));
	return pool->slots + ((size_t)(pool->frames + pool->stages + (uint32_t)__builtin_ctzll(before)) << pool->shift);
}

void place_put(struct frame_pool *pool, const char *place)
{
	uint64_t bit = ((uint64_t)(place - pool->slots) >> pool->shift) - pool->frames - pool->stages;
	atomic_or(&pool->places_free, 1ull << bit);
}
