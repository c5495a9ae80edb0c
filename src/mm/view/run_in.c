/* SPDX-License-Identifier: MIT */
/*
 * Runs enter the view by one call: neighbouring pages of a file whose frames are
 * neighbours too. One call also takes such a run out of the view. Readahead takes frames
 * in order, so most pages that a reader comes to next form a run.
 *
 * All pages of a run are locked and pinned while the run moves. The locks are only
 * tried: no thread waits for another thread. Only the page that a fault wants is sure to
 * be installed. Errors of the other pages are left to the faults that want those pages.
 */
#include "mm/view/run_in.h"

#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/view.h"
#include "mm/cache/dirty.h"
#include "mm/cache/dirty_limit.h"
#include "mm/base/access.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/view/install.h"
#include "mm/view/later.h"
#include "mm/view/lost.h"
#include "mm/view/page_tables.h"
#include "mm/view/run.h"
#include "os/atomic.h"
#include "os/os.h"
#include "trap/trap.h"

#include <errno.h>

struct run {
	struct page *first;
	uint32_t count;
};

enum gather { GATHER_CLEAN, GATHER_DIRTY, GATHER_TO_WRITE };

/* Gather the run that can go in with `page`: uptodate pages that are not in the view
 * yet. The run ends at the next readahead mark, since a fault must touch the marked
 * page. If the pages become writable, only pages after `page` are taken, and none that
 * is being punched. */
static struct run gather(struct access *access, struct page *page, uint32_t most, enum gather what)
{
	const uint32_t mask =
		PG_UPTODATE | PG_INSTALLED | PG_GONE | PG_MARK | PG_HOLE | PG_DUP |
		(what == GATHER_TO_WRITE ? 0 : PG_DIRTY) |
		/* a page under write-back may be copied */
		(what == GATHER_CLEAN ? 0 : PG_WRITEBACK);
	const uint32_t flags = PG_UPTODATE | (what == GATHER_DIRTY ? PG_DIRTY : 0);
	bool write = what != GATHER_CLEAN;
	struct fm_file *file = access->file;
	struct frame_pool *pool = file->pool;
	struct run run = {page, 1};
	uint64_t addr = page_addr(access->view, pool, page), size = file_size(file);
	uint64_t before = write ? 0 : (addr % PT_BYTES) >> pool->shift,
		 after = (PT_BYTES - 1 - addr % PT_BYTES) >> pool->shift;

	for (uint64_t i = access->index + 1;
	     after-- && run.count < most && i < access->high && (i + 1) << pool->shift <= size;
	     i++, run.count++) {
		struct page *next = run.first + run.count;
		if (next == pool->pages + pool->frames || !run_join(file, next, i, mask, flags))
			break;
		if (write && range_is_punched(file, i)) {
			/* The test is under the page lock: a thread that begins a punch waits for that lock. */
			run_leave(pool, next);
			break;
		}
	}
	for (uint64_t i = access->index; before-- && run.count < most && i > access->low;
	     i--, run.count++, run.first--)
		if (run.first == pool->pages || !run_join(file, run.first - 1, i - 1, mask, flags))
			break;
	return run;
}

/* Copy a run into the view by COPY, protected: the pages stay in the slots, too. Returns
 * and `ret_err` are as in run_move(). */
static uint32_t copy(struct fm_mm *mm, uint64_t dst, uint64_t src, uint32_t count, int *ret_err)
{
	uint64_t len = (uint64_t)count * OS_PAGE, at = 0;
	int err = -EAGAIN;

	for (int tries = 0; at < len && (err >= 0 || err == -EAGAIN) && tries < RUN_TRIES; tries++) {
		uint64_t done = 0;
		err = trap_copy(mm->trap, dst + at, src + at, len - at, &done);
		at += done;
	}
	*ret_err = err == -EFAULT ? -ENOENT : err; /* -EFAULT means a hole in a slot */
	return (uint32_t)(at / OS_PAGE);
}

/* Handle a slot that was emptied behind the library and ended the run. If the hole were
 * not recorded, the hole would stay with its frame for the next page. page_install()
 * handles a hole of the wanted page. `to_write`: the page is dirty only because of a
 * write that has not happened. Any other dirty page has lost the only copy of its bytes. */
