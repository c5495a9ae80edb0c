/* SPDX-License-Identifier: MIT */
/*
 * Runs: neighbouring pages of a file whose frames are neighbours too go into the view, and out of
 * it, by one call. Readahead takes frames in order, so that most of what a reader comes to next is
 * a run.
 *
 * All pages of a run are locked and pinned while they move, by trying only: nobody is waited for.
 * Nothing is promised for any but the page that a fault wants: what goes wrong with the others is
 * left to the fault that wants them.
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

/* What can go in with `page`: uptodate, not there yet, up to the next readahead mark, which has to
 * be touched. Where it can be written to then: only what comes after it, and nobody punches. */
static struct run gather(struct access *access, struct page *page, uint32_t most, enum gather what)
{
	const uint32_t mask =
		PG_UPTODATE | PG_INSTALLED | PG_GONE | PG_MARK | PG_HOLE | PG_DUP |
		(what == GATHER_TO_WRITE ? 0 : PG_DIRTY) |
		(what == GATHER_CLEAN ? 0 : PG_WRITEBACK); /* what is being written may be copied */
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
		if (write && range_is_punched(file, i)) { /* asked under its lock: who begins to waits for that */
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

/* The same by COPY, protected: it stays in the slots, too. */
static uint32_t copy(struct fm_mm *mm, uint64_t dst, uint64_t src, uint32_t count, int *ret_err)
{
	uint64_t len = (uint64_t)count * OS_PAGE, at = 0;
	int err = -EAGAIN;

	for (int tries = 0; at < len && (err >= 0 || err == -EAGAIN) && tries < RUN_TRIES; tries++) {
		uint64_t done = 0;
		err = trap_copy(mm->trap, dst + at, src + at, len - at, &done);
		at += done;
	}
	*ret_err = err == -EFAULT ? -ENOENT : err; /* a hole in a slot */
	return (uint32_t)(at / OS_PAGE);
}

/* Somebody has emptied a slot behind us, and the run ended there. Known to nobody, the hole would
 * stay with its frame for the next page. The wanted one's is page_install()'s. `to_write`: it is
 * dirty because it was to be written to, and has not been; else what is dirty has lost the only
 * bytes. */
static void fill_hole(struct frame_pool *pool, struct page *page, bool to_write)
{
	if (trap_present((uint64_t)slot_of(pool, page)) != 0)
		return;
	page_set(page, 0, PG_UPTODATE);
	if (!page_hole_stays(pool, page))
		frame_fill(pool, page);
	if (to_write)
		page_clean(pool, page);
	dirty_emptied(pool, page);
}

/* Which of a run are dirty by now: a bit each of the first 64, which is as many as are ever moved
 * in to be written to. */
static uint64_t dirty_of(const struct run *run)
{
	uint64_t dirty = 0;
	for (uint32_t i = 0; i < run->count && i < 64; i++)
		if (page_is(run->first + i, PG_DIRTY))
			dirty |= 1ull << i;
	return dirty;
}

/* Marks of errors were taken away beside the install, and some of its pages with them. True:
 * `wanted` is among those. */
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

/* How a run goes into the view. */
static uint32_t run_in(struct access *access, const struct run *run, bool write, int *ret_err)
{
	struct fm_mm *mm = access->mm;
	struct frame_pool *pool = access->file->pool;
	uint64_t dst = page_addr(access->view, pool, run->first),
		 src = (uint64_t)slot_of(pool, run->first);
	uint32_t went;

	if (access->file->writable && !write)
		return copy(mm, dst, src, run->count, ret_err);
	for (uint32_t i = 0; write && i < run->count;
	     i++) /* what does not go in stays so: it may have been there for a moment */
		page_dirty(pool, run->first + i);
	if (write)
		trap_writable_begin(mm->trap);
	went = run_move(mm, dst, src, run->count, NULL, ret_err);
	if (write)
		trap_writable_end(mm->trap);
	return went;
}

/* The run into the view, and all but the wanted page's locks and pins put. As page_install(), for
 * that page. */
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
			run.first[i].keep = access->keep;
		pt_get(access->mm, run.first, run.count, dst, true);
		went = run_in(access, &run, write, &err);
		if (went)
			pages_installed(view, run.first, went, pool->page_size,
					access->file->writable && !write ? BY_COPY : BY_MOVE);
		if (went < run.count)
			pt_put(access->mm, run.first + went, run.count - went, dst);
		if (unlikely(went < run.count && err == -ENOENT)) {
			bool to_write = write && !(dirty >> went & 1);
			if (run.first + went != page)
				fill_hole(pool, run.first + went, to_write);
			else if (to_write)
				page_clean(pool, page); /* page_install() looks whether it was */
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
 * Who writes page after page will write the next ones, too: with each fault on his way twice as
 * many come in to be written to. They are written back as if they had been. Plain numbers, without
 * a lock: a race costs a guess. Returns how many, this one with them.
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

/* A write is to be expected where this page is read: who changes what he reads, page after page,
 * has come to it. */
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

	if (page_is(page, PG_UNPROTECTED)) /* asked for once more */
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
	if (there) { /* the others come in behind it */
		run.first++;
		run.count--;
		covered_if(run.count > 1, run_behind_a_read);
	}
	err = run_install(access, page, run, true);
	access->run_first = access->index;
	return err;
}

/*
 * As page_install(), for access->page, and what lies around it. Page lock and a pin held; the
 * others' are taken and put here.
 */
int install_run(struct access *access, struct page *page)
{
	struct fm_file *file = access->file;
	bool write = access->flags & FM_FAULT_WRITE;
	/* A larger page is a run by itself, and could come to be moved in part. A record wants each
	 * page's own touch. */
	bool alone = access->mm->install != FM_INSTALL_MOVE || file->recorded ||
		     file->pool->page_size > OS_PAGE || access->advice == FM_ADVICE_RANDOM ||
		     (!write && page_is(page, PG_INSTALLED | PG_DUP));

	page->keep = access->keep;
	access->run_first = access->run_last = access->index;
	/* A last page that is shown in part goes by itself. */
	if (alone || access->index < access->low || access->index >= access->high ||
	    (access->index + 1) << file->pool->shift > file_size(file))
		return page_install(access, page);
	if (write)
		return write_run_install(access, page);
	if (!file->writable)
		return run_install(access, page, gather(access, page, UINT32_MAX, GATHER_CLEAN), false);
	bool dirty = page_is(page, PG_DIRTY);
	/* Its neighbours are not to be written to where the mapping does not allow it. */
	if (dirty ? page_is(page, PG_WRITEBACK) || !access->writable : writer_comes(file, access->index))
		return page_install(access, page);
	if (dirty) /* by MOVE, writable */
		return run_install(access, page, gather(access, page, WRITE_RUN, GATHER_DIRTY), true);
	return run_install(access, page, gather(access, page, COPY_RUN, GATHER_CLEAN), false);
}
