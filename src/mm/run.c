/* SPDX-License-Identifier: MIT */
/*
 * Runs: neighbouring pages of a file whose frames are neighbours too go into the view, and out of it, by one call.
 * Readahead takes frames in order, so that most of what a reader comes to next is a run.
 *
 * All pages of a run are locked and pinned while they move, by trying only: nobody is waited for. Nothing is promised
 * for any but the page that a fault wants: what goes wrong with the others is left to the fault that wants them.
 * May call: page_cache, install, frame_pool, trap, os, stats.
 */
#include "mm/mm.h"

#define RUN_TRIES 20
#define GROUP_PATIENCE_NS (20 * OS_NSEC_PER_MSEC)
#ifdef FM_SIM
#define STREAM_RUN 2u /* its pools are small */
#define COPY_RUN 4u
#define WRITE_RUN 4u
#else
#define STREAM_RUN 8u /* pages */
#define COPY_RUN 16u  /* they are in memory twice for a while */
#define WRITE_RUN 64u /* most of them written back in vain should the writer stop */
#endif
#define PT_BYTES (2ull << 20) /* what one page table covers, and one call of pt_get() */

static bool is_of(struct page *page, const struct fm_file *file, uint64_t index)
{
	return __atomic_load_n(&page->file, __ATOMIC_RELAXED) == file &&
	       __atomic_load_n(&page->index, __ATOMIC_RELAXED) == index;
}

static void leave(struct frame_pool *pool, struct page *page)
{
	page_unlock(pool, page);
	page_unpin(pool, page);
}

/* Lock and pin a page if it is this one, and its flags among `mask` are just these. */
static bool join(struct fm_file *file, struct page *page, uint64_t index, uint32_t mask, uint32_t flags)
{
	if (!is_of(page, file, index) || !page_try_pin(page))
		return false;
	if (!page_trylock(page)) {
		page_unpin(file->pool, page);
		return false;
	}
	if (is_of(page, file, index) && (atomic_get(&page->state) & mask) == flags)
		return true;
	leave(file->pool, page);
	return false;
}

struct run {
	struct page *first;
	uint32_t count;
};

enum gather { GATHER_CLEAN, GATHER_DIRTY, GATHER_TO_WRITE };

/* What can go in with `page`: uptodate, not there yet, up to the next readahead mark, which has to be touched. Where it can be written
 * to then: only what comes after it, and nobody punches. */
static struct run gather(struct fault *vmf, struct page *page, uint32_t most, enum gather what)
{
	const uint32_t mask = PG_UPTODATE | PG_INSTALLED | PG_GONE | PG_MARK | PG_HOLE | PG_DUP | (what == GATHER_TO_WRITE ? 0 : PG_DIRTY) |
			      (what == GATHER_CLEAN ? 0 : PG_WRITEBACK); /* what is being written may be copied */
	const uint32_t flags = PG_UPTODATE | (what == GATHER_DIRTY ? PG_DIRTY : 0);
	bool write = what != GATHER_CLEAN;
	struct fm_file *file = vmf->file;
	struct frame_pool *pool = file->pool;
	struct run run = {page, 1};
	uint64_t addr = page_addr(vmf->view, pool, page), size = file_size(file);
	uint64_t before = write ? 0 : (addr % PT_BYTES) >> pool->shift, after = (PT_BYTES - 1 - addr % PT_BYTES) >> pool->shift;

	for (uint64_t i = vmf->index + 1; after-- && run.count < most && i < vmf->high && (i + 1) << pool->shift <= size; i++, run.count++) {
		struct page *next = run.first + run.count;
		if (next == pool->pages + pool->frames || !join(file, next, i, mask, flags))
			break;
		if (write && range_is_punched(file, i)) { /* asked under its lock: who begins to waits for that */
			leave(pool, next);
			break;
		}
	}
	for (uint64_t i = vmf->index; before-- && run.count < most && i > vmf->low; i--, run.count++, run.first--)
		if (run.first == pool->pages || !join(file, run.first - 1, i - 1, mask, flags))
			break;
	return run;
}

/* Move a run. Returns how many of its pages went, from the first on, and what stopped it; the rest are as they were. `leaves`:
 * the first of them, where they leave the view. */
