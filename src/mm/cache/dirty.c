/* SPDX-License-Identifier: MIT */
/*
 * Dirty pages: the transitions between clean, dirty, being written, and waiting for a flush.
 *
 * This file owns PG_DIRTY, PG_WRITEBACK, a pool's five kinds of bits, and their counts. The
 * folder flush/ writes dirty pages; view/install.c makes a page writable. The states of a page
 * of a file open for writing, and the function behind each transition:
 *
 *   UPTODATE, protected or not in the view
 *     --write fault: page_mark_dirty, then MOVE--> DIRTY, writable while the page is in the view
 *         (INSTALLED|UNPROTECTED)
 *     --write-back: page_take_out, page_write_begin--> WRITEBACK, in the slot, which the store
 * reads A read fault copies the page into the view, protected: INSTALLED|DUP. A write fault makes
 * that copy writable: the page is DIRTY again. The slot does not change, so the store sees no torn
 * page, and no thread waits.
 *     --page_write_stored, page_write_end, success--> clean and unflushed; failure--> DIRTY
 *     --flush, success--> nothing to remember; failure--> DIRTY
 *
 * Invariants
 *   1. A page that a thread can write to is DIRTY. The flag is set before the page becomes
 *      writable. The flag is cleared only under the page lock, with the page out of the view or
 *      protected. A page under fm_pin() stays both dirty and writable.
 *   2. While WRITEBACK is set, the bytes that the store reads do not change. The store reads the
 *      slot. If the page could not be taken out (INSTALLED without DUP), the store reads the
 *      view. The page is then protected in the view, unless the program has pinned the page for
 *      writing.
 *   3. A page that is dirty, being written, or written and not yet flushed is held: the page
 *      keeps its frame. If the flush fails, the page is dirty again.
 *   4. A bit is set after its flag and cleared before its flag. A thread that searches the bits
 *      for dirty pages misses no page that was written to before the search. The page lock
 *      protects the end of DIRTY and the beginning of WRITEBACK. The end of a write or of a
 *      flush takes no lock.
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
	bit_set(pool->dirty_bits, id_of(pool, page)); /* after the counts: see page_clear_dirty() */
	stats_add(pool->mm->stats, dirty_pages, 1);
	stats_add(pool->mm->stats, dirtied, 1);
	if (!before || dirty_many(pool))
		writeback_note(pool->mm);
}

/* Mark the page dirty, before a thread may write to the page. The caller holds the page lock
 * and a pin. */
void page_mark_dirty(struct frame_pool *pool, struct page *page)
{
	uint32_t old = atomic_get(&page->state);

	do {
		if (old & PG_DIRTY)
			return;
	} while (!atomic_cas(&page->state, &old, old | PG_DIRTY));
	count_dirty(pool, page);
}

/* Mark the page dirty again after a failed write or flush. The caller holds a pin, but not the
 * page lock. So the page may have lost its bytes meanwhile, or may be dropped concurrently.
 * page_remove() handles a concurrent drop after PG_GONE is set. May sleep: if the page is
 * already dirty, waits until the page's dirty bit is set. The wait is short, because the thread
 * that sets the bit waits for nothing. */
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

/* Return whether the page is dirty, being written, or not yet flushed. A write that succeeds
 * sets the unflushed bit before the write clears WRITEBACK. A write or a flush that fails sets
 * DIRTY before WRITEBACK or the bit is cleared. Therefore the function tests the state word both
 * before and after the bits. */
static bool is_held(struct frame_pool *pool, const struct page *page)
{
	return page_is(page, PG_DIRTY | PG_WRITEBACK) || bit_is(pool->unflushed_bits, id_of(pool, page)) ||
	       bit_is(pool->flushing_bits, id_of(pool, page)) || page_is(page, PG_DIRTY | PG_WRITEBACK);
}

/* Return whether the page must keep its frame. The caller holds the page lock. A write or a
 * flush of the page may end at any time. */
bool page_is_unsaved(struct frame_pool *pool, const struct page *page)
{
	return unlikely(page->file->writable) && is_held(pool, page);
}

/* Return the page to the clock's lists if nothing holds the page any more. Called after a reason
 * to hold the page has ended. The caller holds a pin. */
static void let_go(struct frame_pool *pool, struct page *page)
{
	if (!is_held(pool, page))
		lru_move(pool, page, LIST_UNSAVED, page_is(page, PG_INSTALLED) ? LIST_ACTIVE : LIST_INACTIVE);
}

/* Move a held page that the clock has met to LIST_UNSAVED. A write or a flush ends without help, so
 * the clock need not meet the page again before that end. A pin of the program does not end that
 * way: a pinned page is not moved. A write or flush that ended meanwhile did not find the page
 * on LIST_UNSAVED, so the function tests again. The page is off its list, and the caller holds the
 * page lock. Returns true if the page was moved. */
bool page_mark_unsaved(struct frame_pool *pool, struct page *page)
{
	if (page->user_pins || !page_is_unsaved(pool, page))
		return false;
	lru_set(pool, page, 1, LIST_UNSAVED);
	let_go(pool, page);
	return true;
}

