/* SPDX-License-Identifier: MIT */
/* Ends a file: the background thread begins the end, and the closer thread completes the end. */
#include "mm/space/file_end.h"

#include "mm/base/bell.h"
#include "mm/base/file.h"
#include "mm/base/handles.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/record.h"
#include "mm/fill/replay.h"
#include "mm/fill/share.h"
#include "mm/flush/end.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/keep.h"
#include "mm/flush/lost.h"
#include "mm/flush/request.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/reclaim/pin_sets.h"
#include "mm/space/handle.h"
#include "mm/view/later.h"
#include "mm/view/out.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/parts.h"
#include "trap/trap.h"

#include <stdlib.h>

#define EMPTY_BYTES (64ull << 20)
#define EMPTY_PARTS 4096u

/* The parts of a view that have been emptied: one bit for each part. */
struct emptied {
	uint64_t part[EMPTY_PARTS / 64];
};

/*
 * Discard the view's memory around a page. No thread uses the view any more, so the memory is
 * discarded in large parts, but only in parts that hold a page. A call for each page would take
 * longer than the page's read took. A page beyond the parts that the bits can record is discarded
 * alone.
 */
static void empty_around(struct fm_file *file, const struct page *page, struct emptied *emptied)
{
	struct view_region *region = &file->view.region;
	uint64_t offset = page_addr(&file->view, file->pool, page) - region->base,
		 part = offset / EMPTY_BYTES, start = part * EMPTY_BYTES;
	uint64_t end = start + EMPTY_BYTES < region->len ? start + EMPTY_BYTES : region->len;

	if (part >= EMPTY_PARTS) {
		start = offset;
		end = offset + file->pool->page_size;
	} else if (emptied->part[part / 64] & 1ull << part % 64) {
		return;
	} else {
		emptied->part[part / 64] |= 1ull << part % 64;
	}
	trap_region_discard(region, start, end - start);
}

/*
 * Evict a page of a file that ends. Blocks for the page lock. The file has no mapping and no
 * request left, so every holder of the page is about to put the page. The exception is a pin that
 * the program never gave back. The view's memory of the page is discarded already, or goes with
 * the region.
 */
static void evict_page(struct fm_file *file, struct page *page)
{
	struct frame_pool *pool = file->pool;
	while (!page_trylock(page))
		os_sleep_until(os_now_ns() + 50000);
	if (file->writable) /* the bytes are given up, or belong to a private mapping */
		page_drop_dirty(pool, page);
	page_drop_pins(file, page);
	if (page_is(page, PG_INSTALLED))
		page_forget(&file->view, page);
	page_remove(pool, page);
	page_unlock(pool, page);
}

static void evict_all(struct fm_file *file)
{
	struct frame_pool *pool = file->pool;
	struct emptied emptied = {0};

	for (uint32_t i = 0; i < pool->frames; i++) {
		struct page *page = &pool->pages[i];
		while (__atomic_load_n(&page->file, __ATOMIC_ACQUIRE) == file) {
			if (page_try_pin(page)) {
				if (page->file == file && !page_is(page, PG_GONE)) {
					if (page_is(page, PG_INSTALLED))
						empty_around(file, page, &emptied);
					evict_page(file, page);
				}
				page_unpin(pool, page);
			}
			if (__atomic_load_n(&page->file, __ATOMIC_ACQUIRE) == file) {
				os_sleep_until(os_now_ns() + 50000);
				progress_drop_all(pool); /* a pin set in use a moment ago may hold the page */
			}
		}
	}
}

/*
 * End a file's view. The file ends in two steps, and the view is the first. The background thread
 * does this step, because that thread may discard memory. The thread must not wait for a fault in
 * the view: the fault may itself wait for the thread. Returns false if a fault is still in the
 * view; the caller tries again later.
 */
static bool file_end_view(struct fm_file *file)
{
	struct fm_mm *mm = file->mm;
	os_sigmask mask = os_signals_block();

	progress_drop_all(file->pool); /* a pin set may hold pages of any file */
	evict_all(file); /* no mapping is left, so a fault in the view ends at once */
	bool gone = trap_region_close(&file->view.region);
	if (gone) {
		stats_sub(mm->stats, views, 1);
		os_lock(&mm->files_lock);
		*file->pprev = file->next;
		if (file->next)
			file->next->pprev = file->pprev;
		stats_sub(mm->stats, files, 1);
		if (file->reads->replay)
			replay_unlist(file);
		os_unlock(&mm->files_lock);
	}
	os_signals_restore(mask);
	return gone;
}

/*
 * End the rest of a file: close the store and free the memory. Blocks. The background thread must
 * not do this step. A program's signal handler may have interrupted malloc() and wait for a
 * fault, which waits for the background thread. So that thread must not wait for malloc's lock,
 * nor for a store that is slow to close.
 */
void file_free(struct fm_file *file)
{
	object_leave(file);
	handles_free(file);
	if (file->reads->replay)
		replay_end(file);
	if (file->reads->record && !file->base)
		record_end(file);
	file_tell_lost(file);
	if (atomic_get(&file->dirt->lost) &&
	    atomic_get(&file->error_told) != atomic_get(&file->dirt->error_seq))
		atomic_set(&file->mm->emptied, true);
	keep_forget(file);
	if (file->store)
		file->store->ops->close(file->store);
	if (file->base)
		file_put(file->base);
	free(file->writes->flush_io);
	free(file->writes->own_write);
	free(file);
}

static void *closer_main(void *arg)
{
	struct fm_mm *mm = arg;
	for (;;) {
		uint32_t seq = atomic_get(&mm->closer_seq);
		struct fm_file *file = atomic_xchg(&mm->close_list, NULL);
		if (!file && atomic_get(&mm->closer_stop))
			return NULL;
		if (!file)
			os_futex_wait(&mm->closer_seq, seq, OS_FUTEX_ANY, records_save(mm));
		while (file) {
			struct fm_file *next = file->reap_next;
			file_free(file);
			if (atomic_sub(&mm->file_count, 1u) == 1)
				os_futex_wake(&mm->file_count, 1, OS_FUTEX_ANY);
			file = next;
		}
	}
}

int closer_start(struct fm_mm *mm)
{
	return os_thread_start(&mm->closer, "fm-close", closer_main, mm);
}

void closer_stop(struct fm_mm *mm)
{
	atomic_set(&mm->closer_stop, true);
	closer_kick(mm);
	os_thread_join(&mm->closer);
}

/*
 * Begin the end of files without references. Called in the background thread. If the list is not
 * empty afterwards, the thread must call again soon.
 */
void file_reap(struct fm_mm *mm)
{
	struct fm_file *file = atomic_xchg(&mm->reap_list, NULL);
	while (file) {
		struct fm_file *next = file->reap_next;
		object_ending(file);
		if (writeback_close(file)) {
			;
		} else if (object_leave(file),
			   file_end_view(
				   file)) { /* an open from here on reads the written bytes */
			file_push(&mm->close_list, file);
			closer_kick(mm);
		} else {
			file_push(&mm->reap_list, file);
		}
		file = next;
	}
}
