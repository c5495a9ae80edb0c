/* SPDX-License-Identifier: MIT */
/*
 * Pages: the index that finds them, their state word, page lock, pins, tickets, invalidation.
 *
 * A page's life, and the function behind each transition:
 *
 *   FREE --frame_alloc--> LOCKED --page_add--> LOCKED, in the index
 *     LOCKED --read ok: page_unlock--> UPTODATE --page_install--> UPTODATE|INSTALLED
 *     LOCKED --read into a staging slot: page_install_from--> UPTODATE|INSTALLED
 *     LOCKED --read failed: page_fail, page_unlock--> ERROR (read again by the next fault)
 *     UPTODATE|INSTALLED --reclaim: page_take_out--> UPTODATE|SOFT --page_install--> ...
 *     any, locked --page_remove--> GONE --last pin and the lock put--> FREE
 *
 * Invariants
 *   1. A page with a pin or the lock keeps its identity (file, index) and its frame.
 *   2. PG_FREE is set by one compare-and-swap, from a word without pins and lock.
 *   3. The index holds no page twice: a bucket's lock covers look-up and insertion.
 *   4. A reader of the index that is overtaken by a writer may miss a page, and never sees another's:
 *      it checks the identity after it has the pin. Who needs certainty calls page_add().
 * May call: frame_pool, os, stats; trap through install.c.
 */
#include "mm/mm.h"

#include <limits.h>

/* ------------------------------------------------------------------ state word */

void page_set(struct page *page, uint32_t set, uint32_t clear)
{
	uint32_t old = atomic_get(&page->state);
	while (!atomic_cas(&page->state, &old, (old & ~clear) | set))
		;
}

bool page_try_pin(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	do {
		if ((old & PG_FREE) || PG_PINS(old) >= PG_PINS_MAX)
			return false;
	} while (!atomic_cas(&page->state, &old, old + PG_PIN));
	return true;
}

void page_pin(struct page *page)
{
	uint32_t old = atomic_add(&page->state, PG_PIN);
	mm_assert(!(old & PG_FREE));
	(void)old;
}

/* The one place where a page that is out of the index becomes a free frame. */
static void page_free_if_last(struct frame_pool *pool, struct page *page, uint32_t state)
{
	while ((state & PG_GONE) && !(state & (PG_LOCKED | PG_FREE)) && !PG_PINS(state)) {
		if (atomic_cas(&page->state, &state, (state & (PG_HOLE | PG_DUP)) | PG_FREE)) {
			frame_free(pool, page);
			return;
		}
	}
}

/* After a try at a page that somebody else than us keeps where it is: who waits for a frame would only try the same. Returns
 * the state before. */
uint32_t page_unpin_quiet(struct frame_pool *pool, struct page *page)
{
	uint32_t old = atomic_sub(&page->state, PG_PIN);
	mm_assert(PG_PINS(old) > 0);
	if (unlikely(old & PG_GONE))
		page_free_if_last(pool, page, old - PG_PIN);
	return old;
}

void page_unpin(struct frame_pool *pool, struct page *page)
{
	uint32_t old = page_unpin_quiet(pool, page);
	if (PG_PINS(old) != 1 || (old & PG_GONE))
		return;
	if (unlikely(atomic_get(&pool->free_waiters)))
		os_futex_wake(&pool->free_seq, 1, OS_FUTEX_ANY); /* it may be evicted now */
	else if (unlikely(atomic_get(&pool->tickets.head)))
		background_kick(pool->mm);
}

/* ------------------------------------------------------------------ page lock */

bool page_trylock(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	do {
		if (old & (PG_LOCKED | PG_FREE))
			return false;
	} while (!atomic_cas(&page->state, &old, old | PG_LOCKED));
	return true;
}

/* Queue lock held. */
static void ticket_append(struct wait_queue *queue, struct ticket *ticket)
{
	ticket->next = NULL;
	if (!queue->head) /* the tail of an empty queue is not kept */
		queue->tail = &queue->head;
	atomic_set(queue->tail, ticket); /* whether the queue is empty is asked without its lock */
	queue->tail = &ticket->next;
}