static void fill_hole(struct frame_pool *pool, struct page *page, bool to_write)
{
	if (trap_present((uint64_t)slot_of(pool, page)) != 0)
		return;
	page_set(page, 0, PG_UPTODATE);
	if (!page_hole_stays(pool, page))
		frame_fill(pool, page);
	if (to_write)
		page_clear_dirty(pool, page);
	dirty_emptied(pool, page);
}

/* Return which pages of a run are dirty now: a bit for each of the first 64 pages. No
 * more than 64 pages are ever moved in for a write. */
static uint64_t dirty_of(const struct run *run)
{
	uint64_t dirty = 0;
	for (uint32_t i = 0; i < run->count && i < 64; i++)
		if (page_is(run->first + i, PG_DIRTY))
			dirty |= 1ull << i;
	return dirty;
}

/* Look for pages that have gone again: error marks were taken away during the install,
 * and some pages of the run with the marks. Returns true if `wanted` is among those
 * pages. */
static bool look_after(struct view *view, struct page *first, uint32_t count, struct page *wanted)
{
	bool lost = false;
	for (struct page *page = first; page < first + count; page++)
		if (!page_is_there(view, page)) {
			page_gone_behind(view, page);
			lost |= page == wanted;
		}
	return lost;
}

/* Return true if a run enters the view by COPY. */
static bool copies_runs(const struct access *access, bool write)
{
	return !write && (access->file->writable || access->mm->install == FM_INSTALL_COPY);
}

/* Move or copy a run into the view. Returns how many pages went in. */
static uint32_t run_in(struct access *access, const struct run *run, bool write, int *ret_err)
{
	struct fm_mm *mm = access->mm;
	struct frame_pool *pool = access->file->pool;
	uint64_t dst = page_addr(access->view, pool, run->first),
		 src = (uint64_t)slot_of(pool, run->first);
	uint32_t went;

	if (copies_runs(access, write))
		return copy(mm, dst, src, run->count, ret_err);
	/* A page that does not go in stays dirty: the page may have been in the view for a
	 * moment. */
	for (uint32_t i = 0; write && i < run->count;
	     i++)
		page_mark_dirty(pool, run->first + i);
	if (write)
		trap_writable_begin(mm->trap);
	went = run_move(mm, dst, src, run->count, NULL, ret_err);
	if (write)
		trap_writable_end(mm->trap);
	return went;
}

/* Install a run, and put the locks and pins of all pages except the wanted page. Returns
 * as page_install() does, for the wanted page. */
static int run_install(struct access *access, struct page *page, struct run run, bool write)
{
	struct view *view = access->view;
	struct frame_pool *pool = access->file->pool;
	uint32_t went = 0;
	bool lost = false;
	int err;

	if (run.count > 1 || (run.count && run.first != page)) {
		uint64_t dirty = write ? dirty_of(&run) : 0;
		uint64_t dst = page_addr(view, pool, run.first);
		uint32_t unmarks = trap_unmarks(access->mm->trap);
		for (uint32_t i = 0; i < run.count; i++)
			run.first[i].advised_keep = access->advised_keep;
		pt_get(access->mm, run.first, run.count, dst, true);
		went = run_in(access, &run, write, &err);
		if (went)
			pages_installed(view, run.first, went, pool->page_size,
					copies_runs(access, write) ? BY_COPY : BY_MOVE);
		if (went < run.count)
			pt_put(access->mm, run.first + went, run.count - went, dst);
		if (unlikely(went < run.count && err == -ENOENT)) {
			bool to_write = write && !(dirty >> went & 1);
			if (run.first + went != page)
				fill_hole(pool, run.first + went, to_write);
			else if (to_write)
				page_clear_dirty(pool, page); /* page_install() tests whether the page was dirty */
		}
		if (unlikely(!trap_kept(access->mm->trap, unmarks, dst, (uint64_t)went * OS_PAGE)))
			lost = look_after(view, run.first, went, page);
		access->run_first = run.first->index;
		access->run_last = access->run_first + run.count - 1;
	}
	err = lost ? -EAGAIN : run.first + went > page ? 0 : page_install(access, page);
	for (uint32_t i = 0; i < run.count; i++)
		if (run.first + i != page)
			run_leave(pool, run.first + i);
	return err;
}

