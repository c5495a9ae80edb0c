/* SPDX-License-Identifier: MIT */
/*
 * Making a page's bytes appear in its view, and taking them out again.
 *
 * Owns the meaning of PG_INSTALLED, PG_DUP and PG_UNPROTECTED, the page-table account, and the work that
 * is left to the background thread. All here runs without the map lock. Where a frame's memory is:
 *   not INSTALLED            in its slot (with PG_HOLE: nowhere)
 *   INSTALLED                in the view; the slot is empty
 *   INSTALLED|DUP            in the view, and the slot still has memory (after a COPY)
 * In a file open for writing (pages of 4096 bytes) what is installed for a read comes by COPY, protected from its first moment, and
 * what is installed for a write, or is dirty anyway where the mapping allows writes, by MOVE: it arrives writable, which
 * PG_UNPROTECTED then means. The view's bytes and those that the slot of a DUP has are the same until it is made writable.
 * The program may put other memory into a part of the view, or unmap it. So nothing is taken out of the view, moved or discarded, before
 * trap_is_ours() has been asked: else it would be the program's. What was only there is lost, and told.
 * The fault path uses MOVE and COPY only. Discarding takes the kernel's mmap_lock, which another thread's
 * stalled mmap() may hold: the background thread does it, and callers that unmap or advise.
 * May call: trap, page_cache, os, stats.
 */
#include "mm/mm.h"

#include <limits.h>

#define PT_SLACK_BYTES (1ull << 20)
#define PT_THROTTLE_NS (5 * OS_NSEC_PER_MSEC)
#define BUSY_TRIES 50
#define BUSY_PAUSE_NS 20000u
#define NOMEM_TRIES 100
#define DROP_TOGETHER 64u /* pages */

/* ------------------------------------------------------------------ page tables */

int pt_init(struct fm_mm *mm)
{
	struct pt_table *pt = &mm->pt;
	pt->free_head = PT_END;
	for (uint32_t i = 0; i < pt->entries; i++) {
		pt->range[i].next = pt->free_head;
		pt->free_head = i;
	}
	for (uint32_t i = 0; i <= pt->mask; i++)
		pt->heads[i] = PT_END;
	return 0;
}

static uint32_t *pt_head(struct pt_table *pt, uint64_t key)
{
	return &pt->heads[(key * 0x9e3779b97f4a7c15ull >> 32) & pt->mask];
}

/* PT_END: it has none. Page-table lock. */
static uint32_t pt_find(struct pt_table *pt, uint64_t key)
{
	uint32_t id = *pt_head(pt, key);
	while (id != PT_END && pt->range[id].key != key)
		id = pt->range[id].next;
	return id;
}

/*
 * More installed pages in the 2 MiB around addr, of neighbouring frames. Their locks held. When the table is full they go
 * uncounted, which they remember; until such pages have left, no table is given back, since it could be theirs. A range whose
 * table is being given back at this very moment, because it was empty, is waited for: else what is installed would be discarded
 * with it. That is the one place where a fault can come to wait for the kernel's mmap_lock, behind the background thread. Where
 * others wait for this thread it may not: false.
 */
bool pt_get(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr, bool may_wait)
{
	struct pt_table *pt = &mm->pt;
	uint64_t key = addr >> 21;
	bool fresh = false;

	os_lock(&pt->lock);
	while (pt->releasing == key) {
		uint32_t seq = atomic_get(&pt->release_seq);
		os_unlock(&pt->lock);
		if (!may_wait)
			return false;
		os_futex_wait(&pt->release_seq, seq, OS_FUTEX_ANY, OS_FOREVER);
		os_lock(&pt->lock);
	}
	uint32_t id = pt_find(pt, key);
	if (id == PT_END && pt->free_head != PT_END && key < PT_KEYS) {
		uint32_t *head = pt_head(pt, key);
		id = pt->free_head;
		atomic_set(&pt->free_head, (uint32_t)pt->range[id].next);
		pt->range[id] = (struct pt_range){.key = key, .next = *head};
		*head = id;
		pt->used++;
		atomic_add(&pt->empty, 1u);
		fresh = true;
	}
	if (id != PT_END) {
		if (!pt->range[id].count)
			atomic_sub(&pt->empty, 1u);
		pt->range[id].count += count;
	} else {
		pt->uncounted += count;
	}
	for (uint32_t i = 0; i < count; i++)
		first[i].uncounted = id == PT_END;
	os_unlock(&pt->lock);
	if (fresh) {
		mm_charge(mm, OS_PAGE);
		stats_add(mm->stats, pt_ranges, 1);
	}
	return true;
}

void pt_put(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr)
{
	struct pt_table *pt = &mm->pt;
	uint64_t key = addr >> 21;
	uint32_t uncounted = 0;

	os_lock(&pt->lock);
	uint32_t id = pt_find(pt, key);
	for (uint32_t i = 0; i < count; i++) {
		uncounted += first[i].uncounted;
		first[i].uncounted = false;
	}
	pt->uncounted -= uncounted;
	count -= uncounted;
	if (id != PT_END && count && pt->range[id].count) {
		pt->range[id].count -= count < pt->range[id].count ? count : pt->range[id].count;
		if (!pt->range[id].count)
			atomic_add(&pt->empty, 1u);
	}
	bool many = atomic_get(&pt->empty) > pt->entries / 8;
	os_unlock(&pt->lock);
	if (many || atomic_get(&mm->charged_bytes) > mm->budget_bytes)
		background_kick(mm);
}

static bool pt_unlink(struct pt_table *pt, uint32_t id)
{
	uint32_t *head = pt_head(pt, pt->range[id].key), at = *head, before = PT_END;
	for (; at != PT_END && at != id; at = pt->range[at].next)
		before = at;
	if (at == PT_END)
		return false; /* a free entry */
	if (before == PT_END)
		*head = pt->range[id].next;
	else
		pt->range[before].next = pt->range[id].next;
	pt->range[id].next = pt->free_head;
	atomic_set(&pt->free_head, id);
	pt->used--;
	atomic_sub(&pt->empty, 1u);
	return true;
}

