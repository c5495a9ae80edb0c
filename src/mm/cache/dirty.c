/* SPDX-License-Identifier: MIT */
/*
 * Dirty pages: which they are, how many there may be, and who waits when there are more.
 *
 * Owns PG_DIRTY, PG_WRITEBACK, a pool's bits of the five kinds and their counts, and the places for
 * pages that are out of the view for a moment. What writes them is in writeback.c; how a page
 * becomes writable, in install.c. The states of a page of a file open for writing, and the function
 * behind each transition:
 *
 *   UPTODATE, protected or not in the view
 *     --write fault: page_dirty, then MOVE--> DIRTY, writable while it is in the view
 * (INSTALLED|UNPROTECTED)
 *     --writeback: page_take_out, page_writing--> WRITEBACK, in its slot, which the store reads
 * from a read brings it into the view by a copy, protected: INSTALLED|DUP a write makes that copy
 * writable: DIRTY again, while the slot stays as it is: no torn page, and nobody waits
 *     --page_stored, page_written, well--> clean, and unflushed; badly--> DIRTY
 *     --flush, well--> nothing to remember; badly--> DIRTY
 *
 * Invariants
 *   1. A page that somebody can write to is DIRTY: the flag is set before the page is made
 * writable, and cleared only under the page lock, with the page out of the view or protected. But a
 * page under fm_pin() stays both.
 *   2. While WRITEBACK is set nothing changes what the store reads from: the slot; or, where the
 * page could not be taken out (INSTALLED without DUP), the view, in which it is then protected,
 * unless the program has it pinned for writing.
 *   3. What is dirty, being written, or written and not flushed yet is held: it keeps its frame.
 * Should the flush fail, it is dirty again.
 *   4. A bit is set after its flag and cleared before it; who looks for dirty pages by their bits
 * misses none that was written to before. The page lock protects DIRTY's end and WRITEBACK's
 * beginning; a write's or flush's end takes no lock.
 */
#include "mm/cache/dirty.h"

#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty_limit.h"
#include "mm/cache/file_dirt.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>
#include <limits.h>

#define BIT_PAUSE_NS 1000u

static uint32_t id_of(const struct frame_pool *pool, const struct page *page)
{
	return (uint32_t)(page - pool->pages);
}

static void count_dirty(struct frame_pool *pool, struct page *page)
{
	atomic_add(&page->file->dirt->dirty, 1u);
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

/* A write or a flush of it has failed. Pinned, not locked: it may have lost its bytes meanwhile, or
 * be dropped just now, which page_remove() looks at after PG_GONE is set. One that is dirty already
 * can be found by its bit when this returns; whoever is to set that waits for nothing. */
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

/* Dirty or being written, or not flushed yet. A write that ends well sets the bit before WRITEBACK
 * goes, one that ends badly, and a flush, set DIRTY before WRITEBACK or the bit goes: so the word
 * is looked at before the bits, and after. */
static bool is_held(struct frame_pool *pool, const struct page *page)
{
	return page_is(page, PG_DIRTY | PG_WRITEBACK) || bit_is(pool->unflushed_bits, id_of(pool, page)) ||
	       bit_is(pool->flushing_bits, id_of(pool, page)) || page_is(page, PG_DIRTY | PG_WRITEBACK);
}

/* Its frame must not be another's. Page lock held; a write's or a flush's end may come at any time.
 */
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

/* The clock has met it. Held by what ends by itself, as a pin of the program's does not, it need
 * not be met again until then: true, and on a list of its own. What has ended meanwhile has not
 * found it there. Off its list, page lock held. */
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
	/* A flush that has failed made it dirty without the lock, and is about to set the bit: set
	 * later it would be the next page's. */
	while (!bit_is(pool->dirty_bits, id_of(pool, page)))
		os_sleep_until(os_now_ns() + BIT_PAUSE_NS);
	bit_clear(pool->aged_bits, id_of(pool, page));
	bit_clear(pool->dirty_bits, id_of(pool, page));
	page_set(page, 0, PG_DIRTY);
	atomic_sub(&page->file->dirt->dirty, 1u);
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
	atomic_add(&page->file->dirt->writing, 1u);
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
	atomic_add(&page->file->dirt->unflushed, 1u);
	atomic_add(&pool->unflushed, 1u);
	stats_add(pool->mm->stats, unflushed_pages, 1);
}