void ticket_queue(struct wait_queue *queue, struct ticket *ticket)
{
	os_lock(&queue->lock);
	ticket_append(queue, ticket);
	os_unlock(&queue->lock);
}

/* Whether it is worth running. Else those of a store that is dead would take each turn from others. */
static bool ticket_ready(const struct ticket *ticket)
{
	return !ticket->ready || atomic_get(&ticket->file->mm->dying) || ticket->ready(ticket);
}

static struct ticket *take_from(struct wait_queue *queue, bool throttled)
{
	if (!atomic_get(&queue->head))
		return NULL;
	os_lock(&queue->lock);
	struct ticket **at = &queue->head;
	while (*at && !(throttled ? (*at)->throttled : ticket_ready(*at)))
		at = &(*at)->next;
	struct ticket *ticket = *at;
	if (ticket) {
		if (!ticket->next)
			queue->tail = at;
		atomic_set(at, ticket->next);
	}
	os_unlock(&queue->lock);
	return ticket;
}

/* The oldest that could go on, or NULL: those of a store that is stuck with its share are passed by. */
struct ticket *ticket_take(struct wait_queue *queue)
{
	return take_from(queue, false);
}

/* The oldest that waits for room for dirty pages, whether or not there is some. */
struct ticket *ticket_take_throttled(struct wait_queue *queue)
{
	return take_from(queue, true);
}

static struct wait_queue *page_queue_of(struct fm_mm *mm, const struct page *page)
{
	uintptr_t hash = ((uintptr_t)page / sizeof(*page)) * 0x9e3779b97f4a7c15ull;
	return &mm->page_tickets[hash >> 58];
}

static void page_run_tickets(struct fm_mm *mm, struct page *page)
{
	struct wait_queue *queue = page_queue_of(mm, page);
	struct ticket *ready = NULL, **ready_tail = &ready;

	os_lock(&queue->lock);
	struct ticket **at = &queue->head;
	while (*at) {
		struct ticket *ticket = *at;
		if (ticket->page != page) {
			at = &ticket->next;
			continue;
		}
		*at = ticket->next;
		ticket->next = NULL;
		*ready_tail = ticket;
		ready_tail = &ticket->next;
	}
	queue->tail = at;
	os_unlock(&queue->lock);
	while (ready) {
		struct ticket *ticket = ready;
		ready = ticket->next;
		ticket->run(ticket);
	}
}

/* Called with the page locked and pinned, in any thread; the pin stays the caller's. */
void page_unlock(struct frame_pool *pool, struct page *page)
{
	uint32_t ends, old = atomic_get(&page->state);
	mm_assert(old & PG_LOCKED);
	while (PG_PINS(old) && !(old & (PG_WAITERS | PG_TICKETS | PG_ASKED))) /* nobody is to be told, and somebody keeps it */
		if (atomic_cas(&page->state, &old, old & ~PG_LOCKED))
			return;
	page_pin(page); /* the word is still looked at after the waiters are free to go */
	old = atomic_get(&page->state);
	do { /* who asked is told now; of an error, by the next call */
		ends = PG_LOCKED | PG_WAITERS | PG_TICKETS | (old & PG_UPTODATE ? PG_ASKED : 0);
	} while (!atomic_cas(&page->state, &old, old & ~ends));
	if (old & PG_WAITERS)
		os_futex_wake(&page->state, INT_MAX, OS_FUTEX_ANY);
	if (old & PG_TICKETS)
		page_run_tickets(pool->mm, page);
	if (unlikely(old & PG_ASKED))
		mm_event(pool->mm);
	page_unpin(pool, page);
}

/* A fresh page whose read does not come now: every page that nobody holds is on a list, else its frame were lost. */
void page_unlock_unread(struct frame_pool *pool, struct page *page)
{
	mm_assert(!page_is(page, PG_UPTODATE));
	lru_set(pool, page, 1, LIST_INACTIVE);
	page_unlock(pool, page);
}

/* Wait until the page is not locked. The caller has a pin, and no lock. 0, -ETIMEDOUT, or -ECANCELED
 * when the wait is killable and the mm is going. */