/* Take an empty range off the table, as the one that is being released; 0: there is none. */
static uint64_t pt_choose_empty(struct pt_table *pt)
{
	uint64_t key = 0;
	os_lock(&pt->lock);
	/* Not all of a large table in one hold of the lock: faults want it. */
	for (uint32_t i = 0; i < pt->entries && i < 4096 && atomic_get(&pt->empty) && !pt->uncounted && !key; i++) {
		uint32_t id = pt->scan++ % pt->entries;
		key = pt->range[id].key;
		if (!key || pt->range[id].count || !pt_unlink(pt, id))
			key = 0;
		else
			pt->range[id].key = 0;
	}
	pt->releasing = key;
	os_unlock(&pt->lock);
	return key;
}

/* Of this mm, pinned: where a view has gone, another mm's may lie by now. */
static struct view_region *own_region(struct fm_mm *mm, uint64_t addr)
{
	struct view_region *region = region_find(addr);
	if (!region || ((struct view *)region->owner)->mm == mm)
		return region;
	region_unpin(region);
	return NULL;
}

static void discard_range(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	struct view_region *region = own_region(mm, start);
	if (!region)
		region = own_region(mm, end - OS_PAGE);
	if (!region)
		return; /* its view has gone, and the table with it */
	if (start < region->base)
		start = region->base;
	if (end > region->base + region->len)
		end = region->base + region->len;
	trap_discard_ours(mm->trap, start, end - start);
	region_unpin(region);
}

/* Give the page tables of up to `most` empty ranges back. Background thread only. */
void pt_release_empty(struct fm_mm *mm, uint32_t most)
{
	struct pt_table *pt = &mm->pt;
	uint64_t key;

	while (most-- && (key = pt_choose_empty(pt)) != 0) {
		discard_range(mm, key << 21, (key + 1) << 21);
		os_lock(&pt->lock);
		pt->releasing = 0;
		os_unlock(&pt->lock);
		atomic_add(&pt->release_seq, 1u);
		os_futex_wake(&pt->release_seq, INT_MAX, OS_FUTEX_ANY);
		mm_uncharge(mm, OS_PAGE);
		stats_sub(mm->stats, pt_ranges, 1);
		stats_add(mm->stats, pt_released, 1);
		for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++)
			if (unlikely(atomic_get(&mm->pool[i]->tickets.head)))
				frame_freed(mm->pool[i]);
	}
}

/* Page tables are made faster than they are given back: the budget is exceeded, or the table is full, so that more could
 * not even be counted; and there are some to give back. */
bool pt_behind(struct fm_mm *mm)
{
	uint64_t most = mm->budget_bytes + mm->budget_bytes / 32 + PT_SLACK_BYTES;
	return (atomic_get(&mm->charged_bytes) > most || atomic_get(&mm->pt.free_head) == PT_END) &&
	       atomic_get(&mm->pt.empty) > 0;
}

/* Let the background thread get on, for a moment only: it may itself be waiting for the kernel's mmap_lock. No lock and no
 * page held. */
void pt_throttle(struct fm_mm *mm)
{
	uint64_t until = os_now_ns() + PT_THROTTLE_NS;
	might_block(mm);
	while (pt_behind(mm) && os_now_ns() < until && !atomic_get(&mm->dying)) {
		uint32_t seq = atomic_get(&mm->pt.release_seq);
		background_kick(mm);
		os_futex_wait(&mm->pt.release_seq, seq, OS_FUTEX_ANY, until);
	}
}

/* ------------------------------------------------------------------ work for later */

/* `count` pages whose frames are neighbours. */
void after_add(struct fm_mm *mm, struct frame_pool *pool, struct page *page, uint32_t count)
{
	struct after_work *after = &mm->after;
	uint16_t place = 0;
	while (mm->pool[place] != pool)
		place++;
	os_lock(&after->lock);
	if (after->count < after->capacity) {
		uint32_t at = (after->head + after->count++) % after->capacity;
		after->item[at] = (struct after_item){place, (uint16_t)count, (uint32_t)(page - pool->pages)};
	} else {
		after->overflowed = true;
	}
	bool first = after->count == 1, many = after->count == after->capacity / 2;
	os_unlock(&after->lock);
	if (many)
		background_kick(mm);
	else if (first)
		background_note(mm);
}

bool after_work_waits(struct fm_mm *mm)
{
	os_lock(&mm->after.lock);
	bool some = mm->after.count || mm->after.overflowed;
	os_unlock(&mm->after.lock);
	return some;
}

uint64_t page_addr(const struct view *view, const struct frame_pool *pool, const struct page *page)
{
	return view->region.base + (page->index << pool->shift);
}

/* How much of the page is shown: whole kernel pages up to the end of the file. */
static uint64_t shown_bytes(struct fm_file *file, const struct page *page)
{
	uint64_t size = file_size(file);
	uint64_t start = page->index << file->pool->shift;
	if (start >= size)
		return 0;
	uint64_t rest = (size - start + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1);
	return rest < file->pool->page_size ? rest : file->pool->page_size;
}

/* The slot's memory, where the view has the bytes. Page lock held, nobody reads from it. May wait for the kernel's lock. */
void page_drop_copy(struct fm_mm *mm, struct frame_pool *pool, struct page *page)
{
	if (!page_is(page, PG_DUP))
		return;
	trap_discard(mm->trap, (uint64_t)slot_of(pool, page), pool->page_size);
	page_set(page, 0, PG_DUP);
	mm_uncharge(mm, pool->page_size);
}

/* Pinned and locked, if it is a copy to be dropped. *ret_later: somebody has its lock. */
static bool duplicate_take(struct frame_pool *pool, struct page *page, bool *ret_later)
{
	const uint32_t flags = PG_DUP | PG_INSTALLED;
	if ((atomic_get(&page->state) & flags) != flags || !page_try_pin(page))
		return false;
	*ret_later = !page_trylock(page);
	if (!*ret_later) {
		if ((atomic_get(&page->state) & (flags | PG_WRITEBACK)) == flags) /* else its write's end asks again */
			return true;
		page_unlock(pool, page);
	}
	page_unpin_quiet(pool, page); /* who waits for a frame would call this thread, which looks again, and so on */
	return false;
}

