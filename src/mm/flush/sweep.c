/* SPDX-License-Identifier: MIT */
/* After an unmap: dirty pages that are still in the view are taken out. */
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

void write_late_ones(struct writeback *wb)
{
	struct write_request *req = atomic_xchg(&wb->late, NULL);
	while (req) {
		struct write_request *next = req->next;
		struct fm_file *file = req->file;
		uint32_t stopped = (uint32_t)(req->io.bytes_done >> file->pool->shift);
		/* That of a page where it was to be written from the view, and somebody has emptied
		 * it: else it would be tried again and again. Of those behind it nobody knows: what
		 * is swapped out looks as if it were not there. */
		if (req->missing && stopped < req->count &&
		    page_is(&file->pool->pages[req->page[stopped]], PG_INSTALLED))
			page_really_there(&file->view, &file->pool->pages[req->page[stopped]]);
		for (uint32_t i = 0; i < req->count; i++) {
			struct page *page = &file->pool->pages[req->page[i]];
			if (page_is(page, PG_INSTALLED) &&
			    !mm_range_allows(wb->mm, page_addr(&file->view, file->pool, page),
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
	    mm_range_allows(file->mm, page_addr(&file->view, file->pool, page),
			    page_is(page, PG_UNPROTECTED)))
		return;
	file_take_out(file, page->index, page->index);
	/* What the program has pinned is taken out when it is unpinned. */
	*left |= page_is(page, PG_INSTALLED) && page_is_held(file->pool, page) &&
		 !page_word(page, user_pins);
}

/* One that has pages to be swept, with a reference; in each pass another. NULL: it was the last. */
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

/* What is dirty or not flushed, and can't be moved just then, does not leave the view when it is
 * unmapped: its only bytes are there. By COPY that is all of it. Where some is left it is looked at
 * again, but not before wb->sweep_ns: who waits for a frame is told of each pin that is put here,
 * and would ask for the next pass. True: some is left. */
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
		atomic_set(&file->writes->swept_seq, seq); /* first: who sets it back from here on
							      has a page that may not be met */
		file_each_cached(file, 0, FOR_EVER >> file->pool->shift, take_out_unmapped, &left);
		if (left)
			atomic_set(&file->writes->swept_seq, seq - 1);
		some_left |= left;
		file_put(file);
	}
	if (some_left) {
		uint64_t ended = os_now_ns();
		wb->sweep_ns = ended + SWEEP_SOON_NS + 10 * (ended - now); /* a tenth of the time at most */
	}
	return some_left;
}