int page_wait(struct fm_mm *mm, struct page *page, bool killable, uint64_t until_ns)
{
	might_block(mm);
	for (;;) {
		uint32_t old = atomic_get(&page->state);
		if (!(old & PG_LOCKED))
			return 0;
		if (killable && atomic_get(&mm->dying))
			return -ECANCELED;
		if (!(old & PG_WAITERS)) {
			if (!atomic_cas(&page->state, &old, old | PG_WAITERS))
				continue;
			old |= PG_WAITERS;
		}
		if (os_futex_wait(&page->state, old, OS_FUTEX_ANY, until_ns) == -ETIMEDOUT)
			return page_is(page, PG_LOCKED) ? -ETIMEDOUT : 0;
	}
}

/* True: the ticket will be run when the page is unlocked. False: it is not locked now. */
bool page_queue_ticket(struct fm_mm *mm, struct page *page, struct ticket *ticket)
{
	struct wait_queue *queue = page_queue_of(mm, page);
	bool queued = false;

	os_lock(&queue->lock);
	uint32_t old = atomic_get(&page->state);
	while (old & PG_LOCKED) {
		if (!atomic_cas(&page->state, &old, old | PG_TICKETS))
			continue;
		ticket->page = page;
		ticket_append(queue, ticket);
		queued = true;
		break;
	}
	os_unlock(&queue->lock);
	return queued;
}

/* True: it was in one of the two queues it can be in, and is in none now. False: it is being run. Who queued it has come
 * back, and nobody else drives its fault. */
bool ticket_cancel(struct fm_mm *mm, struct frame_pool *pool, struct ticket *ticket)
{
	struct wait_queue *queue = ticket->page ? page_queue_of(mm, ticket->page) : &pool->tickets;
	os_lock(&queue->lock);
	struct ticket **at = &queue->head;
	while (*at && *at != ticket)
		at = &(*at)->next;
	bool found = *at == ticket;
	if (found) {
		if (!ticket->next)
			queue->tail = at;
		atomic_set(at, ticket->next);
	}
	os_unlock(&queue->lock);
	return found;
}

/* A call with FM_NOWAIT wants to be told when the page is unlocked. False: it is not locked now. */
bool page_ask(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	do {
		if (!(old & PG_LOCKED))
			return false;
	} while (!(old & PG_ASKED) && !atomic_cas(&page->state, &old, old | PG_ASKED));
	return true;
}

/* It has been told how it went. While the page is locked the question may be a later one's. */
void page_unask(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	while ((old & PG_ASKED) && !(old & PG_LOCKED) && !atomic_cas(&page->state, &old, old & ~PG_ASKED))
		;
}

/* The read attempt under way has failed. Page lock held. */
void page_fail(struct page *page, int error)
{
	mm_assert(error < 0);
	page_word_set(page, error, (int16_t)error);
	page_set(page, PG_ERROR, PG_UPTODATE | PG_SPEC | PG_MARK);
}

void page_check(struct frame_pool *pool, const struct page *page)
{
	uint32_t state = page_state(page);
	mm_assert(!((state & PG_INSTALLED) && !(state & PG_UPTODATE)));
	mm_assert(!((state & PG_FREE) && PG_PINS(state)));
	mm_assert(!((state & PG_HOLE) && (state & PG_UPTODATE)));
	mm_assert(!((state & PG_DIRTY) && !(state & PG_UPTODATE)));
	mm_assert((size_t)(page - pool->pages) < pool->frames);
	(void)state;
	(void)pool;
	(void)page;
}

/* ------------------------------------------------------------------ the index */

/* Those of neighbours lie side by side, as many as a line of the processor's cache holds. */
static struct bucket *bucket_of(const struct fm_file *file, uint64_t index)
{
	uint64_t hash = index / BUCKET_LINE + ((uintptr_t)file >> 6) * 0x9e3779b97f4a7c15ull;
	hash *= 0xff51afd7ed558ccdull;
	hash ^= hash >> 32;
	uint64_t line = (uint32_t)hash * (uint64_t)file->pool->bucket_lines >> 32;
	return &file->pool->buckets[line * BUCKET_LINE + (index ^ hash >> 40) % BUCKET_LINE]; /* in steps, too, each of them */
}