/* The copies that slots still have are dropped while the pages are locked: a read into a slot must not come between. They are
 * installed, so nobody waits for these locks but one who unmaps them. Of up to `most` pages, from the first on: so many have been
 * looked at. */
static uint32_t drop_duplicates(struct fm_mm *mm, struct frame_pool *pool, struct page *first, uint32_t most)
{
	uint32_t count = 0;
	bool later = false;

	while (count < most && count < DROP_TOGETHER && duplicate_take(pool, first + count, &later))
		count++;
	if (!count && later) { /* most often by the install that asked for this: all of it later, else it could not be evicted */
		after_add(mm, pool, first, most);
		return most;
	}
	if (!count)
		return 1;
	trap_discard(mm->trap, (uint64_t)slot_of(pool, first), (uint64_t)count << pool->shift);
	mm_uncharge(mm, (uint64_t)count << pool->shift);
	for (uint32_t i = 0; i < count; i++) {
		page_set(first + i, 0, PG_DUP);
		page_unlock(pool, first + i);
		page_unpin(pool, first + i);
	}
	return count;
}

struct span {
	uint64_t start, end;
	bool huge;
};

static void span_flush(struct fm_mm *mm, struct span *span)
{
	int err = 0;
	if (span->end > span->start)
		err = (span->huge ? trap_protect_huge : trap_protect)(mm->trap, span->start, span->end - span->start);
	for (uint64_t at = span->start; err && at < span->end; at += OS_PAGE) /* some of it may not be ours any more */
		trap_protect(mm->trap, at, OS_PAGE);
	*span = (struct span){0};
}

static void protect_one(struct fm_mm *mm, struct frame_pool *pool, struct page *page, struct span *span)
{
	if (!page_try_pin(page))
		return;
	uint32_t state = atomic_get(&page->state);
	struct fm_file *file = page->file;
	if ((state & PG_UNPROTECTED) && (state & PG_INSTALLED) && !file->writable) {
		uint64_t start = page_addr(&file->view, pool, page);
		uint64_t end = start + (uint64_t)page->shown * OS_PAGE;
		page_set(page, 0, PG_UNPROTECTED); /* an install from here on sets it again */
		bool huge = pool->grows;
		if (start != span->end || huge != span->huge || end - span->start > (huge ? TRAP_HUGE_TOGETHER : TRAP_TOGETHER))
			span_flush(mm, span);
		if (span->end == span->start)
			span->start = start;
		span->end = end;
		span->huge = huge;
	}
	/* What is left of the span is flushed before this thread, which alone closes views, does anything else. In part a huge page
	 * would come apart. */
	if (span->huge ? span->end - span->start >= TRAP_HUGE_TOGETHER : !(span->end % TRAP_TOGETHER))
		span_flush(mm, span);
	page_unpin_quiet(pool, page); /* as above */
}

/* `count` pages whose frames are neighbours. */
static void after_some(struct fm_mm *mm, struct frame_pool *pool, struct page *first, uint32_t count, struct span *span)
{
	for (uint32_t i = 0; i < count; i += drop_duplicates(mm, pool, first + i, count - i))
		;
	for (uint32_t i = 0; i < count; i++)
		if (page_is(first + i, PG_UNPROTECTED))
			protect_one(mm, pool, first + i, span);
}

/* Put protection on what MOVE installed; drop what COPY left behind. Background thread. What is added meanwhile waits for the next
 * time, so that what can't be done now is not tried for ever. False: there was nothing to do. */
bool after_work_run(struct fm_mm *mm)
{
	struct after_work *after = &mm->after;
	struct span span = {0};

	os_lock(&after->lock);
	uint32_t left = after->count;
	bool overflowed = after->overflowed, did = left || overflowed;
	after->overflowed = false;
	os_unlock(&after->lock);
	for (; left; left--) {
		os_lock(&after->lock);
		struct after_item item = after->item[after->head];
		after->head = (after->head + 1) % after->capacity;
		after->count--;
		os_unlock(&after->lock);
		after_some(mm, mm->pool[item.pool], &mm->pool[item.pool]->pages[item.page], item.count, &span);
	}
	span_flush(mm, &span);
	for (int p = 0; overflowed && p < MM_POOLS_MAX && atomic_get(&mm->pool[p]); p++)
		for (uint32_t i = 0; i < mm->pool[p]->frames; i++)
			if (page_is(&mm->pool[p]->pages[i], PG_DUP | PG_UNPROTECTED))
				after_some(mm, mm->pool[p], &mm->pool[p]->pages[i], 1, &span);
	span_flush(mm, &span);
	atomic_add(&after->passes, 1u);
	return did;
}

/* ------------------------------------------------------------------ installing */

struct transfer {
	struct fm_mm *mm;
	uint64_t dst, src, len;
	uint64_t done;
	unsigned busy, nomem;
	bool existed, copied, missing, back; /* back: a taking-out that is undone */
	struct page *leaves; /* it is taken out of the view, where it is protected: see move_had_worked() */
};

/*
 * A MOVE of several pages that stopped at EEXIST (see move_after_exist()) says only how many went before, and one more has gone; one that stopped at EBUSY
 * may not count what it had moved in one batch (Linux 6.18), of which the next MOVE says EEXIST. They are counted before anything is
 * tried with the first of them, or undone: that would leave the others behind. Returns the bytes that have gone. The kernel has called
 * nobody for them (thread trap).
 */
uint64_t move_uncounted(struct fm_mm *mm, uint64_t dst, uint64_t src, uint64_t len)
{
	uint64_t at = 0;
	while (at < len && trap_present(src + at) == 0 && trap_present(dst + at) == 1)
		at += OS_PAGE;
	if (at)
		trap_wake(mm->trap, dst, at);
	return at;
}

