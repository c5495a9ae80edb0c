/* SPDX-License-Identifier: MIT */
/*
 * Read requests: reads of a store into pages.
 *
 * Owns the read requests. From submission to end, a request owns the locks of its pages and a
 * pin on each page. When a request passes its deadline, the pages are taken away from the
 * request. The pages then fail, leave the index and are unlocked. The pins keep the frames
 * until the device is done with the frames. The request lock decides whether `done` or the
 * deadline ends a request. page.request is changed under the request lock.
 *
 * Errors. If a read of a single page fails, the page keeps the errno (PG_ERROR). All waiters
 * of that attempt get the errno, once. The next fault begins a new attempt, which clears the
 * errno. If a read of several pages fails, no page gets an errno. Each waiter then reads its
 * page alone, and gets the errno of that page.
 */
#include "mm/fill/request.h"

#include "io/io.h"
#include "mm/base/bell.h"
#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/submit.h"
#include "mm/base/access.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/pages.h"
#include "mm/fill/share.h"
#include "mm/fill/staged.h"
#include "mm/fill/streams.h"
#include "mm/fill/version.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/frames/pool.h"
#include "mm/frames/staging.h"
#include "mm/map/segments.h"
#include "mm/view/later.h"
#include "mm/view/range.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>
#include <string.h>

static struct read_request *request_get(struct fm_file *file)
{
	struct fm_mm *mm = file->mm;
	struct read_request *req = NULL;
	os_lock(&mm->request_lock);
	if (mm->request_free != NONE && atomic_get(&file->reads->requests) < read_requests_most(file)) {
		atomic_add(&file->reads->requests, 1u);
		req = &mm->requests[mm->request_free];
		atomic_set(&mm->request_free, req->next_free);
		atomic_set(&mm->requests_left, mm->requests_left - 1);
	}
	os_unlock(&mm->request_lock);
	if (req)
		stats_add(mm->stats, requests, 1);
	return req;
}

static void request_put(struct fm_mm *mm, struct read_request *req)
{
	os_lock(&mm->request_lock);
	atomic_set(&req->busy, 0u);
	req->next_free = mm->request_free;
	atomic_set(&mm->request_free, (uint32_t)(req - mm->requests));
	atomic_set(&mm->requests_left, mm->requests_left + 1);
	os_unlock(&mm->request_lock);
	stats_sub(mm->stats, requests, 1);
	atomic_sub(&mm->requests_busy, 1u);
}

struct page *request_segment_first(const struct frame_pool *pool, const struct iovec *segment)
{
	return pool->pages + (((uintptr_t)segment->iov_base - (uintptr_t)pool->slots) >> pool->shift);
}

struct page *request_segment_end(const struct frame_pool *pool, const struct iovec *segment)
{
	return request_segment_first(pool, segment) + (segment->iov_len >> pool->shift);
}

/* Store the slots of the request's pages in `segments`; neighbouring slots share a segment.
 * Returns the number of segments. */
int request_segments(const struct read_request *req, struct iovec *segments)
{
	const struct frame_pool *pool = req->file->pool;

	if (req->stage) {
		segments[0] = (struct iovec){slot_of(pool, &pool->pages[req->first]), pool->page_size};
		return 1;
	}
	memcpy(segments, req->io.iov, (size_t)req->io.iov_count * sizeof(*segments));
	return req->io.iov_count;
}

uint32_t request_pages(const struct read_request *req, struct page **pages)
{
	const struct frame_pool *pool = req->file->pool;
	struct iovec segments[IO_SEGMENTS_MAX];
	int segment_count = request_segments(req, segments);
	uint32_t count = 0;

	for (int i = 0; i < segment_count; i++)
		for (struct page *page = request_segment_first(pool, &segments[i]);
		     page < request_segment_end(pool, &segments[i]); page++)
			pages[count++] = page;
	mm_assert(count == req->page_count && pages[0] == &pool->pages[req->first]);
	return count;
}

/* Return the largest number of pages that a request may have in a window of `wanted` pages. A
 * window takes several requests, because otherwise no page is ready before all pages are. A
 * request also takes only a limited part of what a store may have under way. */
uint32_t read_pages_most(const struct frame_pool *pool, uint32_t wanted)
{
	uint32_t most = wanted / 2 < pool->frames / 16 ? wanted / 2 : pool->frames / 16;
	if (most > READ_PAGES_MAX)
		most = READ_PAGES_MAX;
	return most < IO_SEGMENTS_MAX || pool->page_size > OS_PAGE ? IO_SEGMENTS_MAX : most;
}