static void bucket_lock(struct bucket *bucket)
{
	for (int spin = 0;; spin++) {
		uint32_t old = atomic_get(&bucket->version);
		if (!(old & 1) && atomic_cas(&bucket->version, &old, old + 1)) {
			watched(bucket_locked, bucket);
			return;
		}
		if (spin < 100)
			os_relax();
		else /* its holder has lost the processor */
			os_sleep_until(os_now_ns() + 20000);
	}
}

static void bucket_unlock(struct bucket *bucket)
{
	watched(bucket_unlocked, bucket);
	atomic_add(&bucket->version, 1u);
}

static bool page_is_of(struct page *page, const struct fm_file *file, uint64_t index)
{
	return __atomic_load_n(&page->file, __ATOMIC_ACQUIRE) == file && /* as page_insert() */
	       __atomic_load_n(&page->index, __ATOMIC_RELAXED) == index;
}

static struct page *bucket_search(struct frame_pool *pool, struct bucket *bucket,
				  const struct fm_file *file, uint64_t index)
{
	uint32_t id = atomic_get(&bucket->head);
	/* A frame reused meanwhile leads into another chain: the bound ends such a walk. */
	for (int steps = 0; id != NONE && steps < 1000; steps++) {
		struct page *page = &pool->pages[id];
		if (page_is_of(page, file, index) && page_try_pin(page)) {
			if (page_is_of(page, file, index) && !page_is(page, PG_GONE))
				return page;
			page_unpin(pool, page);
		}
		id = atomic_get(&page->hash_next);
	}
	return NULL;
}

/* The same with the bucket locked: nothing leaves the chain meanwhile, so what is found is it, and no pin has to be put here,
 * which could come to free a frame under this lock. */
static struct page *bucket_search_locked(struct frame_pool *pool, struct bucket *bucket, const struct fm_file *file,
					 uint64_t index, bool *ret_full)
{
	*ret_full = false;
	for (uint32_t id = atomic_get(&bucket->head); id != NONE; id = atomic_get(&pool->pages[id].hash_next)) {
		struct page *page = &pool->pages[id];
		if (!page_is_of(page, file, index))
			continue;
		*ret_full = !page_try_pin(page);
		return *ret_full ? NULL : page;
	}
	return NULL;
}

/* The page, pinned, or NULL: it is not in the cache, or the search was overtaken. Takes no lock, so
 * that it may be called under the map lock. */
struct page *page_find(struct fm_file *file, uint64_t index)
{
	struct bucket *bucket = bucket_of(file, index);
	for (int tries = 0; tries < 8; tries++) {
		uint32_t version = atomic_get(&bucket->version);
		struct page *page = bucket_search(file->pool, bucket, file, index);
		if (page)
			return page;
		if (!(version & 1) && atomic_get(&bucket->version) == version)
			return NULL;
	}
	return NULL;
}

static bool bucket_glance(struct frame_pool *pool, struct bucket *bucket, const struct fm_file *file, uint64_t index,
			  struct page_glance *ret_glance)
{
	uint32_t id = atomic_get(&bucket->head);
	for (int steps = 0; id != NONE && steps < 1000; steps++) { /* as in bucket_search() */
		struct page *page = &pool->pages[id];
		if (page_is_of(page, file, index)) {
			struct page_glance seen = {.state = atomic_get(&page->state),
						   .user_pins = page_word(page, user_pins),
						   .shown = page_word(page, shown)};
			if (page_is_of(page, file, index) && !(seen.state & (PG_GONE | PG_FREE))) {
				*ret_glance = seen;
				return true;
			}
		}
		id = atomic_get(&page->hash_next);
	}
	return false;
}

/* What a page is at the moment. Without a pin, by which others would think that it is needed. False: it is not in the cache, or
 * the search was overtaken. */
bool page_glance(struct fm_file *file, uint64_t index, struct page_glance *ret_glance)
{
	struct bucket *bucket = bucket_of(file, index);
	for (int tries = 0; tries < 8; tries++) {
		uint32_t version = atomic_get(&bucket->version);
		if (bucket_glance(file->pool, bucket, file, index, ret_glance))
			return true;
		if (!(version & 1) && atomic_get(&bucket->version) == version)
			return false;
	}
	return false;
}