/*
 * MOVE said EEXIST. Beside a WRITEPROTECT of the same range it says so now and then of a page that it has just moved
 * itself (Linux 6.18: once in some 500,000). Page lock held, so nobody else moves it: moving it back succeeds only then. Where
 * it can't be moved back (the kernel has it pinned for now, or has no memory; or meanwhile an error's mark stands there), both places
 * tell: a page only where it was to go. 0: it is back, or has gone altogether: repeat; 1: it was moved; -EEXIST: it was not.
 */
int move_after_exist(struct fm_mm *mm, uint64_t dst, uint64_t src)
{
	uint64_t done;
	int err = -EAGAIN;
	for (int tries = 0; (err == -EAGAIN || err == -EBUSY) && tries < BUSY_TRIES; tries++) {
		if (tries > 5)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		err = trap_move(mm->trap, src, dst, OS_PAGE, &done);
	}
	if (err == 0 || err == -ENOENT) /* moved, and emptied behind us since: the repeated MOVE tells */
		return 0;
	return move_uncounted(mm, dst, src, OS_PAGE) ? 1 : -EEXIST;
}

/* True: MOVE's EEXIST has been dealt with. A page that leaves the view may go back there for that, where it arrives writable. */
static bool move_had_worked(struct transfer *t)
{
	if (t->leaves && t->leaves->file->writable)
		page_dirty(t->leaves->file->pool, t->leaves);
	int after = move_after_exist(t->mm, t->dst + t->done, t->src + t->done);
	if (after == 1)
		t->done += OS_PAGE;
	return after >= 0;
}

static bool count_uncounted(struct transfer *t, int err)
{
	if (likely(!err || err == -EAGAIN))
		return false;
	uint64_t more = move_uncounted(t->mm, t->dst + t->done, t->src + t->done, t->len - t->done);
	t->done += more;
	return more > 0;
}

/* What to do after a kernel call that moved or copied part of a range. 0: go on; 1: use COPY from here on;
 * else the error. */
static int transfer_next(struct transfer *t, int err)
{
	switch (err) {
	case 0:
	case -EAGAIN: /* part of it went, or the kernel is changing the mappings: go on */
		return 0;
	case -EEXIST:
		t->existed = true;
		t->done += OS_PAGE;
		stats_add(t->mm->stats, install_exists, 1);
		return 0;
	case -EBUSY: /* the kernel has a pin on it, for a moment after O_DIRECT for one */
		stats_add(t->mm->stats, install_busy, 1);
		if (++t->busy > BUSY_TRIES)
			return 1;
		if (t->busy > 5)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		return 0;
	case -EINVAL: /* a range that is partly mlocked */
		return 1;
	case -ENOENT: /* nothing where it comes from; or nobody's place where it is to go */
		return trap_is_ours(t->mm->trap, t->dst + t->done, OS_PAGE) ? err : FOREIGN;
	case -ENOMEM:
		if (++t->nomem > NOMEM_TRIES)
			return err;
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
		return 0;
	default:
		return err;
	}
}

static int transfer_out(struct transfer *t);

/* What has been moved of a page goes back before the whole is copied: a slot has all bytes of its page, or none. */
static bool take_back(struct transfer *t)
{
	struct transfer back = {.mm = t->mm, .dst = t->src, .src = t->dst, .len = t->done};
	if (transfer_out(&back) < 0)
		return false;
	t->done = 0;
	return true;
}

static int transfer_in(struct transfer *t, bool move)
{
	while (t->done < t->len) {
		uint64_t done = 0;
		int err = move ? trap_move(t->mm->trap, t->dst + t->done, t->src + t->done,
					   t->len - t->done, &done)
			       : trap_copy(t->mm->trap, t->dst + t->done, t->src + t->done,
					   t->len - t->done, &done);
		t->done += done;
		if (done && !move)
			t->copied = true;
		if (err == -EFAULT && !move) /* a hole in the slot: what was moved before has been emptied behind us */
			err = -ENOENT;
		if (unlikely(move && count_uncounted(t, err)))
			continue;
		if (err == -EEXIST && move && move_had_worked(t))
			continue;
		/* The mark of an error may stand there (thread trap): COPY puts the page in its place, where MOVE does not. Not
		 * to undo a taking-out, whose holes would be copied. */
		if (err == -EEXIST && move && !t->back)
			err = 1;
		else
			err = transfer_next(t, err);
		if (err == 1 && move && take_back(t))
			move = false;
		else if (err)
			return err == 1 ? -EBUSY : err;
	}
	return 0;
}

/* A taking-out that got stuck is undone; pieces that nobody has are left out. Else some stay where they are. */
static int transfer_back(struct transfer *t)
{
	int err;
	t->back = true;
	while ((err = transfer_in(t, true)) == -ENOENT)
		t->done += OS_PAGE;
	return err;
}

/* Back to the slot, all of it; used for eviction and to roll an install back. With `missing` the slot has holes. */
static int transfer_out(struct transfer *t)
{
	while (t->done < t->len) {
		uint64_t done = 0;
		int err = trap_move(t->mm->trap, t->dst + t->done, t->src + t->done,
				    t->len - t->done, &done);
		t->done += done;
		if (unlikely(count_uncounted(t, err)))
			continue;
		if (err == -EEXIST && move_had_worked(t))
			continue;
		/* Nothing there, or the mark of an error. Not filled here: zeros must not get into the view should this be
		 * rolled back. */
		if (err == -ENOENT || err == -EFAULT) {
			t->missing = true;
			t->done += OS_PAGE;
			continue;
		}
		if (err && err != -EAGAIN)
			return err;
	}
	return 0;
}

/* A page's bytes are gone, and the store has older ones, if any. Page lock held, no longer uptodate: a write or a flush that fails
 * just now does not make it dirty again, or did before. */
void dirty_emptied(struct frame_pool *pool, struct page *page)
{
	struct fm_file *file = page->file;
	if (!page_is(page, PG_DIRTY))
		return;
	covered(exit_emptied_dirty);
	page_clean(pool, page);
	stats_add(pool->mm->stats, dirty_lost, 1);
	file_lost_page(file, page->index);
}

