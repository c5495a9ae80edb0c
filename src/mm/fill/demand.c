/* SPDX-License-Identifier: MIT */
/* Demand reads: reads that a fault waits for. */
#include "mm/fill/demand.h"

#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/submit.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fill/abandon.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/pages.h"
#include "mm/fill/request.h"
#include "mm/fill/share.h"
#include "mm/fill/streams.h"
#include "mm/fill/version.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/map/map_lock.h"
#include "mm/reclaim/get.h"
#include "mm/view/range.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/store.h"

#include <errno.h>

/* Collect the following pages that are not cached yet, to read all in a single read with the
 * first page. Returns the number of pages, including the first. */
static uint32_t gather(struct fm_file *file, struct page **pages, uint32_t more)
{
	uint32_t count = 1;
	uint64_t end = file_pages(file);
	while (count <= more && count < READ_INLINE_MOST && pages[0]->index + count < end) {
		struct page *page;
		bool fresh;
		if (page_add(file, pages[0]->index + count, ADD_STREAM, &page, &fresh) < 0)
			break;
		if (!fresh) {
			page_unpin(file->pool, page);
			break;
		}
		page_begin_read(file->pool, page);
		page_set(page, PG_SPEC, 0);
		stats_add(file->mm->stats, ra_pages, 1);
		pages[count++] = page;
	}
	return count;
}

static int read_inline(struct fm_file *file, struct page *page, uint32_t more)
{
	struct page *pages[READ_INLINE_MOST];
	struct iovec iov[READ_INLINE_MOST];
	struct frame_pool *pool = file->pool;
	size_t bytes = 0;
	unsigned shorts = 0;

	pages[0] = page;
	page_begin_read(pool, page);
	uint32_t count = gather(file, pages, more);
	atomic_add(&file->reads->inflight, count - 1);
	int iov_count = read_build_iov(file, pages, count, iov);
	uint64_t offset = page->index << pool->shift, started = os_now_ns();
	uint32_t epoch = atomic_get(&file->reads->epoch);
	int err = store_read_full(file->store, iov, iov_count, offset, &bytes, &shorts);
	int filled = err == -EFAULT ? pages_fill(pool, pages, count) : 0;
	if (filled < 0) {
		err = filled;
	} else if (filled) { /* the slots had holes: read once more */
		iov_count = read_build_iov(file, pages, count, iov);
		err = store_read_full(file->store, iov, iov_count, offset, &bytes, &shorts);
	}
	err = store_error(err);
	read_note_latency(file, os_now_ns() - started);
	read_count(file->mm, bytes, shorts, err);
	if (!err || err == -EIO) /* -EIO: also for a read that ended early */
		err = file_recheck_after(file, epoch, UINT64_MAX, err);
	bool dropped = err == -EAGAIN;
	read_inline_end(file, count); /* before the pages are unlocked, as in read_done() */
	page_pin(page);
	pages_end_read(file, pages, count, bytes, err, epoch);
	for (uint32_t i = 1; i < count; i++)
		page_unpin(pool, pages[i]);
	int own = page_error(page, page_state(page));
	page_unpin(pool, page);
	if (dropped)
		file_forget(file);
	if (err && count > 1)
		ra_shrink(file);
	return own;
}

/* Wait for a page that another thread or a request reads. Called with no lock held. Returns 0
 * or the errno of that attempt. */
static int wait_for_read(struct fm_file *file, struct page *page)
{
	uint64_t until = file->deadline_ns ? os_now_ns() + file->deadline_ns : OS_FOREVER;
	int err = page_wait(file->mm, page, true, until);
	if (err == -ETIMEDOUT) {
		read_abandon_page(file->mm, page);
		return -ETIMEDOUT;
	}
	return err ? err : page_error(page, page_state(page));
}

/*
 * Read a page, and up to `more` pages that follow. Called with the page locked and pinned, and
 * no other lock held. The page lock is dropped here; the pin stays. May block. Returns 0,
 * -EBUSY or the errno of the attempt. On 0 the caller looks up the page again. On -EBUSY
 * nothing was read: the caller puts the page and calls read_wait_for_room().
 */
int read_page(struct fm_file *file, struct page *page, uint32_t more)
{
	might_block(file->mm);
	if (atomic_get(&file->reads->changed)) { /* no new page may be read into the snapshot */
		covered(exit_stale_d);
		page_begin_read(file->pool, page);
		page_fail(page, -ESTALE);
		page_unlock_unread(file->pool, page);
		return -ESTALE;
	}
	bool here = read_is_inline(file);
	if (here && read_inline_begin(file, &more))
		return read_inline(file, page, more);
	if (!here && read_submit(file, &page, 1, false) == 0)
		return wait_for_read(file, page);
	page_unlock_unread(file->pool, page);
	return -EBUSY;
}