/* A new page, as it comes from frame_alloc(), becomes this one, unless that is cached already: then it is returned, pinned; or `fresh`
 * itself is, as it came, where that one has as many pins as it can have. */
struct page *page_insert(struct fm_file *file, uint64_t index, struct page *fresh, unsigned flags)
{
	struct frame_pool *pool = file->pool;
	struct bucket *bucket = bucket_of(file, index);

	bucket_lock(bucket);
	bool full;
	struct page *found = bucket_search_locked(pool, bucket, file, index, &full);
	if (full) {
		found = fresh;
	} else if (!found) {
		__atomic_store_n(&fresh->index, index, __ATOMIC_RELAXED); /* first: it is still that of the page that was there before */
		__atomic_store_n(&fresh->file, file, __ATOMIC_RELEASE); /* as frame_free() */
		atomic_set(&fresh->hash_next, atomic_get(&bucket->head));
		fresh->keep = false;
		if (ghost_take(pool, file, index, flags & ADD_STREAM))
			page_set(fresh, PG_HOT, 0);
		atomic_set(&bucket->head, (uint32_t)(fresh - pool->pages));
	}
	bucket_unlock(bucket);
	return found;
}

/* Groups are for streams, and what is read ahead has no need of their last ones. */
static struct page *frame_get(struct frame_pool *pool, unsigned flags)
{
	struct page *page = frame_alloc(pool, !(flags & ADD_HOLE));
	if (!page && (!(flags & ADD_STREAM) || (flags & ADD_SINGLE)) && group_break(pool))
		page = frame_alloc(pool, !(flags & ADD_HOLE));
	return page;
}

/*
 * Find or insert. On 0 *ret_page is pinned; when *ret_new, it is also locked, not uptodate, and its
 * frame has memory (but see ADD_HOLE). -ENOMEM: no frame is free.
 */
int page_add(struct fm_file *file, uint64_t index, unsigned flags, struct page **ret_page, bool *ret_new)
{
	struct frame_pool *pool = file->pool;
	struct page *found = page_find(file, index);
	struct page *fresh = NULL;

	if (!found) {
		fresh = frame_get(pool, flags);
		/* A huge frame that is about to be populated is worth the wait; others' pages are not to make way for it. */
		if (!fresh && (flags & ADD_RECLAIM) && !pool_may_grow(pool) && reclaim(pool, 4, false) > 0)
			fresh = frame_get(pool, flags);
		if (!fresh)
			return -ENOMEM;
		found = page_insert(file, index, fresh, flags);
		if (unlikely(found == fresh)) { /* later, when some of its pins have been put */
			frame_drop(pool, fresh);
			return -ENOMEM;
		}
	}
	if (found) {
		if (fresh) /* somebody was faster */
			frame_drop(pool, fresh);
		*ret_page = found;
		*ret_new = false;
		return 0;
	}
	*ret_page = fresh;
	*ret_new = true;
	return 0;
}

/* Take a page out of the index. The caller has its lock and a pin, and has taken it out of the view;
 * its frame is free when the last of both is put. */
void page_remove(struct frame_pool *pool, struct page *page)
{
	struct bucket *bucket = bucket_of(page->file, page->index);
	uint32_t id = (uint32_t)(page - pool->pages);

	mm_assert(page_is(page, PG_LOCKED) && !page_is(page, PG_WRITEBACK));
	if (page_is(page, PG_GONE))
		return;
	if (page->file->writable)
		page_drop_dirty(pool, page);
	bucket_lock(bucket);
	uint32_t *at = &bucket->head;
	while (atomic_get(at) != id)
		at = &pool->pages[atomic_get(at)].hash_next;
	atomic_set(at, atomic_get(&page->hash_next));
	page_set(page, PG_GONE, 0);
	bucket_unlock(bucket);
	if (page->file->writable) /* a flush of it has begun, or failed, meanwhile */
		page_drop_dirty(pool, page);
	lru_set(pool, page, 1, LIST_NONE);
	if (page_is(page, PG_SPEC)) {
		stats_add(pool->mm->stats, ra_waste, 1);
		ra_wasted(page->file);
	}
	page_drop_pins(page->file, page); /* truncated; or a read of it anew, after the object had changed, was given up: fm_unpin() finds it no more */
}