/* Its bytes went with the view's memory. Page lock held. */
static void page_emptied(struct fm_mm *mm, struct frame_pool *pool, struct page *page)
{
	if (mm->install == FM_INSTALL_MOVE && pool->page_size > OS_PAGE && page_is(page, PG_DUP))
		frame_fill(pool, page); /* the pieces that were moved before the rest had to be copied */
	page_set(page, page_is(page, PG_DUP) ? 0 : PG_HOLE,
		 PG_INSTALLED | PG_UPTODATE | PG_DUP | PG_UNPROTECTED | PG_SOFT);
	stats_sub(mm->stats, pages_installed, 1);
	mm_uncharge(mm, pool->page_size); /* the only copy, or the second */
}

/* Not all of it is in the view. Page lock held; not uptodate any more, to be read again; but for one that is all there after all, as what
 * has been swapped out is. `foreign`: what is there now is not touched. */
static void page_in_pieces(struct view *view, struct page *page, bool foreign)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t addr = page_addr(view, pool, page), len = (uint64_t)page->shown * OS_PAGE;

	/* The same bytes are in its slot until it can be written to in the view. */
	bool kept = view->file->writable && page_is(page, PG_DUP) && !page_is(page, PG_UNPROTECTED);

	if (kept || (page_is(page, PG_WRITEBACK) && page_is(page, PG_DUP))) { /* which may be being read from */
		page_set(page, 0, PG_INSTALLED | PG_DUP | PG_UNPROTECTED);
		stats_sub(mm->stats, pages_installed, 1);
		mm_uncharge(mm, pool->page_size);
	} else if (mm->install == FM_INSTALL_MOVE && !page_is(page, PG_DUP)) {
		struct transfer t = {.mm = mm, .dst = (uint64_t)slot_of(pool, page), .src = addr, .len = len, .leaves = page};
		bool out = !foreign && transfer_out(&t) == 0;
		kept = out && !t.missing;
		if (!out)
			trap_discard_ours(mm->trap, addr, len);
		if (!kept || len < pool->page_size) /* what is left of it, and memory for the rest */
			frame_fill(pool, page);
		page_set(page, 0, PG_INSTALLED | PG_UNPROTECTED | (kept ? 0 : PG_UPTODATE | PG_SOFT));
		stats_sub(mm->stats, pages_installed, 1);
	} else {
		if (len > OS_PAGE) /* what is left of it would be seen beside newer bytes */
			trap_discard_ours(mm->trap, addr, len);
		page_emptied(mm, pool, page);
	}
	if (!kept)
		dirty_emptied(pool, page);
	pt_put(mm, page, 1, addr);
}

/* The program has put other memory, or none, into some of the page's place. */
bool page_is_foreign(const struct view *view, const struct page *page)
{
	return trap_any_foreign(view->mm->trap, page_addr(view, view->file->pool, page), (uint64_t)page->shown * OS_PAGE);
}

/* It is installed, and foreign: what the view had of it is gone. Page lock held. */
void page_gone_foreign(struct view *view, struct page *page)
{
	stats_add(view->mm->stats, emptied_behind, 1);
	page_in_pieces(view, page, true);
}

/* The same, where somebody has emptied the view behind us, in whatever way. */
void page_gone_behind(struct view *view, struct page *page)
{
	stats_add(view->mm->stats, emptied_behind, 1);
	page_in_pieces(view, page, page_is_foreign(view, page));
}

/* `count` pages whose frames are neighbours are in the view, `bytes` of each. Their locks and pins held. */
void pages_installed(struct view *view, struct page *first, uint32_t count, uint64_t bytes, enum installed_by by)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint32_t soft = 0, spec = 0, hot = 0, set = PG_INSTALLED, clear = PG_SOFT | PG_SPEC;

	group_installed(pool, first, count);
	if (by == BY_COPY)
		set |= PG_DUP;
	if (by == BY_STAGE || by == BY_STAGE_WRITABLE) {
		set |= PG_UPTODATE | (by == BY_STAGE ? 0 : PG_UNPROTECTED);
		clear |= PG_HOLE;
	} else if (mm->install == FM_INSTALL_MOVE && (!view->file->writable || by == BY_MOVE)) {
		set |= PG_UNPROTECTED;
	}

	for (struct page *page = first; page < first + count; page++) {
		uint32_t state = atomic_get(&page->state);
		page_word_set(page, shown, (uint16_t)(bytes / OS_PAGE)); /* the file may be shorter by the time it is taken out */
		page_set(page, set | (state & PG_SOFT ? PG_HOT : 0), clear);
		soft += (state & PG_SOFT) != 0;
		spec += (state & PG_SPEC) != 0;
		hot += (state & (PG_SOFT | PG_HOT)) != 0 || page->keep;
	}
	if (by == BY_COPY) /* twice in memory until the slot's copy is dropped */
		mm_charge(mm, (uint64_t)count * pool->page_size);
	stats_add(mm->stats, pages_installed, count);
	stats_add(mm->stats, reactivations, soft);
	stats_add(mm->stats, ra_hits, spec);
	if (by == BY_MOVE)
		stats_add(mm->stats, installs_move, count);
	else
		stats_add(mm->stats, installs_copy, count);
	/* Most of a run share their fate. What comes while there is room stays until something better does. */
	lru_set(pool, first, count, 2 * hot > count || !pool_evicts(pool) ? LIST_ACTIVE : LIST_YOUNG);
	if (by == BY_COPY || (by == BY_MOVE && !view->file->writable)) /* else it is protected as it is to be, and is there once */
		after_add(mm, pool, first, count);
}

/* The page's slot was emptied while the store reads from it, which is to meet the hole, and not zeros. True: so it stays one, and who
 * reads the page anew fills it. Page lock held; not uptodate any more. */
bool page_hole_stays(struct frame_pool *pool, struct page *page)
{
	if (!page_is(page, PG_WRITEBACK))
		return false;
	page_set(page, PG_HOLE, 0);
	mm_uncharge(pool->mm, pool->page_size);
	return true;
}

