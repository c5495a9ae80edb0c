/* SPDX-License-Identifier: MIT */
/* Write requests: how they are taken, ended and given back, and what a failed write records. */
#include "mm/flush/request.h"

#include "io/io.h"
#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/gate.h"
#include "mm/base/handles.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/report.h"
#include "mm/base/submit.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/flush/file_writes.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/frames/pool.h"
#include "mm/view/later.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>

#define RETRY_NS OS_NSEC_PER_SEC

struct failure {
	struct fm_file *file;
	uint64_t offset, len;
	int error;
};

/* Return whether the file has its share of the requests, which is half of them. If a store died
 * with all requests, no other file could be written. Two dying stores can hold all requests: each
 * file then still has a request of its own. */
static bool has_its_share(const struct writeback *wb, struct fm_file *file)
{
	return atomic_get(&file->writes->write_requests) >= wb->count / 2;
}

/* Take a free request, or the file's own request. wb->lock held. Returns NULL if none is free. */
static struct write_request *request_take(struct writeback *wb, struct fm_file *file)
{
	struct write_request *req = has_its_share(wb, file) ? NULL : wb->free;

	if (req)
		wb->free = req->next;
	else if (!file->writes->own_write->taken)
		req = file->writes->own_write;
	if (req)
		req->taken = true;
	return req;
}

static struct write_request *request_try(struct writeback *wb, struct fm_file *file)
{
	os_lock(&wb->lock);
	struct write_request *req = request_take(wb, file);
	if (req)
		atomic_add(&file->writes->write_requests, 1u);
	os_unlock(&wb->lock);
	return req;
}

/* Get a write request for the file. With HOW_WAIT, the function may block. Returns NULL if no
 * request is free, or, after a wait, if the mm or the time has ended. */
struct write_request *write_request_get(struct writeback *wb, struct fm_file *file, unsigned how,
					uint64_t until_ns)
{
	for (;;) {
		uint32_t seq = atomic_get(&wb->freed.seq);
		struct write_request *req = request_try(wb, file);
		if (!req) { /* a thread that gives a request back sees `starved`, or the
			       second try finds the request */
			atomic_set(&wb->starved, 1u);
			req = request_try(wb, file);
		}
		if (req || !(how & HOW_WAIT) || os_now_ns() >= until_ns)
			return req;
		requests_send(wb->mm); /* the wait may be for this thread's own requests */
		requests_hold(wb->mm);
		uint64_t slice = os_now_ns() + 20 * OS_NSEC_PER_MSEC;
		gate_wait(&wb->freed, seq, slice < until_ns ? slice : until_ns);
	}
}

uint32_t write_request_put(struct writeback *wb, struct write_request *req)
{
	os_lock(&wb->lock);
	uint32_t left = atomic_sub(&req->file->writes->write_requests, 1u) - 1;
	req->taken = false;
	if (req != req->file->writes->own_write) {
		req->next = wb->free;
		wb->free = req;
	}
	os_unlock(&wb->lock);
	gate_open(&wb->freed);
	return left;
}

/* Wake the waiters after a write or flush of the file has ended: the waiters look again. */
void file_write_ended(struct fm_file *file)
{
	gate_open(&file->writes->ended);
	pool_wake_waiters(file->pool);
}

/* Record a failed write or flush. Must be called before any thread can see that the write or flush
 * has ended. */
void file_note_failure(struct fm_file *file, int error)
{
	atomic_set(&file->dirt->write_error, error);
	atomic_set(&file->writes->retry_ns, os_now_ns() + RETRY_NS);
	atomic_set(&file->dirt->failing, 1u);
	atomic_add(&file->dirt->error_seq, 1u);
}

static void failure_out(void *arg)
{
	const struct failure *failure = arg;
	struct callback callback;

	mm_callback_begin(&callback, failure->file->mm);
	handles_tell(failure->file, failure->offset, failure->len, failure->error);
	mm_callback_end(&callback);
}

void file_tell_failure(struct fm_file *file, uint64_t offset, uint64_t len, int error)
{
	if (!mm_call_begin(file->mm))
		return;
	os_call_out(failure_out, &(struct failure){file, offset, len, error});
	mm_call_end(file->mm);
}