/* Return whether a single request can hold the pages, of which the last page is new to the
 * request. *segments counts the segments, and is updated here. */
bool read_fits(struct page **pages, uint32_t count, uint32_t *segments)
{
	if (count > 1 && pages[count - 1] == pages[count - 2] + 1)
		return true;
	return ++*segments <= READ_SEGMENTS_MAX;
}

/* Move a page that was read into a staging slot into the view. Called with the page locked;
 * the lock is dropped here. Returns -EAGAIN if the object has changed; else 0 or the read's
 * error. */
static int staged_done(struct read_request *req, struct page *page, int err)
{
	struct fm_file *file = req->file;
	uint64_t index = page->index;

	/* pinned as by a fault, which takes out pages that came too late */
	region_pin(&file->view.region);
	bool there = staged_install(&file->view, page, req->stage, false, false, req->io.bytes_done,
				    req->epoch, &err);
	if (there && unlikely(atomic_get(&file->view.unmap_seq) != req->unmap_seq) &&
	    !mm_range_mapped(file->mm, req->stage_addr)) {
		covered(exit_unmapped_staged);
		file_take_out(file, index, index);
	}
	region_unpin(&file->view.region);
	return err;
}

/* Fill slots that were emptied from outside: the request's staging slot, or the slots of its
 * pages. Returns what pages_fill() returns. */
static int request_fill(struct read_request *req, struct page **pages)
{
	struct frame_pool *pool = req->file->pool;
	return req->stage ? stage_fill(pool, req->stage) : pages_fill(pool, pages, req->page_count);
}

static void read_done(struct io_request *io)
{
	struct read_request *req = io->owner;
	struct fm_file *file = req->file;
	struct fm_mm *mm = file->mm;
	struct page *pages[READ_PAGES_MAX];
	uint32_t count = request_pages(req, pages);
	int err = io->error;

	os_lock(&mm->request_lock);
	bool abandoned = atomic_get(&req->abandoned);
	for (uint32_t i = 0; !abandoned && i < count; i++)
		pages[i]->request = 0;
	os_unlock(&mm->request_lock);
	/* An abandoned request still owns its staging slot, but no longer its pages. */
	int filled = err == -EFAULT && (req->stage || !abandoned) ? request_fill(req, pages) : 0;
	if (filled)
		/* holes in the slots: the read counts as not tried */
		err = filled < 0 ? filled : -ECANCELED;
	err = store_error(err);

	read_note_latency(file, os_now_ns() - req->started_ns);
	read_count(mm, io->bytes_done, io->shorts,
		   abandoned ? 0 : err); /* an abandoned read is already counted as a failure */
	if ((!err || err == -EIO) && !abandoned)
		err = file_recheck_after(file, req->epoch, io->ended, err);
	/* Give the share back before the pages are unlocked. A thread that then reaches the
	 * mark must find room for the next window. */
	atomic_sub(&file->reads->inflight, count);
	atomic_sub(&file->reads->requests, 1u);
	if (!abandoned && req->stage)
		err = staged_done(req, pages[0], err);
	else if (!abandoned)
		pages_end_read(file, pages, count, io->bytes_done, err, req->epoch);
	if (req->stage)
		stage_put(file->pool, req->stage);
	for (uint32_t i = 0; i < count; i++)
		page_unpin(file->pool, pages[i]);
	if (err == -EAGAIN)
		file_forget(file);
	if (err && count > 1)
		ra_shrink(file);
	struct frame_pool *pool = file->pool;
	request_put(mm, req);
	if (unlikely(replays_under_way(mm)))
		replay_room(mm);
	pool_wake_waiters(pool);
	file_put(file);
}

/* Get a request and charge its frames to the file's share. Returns NULL if no request is free
 * or the store has used up its share. */
static struct read_request *request_begin(struct fm_file *file, uint32_t count, bool speculative)
{
	uint32_t cap = file->pool->frames / 4, before = atomic_add(&file->reads->inflight, count);
	struct read_request *req = NULL;

	mm_assert(count && count <= READ_PAGES_MAX);
	if (before + count <= cap || (!before && !speculative))
		req = request_get(file);
	if (!req) {
		atomic_sub(&file->reads->inflight, count);
		return NULL;
	}
	file_get(file);
	req->file = file;
	req->page_count = count;
	req->speculative = speculative;
	atomic_set(&req->cancelled, 0u);
	atomic_set(&req->abandoned, 0u);
	req->stage = NULL;
	req->epoch = atomic_get(&file->reads->epoch);
	return req;
}