/* An install that got stuck is undone. `to_write`: the page is dirty only because it was to be written to. -EAGAIN: it is not uptodate
 * any more; else `err`. */
static int install_undo(struct view *view, struct page *page, struct transfer *t, bool to_write, int err)
{
	struct fm_mm *mm = view->mm;
	struct transfer back = {.mm = mm, .dst = t->src, .src = t->dst, .len = t->done};
	bool torn = !t->copied && t->done && transfer_out(&back) < 0; /* the kernel has a part pinned: no way back either */

	if (t->done && (t->copied || torn))
		trap_discard(mm->trap, t->dst, t->done);
	pt_put(mm, page, 1, t->dst);
	if (err == FOREIGN && to_write)
		page_clean(view->file->pool, page);
	if (err != -ENOENT && !torn)
		return err;
	page_set(page, 0, PG_UPTODATE);
	if (!page_hole_stays(view->file->pool, page))
		frame_fill(view->file->pool, page);
	if (to_write)
		page_clean(view->file->pool, page);
	dirty_emptied(view->file->pool, page);
	return -EAGAIN;
}

/* Does it go in by MOVE? Of a file open for writing only what may be written to from then on; and not while the store reads from
 * its slot. */
static bool moves_in(const struct fault *vmf, const struct page *page, bool write)
{
	if (vmf->mm->install != FM_INSTALL_MOVE)
		return false;
	return !vmf->file->writable || ((write || (page_is(page, PG_DIRTY) && vmf->writable)) && !page_is(page, PG_WRITEBACK));
}

/*
 * Page lock and a pin held; the page is uptodate. 0: it is in the view, so that it can be written to where the fault wants that. -EAGAIN:
 * look again; its bytes are gone (somebody emptied the slot), so that it is no longer uptodate, or it lies past the end by now. Else
 * -ENOMEM and the like.
 */
int page_install(struct fault *vmf, struct page *page)
{
	bool write = vmf->flags & FM_FAULT_WRITE;
	struct view *view = vmf->view;
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	struct transfer t = {.mm = mm, .dst = page_addr(view, pool, page),
			     .src = (uint64_t)slot_of(pool, page),
			     .len = shown_bytes(view->file, page)};
	bool move = moves_in(vmf, page, write);

	might_block(mm);
	page_check(pool, page);
	if (page_is(page, PG_INSTALLED))
		return write ? page_make_writable(view, page) : 0;
	covered_if(t.len < pool->page_size, a12_clipped);
	covered_if(!t.len, a10_shrunk_before_install);
	if (!t.len) /* the file has become shorter since the fault looked: recorded as installed it would have memory in its
		     * slot, and by COPY be taken for one that has none there */
		return -EAGAIN;
	pt_get(mm, page, 1, t.dst, true);
	bool to_write = write && move && !page_is(page, PG_DIRTY);
	if (to_write)
		page_dirty(pool, page);
	uint32_t unmarks = trap_unmarks(mm->trap);
	bool guarded = move && view->file->writable;
	if (guarded)
		trap_writable_begin(mm->trap);
	int err = transfer_in(&t, move);
	if (guarded)
		trap_writable_end(mm->trap);
	if (err)
		return install_undo(view, page, &t, to_write, err);
	/* The kernel wakes for what it moves or copies; that it met a page there it only says. Seen on 6.18: about one MOVE
	 * in 30,000 under load moves the page, and then fails with EEXIST. */
	if (t.existed)
		trap_wake(mm->trap, t.dst, t.len);
	pages_installed(view, page, 1, t.len, t.copied || t.existed ? BY_COPY : BY_MOVE);
	if (unlikely(!trap_kept(mm->trap, unmarks, t.dst, t.len))) {
		page_gone_behind(view, page);
		return -EAGAIN;
	}
	return write ? page_make_writable(view, page) : 0;
}

/* One page from here to there, its lock held: 0, or what keeps it where it is. -EAGAIN and -EBUSY have been tried for a while. */
static int move_page(struct fm_mm *mm, uint64_t dst, uint64_t src)
{
	uint64_t done;
	int err = -EAGAIN;

	for (int tries = 0; (err == -EAGAIN || err == -EBUSY || err == -ENOMEM) && tries < BUSY_TRIES; tries++) {
		if (tries > 5)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		err = trap_move(mm->trap, dst, src, OS_PAGE, &done);
		if (err == -EEXIST) {
			int after = move_after_exist(mm, dst, src);
			err = after == 1 ? 0 : after == 0 ? -EAGAIN : after;
		}
	}
	return err;
}

/* What by_a_place() could not bring back goes to its slot. MOVE may have had it in the view for a moment after all (see
 * move_after_exist()), where it could be written to: so these bytes count, and not those that the slot has. While the store reads
 * from that, the view is tried on. True: it is in the view. */
static bool back_from_place(struct view *view, struct page *page, uint64_t addr, uint64_t place)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	int err = -EBUSY;

	while (err && page_is(page, PG_WRITEBACK)) {
		err = move_page(mm, addr, place);
		if (err == -ENOENT) /* somebody has emptied that, too: the slot's are all there is */
			break;
		if (err)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
	}
	if (!err)
		return true;
	if (err != -ENOENT) {
		page_drop_copy(mm, pool, page);
		while ((err = move_page(mm, (uint64_t)slot_of(pool, page), place)) < 0 && err != -ENOENT)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		if (err)
			frame_fill(pool, page);
		page_set(page, 0, PG_INSTALLED | (err ? PG_UPTODATE : 0));
	} else {
		page_set(page, 0, PG_INSTALLED | PG_DUP);
		mm_uncharge(mm, pool->page_size);
	}
	stats_sub(mm->stats, pages_installed, 1);
	pt_put(mm, page, 1, addr);
	if (!page_is(page, PG_UPTODATE))
		dirty_emptied(pool, page);
	return false;
}