/* ------------------------------------------------------------------ whole ranges */

uint64_t file_pages(struct fm_file *file)
{
	return (file_size(file) + file->pool->page_size - 1) >> file->pool->shift;
}

/* As page_find(), and not to be overtaken. Not under the map lock. */
static struct page *page_find_surely(struct fm_file *file, uint64_t index)
{
	struct bucket *bucket = bucket_of(file, index);
	bool full;
	bucket_lock(bucket);
	struct page *page = bucket_search_locked(file->pool, bucket, file, index, &full);
	bucket_unlock(bucket);
	return page;
}

/* Call fn on each cached page of [first, last], pinned: by look-ups when the range is small, else over the
 * frame table, so that a terabyte costs no more than the budget. What is there throughout is not missed. */
void file_each_cached(struct fm_file *file, uint64_t first, uint64_t last, page_fn fn, void *arg)
{
	struct frame_pool *pool = file->pool;
	if (first > last)
		return;
	if (last - first < pool->frames) {
		for (uint64_t index = first; index <= last; index++) {
			struct page *page = page_find_surely(file, index);
			if (!page)
				continue;
			fn(file, page, arg);
			page_unpin(pool, page);
		}
		return;
	}
	for (uint32_t i = 0; i < pool->frames; i++) {
		struct page *page = &pool->pages[i];
		if (__atomic_load_n(&page->file, __ATOMIC_RELAXED) != file || !page_try_pin(page))
			continue;
		/* Asked once more before the index: what is just being made a page of it has the former one until then. */
		bool ours = __atomic_load_n(&page->file, __ATOMIC_ACQUIRE) == file;
		uint64_t index = __atomic_load_n(&page->index, __ATOMIC_RELAXED);
		if (ours && index >= first && index <= last && !page_is(page, PG_GONE))
			fn(file, page, arg);
		page_unpin(pool, page);
	}
}

struct going {
	uint64_t last;
	uint32_t never;
	uint64_t stuck, stuck_end; /* pages that would not go together */
};

static void out_with_the_next(struct fm_file *file, struct page *page, void *arg)
{
	struct going *going = arg;

	if (!page_is(page, PG_INSTALLED)) /* asked first: one that is just being made this page has no index to be relied upon */
		return;
	uint64_t index = page->index, after = going->last - index;
	if (index >= going->last || (index >= going->stuck && index < going->stuck_end))
		return;
	going->stuck = index;
	going->stuck_end = index + take_out_together(file, page, (uint32_t)(after < UINT16_MAX ? after + 1 : UINT16_MAX), 0, going->never);
}

/* What goes out of the view together, goes; none of those pages that have one of `never`. The rest is left to whoever looks at
 * each page. */
static void take_out_runs(struct fm_file *file, uint64_t first, uint64_t last, uint32_t never)
{
	struct going going = {last, never, 0, 0};
	if (first < last)
		file_each_cached(file, first, last, out_with_the_next, &going);
}

static bool try_take_out(struct fm_file *file, struct page *page, bool discard)
{
	bool wanted = !page_is(page, PG_GONE) && page_is(page, PG_INSTALLED) && !page->user_pins;
	bool out = !wanted || page_bring_out(&file->view, page) == 0;
	if (!out && page_is_held(file->pool, page)) { /* writing it back takes it out, or the write's or the flush's end does */
		page_unlock(file->pool, page);
		return true;
	}
	if (!out && discard)
		page_discard(&file->view, page);
	page_unlock(file->pool, page);
	return out || discard;
}

/* The lock of an installed page is held for a moment only, over no read: who has it (a copy being dropped, a
 * pin) may not look again, so it is waited for. A fault that has not installed yet does look again. What the
 * kernel has pinned for a moment cannot be moved; it goes all the same, at last with its bytes. */
static void take_out(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	for (int tries = 0; page_is(page, PG_INSTALLED);) {
		if (!page_trylock(page)) {
			page_wait(file->mm, page, false, OS_FOREVER);
			continue;
		}
		if (try_take_out(file, page, ++tries > 20))
			return;
		os_sleep_until(os_now_ns() + 50000);
	}
}

