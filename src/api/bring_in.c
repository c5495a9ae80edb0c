/* SPDX-License-Identifier: MIT */
/*
 * Pages that a call brings in and keeps: fm_fault_in(), fm_pin(), fm_unpin(), and the event that
 * signals further completions.
 * May call: mm, trap, live.c, os.
 */
#include "api/live.h"
#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/report.h"
#include "mm/base/view.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fault/attempt.h"
#include "mm/fault/drive.h"
#include "mm/fault/fault.h"
#include "mm/fault/vmf.h"
#include "mm/fill/ahead.h"
#include "mm/frames/frame.h"
#include "mm/frames/page.h"
#include "mm/frames/pool.h"
#include "mm/map/segments.h"
#include "mm/view/range.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>

/* Run a fault at addr for a call whose further faults reach up to `end`. `look`: a page recorded
 * as installed may be missing. On 0, *ret_page, if wanted, is the installed page with its pin. */
static int fault_call(fm_mm *mm, uint64_t addr, uint64_t end, struct ra_reach *reach,
		      unsigned flags, bool look, struct frame_pool **ret_pool, struct page **ret_page)
{
	struct view *view = view_find(mm, addr);
	struct fault vmf;

	if (!view)
		return -EFAULT;
	fault_begin(&vmf, view, addr, fault_flags(mm, (flags & FM_NOWAIT ? FM_FAULT_RETRY_NOWAIT : 0u) |
							(flags & FM_WRITE ? FM_FAULT_WRITE : 0u)));
	vmf.exact = flags & FM_NOWAIT;
	ra_range(view, addr, end, reach);
	vmf.repeated = look;
	int err = fault_drive(&vmf, NULL);
	if (!err && ret_page) {
		*ret_pool = view->file->pool;
		*ret_page = vmf.page;
		vmf.page = NULL;
	}
	fault_end(&vmf, err);
	region_unpin(&view->region);
	return err;
}

/* Return the next address to handle: pages may be larger than 4096. */
static uint64_t next_page(uint64_t addr)
{
	struct view_region *region = region_find(addr);
	uint64_t unit = OS_PAGE;
	if (region) {
		struct view *view = region->owner;
		unit = view->file->pool->page_size;
		region_unpin(region);
	}
	return (addr & ~(unit - 1)) + unit;
}

/* Tell whether the program has put other memory into the range, in some view. */
static bool range_is_foreign(fm_mm *mm, uint64_t start, uint64_t end)
{
	bool foreign = false;
	while (start < end && !foreign) {
		struct view *view = view_find(mm, start);
		if (!view)
			return false;
		uint64_t stop = view->region.base + view->region.len;
		stop = stop < end ? stop : end;
		start &= ~(uint64_t)(OS_PAGE - 1);
		foreign = trap_any_foreign(mm->trap, start, stop - start);
		region_unpin(&view->region);
		start = stop;
	}
	return foreign;
}

int fm_fault_in(fm_mm *mm, const void *addr, size_t len, unsigned flags)
{
	uint64_t start, end;
	struct ra_reach reach = {0};
	bool again = false;
	int err = live_range(mm, addr, len, &start, &end);
	if (err || (flags & ~(unsigned)(FM_NOWAIT | FM_WRITE)))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	if (flags & FM_NOWAIT) /* completions from now on signal the event again */
		atomic_set(&mm->event_signalled, 0u);
	bool look = range_is_foreign(mm, start, end);
	for (uint64_t at = start; at < end && !err; at = next_page(at)) {
		err = fault_call(mm, at, end, &reach, flags, look, NULL, NULL);
		if (err == -EAGAIN && (flags & FM_NOWAIT)) {
			again = true;
			err = 0;
		}
	}
	if (!err && again) {
		stats_add(mm->stats, fault_in_again, 1);
		err = -EAGAIN;
	}
	os_signals_restore(mask);
	return err;
}

/* Lock a page that the caller has pinned. May block. */
static int lock_page(fm_mm *mm, struct page *page)
{
	while (!page_trylock(page)) {
		int err = page_wait(mm, page, true, OS_FOREVER);
		if (err)
			return err;
	}
	return 0;
}