/* Its slot has memory: the view's page goes by way of an empty one. */
static int by_a_place(struct view *view, struct page *page, uint64_t addr)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	char *place = place_take(pool);

	if (!place) {
		os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		return -EAGAIN;
	}
	int err = move_page(mm, (uint64_t)place, addr);
	if (!err && move_page(mm, addr, (uint64_t)place) < 0 && !back_from_place(view, page, addr, (uint64_t)place))
		err = -EAGAIN;
	place_put(pool, place);
	return err;
}

/* By way of its own slot, where it stays if it can't go back. */
static int by_its_slot(struct view *view, struct page *page, uint64_t addr)
{
	struct fm_mm *mm = view->mm;
	uint64_t slot = (uint64_t)slot_of(view->file->pool, page);
	int err = move_page(mm, slot, addr);

	if (!err && move_page(mm, addr, slot) < 0) {
		page_set(page, 0, PG_INSTALLED);
		stats_sub(mm->stats, pages_installed, 1);
		pt_put(mm, page, 1, addr);
		return -EAGAIN;
	}
	return err;
}

/*
 * A page of a file open for writing, installed and protected, is to be written to. Page lock and a pin held. It goes out of the
 * view and in again by MOVE, so that it arrives writable; only where the kernel moves nothing (partly locked memory, Linux before
 * 6.8), has it pinned, or fm_pin() holds it, so that a system call may have its address, its protection is taken off, which may
 * wait for the kernel's lock. 0; -EAGAIN: look again.
 */
int page_make_writable(struct view *view, struct page *page)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t addr = page_addr(view, pool, page);
	int err = -EINVAL;

	if (page_is(page, PG_UNPROTECTED)) {
		page_dirty(pool, page); /* it is; but for what fm_pin() holds, which is written where it is */
		return 0;
	}
	if (unlikely(page_is_foreign(view, page))) {
		page_gone_foreign(view, page);
		return -EAGAIN;
	}
	page_dirty(pool, page);
	uint32_t unmarks = trap_unmarks(mm->trap);
	if (mm->install == FM_INSTALL_MOVE && !page->user_pins) {
		trap_writable_begin(mm->trap);
		err = page_is(page, PG_DUP) ? by_a_place(view, page, addr) : by_its_slot(view, page, addr);
		trap_writable_end(mm->trap);
	}
	if (err == -EINVAL || err == -EBUSY)
		err = trap_unprotect(mm->trap, addr, OS_PAGE);
	if (err == -ENOENT || err == -EFAULT) {
		page_gone_behind(view, page);
		return -EAGAIN;
	}
	if (err)
		return err;
	page_set(page, PG_UNPROTECTED, 0);
	if (unlikely(!trap_kept(mm->trap, unmarks, addr, OS_PAGE))) {
		page_gone_behind(view, page);
		return -EAGAIN;
	}
	return 0;
}

/* A page's bytes go from a staging slot into the view, where with `write` they can be written to. Locked and pinned; a hole that
 * is charged for, as is its page table, and neither uptodate nor past the end. 0: it is uptodate, and in the view. Else as it was. */
int page_install_from(struct view *view, struct page *page, const char *stage, bool write)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t dst = page_addr(view, pool, page), done;
	int err = -EAGAIN;

	if (write) {
		page_dirty(pool, page);
		trap_writable_begin(mm->trap);
	}
	uint32_t unmarks = trap_unmarks(mm->trap);
	for (int tries = 0; err == -EAGAIN && tries < BUSY_TRIES; tries++)
		err = (write ? trap_copy_writable : trap_copy)(mm->trap, dst, (uint64_t)stage, OS_PAGE, &done);
	if (write)
		trap_writable_end(mm->trap);
	if (err == -ENOMEM)
		atomic_set(&pool->fill_failed_ns, os_now_ns());
	if (err) {
		page_clean(pool, page); /* nobody has seen it */
		pt_put(mm, page, 1, dst);
		return err;
	}
	pages_installed(view, page, 1, OS_PAGE, write ? BY_STAGE_WRITABLE : BY_STAGE);
	if (unlikely(!trap_kept(mm->trap, unmarks, dst, OS_PAGE)))
		page_gone_behind(view, page);
	return 0;
}

/* The region goes, and the page's memory in it. Page lock held. */
void page_forget(struct view *view, struct page *page)
{
	struct frame_pool *pool = view->file->pool;
	group_split(pool, page, 1);
	if (!page_is(page, PG_DUP) && page->shown < pool->page_size / OS_PAGE) /* what it had not shown is still in the slot */
		trap_discard(view->mm->trap, (uint64_t)slot_of(pool, page), pool->page_size);
	page_emptied(view->mm, view->file->pool, page);
	pt_put(view->mm, page, 1, page_addr(view, view->file->pool, page));
}

/* Out of the view, whatever becomes of its bytes, which the store has too, or nobody is to have. Page lock held; may wait for
 * the kernel's lock. */
void page_discard(struct view *view, struct page *page)
{
	mm_assert(!page_is(page, PG_WRITEBACK));
	trap_discard_ours(view->mm->trap, page_addr(view, view->file->pool, page), view->file->pool->page_size);
	if (page_is(page, PG_DIRTY)) /* not before: until then it could be written to */
		page_drop_dirty(view->file->pool, page);
	if (!page_is(page, PG_DUP)) /* MOVE may have met something there */
		trap_discard(view->mm->trap, (uint64_t)slot_of(view->file->pool, page), view->file->pool->page_size);
	page_forget(view, page);
}

/*
 * Page lock and a pin held; the page is installed. 0: it is out of the view; it is still uptodate where
 * its bytes could be kept. -EBUSY: it stays (the kernel has a pin, a write of it is under way, or it takes a call that may
 * block and the caller must not). -EINVAL: it stays, since the kernel cannot move it.
 */
