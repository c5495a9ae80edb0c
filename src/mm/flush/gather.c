/* SPDX-License-Identifier: MIT */
/* Gathering neighbouring dirty pages into a write request. */
#include "mm/flush/gather.h"

#include "io/io.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/refs.h"
#include "mm/base/submit.h"
#include "mm/base/view.h"
#include "mm/cache/dirty.h"
#include "mm/cache/dirty_limit.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/request.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/view/later.h"
#include "mm/view/lost.h"
#include "mm/view/out.h"
#include "mm/view/run.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>

/*
 * Prepare a dirty page for a write. The page is locked and pinned, and no write of the page is
 * under way. *ret_from receives the address of the page's present bytes. Returns 0 if the page is
 * marked as being written: the caller may drop the page lock. Returns -EBUSY if the kernel has the
 * page pinned, as for I/O into the page: try later. Returns -ENODATA if nothing is left to write.
 */
static int page_freeze(struct fm_file *file, struct page *page, unsigned how, char **ret_from)
{
	struct frame_pool *pool = file->pool;
	struct view *view = &file->view;
	char *from = slot_of(pool, page);
	bool keep = false;
	int err = 0;

	if (page_is(page, PG_INSTALLED)) {
		if (page->user_pins && page_is_foreign(view, page))
			page_gone_foreign(view, page);
		else
			err = page->user_pins ? -EBUSY : page_take_out(view, page, true);
		if (err == -EINVAL &&
		    !trap_readable(
			    page_addr(view, pool, page))) /* the store could not read the page either */
			err = page_copy_out(view, page);
		if (!err && !page_is(page, PG_DIRTY))
			return -ENODATA; /* the bytes have vanished from the view */
		if (err == -EBUSY && !page->user_pins && !(how & HOW_FORCE))
			return err;
	}
	if (err) {
		/* Write the page from the view, and protect the page during the write. A page that
		 * the program has pinned is not protected. A page pinned by the program or the
		 * kernel stays dirty: the page may be written to without a fault. */
		uint64_t addr = page_addr(view, pool, page);
		page_drop_copy(file->mm, pool, page);
		keep = err != -EINVAL;
		if (page->user_pins || trap_protect(file->mm->trap, addr, pool->page_size) < 0)
			keep = true;
		else
			page_set(page, 0, PG_UNPROTECTED);
		from = (char *)addr;
		stats_add(file->mm->stats, write_in_place, 1);
	}
	page_write_begin(pool, page, keep);
	*ret_from = from;
	return 0;
}

static uint64_t bytes_of(struct fm_file *file, const struct page *page)
{
	uint64_t size = file_size(file), start = page->index << file->pool->shift;
	uint64_t rest = start < size ? size - start : 0;
	return rest < file->pool->page_size ? rest : file->pool->page_size;
}

/* Add a pinned page to the request, which takes over the pin. With HOW_WAIT, the first page's lock
 * is waited for. Returns 0; -EAGAIN if the page is not available now; -ETIMEDOUT if the page is not
 * available until `until_ns`; or an error of page_freeze(). */
static int request_add(struct write_request *req, struct page *page, unsigned how,
		       uint64_t until_ns)
{
	struct fm_file *file = req->file;
	struct frame_pool *pool = file->pool;
	struct io_request *io = &req->io;
	char *from;
	int err = -EAGAIN;

	while (!page_trylock(page)) {
		/* With pages gathered already, do not wait: the wait would delay their write. */
		if (!(how & HOW_WAIT) || req->count)
			return -EAGAIN;
		uint64_t now = os_now_ns(), slice = now + 20 * OS_NSEC_PER_MSEC;
		if (now >= until_ns)
			return -ETIMEDOUT;
		requests_send(file->mm);
		requests_hold(file->mm);
		page_wait(file->mm, page, false, slice < until_ns ? slice : until_ns);
	}
	/* A thread that punches the page waits for the page lock, or the punch is seen here. */
	bool punched = range_is_punched(file, page->index);
	if (punched)
		atomic_add(&file->writes->passed_by, 1u);
	if ((page_state(page) & (PG_GONE | PG_DIRTY | PG_WRITEBACK)) == PG_DIRTY &&
	    page->file == file && bytes_of(file, page) && !punched &&
	    bit_is(pool->dirty_bits, (uint32_t)(page - pool->pages)))
		err = page_freeze(file, page, how, &from);
	if (!err) {
		/* Read the size after WRITEBACK is set. A thread that makes the file shorter waits
		 * for the end of the write, or the new size is seen here. */
		uint64_t bytes = bytes_of(file, page);
		struct iovec *last = io->iov_count ? &io->iov[io->iov_count - 1] : NULL;
		if (!bytes) {
			page_write_end(pool, page, -ECANCELED, 0);
			err = -EAGAIN;
		} else if (last && (char *)last->iov_base + last->iov_len == from) {
			last->iov_len += bytes;
		} else {
			io->iov[io->iov_count++] = (struct iovec){from, bytes};
		}
		req->ends = bytes < pool->page_size;
		req->in_place |= from != slot_of(pool, page);
	}
	page_unlock(pool, page);
	if (err)
		return err;
	req->page[req->count++] = (uint32_t)(page - pool->pages);
	return 0;
}

static void request_submit(struct write_request *req, uint64_t index, unsigned how)
{
	struct fm_file *file = req->file;

	req->io.store = file->store;
	req->io.offset = index << file->pool->shift;
	req->io.priority = how & HOW_DEMAND ? IO_DEMAND : IO_SPECULATIVE;
	req->io.op = IO_WRITE;
	req->io.done = write_done;
	req->io.owner = req;
	req->started_ns = os_now_ns();
	req->flush_failures = atomic_get(&file->dirt->flush_failures);
	file_get(file);
	request_send(file->mm, &req->io);
}

/*
 * Write a dirty, pinned page and the dirty pages after the page, up to page `last`. Keeps the
 * caller's pin. Returns how many pages are on their way, or why the first page is not: -EBUSY as
 * from page_freeze(), -EAGAIN, -ETIMEDOUT, or -ENOBUFS if no request is available.
 */
int write_run(struct fm_file *file, struct page *first, uint64_t last, unsigned how,
	      uint64_t until_ns)
{
	struct writeback *wb = file->mm->wb;
	struct frame_pool *pool = file->pool;
	uint64_t index = first->index;
	int err = 0;

	if (atomic_get(&file->writes->given_up)) /* a later user of the file may have written newer
						    bytes */
		return -EAGAIN;
	struct write_request *req = write_request_get(wb, file, how, until_ns);
	if (!req)
		return -ENOBUFS;
	req->file = file;
	req->count = 0;
	req->io.iov_count = 0;
	req->ends = req->in_place = false;
	req->unmap_seq = atomic_get(&file->view.unmap_seq);
	if (index < last)
		take_out_together(file, first,
				  last - index < WRITE_PAGES_MAX ? (uint32_t)(last - index + 1)
								 : WRITE_PAGES_MAX,
				  PG_UNPROTECTED | PG_DIRTY, 0);
	while (!err && !req->ends && req->count < WRITE_PAGES_MAX && index + req->count <= last &&
	       req->io.iov_count < IO_SEGMENTS_MAX) {
		struct page *page = first;
		if (req->count)
			page = page_find(file, index + req->count);
		else
			page_pin(first);
		if (!page)
			break;
		err = request_add(req, page, how, until_ns);
		if (err)
			page_unpin(pool, page);
	}
	int count = (int)req->count;
	if (count)
		request_submit(req, index, how);
	else
		write_request_put(wb, req);
	return count ? count : err;
}
