/* SPDX-License-Identifier: MIT */
/* Work that is left to the background thread: the thread puts protection on and drops
 * copies. */
#include "mm/view/later.h"

#include "mm/base/bell.h"
#include "mm/base/budget.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/view.h"
#include "mm/cache/lock.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "os/atomic.h"
#include "os/os.h"
#include "trap/trap.h"

#define DROP_TOGETHER 64u /* pages */

struct span {
	uint64_t start, end;
	bool huge;
};

/* Queue `count` pages whose frames are neighbours for the background thread. */
void after_add(struct fm_mm *mm, struct frame_pool *pool, struct page *page, uint32_t count)
{
	struct after_work *after = mm->after;
	uint16_t place = 0;
	while (mm->pool[place] != pool)
		place++;
	os_lock(&after->lock);
	if (after->count < after->capacity) {
		uint32_t at = (after->head + after->count++) % after->capacity;
		after->item[at] = (struct after_item){place, (uint16_t)count, (uint32_t)(page - pool->pages)};
	} else {
		after->overflowed = true;
	}
	bool first = after->count == 1, many = after->count == after->capacity / 2;
	os_unlock(&after->lock);
	if (many)
		background_kick(mm);
	else if (first)
		background_note(mm);
}

bool after_work_waits(struct fm_mm *mm)
{
	os_lock(&mm->after->lock);
	bool some = mm->after->count || mm->after->overflowed;
	os_unlock(&mm->after->lock);
	return some;
}

uint64_t page_addr(const struct view *view, const struct frame_pool *pool, const struct page *page)
{
	return view->region.base + (page->index << pool->shift);
}

/* Return how many bytes of the page are shown: whole kernel pages up to the end of the
 * file. */
uint64_t page_shown_bytes(struct fm_file *file, const struct page *page)
{
	uint64_t size = file_size(file);
	uint64_t start = page->index << file->pool->shift;
	if (start >= size)
		return 0;
	uint64_t rest = (size - start + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1);
	return rest < file->pool->page_size ? rest : file->pool->page_size;
}

/* Drop the slot's memory of a page whose bytes are in the view. The caller holds the
 * page lock, and no read from the slot is under way. May wait for the kernel's
 * mmap_lock. */
void page_drop_copy(struct fm_mm *mm, struct frame_pool *pool, struct page *page)
{
	if (!page_is(page, PG_DUP))
		return;
	trap_discard(mm->trap, (uint64_t)slot_of(pool, page), pool->page_size);
	page_set(page, 0, PG_DUP);
	mm_uncharge(mm, pool->page_size);
}

/* Lock and pin a page, if its slot has a copy to be dropped. *ret_later: another thread
 * has the page lock. */
static bool duplicate_take(struct frame_pool *pool, struct page *page, bool *ret_later)
{
	const uint32_t flags = PG_DUP | PG_INSTALLED;
	if ((atomic_get(&page->state) & flags) != flags || !page_try_pin(page))
		return false;
	*ret_later = !page_trylock(page);
	if (!*ret_later) {
		/* otherwise the end of the page's write queues the page again */
		if ((atomic_get(&page->state) & (flags | PG_WRITEBACK)) ==
		    flags)
			return true;
		page_unlock(pool, page);
	}
	/* A loud unpin would wake a thread that waits for a frame. That thread would call this
	 * thread, which looks again, and so on. */
	page_unpin_quiet(pool, page);
	return false;
}

/* Drop the copies in the slots of up to `most` pages, from the first page on. The pages
 * are locked meanwhile: a read into a slot must not come between. The pages are
 * installed, so only a thread that unmaps them waits for these locks. Returns how many
 * pages have been looked at. */
static uint32_t drop_duplicates(struct fm_mm *mm, struct frame_pool *pool, struct page *first,
				uint32_t most)
{
	uint32_t count = 0;
	bool later = false;

	while (count < most && count < DROP_TOGETHER && duplicate_take(pool, first + count, &later))
		count++;
	if (!count && later) {
		/* The lock is held most often by the install that queued this work. All pages are
		 * queued again, else the page could not be evicted. */
		after_add(mm, pool, first, most);
		return most;
	}
	if (!count)
		return 1;
	trap_discard(mm->trap, (uint64_t)slot_of(pool, first), (uint64_t)count << pool->shift);
	mm_uncharge(mm, (uint64_t)count << pool->shift);
	for (uint32_t i = 0; i < count; i++) {
		page_set(first + i, 0, PG_DUP);
		page_unlock(pool, first + i);
		page_unpin(pool, first + i);
	}
	return count;
}