static void unflushed_end(struct frame_pool *pool, struct page *page, uint64_t *bits)
{
	if (!bit_clear(bits, id_of(pool, page)))
		return;
	atomic_sub(&page->file->dirt->unflushed, 1u);
	atomic_sub(&pool->unflushed, 1u);
	stats_sub(pool->mm->stats, unflushed_pages, 1);
	let_go(pool, page);
}

/* A flush has ended: of one of its bits. Or what had been written since is not to be relied upon.
 */
void page_flushed(struct frame_pool *pool, struct page *page, uint64_t *bits, bool failed)
{
	if (failed)
		dirty_again(pool, page);
	unflushed_end(pool, page, bits);
}

/* The store has it, by a write that is still recorded. It is to be flushed; unless it has been
 * written to meanwhile, or is pinned: then it is dirty, held by that, and written again. A flush
 * that fails can do no more. But for who is only about to write to it: until the bit is set no sync
 * finds it. No lock needed. */
void page_stored(struct frame_pool *pool, struct page *page)
{
	bool again = page_is(page, PG_DIRTY) && bit_is(pool->dirty_bits, id_of(pool, page));
	if (!page->file->scratch && !again)
		unflushed_add(pool, page, pool->unflushed_bits);
}

/* The write of it has ended; page_stored() was called if it ended well. No lock needed; the pin is
 * put by the caller. What it becomes is set before WRITEBACK goes: see is_held(). `flush_failures`:
 * the file's, when the write began: a flush that has failed since may have lost it; one that is to
 * end yet finds the bit. */
void page_written(struct frame_pool *pool, struct page *page, int error, uint32_t flush_failures)
{
	struct fm_file *file = page->file;
	uint32_t old = atomic_get(&page->state);

	mm_assert(old & PG_WRITEBACK);
	if (error || (!file->scratch && atomic_get(&file->dirt->flush_failures) != flush_failures))
		page_flushed(pool, page, pool->unflushed_bits, true);
	bit_clear(pool->writing_bits, id_of(pool, page));
	atomic_sub(&file->dirt->writing, 1u);
	atomic_sub(&pool->writing, 1u);
	stats_sub(pool->mm->stats, writeback_pages, 1);
	old = atomic_get(&page->state);
	while (!atomic_cas(&page->state, &old, old & ~(uint32_t)(PG_WRITEBACK | PG_WAITERS)))
		;
	let_go(pool, page);
	if (old & PG_WAITERS)
		os_futex_wake(&page->state, INT_MAX, OS_FUTEX_ANY);
}

/* A flush begins for one page. Pinned, not locked: it may be dropped just now, which page_remove()
 * looks at after PG_GONE is set. */
void page_flushing(struct frame_pool *pool, struct page *page)
{
	if (!bit_is(pool->unflushed_bits, id_of(pool, page)))
		return;
	unflushed_add(pool, page, pool->flushing_bits); /* or it is of one that failed; it is dirty, too */
	unflushed_end(pool, page, pool->unflushed_bits);
	if (page_is(page, PG_GONE))
		unflushed_end(pool, page, pool->flushing_bits);
}

/* It is going, or is gone: truncated, punched, given up. Page lock held, no write of it under way.
 */
void page_drop_dirty(struct frame_pool *pool, struct page *page)
{
	page_clean(pool, page);
	unflushed_end(pool, page, pool->unflushed_bits);
	unflushed_end(pool, page, pool->flushing_bits);
}

/* Something that is dirty is lost, by no fault of the store's. A page lock may be held: only the
 * next fm_sync() tells. */
void file_write_failed(struct fm_file *file, int error)
{
	atomic_set(&file->dirt->write_error, error);
	atomic_add(&file->dirt->error_seq, 1u);
}

/* A dirty page's bytes are gone: the program has put other memory in their place, has unmapped or
 * emptied it. A page lock may be held: the log is told by the write-back thread, or at the file's
 * end. */
void file_lost_page(struct fm_file *file, uint64_t index)
{
	uint64_t first = atomic_get(&file->dirt->lost_first);
	while (index < first && !atomic_cas(&file->dirt->lost_first, &first, index))
		;
	atomic_add(&file->dirt->lost, 1u);
	file_write_failed(file, -EIO);
	writeback_note(file->mm);
}