static uint32_t move(struct fm_mm *mm, uint64_t dst, uint64_t src, uint32_t count, struct page *leaves, int *ret_err)
{
	uint64_t len = (uint64_t)count * OS_PAGE, at = 0;
	int err = -EAGAIN;

	for (int tries = 0; at < len && (err >= 0 || err == -EAGAIN) && tries < RUN_TRIES; tries++) {
		uint64_t done = 0;
		err = trap_move(mm->trap, dst + at, src + at, len - at, &done);
		at += done;
		if (unlikely(err < 0 && err != -EAGAIN) && (done = move_uncounted(mm, dst + at, src + at, len - at)) > 0) {
			at += done;
			err = -EAGAIN;
		}
		if (err == -EEXIST) { /* it may have moved that one all the same; back in the view it can be written to */
			if (leaves && leaves->file->writable)
				page_dirty(leaves->file->pool, leaves + at / OS_PAGE);
			err = move_after_exist(mm, dst + at, src + at);
			if (err == 1)
				at += OS_PAGE;
		}
	}
	at += move_uncounted(mm, dst + at, src + at, len - at);
	*ret_err = err;
	return (uint32_t)(at / OS_PAGE);
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

/* Somebody has emptied a slot behind us, and the run ended there. Known to nobody, the hole would stay with its frame for the next
 * page. The wanted one's is page_install()'s. `to_write`: it is dirty because it was to be written to, and has not been; else what is
 * dirty has lost the only bytes. */
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

/* Which of a run are dirty by now: a bit each of the first 64, which is as many as are ever moved in to be written to. */
static uint64_t dirty_of(const struct run *run)
{
	uint64_t dirty = 0;
	for (uint32_t i = 0; i < run->count && i < 64; i++)
		if (page_is(run->first + i, PG_DIRTY))
			dirty |= 1ull << i;
	return dirty;
}

/* Marks of errors were taken away beside the install, and some of its pages with them. True: `wanted` is among those. */
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
static uint32_t run_in(struct fault *vmf, const struct run *run, bool write, int *ret_err)
{
	struct fm_mm *mm = vmf->mm;
	struct frame_pool *pool = vmf->file->pool;
	uint64_t dst = page_addr(vmf->view, pool, run->first), src = (uint64_t)slot_of(pool, run->first);
	uint32_t went;

	if (vmf->file->writable && !write)
		return copy(mm, dst, src, run->count, ret_err);
	for (uint32_t i = 0; write && i < run->count; i++) /* what does not go in stays so: it may have been there for a moment */
		page_dirty(pool, run->first + i);
	if (write)
		trap_writable_begin(mm->trap);
	went = move(mm, dst, src, run->count, NULL, ret_err);
	if (write)
		trap_writable_end(mm->trap);
	return went;
}

/* A page of a group that is whole, and all of which is on its way into memory: one that is being read, pinned. NULL: there is none,
 * or they will not go in together. */
static struct page *late_one(struct fault *vmf, struct page *page)
{
	struct fm_file *file = vmf->file;
	struct frame_pool *pool = file->pool;

	if (likely(!pool->groups) || !group_is_whole(pool, page) || page_is(page, PG_INSTALLED) || file->writable)
		return NULL;
	struct page *first = group_first(pool, page), *late = NULL;
	uint64_t index = page->index - (uint64_t)(page - first);
	if (index % GROUP_PAGES || index < vmf->low || index + GROUP_PAGES > vmf->high)
		return NULL;
	bool all = true;
	for (uint32_t i = GROUP_PAGES; all && i-- > 0;) {
		uint32_t state = atomic_get(&first[i].state);
		if (!late && (state & (PG_LOCKED | PG_UPTODATE)) == PG_LOCKED && page_try_pin(first + i))
			late = first + i;
		all = is_of(first + i, file, index + i);
	}
	if (late && !all) {
		page_unpin(pool, late);
		late = NULL;
	}
	return late;
}

static uint64_t patience_until(const struct fault *vmf)
{
	uint64_t until = os_now_ns() + GROUP_PATIENCE_NS, deadline = fault_deadline(vmf);
	return until < deadline ? until : deadline;
}

/*
 * The rest of a group that is about to be there is waited for, a moment long: then all of it goes in by one change of a page table.
 * Page lock held, and a pin; true: the lock has been put, to look again.
 */
bool group_wait(struct fault *vmf, struct page *page)
{
	uint64_t until = 0;

	if (vmf->waited_for_group || vmf->flags & (FM_FAULT_RETRY_NOWAIT | FM_FAULT_WRITE) || vmf->exact || vmf->advice == FM_ADVICE_RANDOM)
		return false;
	for (struct page *late; (late = late_one(vmf, page)) != NULL;) {
		if (!vmf->waited_for_group)
			page_unlock(vmf->file->pool, page);
		vmf->waited_for_group = true;
		covered(group_late);
		if (!until)
			until = patience_until(vmf);
		read_wanted(vmf->file, late);
		int err = page_wait(vmf->mm, late, vmf->flags & FM_FAULT_KILLABLE, until);
		page_unpin(vmf->file->pool, late);
		if (err)
			break;
	}
	return vmf->waited_for_group;
}

/* The run into the view, and all but the wanted page's locks and pins put. As page_install(), for that page. */
static int run_install(struct fault *vmf, struct page *page, struct run run, bool write)
{
	struct view *view = vmf->view;
	struct frame_pool *pool = vmf->file->pool;
	uint32_t went = 0;
	bool lost = false;
	int err;

	if (run.count > 1 || (run.count && run.first != page)) {
		uint64_t dirty = write ? dirty_of(&run) : 0;
		uint64_t dst = page_addr(view, pool, run.first);
		uint32_t unmarks = trap_unmarks(vmf->mm->trap);
		for (uint32_t i = 0; i < run.count; i++)
			run.first[i].keep = vmf->keep;
		pt_get(vmf->mm, run.first, run.count, dst, true);
		went = run_in(vmf, &run, write, &err);
		if (went)
			pages_installed(view, run.first, went, pool->page_size, vmf->file->writable && !write ? BY_COPY : BY_MOVE);
		if (went < run.count)
			pt_put(vmf->mm, run.first + went, run.count - went, dst);
		if (unlikely(went < run.count && err == -ENOENT)) {
			bool to_write = write && !(dirty >> went & 1);
			if (run.first + went != page)
				fill_hole(pool, run.first + went, to_write);
			else if (to_write)
				page_clean(pool, page); /* page_install() looks whether it was */
		}
		if (unlikely(!trap_kept(vmf->mm->trap, unmarks, dst, (uint64_t)went * OS_PAGE)))
			lost = look_after(view, run.first, went, page);
		vmf->run_first = run.first->index;
		vmf->run_last = vmf->run_first + run.count - 1;
	}
	err = lost ? -EAGAIN : run.first + went > page ? 0 : page_install(vmf, page);
	for (uint32_t i = 0; i < run.count; i++)
		if (run.first + i != page)
			leave(pool, run.first + i);
	return err;
}

/*
 * Who writes page after page will write the next ones, too: with each fault on his way twice as many come in to be written to. They
 * are written back as if they had been. Plain numbers, without a lock: a race costs a guess. Returns how many, this one with them.
 */
static uint32_t writer_step(struct fm_file *file, uint64_t index, struct writer **ret_writer)
{
	struct writer *writer = NULL;
	uint32_t count = 1;

	for (uint32_t i = 0; i < WRITE_STREAMS && !writer; i++)
		if (page_word(&file->writer[i], next) == index)
			writer = &file->writer[i];
	if (!writer)
		writer = &file->writer[atomic_add(&file->writers, 1u) % WRITE_STREAMS];
	else if (page_word(writer, count))
		count = 2 * page_word(writer, count);
	if (count > WRITE_RUN)
		count = WRITE_RUN;
	page_word_set(writer, count, count);
	*ret_writer = writer;
	return count;
}

/* A write is to be expected where this page is read: who changes what he reads, page after page, has come to it. */
static bool writer_comes(const struct fm_file *file, uint64_t index)
{
	bool comes = false;

	for (uint32_t i = 0; i < WRITE_STREAMS; i++)
		comes |= page_word(&file->writer[i], next) == index && page_word(&file->writer[i], count) > 1;
	return comes;
}

static int write_run_install(struct fault *vmf, struct page *page)
{
	struct writer *writer;

	if (page_is(page, PG_UNPROTECTED)) /* asked for once more */
		return page_install(vmf, page);
	uint32_t count = writer_step(vmf->file, vmf->index, &writer), room = dirty_room(vmf->file);
	bool there = page_is(page, PG_INSTALLED), alone = (page_is(page, PG_WRITEBACK) && !there) || count == 1 || room < 2;
	int err = there ? page_install(vmf, page) : 0;

	if (err)
		return err;
	struct run run = alone ? (struct run){page, 1} : gather(vmf, page, count < room ? count : room, GATHER_TO_WRITE);
	page_word_set(writer, next, vmf->index + run.count);
	if (there) { /* the others come in behind it */
		run.first++;
		run.count--;
		covered_if(run.count > 1, run_behind_a_read);
	}
	err = run_install(vmf, page, run, true);
	vmf->run_first = vmf->index;
	return err;
}

/*
 * As page_install(), for vmf->page, and what lies around it. Page lock and a pin held; the others' are taken and put here.
 */
int install_run(struct fault *vmf, struct page *page)
{
	struct fm_file *file = vmf->file;
	bool write = vmf->flags & FM_FAULT_WRITE;
	/* A larger page is a run by itself, and could come to be moved in part. A record wants each page's own touch. */
	bool alone = vmf->mm->install != FM_INSTALL_MOVE || file->record || file->pool->page_size > OS_PAGE ||
		     vmf->advice == FM_ADVICE_RANDOM || (!write && page_is(page, PG_INSTALLED | PG_DUP));

	page->keep = vmf->keep;
	vmf->run_first = vmf->run_last = vmf->index;
	/* A last page that is shown in part goes by itself. */
	if (alone || vmf->index < vmf->low || vmf->index >= vmf->high || (vmf->index + 1) << file->pool->shift > file_size(file))
		return page_install(vmf, page);
	if (write)
		return write_run_install(vmf, page);
	if (!file->writable)
		return run_install(vmf, page, gather(vmf, page, UINT32_MAX, GATHER_CLEAN), false);
	bool dirty = page_is(page, PG_DIRTY);
	/* Its neighbours are not to be written to where the mapping does not allow it. */
	if (dirty ? page_is(page, PG_WRITEBACK) || !vmf->writable : writer_comes(file, vmf->index))
		return page_install(vmf, page);
	if (dirty) /* by MOVE, writable */
		return run_install(vmf, page, gather(vmf, page, WRITE_RUN, GATHER_DIRTY), true);
	return run_install(vmf, page, gather(vmf, page, COPY_RUN, GATHER_CLEAN), false);
}

/* ------------------------------------------------------------------ out of the view */

/* The first of some pages is locked and pinned: what goes out of the view with it, locked and pinned too. */
static uint32_t gather_out(struct frame_pool *pool, struct page *first, uint32_t most, bool let_off)
{
	const uint32_t mask = PG_UPTODATE | PG_INSTALLED | PG_GONE | PG_HOLE | PG_DUP | PG_WRITEBACK;
	struct fm_file *file = first->file;
	uint64_t addr = page_addr(&file->view, pool, first);
	uint32_t count = 1;

	if (pool->page_size > OS_PAGE || page_is(first, PG_DUP | PG_WRITEBACK))
		return 1;
	for (; count < most && (addr + count * OS_PAGE) % PT_BYTES; count++) {
		struct page *page = first + count;
		if (!join(file, page, first->index + count, mask, PG_UPTODATE | PG_INSTALLED))
			break;
		if (page_is_shared(page) || page_is_held(pool, page) || (let_off && page->keep)) {
			leave(pool, page);
			break;
		}
	}
	return count;
}

/* Some pages from the first on, locked and pinned: out of the view by one call. Returns how many went. */
static uint32_t take_out_some(struct frame_pool *pool, struct page *first, uint32_t count)
{
	struct fm_mm *mm = pool->mm;
	uint64_t src = page_addr(&first->file->view, pool, first);
	int err;
	bool ours = count > 1 && trap_is_ours(mm->trap, src, (uint64_t)count * OS_PAGE);
	uint32_t went = ours ? move(mm, (uint64_t)slot_of(pool, first), src, count, first, &err) : 0;

	if (!went)
		return 0;
	covered_if(group_is_all(pool, first, went), group_out);
	group_split(pool, first, went);
	for (uint32_t i = 0; i < went; i++)
		page_set(first + i, 0, PG_INSTALLED | PG_UNPROTECTED);
	stats_sub(mm->stats, pages_installed, went);
	pt_put(mm, first, went, src);
	return went;
}

/* The same for the clock: what goes is on INACTIVE then. `last`: out of the cache, too. */
static uint32_t take_out_run(struct frame_pool *pool, struct page *first, uint32_t count, bool last)
{
	struct fm_mm *mm = pool->mm;
	uint32_t went = take_out_some(pool, first, count);

	if (!went)
		return 0;
	for (uint32_t i = 0; i < went; i++)
		page_set(first + i, PG_SOFT, 0);
	stats_add(mm->stats, deactivations, went);
	if (!last)
		lru_set(pool, first, went, LIST_INACTIVE);
	for (uint32_t i = 0; last && i < went; i++) {
		ghost_add(pool, first + i);
		page_remove(pool, first + i);
	}
	if (last)
		stats_add(mm->stats, evictions, went);
	return went;
}

/*
 * A page and those after it whose frames are neighbours, up to `most`, out of the view by one call: pages that have all of `flags`
 * and none of `never`. The first has one pin, the caller's, and no lock. What a thread brings back in between, and what may not go
 * just now, is left where it is: nothing is promised. Returns how many there were of which none would go; 0: some have gone.
 */
uint32_t take_out_together(struct fm_file *file, struct page *first, uint32_t most, uint32_t flags, uint32_t never)
{
	const uint32_t all = flags | PG_UPTODATE | PG_INSTALLED;
	const uint32_t mask = all | never | PG_WRITEBACK | PG_GONE | PG_HOLE | PG_DUP;
	struct frame_pool *pool = file->pool;
	uint64_t index = first->index, addr = page_addr(&file->view, pool, first);
	uint32_t count = 0;

	if (file->mm->install != FM_INSTALL_MOVE || pool->page_size > OS_PAGE)
		return 1;
	for (; count < most && (!count || (addr + count * OS_PAGE) % PT_BYTES); count++) {
		struct page *page = first + count;
		if (page == pool->pages + pool->frames || !join(file, page, index + count, mask, all))
			break;
		if (page->user_pins || PG_PINS(page_state(page)) > (count ? 1u : 2u)) { /* an instruction may need it just now */
			leave(pool, page);
			break;
		}
	}
	uint32_t went = take_out_some(pool, first, count);
	for (uint32_t i = 0; i < count; i++)
		leave(pool, first + i);
	return went ? 0 : count;
}

/* One page, off its list and pinned, which is put here: out of the view, or where it belongs. Returns how many pages have been
 * dealt with. */
static uint32_t deactivate_some(struct frame_pool *pool, struct page *page, uint32_t most, enum page_list from, bool let_off,
				uint32_t *freed)
{
	enum page_list to = from;
	uint32_t count = 1, went = 0;
	bool stuck = false, last = false;

	if (!page_trylock(page)) {
		lru_set(pool, page, 1, from);
		page_unpin(pool, page);
		return 1;
	}
	if (page_is(page, PG_GONE)) {
		to = LIST_NONE;
	} else if (page_hold(pool, page)) {
		to = LIST_HELD;
	} else if (!page_is(page, PG_INSTALLED)) {
		to = LIST_INACTIVE;
	} else if (let_off && page->keep) {
		page->keep = false;
		to = LIST_ACTIVE;
	} else if (!page_is_shared(page)) {
		count = gather_out(pool, page, most, let_off);
		/* A reader that passed by comes no second time, or not soon. */
		last = from == LIST_YOUNG && count >= STREAM_RUN && !page->file->writable;
		went = take_out_run(pool, page, count, last);
		stuck = !went && page_take_out(&page->file->view, page, false) < 0;
		if (!went && !stuck) {
			page_set(page, PG_SOFT, 0);
			stats_add(pool->mm->stats, deactivations, 1);
			to = LIST_INACTIVE;
		}
	}
	if (to != LIST_HELD && !went)
		lru_set(pool, page, 1, to);
	if (last)
		*freed += went;
	/* In order, so that what is read into their frames will be a run again. */
	page_unlock(pool, page);
	if (stuck || to == LIST_HELD) /* who waits for a frame is not to try it again at once */
		page_unpin_quiet(pool, page);
	else
		page_unpin(pool, page);
	for (uint32_t i = 1; i < count; i++) {
		if (i >= went)
			lru_set(pool, page + i, 1, from);
		leave(pool, page + i);
	}
	return count;
}

/* Take the oldest pages of a list, up to `most`, out of the view; of those a stream brought, YOUNG ones, out of the cache: they are
 * added to *freed. With `let_off` those that are to be kept get another turn. Returns how many it looked at; 0: there are none. */
uint32_t deactivate_run(struct frame_pool *pool, enum page_list from, uint32_t most, bool let_off, uint32_t *freed)
{
	uint32_t count, done = 0;
	struct page *first = lru_take(pool, from, most, &count);

	while (done < count) {
		struct page *page = first + done;
		if (!page_try_pin(page)) { /* free by now */
			done++;
			continue;
		}
		done += deactivate_some(pool, page, count - done, from, let_off, freed);
	}
	return count;
}