static void span_flush(struct fm_mm *mm, struct span *span)
{
	int err = 0;
	if (span->end > span->start)
		err = (span->huge ? trap_protect_huge : trap_protect)(mm->trap, span->start,
								      span->end - span->start);
	/* a part of the span may no longer be the library's */
	for (uint64_t at = span->start; err && at < span->end;
	     at += OS_PAGE)
		trap_protect(mm->trap, at, OS_PAGE);
	*span = (struct span){0};
}

static void protect_one(struct fm_mm *mm, struct frame_pool *pool, struct page *page,
			struct span *span)
{
	if (!page_try_pin(page))
		return;
	uint32_t state = atomic_get(&page->state);
	struct fm_file *file = page->file;
	if ((state & PG_UNPROTECTED) && (state & PG_INSTALLED) && !file->writable) {
		uint64_t start = page_addr(&file->view, pool, page);
		uint64_t end = start + (uint64_t)page->shown * OS_PAGE;
		page_set(page, 0, PG_UNPROTECTED); /* a later install sets the flag again */
		bool huge = pool->grows;
		if (start != span->end || huge != span->huge ||
		    end - span->start > (huge ? TRAP_HUGE_TOGETHER : TRAP_TOGETHER))
			span_flush(mm, span);
		if (span->end == span->start)
			span->start = start;
		span->end = end;
		span->huge = huge;
	}
	/* The rest of the span is flushed before this thread does anything else; only this
	 * thread closes views. A huge page that is protected in part would be split. */
	if (span->huge ? span->end - span->start >= TRAP_HUGE_TOGETHER : !(span->end % TRAP_TOGETHER))
		span_flush(mm, span);
	page_unpin_quiet(pool, page); /* quiet for the same reason as in duplicate_take() */
}

/* Drop the copies of `count` pages whose frames are neighbours, and protect the pages. */
static void after_some(struct fm_mm *mm, struct frame_pool *pool, struct page *first,
		       uint32_t count, struct span *span)
{
	for (uint32_t i = 0; i < count; i += drop_duplicates(mm, pool, first + i, count - i))
		;
	for (uint32_t i = 0; i < count; i++)
		if (page_is(first + i, PG_UNPROTECTED))
			protect_one(mm, pool, first + i, span);
}

/* Put protection on pages that MOVE installed, and drop copies that COPY left behind.
 * For the background thread. Work that is added meanwhile waits for the next pass, so
 * that work that cannot be done now is not tried for ever. Returns false if there was
 * nothing to do. */
bool after_work_run(struct fm_mm *mm)
{
	struct after_work *after = mm->after;
	struct span span = {0};

	os_lock(&after->lock);
	uint32_t left = after->count;
	bool overflowed = after->overflowed, did = left || overflowed;
	after->overflowed = false;
	os_unlock(&after->lock);
	for (; left; left--) {
		os_lock(&after->lock);
		struct after_item item = after->item[after->head];
		after->head = (after->head + 1) % after->capacity;
		after->count--;
		os_unlock(&after->lock);
		after_some(mm, mm->pool[item.pool], &mm->pool[item.pool]->pages[item.page], item.count, &span);
	}
	span_flush(mm, &span);
	for (int p = 0; overflowed && p < MM_POOLS_MAX && atomic_get(&mm->pool[p]); p++)
		for (uint32_t i = 0; i < mm->pool[p]->frames; i++)
			if (page_is(&mm->pool[p]->pages[i], PG_DUP | PG_UNPROTECTED))
				after_some(mm, mm->pool[p], &mm->pool[p]->pages[i], 1, &span);
	span_flush(mm, &span);
	atomic_add(&after->passes, 1u);
	return did;
}
