/* SPDX-License-Identifier: MIT */
/* The sweep after an unmap: dirty pages that are still in the view are taken out. */
#include "mm/flush/sweep.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/index.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/range.h"
#include "mm/flush/request.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/map/segments.h"
#include "mm/view/later.h"
#include "mm/view/lost.h"
#include "mm/view/range.h"
#include "os/atomic.h"
#include "os/os.h"

void write_to_recheck(struct writeback *wb)
{
	struct write_request *req = atomic_xchg(&wb->late, NULL);
	while (req) {
		struct write_request *next = req->next;
		struct fm_file *file = req->file;
		uint32_t stopped = (uint32_t)(req->io.bytes_done >> file->pool->shift);
		/* Handle the page at which the write stopped: the page was to be written from the
		 * view, and the program has emptied it. Otherwise its write would be tried again
		 * and again. The pages behind are uncertain: a swapped-out page looks missing. */
		if (req->missing && stopped < req->count &&
		    page_is(&file->pool->pages[req->page[stopped]], PG_INSTALLED))
			page_really_there(&file->view, &file->pool->pages[req->page[stopped]]);
		for (uint32_t i = 0; i < req->count; i++) {
			struct page *page = &file->pool->pages[req->page[i]];
			if (page_is(page, PG_INSTALLED) &&
			    !mapping_allows(wb->mm, page_addr(&file->view, file->pool, page),
					     page_is(page, PG_UNPROTECTED)))
				file_take_out(file, page->index, page->index);
		}
		write_request_end(wb, req);
		req = next;
	}
}

static void take_out_unmapped(struct fm_file *file, struct page *page, void *arg)
{
	bool *left = arg;
	if (!page_is(page, PG_INSTALLED) ||
	    mapping_allows(file->mm, page_addr(&file->view, file->pool, page),
			    page_is(page, PG_UNPROTECTED)))
		return;
	file_take_out(file, page->index, page->index);
	/* A page that the program has pinned is taken out when the program unpins it. */
	*left |= page_is(page, PG_INSTALLED) && page_is_unsaved(file->pool, page) &&
		 !page_word(page, user_pins);
}

/* Find a file with pages to be swept, a different file at each call of a pass. Returns the
 * file with a reference, or NULL after the last file. */
static struct fm_file *sweep_next(struct writeback *wb)
{
	struct fm_mm *mm = wb->mm;
	struct fm_file *file;

	os_lock(&mm->files_lock);
	for (file = mm->files; file; file = file->next)
		if (file->writable && file->writes->sweep_pass != wb->sweep_pass &&
		    atomic_get(&file->writes->swept_seq) != atomic_get(&file->view.unmap_seq) &&
		    !atomic_get(&file->dirt->unflushed) && file_try_get(file))
			break;
	os_unlock(&mm->files_lock);
	if (file)
		file->writes->sweep_pass = wb->sweep_pass;
	return file;
}

/* Take unmapped pages out of the views. A page that is dirty or not flushed, and cannot be
 * moved just then, stays in the view at an unmap: its only bytes are there. With COPY, that
 * is every such page. If pages are left, the sweep looks again, but not before
 * wb->sweep_ns. Each pin dropped here wakes threads that wait for a frame, and these would
 * ask for the next pass. Returns true if pages are left. */
bool files_sweep(struct writeback *wb, uint64_t now)
{
	struct fm_file *file;
	bool some_left = false;

	if (now < wb->sweep_ns)
		return true;
	wb->sweep_pass++;
	while ((file = sweep_next(wb)) != NULL) {
		bool left = false;
		uint32_t seq = atomic_get(&file->view.unmap_seq);
		atomic_set(&file->writes->swept_seq, seq); /* set first: a thread that sets it back
							      later has a page the walk may miss */
		file_each_cached(file, 0, FOR_EVER >> file->pool->shift, take_out_unmapped, &left);
		if (left)
			atomic_set(&file->writes->swept_seq, seq - 1);
		some_left |= left;
		file_put(file);
	}
	if (some_left) {
		uint64_t ended = os_now_ns();
		wb->sweep_ns = ended + SWEEP_SOON_NS + 10 * (ended - now); /* sweep a tenth of the time at most */
	}
	return some_left;
}