/* Mark the page clean. The caller holds the page lock, and no thread can write to the page. May
 * sleep until the page's dirty bit is set. Returns false if the page was clean already. */
bool page_clear_dirty(struct frame_pool *pool, struct page *page)
{
	uint32_t old = atomic_get(&page->state);

	if (!(old & PG_DIRTY))
		return false;
	/* A failed flush made the page dirty without the page lock, and is about to set the bit. A
	 * bit set later would belong to the next page in this frame. */
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

/* Begin a write of the page, and mark the page clean unless `keep_dirty`. The caller holds the
 * page lock and a pin. From here on the pin belongs to the write request. */
void page_write_begin(struct frame_pool *pool, struct page *page, bool keep_dirty)
{
	mm_assert(page_is(page, PG_LOCKED) && !page_is(page, PG_WRITEBACK));
	page_set(page, PG_WRITEBACK, 0);
	bit_set(pool->writing_bits, id_of(pool, page));
	page_word_set(page, io_attempt, page->io_attempt + 1);
	atomic_add(&page->file->dirt->writing, 1u);
	atomic_add(&pool->writing, 1u);
	stats_add(pool->mm->stats, writeback_pages, 1);
	if (!keep_dirty)
		page_clear_dirty(pool, page);
}

/* Set the page's bit in `bits`, the unflushed or the flushing bits, and count the page. A page
 * that has both bits for a moment counts twice. */
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

/* Clear the page's bit in `bits` at the end of a flush. Also called if the bytes written since
 * cannot be relied upon. If `failed`, the page becomes dirty again first. */
void page_flush_end(struct frame_pool *pool, struct page *page, uint64_t *bits, bool failed)
{
	if (failed)
		dirty_again(pool, page);
	unflushed_end(pool, page, bits);
}

/* Record that the store has the page, by a write that is still recorded. The page then waits for
 * a flush. A page that was written to meanwhile, or that is pinned, is dirty: DIRTY holds the
 * page, and the page is written again. A failed flush could do no more for a dirty page. A page
 * with the flag but without the dirty bit is only about to be written to. No sync finds such a
 * page before its bit is set, so the page also waits for a flush. Needs no lock. */
void page_write_stored(struct frame_pool *pool, struct page *page)
{
	bool again = page_is(page, PG_DIRTY) && bit_is(pool->dirty_bits, id_of(pool, page));
	if (!page->file->scratch && !again)
		unflushed_add(pool, page, pool->unflushed_bits);
}

/* End the write of a page and wake the page's waiters. If the write succeeded, the caller has
 * called page_write_stored(). Needs no lock; the caller puts the pin. The page's next state is set
 * before WRITEBACK is cleared: see is_held(). `flush_failures` is the file's count at the
 * beginning of the write. A flush that failed since then may have lost the page. A flush that
 * has not ended yet finds the bit. */
void page_write_end(struct frame_pool *pool, struct page *page, int error, uint32_t flush_failures)
{
	struct fm_file *file = page->file;
	uint32_t old = atomic_get(&page->state);

	mm_assert(old & PG_WRITEBACK);
	if (error || (!file->scratch && atomic_get(&file->dirt->flush_failures) != flush_failures))
		page_flush_end(pool, page, pool->unflushed_bits, true);
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

/* Begin a flush for one page. The caller holds a pin, but not the page lock. So the page may be
 * dropped concurrently; page_remove() handles this after PG_GONE is set. */
void page_flushing(struct frame_pool *pool, struct page *page)
{
	if (!bit_is(pool->unflushed_bits, id_of(pool, page)))
		return;
	/* The bit may be set already, by a flush that failed: then the page is dirty, too. */
	unflushed_add(pool, page, pool->flushing_bits);
	unflushed_end(pool, page, pool->unflushed_bits);
	if (page_is(page, PG_GONE))
		unflushed_end(pool, page, pool->flushing_bits);
}

/* Forget that the page is dirty or unflushed, because the page is truncated, punched, or given
 * up. The page may be gone already. The caller holds the page lock, and no write of the page is
 * under way. */
void page_drop_dirty(struct frame_pool *pool, struct page *page)
{
	page_clear_dirty(pool, page);
	unflushed_end(pool, page, pool->unflushed_bits);
	unflushed_end(pool, page, pool->flushing_bits);
}

/* Record that dirty bytes of the file are lost, by no fault of the store. The caller may hold a
 * page lock: only the next fm_sync() reports the error. */
void file_write_failed(struct fm_file *file, int error)
{
	atomic_set(&file->dirt->write_error, error);
	atomic_add(&file->dirt->error_seq, 1u);
}

/* Record that the bytes of a dirty page are gone. The program has mapped other memory over the
 * page, has unmapped the page, or has emptied the page. The caller may hold a page lock: the
 * write-back thread writes to the log, or the log is written at the file's end. */
void file_lost_page(struct fm_file *file, uint64_t index)
{
	uint64_t first = atomic_get(&file->dirt->lost_first);
	while (index < first && !atomic_cas(&file->dirt->lost_first, &first, index))
		;
	atomic_add(&file->dirt->lost, 1u);
	file_write_failed(file, -EIO);
	writeback_note(file->mm);
}