static int pin_one(fm_mm *mm, uint64_t addr, uint64_t end, struct ra_reach *reach, unsigned flags)
{
	for (;;) {
		struct frame_pool *pool = NULL;
		struct page *page = NULL;
		/* A pinned page must really be there: the program may have emptied the view. */
		int err = fault_call(mm, addr, end, reach, flags, true, &pool, &page);
		if (err)
			return err;
		err = lock_page(mm, page);
		if (err) {
			page_unpin(pool, page);
			return err;
		}
		/* A write-back may have begun since the fault released the lock. Then the page is
		 * clean, or protected. */
		uint32_t wants = PG_INSTALLED | (flags & FM_WRITE ? PG_DIRTY | PG_UNPROTECTED : 0u);
		bool there = (page_state(page) & (wants | PG_GONE)) == wants;
		bool first = there && !page->user_pins;
		uint32_t limit = pool->frames - pool->frames / 4;
		if (there && page->user_pins == UINT16_MAX) {
			err = -EOVERFLOW;
		} else if (first && atomic_add(&pool->user_pinned, 1u) >= limit) {
			atomic_sub(&pool->user_pinned, 1u);
			err = -ENOMEM;
		} else if (there) {
			page_word_set(page, user_pins, page->user_pins + 1);
			if (first)
				stats_add(mm->stats, pins, 1);
		}
		page_unlock(pool, page);
		if (err || !first)
			page_unpin(pool, page);
		if (err || there)
			return err;
	}
}

static int unpin_one(fm_mm *mm, uint64_t addr)
{
	struct view_region *region = region_find(addr);
	if (!region)
		return -EINVAL;
	struct view *view = region->owner;
	struct frame_pool *pool = view->file->pool;
	struct page *page = NULL;
	int err = -EINVAL;
	if (view->mm == mm)
		page = page_find(view->file, (addr - region->base) >> pool->shift);
	if (page && lock_page(mm, page) == 0) {
		bool last = page->user_pins == 1;
		if (page->user_pins) {
			page_word_set(page, user_pins, page->user_pins - 1);
			err = 0;
		}
		page_unlock(pool, page);
		if (last && !err) {
			atomic_sub(&pool->user_pinned, 1u);
			stats_sub(mm->stats, pins, 1);
			page_unpin(pool, page);
			/* The page was unmapped meanwhile, or mapped for reading only: the pin
			 * had kept the page in the view. */
			if (!mapping_allows(mm, addr, view->file->writable && page_is(page, PG_UNPROTECTED)))
				file_take_out(view->file, page->index, page->index);
		}
	}
	if (page)
		page_unpin(pool, page);
	region_unpin(region);
	return err;
}

int fm_pin(fm_mm *mm, const void *addr, size_t len, unsigned flags)
{
	uint64_t start, end, at;
	struct ra_reach reach = {0};
	int err = live_range(mm, addr, len, &start, &end);
	if (err || (flags & ~(unsigned)(FM_NOWAIT | FM_WRITE)))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	if (flags & FM_NOWAIT)
		atomic_set(&mm->event_signalled, 0u);
	for (at = start; at < end; at = next_page(at)) {
		err = pin_one(mm, at, end, &reach, flags);
		if (err)
			break;
	}
	for (uint64_t undo = start; err && undo < at; undo = next_page(undo))
		unpin_one(mm, undo);
	os_signals_restore(mask);
	return err;
}

int fm_unpin(fm_mm *mm, const void *addr, size_t len)
{
	uint64_t start, end;
	int err = live_range(mm, addr, len, &start, &end);
	if (err)
		return err;
	os_sigmask mask = os_signals_block();
	for (uint64_t at = start; at < end; at = next_page(at)) {
		int one = unpin_one(mm, at);
		err = err ? err : one;
	}
	os_signals_restore(mask);
	return err;
}

int fm_event_fd(fm_mm *mm, int *ret_fd)
{
	int err = live_mm(mm);
	if (err || !ret_fd)
		return err ? err : -EINVAL;
	return mm_event_fd(mm, ret_fd);
}