static bool asked_to_end(struct read_request *req)
{
	return atomic_get(&req->cancelled) || atomic_get(&req->abandoned);
}

/* Submit a request. From here on the request owns the locks of its pages, and has its own pins
 * on the pages. */
static void request_submit(struct read_request *req, struct page **pages)
{
	struct fm_file *file = req->file;
	struct fm_mm *mm = file->mm;

	for (uint32_t i = 0; i < req->page_count; i++)
		page_pin(pages[i]);
	req->first = (uint32_t)(pages[0] - file->pool->pages);
	req->io.store = file->store;
	req->io.offset = pages[0]->index << file->pool->shift;
	req->io.priority = req->speculative ? IO_SPECULATIVE : IO_DEMAND;
	req->io.done = read_done;
	req->io.owner = req;
	req->started_ns = os_now_ns();
	req->deadline_ns = file->deadline_ns ? req->started_ns + file->deadline_ns : OS_FOREVER;
	os_lock(&mm->request_lock);
	for (uint32_t i = 0; i < req->page_count; i++)
		pages[i]->request = (uint16_t)(req - mm->requests + 1);
	atomic_set(&req->busy, 1u);
	os_unlock(&mm->request_lock);
	atomic_add(&mm->requests_busy, 1u);
	if (file->deadline_ns)
		background_kick(mm);
	request_send(mm, &req->io);
	/* The request was cancelled before the engine had the request. By now the slot may
	 * hold another request, for which the same test decides. */
	if (unlikely(asked_to_end(req))) {
		os_lock(&mm->request_lock);
		if (atomic_get(&req->busy) && asked_to_end(req))
			io_cancel(mm->io, &req->io);
		os_unlock(&mm->request_lock);
	}
}

/*
 * Start reading neighbouring pages. The caller has locked and pinned all pages, and no page is
 * uptodate. Returns 0 or -EAGAIN. On 0 the request owns the locks and has its own pins. On
 * -EAGAIN no request is free, or the store has used up its share of frames.
 */
int read_submit(struct fm_file *file, struct page **pages, uint32_t count, bool speculative)
{
	struct read_request *req = request_begin(file, count, speculative);
	if (!req)
		return -EAGAIN;
	for (uint32_t i = 0; i < count; i++)
		page_begin_read(file->pool, pages[i]);
	req->io.iov_count = read_build_iov(file, pages, count, req->io.iov);
	request_submit(req, pages);
	return 0;
}

/* Submit the read of a single page into a staging slot. The page is a hole whose memory is
 * already charged. */
static void submit_staged(struct read_request *req, struct page *page, char *stage, uint64_t addr,
			  uint32_t unmap_seq)
{
	page_word_set(page, io_attempt, page->io_attempt + 1);
	req->stage = stage;
	req->stage_addr = addr;
	req->unmap_seq = unmap_seq;
	req->io.iov[0] = (struct iovec){stage, OS_PAGE};
	req->io.iov_count = 1;
	watched(staging, req);
	request_submit(req, &page);
}

/* Start reading access->page alone, into a staging slot. The page is fresh: a hole whose
 * memory is already charged. When the page lock is dropped, the page is in the view. If the
 * read fails, the page is a hole and its memory is no longer charged. Returns 0 or -EAGAIN, as
 * read_submit(). */
int read_submit_staged(struct access *access)
{
	struct fm_file *file = access->file;
	struct frame_pool *pool = file->pool;
	struct page *page = access->page;
	char *stage = stage_take(pool, true);
	struct read_request *req;

	if (!stage && frame_fill_first(pool, page) == 0)
		return read_submit(file, &page, 1, false);
	req = stage ? request_begin(file, 1, false) : NULL;
	if (!req) {
		if (stage)
			stage_put(pool, stage);
		mm_uncharge(access->mm, pool->page_size);
		return -EAGAIN;
	}
	submit_staged(req, page, stage, access->addr, access->unmap_seq);
	return 0;
}

/* Start reading a page that no thread wants yet into the staging slot `stage`. On failure the
 * slot is put and the page's memory is uncharged. Returns 0 or -EAGAIN, as read_submit(). */
int read_submit_ahead(struct fm_file *file, struct page *page, char *stage, uint32_t unmap_seq)
{
	struct read_request *req = request_begin(file, 1, true);
	if (!req) {
		stage_put(file->pool, stage);
		mm_uncharge(file->mm, file->pool->page_size);
		return -EAGAIN;
	}
	submit_staged(req, page, stage, page_addr(&file->view, file->pool, page), unmap_seq);
	return 0;
}
