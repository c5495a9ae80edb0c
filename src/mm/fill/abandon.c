/* SPDX-License-Identifier: MIT */
/* Read deadlines: take the pages away from a request that has passed its deadline. */
#include "mm/fill/abandon.h"

#include "io/io.h"
#include "mm/base/budget.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/request.h"
#include "mm/fill/share.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>

/* Return the request that holds the lock of `page`, if that request has not ended yet; else
 * NULL. Request lock held. */
static struct read_request *request_of(struct fm_mm *mm, const struct page *page)
{
	return page->request ? &mm->requests[page->request - 1] : NULL;
}

/* Tell the request that reads `page` that a fault waits for the page. A speculative request
 * becomes a demand request. */
void read_wanted(struct fm_file *file, struct page *page)
{
	struct fm_mm *mm = file->mm;
	struct io_request *io = NULL;
	os_lock(&mm->request_lock);
	struct read_request *req = request_of(mm, page);
	if (req && req->speculative) {
		req->speculative = false;
		io = &req->io;
	}
	if (io)
		io_promote(mm->io, io);
	os_unlock(&mm->request_lock);
}

/* Abort the readahead request of `page` when a fault has waited far longer than a read of this
 * store usually takes. `waited_ns` is the time that the fault has waited. A request is aborted
 * only once. The request's pages are then unlocked unread, and the fault reads its page alone.
 * Returns whether this call aborted the request. */
bool read_is_stuck(struct fm_file *file, struct page *page, uint64_t waited_ns)
{
	struct fm_mm *mm = file->mm;
	uint64_t patience = 4 * atomic_get(&file->reads->latency_ns);
	bool aborted = false;

	if (patience < 20 * OS_NSEC_PER_MSEC)
		patience = 20 * OS_NSEC_PER_MSEC;
	if (waited_ns < patience)
		return false;
	os_lock(&mm->request_lock);
	struct read_request *req = request_of(mm, page);
	if (req && req->page_count > 1 && !atomic_get(&req->cancelled)) {
		aborted = true;
		atomic_set(&req->cancelled, 1u);
		io_cancel(mm->io, &req->io);
	}
	os_unlock(&mm->request_lock);
	if (aborted)
		stats_add(mm->stats, ra_aborted, 1);
	return aborted;
}

/* Take the pages from a request whose deadline has passed. The request lock is held at call
 * and not held at return. */
static void request_abandon(struct fm_mm *mm, struct read_request *req)
{
	/* a page list would be too large for a signal handler's stack */
	struct iovec segments[IO_SEGMENTS_MAX];
	struct fm_file *file = req->file;
	int count = request_segments(req, segments);
	bool req_staged = req->stage != NULL;

	atomic_set(&req->abandoned, 1u);
	for (int i = 0; i < count; i++)
		for (struct page *page = request_segment_first(file->pool, &segments[i]);
		     page < request_segment_end(file->pool, &segments[i]); page++) {
			page->request = 0;
			page_pin(page); /* the request may drop its own pin once the lock is free */
		}
	file_get(file);
	io_cancel(mm->io, &req->io);
	os_unlock(&mm->request_lock);

	stats_add(mm->stats, read_timeouts, 1);
	stats_add(mm->stats, read_errors, 1);
	for (int i = 0; i < count; i++)
		for (struct page *page = request_segment_first(file->pool, &segments[i]);
		     page < request_segment_end(file->pool, &segments[i]); page++) {
			if (req_staged) /* the page is a hole: its memory is only charged */
				mm_uncharge(mm, file->pool->page_size);
			page_fail(page, -ETIMEDOUT);
			page_remove(file->pool, page);
			page_unlock(file->pool, page);
			page_unpin(file->pool, page);
		}
	file_put(file);
}

void read_abandon_page(struct fm_mm *mm, struct page *page)
{
	os_lock(&mm->request_lock);
	struct read_request *req = request_of(mm, page);
	if (req && !atomic_get(&req->abandoned))
		request_abandon(mm, req);
	else
		os_unlock(&mm->request_lock);
}

/* Abandon the requests that have passed their deadline. Lowers *ret_next_ns to the next
 * deadline. Called by the background thread. */
void read_expire(struct fm_mm *mm, uint64_t now_ns, uint64_t *ret_next_ns)
{
	for (uint32_t i = 0; i < mm->request_count; i++) {
		struct read_request *req = &mm->requests[i];
		os_lock(&mm->request_lock);
		bool waits = atomic_get(&req->busy) && !atomic_get(&req->abandoned) &&
			     req->deadline_ns != OS_FOREVER;
		/* Otherwise the request has ended, and its pages may belong to another request
		 * by now. */
		bool here = waits && req->file->pool->pages[req->first].request == i + 1;
		if (here && req->deadline_ns <= now_ns) {
			request_abandon(mm, req);
			continue;
		}
		if (here && req->deadline_ns < *ret_next_ns)
			*ret_next_ns = req->deadline_ns;
		os_unlock(&mm->request_lock);
	}
}

/* Cancel all requests of `file`, or all requests of all files if `file` is NULL. */
void read_cancel_all(struct fm_mm *mm, struct fm_file *file)
{
	for (uint32_t i = 0; i < mm->request_count; i++) {
		struct read_request *req = &mm->requests[i];
		os_lock(&mm->request_lock);
		if (atomic_get(&req->busy) && (!file || req->file == file) && !atomic_get(&req->cancelled)) {
			atomic_set(&req->cancelled, 1u);
			io_cancel(mm->io, &req->io);
		}
		os_unlock(&mm->request_lock);
	}
}