/* Note how long a page takes at the rate at which pages are being written. */
static void note_pace(struct fm_file *file, const struct write_request *req, uint64_t now)
{
	uint64_t last = atomic_get(&file->writes->last_write_ns),
		 begun = last > req->started_ns ? last : req->started_ns;
	uint64_t each = (now > begun ? now - begun : 0) / req->count,
		 old = atomic_get(&file->dirt->write_ns);
	atomic_set(&file->writes->last_write_ns, now);
	atomic_set(&file->dirt->write_ns, old ? old - old / 8 + each / 8 : each);
}

void write_request_end(struct writeback *wb, struct write_request *req)
{
	struct fm_file *file = req->file;
	for (uint32_t i = 0; i < req->count; i++)
		page_unpin(file->pool, &file->pool->pages[req->page[i]]);
	/* Wake the write-back thread only when enough requests are free. Otherwise the thread would
	 * look through all dirty pages for each single request. A request given back unused does
	 * not wake the thread: the thread would get the same request again. */
	if (write_request_put(wb, req) <= wb->count / 4 && atomic_xchg(&wb->starved, 0u))
		writeback_kick(wb->mm);
	file_write_ended(file);
	file_put(file);
}

/* End a write. Runs in the I/O thread or a worker, at the same time as the ends of other requests.
 */
void write_done(struct io_request *io)
{
	struct write_request *req = io->owner;
	struct fm_file *file = req->file;
	struct frame_pool *pool = file->pool;
	struct fm_mm *mm = file->mm;
	struct writeback *wb = mm->wb;
	uint64_t now = os_now_ns();

	req->missing = io->error == -EFAULT;
	io->error = store_error(io->error);
	stats_record(&mm->stats->write_ns, now - req->started_ns);
	stats_add(mm->stats, writes, 1);
	stats_add(mm->stats, write_bytes, io->bytes_done);
	if (file->scratch)
		stats_add(mm->stats, spilled, io->bytes_done >> pool->shift);
	note_pace(file, req, now);
	/* Record the result first: a thread that sees the end of a page's write must find it set. */
	if (io->error)
		file_note_failure(file, io->error);
	else
		atomic_set(&file->dirt->failing, 0u);
	uint32_t stored = io->error ? (uint32_t)(io->bytes_done >> pool->shift) : req->count;
	if (stored)
		atomic_add(&file->writes->stored_seq, 1u);
	for (uint32_t i = 0; i < stored;
	     i++) /* so that a flush that covers this write counts the written pages */
		page_write_stored(pool, &pool->pages[req->page[i]]);
	atomic_add(&file->writes->written_seq, 1u);
	for (uint32_t i = 0; i < req->count; i++) {
		struct page *page = &pool->pages[req->page[i]];
		page_write_end(pool, page, i < stored ? 0 : io->error, req->flush_failures);
		if (page_is(page, PG_DUP)) /* the background met the page while it was being written */
			after_add(mm, pool, page, 1);
	}
	if (io->error) {
		stats_add(mm->stats, write_errors, 1);
		file_tell_failure(file, io->offset + io->bytes_done,
				  store_iov_bytes(io->iov, io->iov_count) - io->bytes_done,
				  io->error);
	}
	if (likely(atomic_get(&file->view.unmap_seq) == req->unmap_seq && !req->in_place &&
		   !req->missing)) {
		write_request_end(wb, req);
		return;
	}
	/* Some page may have stayed in the view because of the write, or may have vanished. */
	struct write_request *head = atomic_get(&wb->late);
	do {
		req->next = head;
	} while (!atomic_cas(&wb->late, &head, req));
	writeback_kick(mm);
}

/* Return whether the file has failed lately, so that its pages are not tried for a while. */
bool write_rests(struct fm_file *file, uint64_t now)
{
	return atomic_get(&file->dirt->failing) && now < atomic_get(&file->writes->retry_ns);
}

struct write_request *writeback_request_alloc(void)
{
	return calloc(1, sizeof(struct write_request));
}