/*
 * Predict the next writes of a thread that writes page after page. With each fault of
 * such a thread twice as many pages come in writable. All these pages are written back
 * as if the thread had written to each page. The numbers are plain, without a lock: a
 * race costs only a wrong guess. Returns the number of pages, including this page.
 */
static uint32_t writer_step(struct fm_file *file, uint64_t index, struct writer **ret_writer)
{
	struct writer *writer = NULL;
	uint32_t count = 1;

	for (uint32_t i = 0; i < WRITE_STREAMS && !writer; i++)
		if (page_word(&file->write_streams->writer[i], next) == index)
			writer = &file->write_streams->writer[i];
	if (!writer)
		writer =
			&file->write_streams->writer[atomic_add(&file->write_streams->writers, 1u) %
						     WRITE_STREAMS];
	else if (page_word(writer, count))
		count = 2 * page_word(writer, count);
	if (count > WRITE_RUN)
		count = WRITE_RUN;
	page_word_set(writer, count, count);
	*ret_writer = writer;
	return count;
}

/* Return true if a write is expected at the page that is read. A thread that reads and
 * then changes page after page has come to this page. */
static bool writer_comes(const struct fm_file *file, uint64_t index)
{
	bool comes = false;

	for (uint32_t i = 0; i < WRITE_STREAMS; i++)
		comes |= page_word(&file->write_streams->writer[i], next) == index &&
			 page_word(&file->write_streams->writer[i], count) > 1;
	return comes;
}

static int write_run_install(struct access *access, struct page *page)
{
	struct writer *writer;

	if (page_is(page, PG_UNPROTECTED)) /* the page was asked for once more */
		return page_install(access, page);
	uint32_t count = writer_step(access->file, access->index, &writer),
		 room = dirty_room(access->file);
	bool there = page_is(page, PG_INSTALLED),
	     alone = (page_is(page, PG_WRITEBACK) && !there) || count == 1 || room < 2;
	int err = there ? page_install(access, page) : 0;

	if (err)
		return err;
	struct run run = alone ? (struct run){page, 1}
			       : gather(access, page, count < room ? count : room, GATHER_TO_WRITE);
	page_word_set(writer, next, access->index + run.count);
	if (there) { /* the other pages come in behind `page` */
		run.first++;
		run.count--;
		covered_if(run.count > 1, run_behind_a_read);
	}
	err = run_install(access, page, run, true);
	access->run_first = access->index;
	return err;
}

/*
 * Install access->page and the pages around it. The caller holds the page lock and a pin
 * of the page. The other pages' locks and pins are taken and put here. Returns as
 * page_install() does.
 */
int install_run(struct access *access, struct page *page)
{
	struct fm_file *file = access->file;
	bool write = access->flags & FM_FAULT_WRITE;
	/* A larger page is a run by itself, and could be moved in part. A recording needs a
	 * separate touch of each page. */
	bool silent = access->mm->flags & FM_MM_NO_SIGNALS;
	bool alone = (access->mm->install != FM_INSTALL_MOVE && !silent) || file->recorded ||
		     file->pool->page_size > OS_PAGE || access->advice == FM_ADVICE_RANDOM ||
		     (!write && page_is(page, PG_INSTALLED | PG_DUP));

	page->advised_keep = access->advised_keep;
	access->run_first = access->run_last = access->index;
	/* A last page that is shown in part goes in alone. */
	if (alone || access->index < access->low || access->index >= access->high ||
	    (access->index + 1) << file->pool->shift > file_size(file))
		return page_install(access, page);
	if (write)
		return write_run_install(access, page);
	if (!file->writable)
		return run_install(access, page,
				   gather(access, page, silent ? COPY_RUN : UINT32_MAX, GATHER_CLEAN),
				   false);
	bool dirty = page_is(page, PG_DIRTY);
	/* The neighbours must not become writable where the mapping does not allow writes. */
	if (dirty ? page_is(page, PG_WRITEBACK) || !access->writable : writer_comes(file, access->index))
		return page_install(access, page);
	if (dirty) /* the pages go by MOVE and arrive writable */
		return run_install(access, page, gather(access, page, WRITE_RUN, GATHER_DIRTY), true);
	return run_install(access, page, gather(access, page, COPY_RUN, GATHER_CLEAN), false);
}