/* Take the pages of a range out of the view; they stay cached. Pages not installed yet are left: their
 * fault looks again whether it is still wanted. No lock held; may take the kernel's. */
void file_take_out(struct fm_file *file, uint64_t first, uint64_t last)
{
	might_block(file->mm);
	if (file->writable)
		writeback_look_for_merging(file->mm);
	take_out_runs(file, first, last, 0);
	file_each_cached(file, first, last, take_out, NULL);
}

static void drop(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	if (!page_trylock(page))
		return;
	/* One pin is ours. Any other: somebody relies on the page, so it stays. */
	uint32_t state = atomic_get(&page->state);
	bool unwanted = !(state & PG_GONE) && PG_PINS(state) == 1 && !page_is_held(file->pool, page);
	if (unwanted && (state & PG_INSTALLED)) /* on its way out it may have been there again for a moment, and written to: move_had_worked() */
		unwanted = page_take_out(&file->view, page, true) == 0 && !page_is_held(file->pool, page);
	if (unwanted)
		page_remove(file->pool, page);
	page_unlock(file->pool, page);
}

static void keep(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	if (!page_trylock(page))
		return;
	if (page_is(page, PG_INSTALLED) && !page_is(page, PG_GONE)) {
		page->keep = true;
		lru_set(file->pool, page, 1, LIST_ACTIVE);
	}
	page_unlock(file->pool, page);
}

/* Out of the view without a word to the clock: a touch makes it YOUNG. What cannot be taken out with its bytes, or not now, stays
 * there until somebody wants its frame. */
static void cool(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	if (!page_trylock(page))
		return;
	uint32_t state = atomic_get(&page->state);
	if (!(state & (PG_GONE | PG_DIRTY)) && (state & PG_UPTODATE) && PG_PINS(state) == 1) { /* ours; as in drop() */
		bool shown = (state & PG_INSTALLED) && page_take_out(&file->view, page, false) < 0;
		page->keep = false;
		if (state & (PG_SOFT | PG_HOT))
			page_set(page, 0, PG_SOFT | PG_HOT);
		lru_set(file->pool, page, 1, shown ? LIST_COLD_SHOWN : LIST_COLD);
	}
	page_unlock(file->pool, page);
}

/* Let the pages of a range be the last, or the first, to be evicted. As file_take_out(). */
void file_keep(struct fm_file *file, uint64_t first, uint64_t last)
{
	file_each_cached(file, first, last, keep, NULL);
}

void file_cool(struct fm_file *file, uint64_t first, uint64_t last)
{
	might_block(file->mm);
	take_out_runs(file, first, last, PG_DIRTY);
	file_each_cached(file, first, last, cool, NULL);
}

static void forget_bytes(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	for (int tries = 0;;) {
		uint32_t state = atomic_get(&page->state);
		if ((state & PG_GONE) || !(state & PG_UPTODATE))
			return; /* a read under way looks at the epoch when it has ended */
		if (!page_trylock(page)) {
			page_wait(file->mm, page, false, os_now_ns() + 50000);
			continue;
		}
		bool out = !page_is(page, PG_INSTALLED) || page_take_out(&file->view, page, true) == 0;
		if (!out && ++tries > 20) { /* what the kernel has pinned, or has no memory for, goes with its bytes */
			page_discard(&file->view, page);
			out = true;
		}
		if (out)
			page_set(page, 0, PG_UPTODATE | PG_SPEC | PG_MARK | PG_SOFT);
		page_unlock(file->pool, page);
		if (out)
			return;
		os_sleep_until(os_now_ns() + 50000);
	}
}

/* The object has changed: what is cached of it is not its bytes any more, whoever holds a pin. As file_take_out(). */
void file_forget(struct fm_file *file)
{
	mm_assert(!file->writable);
	file_each_cached(file, 0, UINT64_MAX >> file->pool->shift, forget_bytes, NULL);
}

/* Drop the unpinned, unlocked pages of a range from view and cache. As file_take_out(). */
void file_invalidate(struct fm_file *file, uint64_t first, uint64_t last)
{
	might_block(file->mm);
	take_out_runs(file, first, last, PG_DIRTY);
	file_each_cached(file, first, last, drop, NULL);
}