int page_take_out(struct view *view, struct page *page, bool may_block)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	struct transfer t = {.mm = mm, .dst = (uint64_t)slot_of(pool, page),
			     .src = page_addr(view, pool, page),
			     .len = (uint64_t)page->shown * OS_PAGE, .leaves = page};
	mm_assert(page_is(page, PG_INSTALLED) && page_is(page, PG_LOCKED));
	group_split(pool, page, 1);
	if (page_is(page, PG_WRITEBACK)) /* what the store reads from stays where it is */
		return -EBUSY;
	if (unlikely(page_is_foreign(view, page))) {
		page_gone_foreign(view, page);
		return 0;
	}
	if (page_is(page, PG_DUP) && page_is(page, PG_DIRTY)) { /* the slot's bytes are the older ones, or as good */
		if (!may_block)
			return -EBUSY;
		page_drop_copy(mm, pool, page);
	}
	/* By COPY its bytes would be gone: the store has them, but for a flush that may still fail. */
	if (mm->install == FM_INSTALL_COPY && (page_is(page, PG_DIRTY) || (!page_is(page, PG_DUP) && page_is_held(pool, page))))
		return -EINVAL;

	if (mm->install == FM_INSTALL_MOVE && !page_is(page, PG_DUP)) {
		int err = transfer_out(&t);
		if (err) {
			struct transfer back = {.mm = mm, .dst = t.src, .src = t.dst, .len = t.done};
			stats_add(mm->stats, install_busy, 1);
			trap_writable_begin(mm->trap);
			int stuck = transfer_back(&back);
			trap_writable_end(mm->trap);
			if (back.copied || back.existed) {
				page_set(page, PG_DUP, view->file->writable ? PG_UNPROTECTED : 0);
				mm_charge(mm, pool->page_size);
				after_add(mm, pool, page, 1);
			}
			if (stuck) { /* a large page in two halves, no memory to join them: the store has it all */
				mm_assert(!view->file->writable);
				page_in_pieces(view, page, false);
				return 0;
			}
			return err == -EINVAL ? err : -EBUSY;
		}
		if (t.missing) {
			stats_add(mm->stats, emptied_behind, 1);
			page_set(page, 0, PG_UPTODATE);
			dirty_emptied(pool, page);
		}
		if (t.missing || t.len < pool->page_size) /* or: a copy that was dropped took the part past the end with it */
			frame_fill(pool, page);
		page_set(page, 0, PG_INSTALLED | PG_UNPROTECTED);
		stats_sub(mm->stats, pages_installed, 1);
	} else {
		if (!may_block)
			return -EBUSY;
		trap_discard(mm->trap, t.src, t.len);
		if (page_is(page, PG_DUP)) { /* the slot has the bytes */
			if (mm->install == FM_INSTALL_MOVE && pool->page_size > OS_PAGE) {
				/* ...but for the pieces that were moved before the rest had to be copied */
				frame_fill(pool, page);
				page_set(page, 0, PG_UPTODATE);
			}
			page_set(page, 0, PG_INSTALLED | PG_DUP | PG_UNPROTECTED);
			mm_uncharge(mm, pool->page_size);
			stats_sub(mm->stats, pages_installed, 1);
		} else {
			page_emptied(mm, pool, page);
		}
	}
	pt_put(mm, page, 1, t.src);
	return 0;
}

/*
 * As page_take_out(), also of what the kernel does not move and the store does not have yet (installed by COPY, or in locked memory; of
 * a file open for writing): its bytes are copied to the slot, protected meanwhile, so that no write is missed. Waits for the
 * kernel's lock.
 */
int page_bring_out(struct view *view, struct page *page)
{
	struct fm_mm *mm = view->mm;
	struct frame_pool *pool = view->file->pool;
	uint64_t addr = page_addr(view, pool, page), slot = (uint64_t)slot_of(pool, page);
	int err = page_take_out(view, page, true);

	if (err != -EINVAL || !view->file->writable)
		return err;
	mm_assert(!page_is(page, PG_DUP | PG_WRITEBACK) && pool->page_size == OS_PAGE);
	err = frame_fill(pool, page);
	if (!err)
		err = trap_protect(mm->trap, addr, OS_PAGE);
	if (!err) {
		page_set(page, 0, PG_UNPROTECTED);
		err = trap_fetch(mm->trap, slot, addr);
	}
	if (err) {
		trap_discard(mm->trap, slot, OS_PAGE);
		if (err == -EFAULT)
			page_gone_behind(view, page);
		return err == -EFAULT ? 0 : -EBUSY;
	}
	trap_discard(mm->trap, addr, OS_PAGE);
	page_set(page, 0, PG_INSTALLED);
	stats_sub(mm->stats, pages_installed, 1);
	pt_put(mm, page, 1, addr);
	return 0;
}

/*
 * It can be written to, as far as is known here, and yet a write of it has faulted once more: what is swapped out keeps its protection
 * on its way through a slot, since the kernel moves the entry that it has for it as it is (seen on Linux 6.18). Pinned, not locked.
 */
void page_unprotect_again(struct view *view, struct page *page)
{
	if (!page_trylock(page))
		return;
	if ((page_state(page) & (PG_GONE | PG_INSTALLED | PG_UNPROTECTED)) == (PG_INSTALLED | PG_UNPROTECTED))
		trap_unprotect(view->mm->trap, page_addr(view, view->file->pool, page), OS_PAGE);
	page_unlock(view->file->pool, page);
}

bool page_is_there(const struct view *view, const struct page *page)
{
	uint64_t addr = page_addr(view, view->file->pool, page), end = addr + (uint64_t)page->shown * OS_PAGE;
	while (addr < end && trap_has_bytes(addr))
		addr += OS_PAGE;
	return addr == end && !page_is_foreign(view, page);
}

/*
 * The page is recorded as installed, yet its thread faulted on it again: ask the kernel whether it is
 * there. Pinned, not locked. False: it had been emptied behind us, and is now to be read again.
 */
bool page_really_there(struct view *view, struct page *page)
{
	struct frame_pool *pool = view->file->pool;

	if (page_is_there(view, page))
		return true;
	if (!page_trylock(page))
		return false;
	/* Asked again: it may have been taken out and installed meanwhile. */
	bool there = page_is(page, PG_INSTALLED) && page_is_there(view, page);
	if (!there && page_is(page, PG_INSTALLED))
		page_gone_behind(view, page);
	page_unlock(pool, page);
	return there;
}
