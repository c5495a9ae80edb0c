/* SPDX-License-Identifier: MIT */
/*
 * Frames: the memory of one page size, its descriptors, its free lists and its clock's queues.
 *
 * Owns struct frame_pool's memory. The pool lock protects the queues and each page's list links; it is
 * held for list operations only. A frame is charged to the budget exactly while it has memory: in its
 * slot, or moved or copied into a view; PG_HOLE says it has none. One that is to be read by way of a staging slot is charged for
 * when it is taken.
 * May call: trap (slots), os, stats.
 */
#include "mm/mm.h"

#define STREAM_PIECE_SHIFT 7 /* pages, 512 KiB: runs share their fate */
#ifdef FM_SIM
#define FILL_PIECE 2u
#else
#define FILL_PIECE (TRAP_TOGETHER / pool->page_size)
#endif
#define GROW_AHEAD 16u /* huge frames kept free as long as there is memory for more */
#define FILL_PAUSE_NS OS_NSEC_PER_MSEC
#ifdef FM_SIM
#define PLACES 2u
#else
#define PLACES 32u
#endif

static uint32_t id_of(const struct frame_pool *pool, const struct page *page)
{
	return (uint32_t)(page - pool->pages);
}

/* ------------------------------------------------------------------ queues; pool lock */

void queue_unlink(struct frame_pool *pool, struct page *page)
{
	struct page_queue *queue = &pool->queue[page->list];
	if (page->list == LIST_NONE)
		return;
	if (page->lru_prev == NONE)
		queue->head = page->lru_next;
	else
		pool->pages[page->lru_prev].lru_next = page->lru_next;
	if (page->lru_next == NONE)
		queue->tail = page->lru_prev;
	else
		pool->pages[page->lru_next].lru_prev = page->lru_prev;
	__atomic_store_n(&queue->count, queue->count - 1, __ATOMIC_RELAXED);
	page->list = LIST_NONE;
}

void queue_append(struct frame_pool *pool, struct page *page, enum page_list list)
{
	struct page_queue *queue = &pool->queue[list];
	mm_assert(page->list == LIST_NONE);
	page->list = (uint8_t)list;
	if (list == LIST_NONE)
		return;
	page->lru_next = NONE;
	page->lru_prev = queue->tail;
	if (queue->tail == NONE)
		queue->head = id_of(pool, page);
	else
		pool->pages[queue->tail].lru_next = id_of(pool, page);
	queue->tail = id_of(pool, page);
	__atomic_store_n(&queue->count, queue->count + 1, __ATOMIC_RELAXED);
}

/* Put `count` pages whose frames are neighbours at the end of a list. */
void lru_set(struct frame_pool *pool, struct page *first, uint32_t count, enum page_list list)
{
	os_lock(&pool->lock);
	for (struct page *page = first; page < first + count; page++) {
		queue_unlink(pool, page);
		queue_append(pool, page, list);
	}
	os_unlock(&pool->lock);
}

/* If it is on the one list, to the end of the other. */
void lru_move(struct frame_pool *pool, struct page *page, enum page_list from, enum page_list to)
{
	os_lock(&pool->lock);
	if (page->list == from) {
		queue_unlink(pool, page);
		queue_append(pool, page, to);
	}
	os_unlock(&pool->lock);
}

/* The oldest pages of a list, off the list: up to `most` whose frames are neighbours, and that came in that order; of a group
 * that is whole all of them. They may be anybody's by the time they are looked at: pin them. */
struct page *lru_take(struct frame_pool *pool, enum page_list list, uint32_t most, uint32_t *ret_count)
{
	struct page *first = NULL;
	uint32_t count = 0;
	os_lock(&pool->lock);
	uint32_t id = pool->queue[list].head;
	if (id != NONE)
		first = &pool->pages[id];
	if (first && most < GROUP_PAGES && group_is_whole(pool, first) && first == group_first(pool, first))
		most = GROUP_PAGES;
	while (count < most && id != NONE && pool->queue[list].head == id + count) {
		queue_unlink(pool, first + count);
		count++;
	}
	os_unlock(&pool->lock);
	*ret_count = count;
	return first;
}

static struct page *lru_take_last(struct frame_pool *pool, enum page_list list)
{
	struct page *page = NULL;
	os_lock(&pool->lock);
	if (pool->queue[list].tail != NONE) {
		page = &pool->pages[pool->queue[list].tail];
		queue_unlink(pool, page);
	}
	os_unlock(&pool->lock);
	return page;
}

static struct page *lru_take_one(struct frame_pool *pool, enum page_list list)
{
	uint32_t count;
	return lru_take(pool, list, 1, &count);
}

uint32_t lru_count(struct frame_pool *pool, enum page_list list)
{
	return __atomic_load_n(&pool->queue[list].count, __ATOMIC_RELAXED);
}

/* Free frames, single ones and groups. */
uint32_t pool_spare(struct frame_pool *pool)
{
	return lru_count(pool, LIST_FREE) + groups_free(pool);
}

/* ------------------------------------------------------------------ ghosts */

/*
 * Pages that were evicted without anybody having come back to them leave a mark for a while, by which they are known should
 * they be read again: they are then worth more than what passes by once. 16 bits for one or two frames, by a hash of the page:
 * nine of them tell the page, seven the time, in evictions; a newer page takes an older one's place. A mistake costs a guess.
 */
#define GHOST_MOMENTS 128u
#define GHOST_LINE 32u

static uint64_t ghost_hash(const struct fm_file *file, uint64_t index)
{
	uint64_t hash = (index + ((uintptr_t)file >> 6) * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
	return hash ^ hash >> 29;
}

/* Neighbours lie in one line of the processor's cache. */
static uint16_t *ghost_at(const struct frame_pool *pool, const struct fm_file *file, uint64_t index)
{
	return &pool->ghosts[(ghost_hash(file, index / GHOST_LINE) * GHOST_LINE + index % GHOST_LINE) & pool->ghost_mask];
}

/* Of `frames` evictions there are half as many moments as can be told. */
static uint32_t ghost_moment(const struct frame_pool *pool)
{
	return __atomic_load_n(&pool->ghost_clock, __ATOMIC_RELAXED) / (pool->frames / (GHOST_MOMENTS / 2) + 1) % GHOST_MOMENTS;
}

void ghost_add(struct frame_pool *pool, const struct page *page)
{
	uint64_t hash = ghost_hash(page->file, page->index);
	__atomic_fetch_add(&pool->ghost_clock, 1, __ATOMIC_RELAXED);
	__atomic_store_n(ghost_at(pool, page->file, page->index),
			 (uint16_t)((hash >> 55) * GHOST_MOMENTS + ghost_moment(pool)), __ATOMIC_RELAXED);
}

/*
 * Was it evicted not long ago, and is it to stay therefore? Where a stream brings it only one piece of the file in four is, each
 * time another: if what a loop goes over is more than there is memory for, all of it would push out just what comes next. As
 * with Bimodal Insertion (Qureshi et al., ISCA 2007) most of what is cached stays, and some passes by.
 */
bool ghost_take(struct frame_pool *pool, const struct fm_file *file, uint64_t index, bool stream)
{
	uint64_t hash = ghost_hash(file, index);
	uint32_t ghost = __atomic_load_n(ghost_at(pool, file, index), __ATOMIC_RELAXED);
	if (ghost / GHOST_MOMENTS != hash >> 55 || (ghost_moment(pool) - ghost) % GHOST_MOMENTS > GHOST_MOMENTS / 2)
		return false;
	return !stream || ((ghost_hash(file, index >> STREAM_PIECE_SHIFT) >> 32) + ghost % GHOST_MOMENTS / 4) % 4 == 0;
}

/* ------------------------------------------------------------------ frames */

/* The next fault that wants a new page will have to take a frame from another. */
bool pool_under_pressure(struct frame_pool *pool)
{
	return pool_spare(pool) < pool->free_low &&
	       atomic_get(&pool->mm->charged_bytes) + pool->page_size > pool->mm->budget_bytes;
}

/* The smallest pool has its memory whatever page tables take of the budget: with less, no progress is promised. */
bool pool_at_floor(struct frame_pool *pool)
{
	return pool->page_size == OS_PAGE &&
	       pool->frames - lru_count(pool, LIST_HOLES) <= MM_FRAMES_MIN;
}

/* The system has just had no memory. */
bool pool_pauses(struct frame_pool *pool)
{
	uint64_t failed_ns = atomic_get(&pool->fill_failed_ns);
	return unlikely(failed_ns) && os_now_ns() < failed_ns + FILL_PAUSE_NS;
}

/* A hole may be given memory; not at once where the system has just had none: who waits for a frame would not wait. */
bool pool_may_fill(struct frame_pool *pool)
{
	if (pool_pauses(pool))
		return false;
	return lru_count(pool, LIST_HOLES) > 0 &&
	       (pool_at_floor(pool) || atomic_get(&pool->mm->charged_bytes) + pool->page_size <=
					       pool->mm->budget_bytes);
}

/* What a new page gets is a frame that another page had: the few that are free have been freed for that. */
bool pool_evicts(struct frame_pool *pool)
{
	uint32_t spare = pool_spare(pool);
	if (pool_may_fill(pool)) /* what COPY discards leaves holes */
		spare += lru_count(pool, LIST_HOLES);
	return spare <= 2 * pool->free_high;
}

/* To where its likes wait. */
static void free_put(struct frame_pool *pool, struct page *page)
{
	os_lock(&pool->lock);
	queue_unlink(pool, page);
	if (page_is(page, PG_HOLE))
		queue_append(pool, page, LIST_HOLES);
	else if (group_is_whole(pool, page))
		group_park_locked(pool, page);
	else
		queue_append(pool, page, LIST_FREE);
	os_unlock(&pool->lock);
}

/* Frames that were freed where the pool lock could not be taken. */
static void take_deferred(struct frame_pool *pool)
{
	uint32_t id = atomic_xchg(&pool->deferred, 0u);
	while (id) {
		struct page *page = &pool->pages[id - 1];
		id = (uint32_t)page->index;
		free_put(pool, page);
	}
}

/* One without memory, which is charged for now. Single ones from the end: at the head lie those that are filled together, or in
 * a row, so that they make runs. */
static struct page *hole_take(struct frame_pool *pool, bool single)
{
	if (!lru_count(pool, LIST_HOLES))
		return NULL;
	if (pool_at_floor(pool))
		mm_charge(pool->mm, pool->page_size);
	else if (!mm_try_charge(pool->mm, pool->page_size))
		return NULL;
	struct page *page = single ? lru_take_last(pool, LIST_HOLES) : lru_take_one(pool, LIST_HOLES);
	if (!page)
		mm_uncharge(pool->mm, pool->page_size);
	return page;
}

static struct page *frame_take(struct frame_pool *pool, bool filled)
{
	if (unlikely(atomic_get(&pool->deferred)))
		take_deferred(pool);
	struct page *page = filled ? lru_take_one(pool, LIST_FREE) : hole_take(pool, true);
	if (!page)
		page = filled ? hole_take(pool, false) : lru_take_one(pool, LIST_FREE);
	return page;
}

static bool fills_ahead(struct frame_pool *pool)
{
	return atomic_get(&pool->wants_filled) && lru_count(pool, LIST_FREE) < pool->free_low && pool_may_fill(pool);
}

/* Fill some holes that lie together, so that readahead finds frames that are filled. Background thread. False: there are
 * enough, or no memory for more. */
bool pool_fill_ahead(struct frame_pool *pool)
{
	uint32_t count, done = 0;

	if (fills_ahead(pool) && group_make(pool, true)) { /* by one change of a page table */
		group_break(pool);
		frame_freed(pool);
		return true;
	}
	if (!fills_ahead(pool) || !mm_try_charge(pool->mm, (uint64_t)FILL_PIECE << pool->shift))
		return false;
	struct page *first = lru_take(pool, LIST_HOLES, FILL_PIECE, &count);
	if (count && trap_fill_together(pool->mm->trap, (uint64_t)slot_of(pool, first), (uint64_t)count << pool->shift) == 0)
		done = count;
	if (count && !done) {
		trap_discard(pool->mm->trap, (uint64_t)slot_of(pool, first), (uint64_t)count << pool->shift);
		atomic_set(&pool->fill_failed_ns, os_now_ns());
	}
	mm_uncharge(pool->mm, (uint64_t)(FILL_PIECE - done) << pool->shift);
	for (uint32_t i = 0; i < done; i++)
		page_set(first + i, 0, PG_HOLE);
	if (count)
		lru_set(pool, first, count, done ? LIST_FREE : LIST_HOLES);
	if (done)
		frame_freed(pool);
	return done > 0;
}

/* A free frame's next page, locked, with one pin and these flags. It is to be counted. */
void frame_begin(struct page *page, uint32_t flags)
{
	mm_assert(page_is(page, PG_FREE));
	page_word_set(page, error, 0);
	page_word_set(page, user_pins, 0);
	page->request = 0;
	page_word_set(page, noted, false);
	atomic_set(&page->state, PG_LOCKED | PG_PIN | flags);
}

/* A frame with memory, its page locked and with one pin; NULL when none is free. Never blocks. Without `fill` it may be a hole,
 * which is charged for: until its lock is put it has to get its memory, or be uncharged. */
struct page *frame_alloc(struct frame_pool *pool, bool fill)
{
	struct page *page = frame_take(pool, fill);
	if (pool_under_pressure(pool) || (fill && fills_ahead(pool)) ||
	    (pool->grows && lru_count(pool, LIST_FREE) <= GROW_AHEAD / 2 && pool_may_grow(pool)))
		background_kick(pool->mm);
	if (!page)
		return NULL;
	bool hole = page_is(page, PG_HOLE);
	frame_begin(page, hole ? PG_HOLE : 0);
	stats_add(pool->mm->stats, frames_used, 1);
	if (fill && hole && pool->registered && !pool->grows && pool->frames >= 8 * FILL_PIECE)
		atomic_set(&pool->wants_filled, 1u);
	if (fill && hole && frame_fill_first(pool, page) < 0) {
		frame_drop(pool, page);
		return NULL;
	}
	return page;
}

/* The first memory of a frame that came without. -ENOMEM: the system has none, and is not asked again at once. */
int frame_fill_first(struct frame_pool *pool, struct page *page)
{
	int err = frame_fill(pool, page);
	if (err)
		atomic_set(&pool->fill_failed_ns, os_now_ns());
	return err;
}

/* Give a frame back that nobody has found yet. Locked, with one pin, as it came. */
void frame_drop(struct frame_pool *pool, struct page *page)
{
	if (page_is(page, PG_HOLE))
		mm_uncharge(pool->mm, pool->page_size);
	page_set(page, PG_GONE, PG_LOCKED);
	page_unpin(pool, page);
}

/* A place to read one page into that goes into the view by a copy. NULL: there is none to be had; but for `last`, which is for
 * faults, an eighth of them is left. */
char *stage_take(struct frame_pool *pool, bool last)
{
	uint64_t before = atomic_get(&pool->stages_free);
	uint32_t leave = last ? 0 : pool->stages / 8;
	do {
		if ((uint32_t)__builtin_popcountll(before) <= leave)
			return NULL;
	} while (!atomic_cas(&pool->stages_free, &before, before & (before - 1)));
	return pool->slots + ((size_t)(pool->frames + (uint32_t)__builtin_ctzll(before)) << pool->shift);
}

void stage_put(struct frame_pool *pool, const char *stage)
{
	uint64_t place = ((uint64_t)(stage - pool->slots) >> pool->shift) - pool->frames, before = atomic_get(&pool->stages_free);
	while (!atomic_cas(&pool->stages_free, &before, before | 1ull << place))
		;
}

/* Give a charged frame its memory. Page lock held, or nobody knows the page. */
int frame_fill(struct frame_pool *pool, struct page *page)
{
	int err = 0;
	if (pool->registered)
		err = trap_fill(pool->mm->trap, (uint64_t)slot_of(pool, page), pool->page_size);
	if (!err)
		page_set(page, 0, PG_HOLE);
	return err;
}

/* Called by page_free_if_last() alone, on a word with PG_FREE. */
void frame_free(struct frame_pool *pool, struct page *page)
{
	uint32_t state = atomic_get(&page->state);
	mm_assert((state & PG_FREE) && !PG_PINS(state) && !(state & PG_LOCKED));
	__atomic_store_n(&page->file, NULL, __ATOMIC_RELEASE); /* the file may be freed once evict_all() has seen it */
	stats_sub(pool->mm->stats, frames_used, 1);
	if (unlikely(self()->map_held)) {
		/* The last pin of a page that was found by mistake, in a search under the map lock. */
		uint32_t head = atomic_get(&pool->deferred);
		do {
			/* Not by lru_next: reclaim, which met it locked, may have put it on its list again. Nor by hash_next,
			 * which may still be walked over. */
			__atomic_store_n(&page->index, (uint64_t)head, __ATOMIC_RELAXED);
		} while (!atomic_cas(&pool->deferred, &head, id_of(pool, page) + 1));
		return;
	}
	free_put(pool, page);
	if (!(state & PG_HOLE) || pool_may_fill(pool)) /* else two that found no memory would wake each other without end */
		frame_freed(pool);
}

/* Take the memory of up to `frames` free frames away. Returns of how many. Background thread: takes the kernel's lock. */
uint32_t pool_release_memory(struct frame_pool *pool, uint32_t frames)
{
	uint32_t released = 0;
	for (; released < frames && !pool_at_floor(pool); released++) {
		struct page *page = lru_take_one(pool, LIST_FREE);
		if (!page && group_break(pool))
			page = lru_take_one(pool, LIST_FREE);
		if (!page)
			break;
		trap_discard(pool->mm->trap, (uint64_t)slot_of(pool, page), pool->page_size);
		page_set(page, PG_HOLE, 0);
		lru_set(pool, page, 1, LIST_HOLES);
		mm_uncharge(pool->mm, pool->page_size);
	}
	return released;
}

/* ------------------------------------------------------------------ the pool */

#define HUGE_UNIT (2u << 20)

/* There are huge frames that have never had memory, and may have some now. */
bool pool_may_grow(struct frame_pool *pool)
{
	uint64_t failed_ns = atomic_get(&pool->fill_failed_ns);
	if (!pool->grows || atomic_get(&pool->filled) >= pool->frames ||
	    (unlikely(failed_ns) && os_now_ns() < failed_ns + FILL_PAUSE_NS))
		return false;
	return atomic_get(&pool->mm->charged_bytes) + pool->page_size <= pool->mm->budget_bytes;
}

/* The next frames, `count` of them, charged for. */
static bool populate(struct frame_pool *pool, uint32_t first, uint32_t count)
{
	uint64_t len = (uint64_t)count << pool->shift;
	char *mem = pool->slots + ((size_t)first << pool->shift);

	if (trap_slots_populate(pool->mm->trap, mem, len) < 0) {
		atomic_set(&pool->fill_failed_ns, os_now_ns());
		mm_uncharge(pool->mm, len);
		return false;
	}
	for (uint32_t i = first; i < first + count; i++)
		atomic_set(&pool->pages[i].state, PG_FREE);
	lru_set(pool, &pool->pages[first], count, LIST_FREE);
	atomic_set(&pool->filled, first + count);
	for (uint32_t i = 0; i < count; i++)
		frame_freed(pool);
	return true;
}

/* Populate up to `most` more huge frames, within the budget. Holes cannot be filled with huge pages after the fact, so these get
 * their memory before they are registered. Takes the kernel's lock: not in a fault. False: there is no more to do, or
 * somebody else is at it. */
bool pool_grow(struct frame_pool *pool, uint32_t most)
{
	uint32_t count = 0;
	bool some = false;

	if (!pool_may_grow(pool) || atomic_xchg(&pool->growing, 1u))
		return false;
	uint32_t first = atomic_get(&pool->filled);
	while (first + count < pool->frames && count < most && mm_try_charge(pool->mm, pool->page_size))
		count++;
	some = count && populate(pool, first, count);
	atomic_set(&pool->growing, 0u);
	return some;
}

/* So that faults find frames that are populated. False: enough of them, or no more to be had. */
bool pool_grow_ahead(struct frame_pool *pool)
{
	uint32_t ahead = pool->frames / 4 < GROW_AHEAD ? pool->frames / 4 : GROW_AHEAD;
	return pool->grows && lru_count(pool, LIST_FREE) < ahead && pool_grow(pool, GROW_PIECE);
}

static size_t align_up(size_t value, size_t align)
{
	return (value + align - 1) & ~(align - 1);
}

/* Staging slots, out of the budget; no more than few percent of it. */
static uint32_t stages_for(struct fm_mm *mm, uint32_t page_size, uint32_t frames)
{
	uint32_t count = frames / POOL_STAGE_SHARE < POOL_STAGES_MAX ? frames / POOL_STAGE_SHARE : POOL_STAGES_MAX;
	if (page_size > OS_PAGE || mm->install != FM_INSTALL_MOVE || frames < MM_FRAMES_MIN + count || !count ||
	    !mm_try_charge(mm, (uint64_t)count * page_size))
		return 0;
	return count;
}

/* They keep their memory; without any, it goes on as if there were none. */
static void stages_fill(struct frame_pool *pool)
{
	uint64_t start = (uint64_t)pool->slots + ((uint64_t)pool->frames << pool->shift);
	uint64_t len = (uint64_t)pool->stages << pool->shift;

	if (pool->registered && trap_fill(pool->mm->trap, start, len) < 0) {
		trap_discard(pool->mm->trap, start, len);
		mm_uncharge(pool->mm, len);
		pool->stages_charged = 0;
		return;
	}
	pool->stages_free = ~0ull >> (64 - pool->stages);
}

static int pool_alloc_meta(struct frame_pool *pool)
{
	uint32_t ghosts = 16;
	uint32_t buckets = (pool->frames / 16 * 5 / BUCKET_LINE + 2) * BUCKET_LINE; /* a chain has three pages where all are in use */
	while (ghosts < pool->frames / 2)
		ghosts *= 2;
	size_t pages_len = align_up(pool->frames * sizeof(struct page), 64);
	size_t buckets_len = align_up(buckets * sizeof(struct bucket), 64);
	size_t words = (pool->frames + 63) / 64;
	pool->meta_len = pages_len + buckets_len + align_up(ghosts * sizeof(*pool->ghosts), 64) +
			 (5 * words + (pool->frames / GROUP_PAGES + 63) / 64) * sizeof(uint64_t) +
			 pool->frames / GROUP_PAGES * sizeof(*pool->group_free);
	pool->meta = os_meta_alloc(pool->meta_len);
	if (!pool->meta)
		return -ENOMEM;
	pool->pages = pool->meta;
	pool->buckets = (struct bucket *)((char *)pool->meta + pages_len);
	pool->bucket_lines = buckets / BUCKET_LINE;
	for (uint32_t i = 0; i < buckets; i++)
		pool->buckets[i].head = NONE;
	char *rest = (char *)pool->buckets + buckets_len;
	pool->ghosts = (uint16_t *)rest;
	pool->ghost_mask = ghosts - 1;
	uint64_t *bits = (uint64_t *)(rest + align_up(ghosts * sizeof(*pool->ghosts), 64));
	pool->dirty_bits = bits;
	pool->aged_bits = bits + words;
	pool->writing_bits = bits + 2 * words;
	pool->unflushed_bits = bits + 3 * words;
	pool->flushing_bits = bits + 4 * words;
	pool->whole_bits = bits + 5 * words;
	pool->group_free = (uint16_t *)(pool->whole_bits + (pool->frames / GROUP_PAGES + 63) / 64);
	return 0;
}

int pool_create(struct fm_mm *mm, uint32_t page_size, struct frame_pool **ret_pool)
{
	struct frame_pool *pool = os_meta_alloc(sizeof(*pool));
	void *slots = NULL;
	int err;

	if (!pool)
		return -ENOMEM;
	pool->mm = mm;
	pool->page_size = page_size;
	pool->shift = (uint32_t)__builtin_ctz(page_size);
	pool->frames = (uint32_t)(mm->budget_bytes >> pool->shift);
	pool->free_high = pool->frames / 16 < 2 ? 2 : pool->frames / 16;
	if (pool->free_high > (16u << 20) >> pool->shift && pool->free_high > 16)
		pool->free_high = (16u << 20) >> pool->shift > 16 ? (16u << 20) >> pool->shift : 16;
	pool->free_low = pool->free_high / 2;
	for (int i = 0; i < LIST_COUNT; i++)
		pool->queue[i] = (struct page_queue){NONE, NONE, 0};
	pool->stages = pool->stages_charged = stages_for(mm, page_size, pool->frames);
	pool->frames -= pool->stages;
	err = pool->frames < MM_FRAMES_MIN ? -ENOSPC : pool_alloc_meta(pool);
	if (err)
		goto fail;
	if (page_size == OS_PAGE && mm->install == FM_INSTALL_MOVE) {
		pool->places = PLACES;
		pool->places_free = ~0ull >> (64 - PLACES);
	}
	pool->slots_len = (size_t)(pool->frames + pool->stages + pool->places) << pool->shift;
	pool->groups = groups_for(pool);
	err = trap_slots_open(mm->trap, pool->slots_len, pool->groups ? TRAP_TOGETHER : page_size, page_size == HUGE_UNIT, &slots,
			      &pool->registered);
	if (err)
		goto fail;
	pool->slots = slots;
	if (pool->stages)
		stages_fill(pool);
	pool->grows = page_size == HUGE_UNIT && pool->registered;
	for (uint32_t i = 0; i < pool->frames; i++) {
		pool->pages[i].hash_next = NONE;
		pool->pages[i].state = PG_FREE | PG_HOLE;
		if (!pool->grows)
			queue_append(pool, &pool->pages[i], LIST_HOLES);
	}
	if (pool->grows && !pool_grow(pool, GROW_PIECE)) {
		err = -ENOMEM;
		goto fail;
	}
	*ret_pool = pool;
	return 0;
fail:
	pool_drop(pool);
	return err;
}

/* One that nothing was ever read into: what it was charged for is free again. */
void pool_drop(struct frame_pool *pool)
{
	mm_uncharge(pool->mm, (uint64_t)(pool->filled + pool->stages_charged) << pool->shift);
	pool_destroy(pool);
}

void pool_destroy(struct frame_pool *pool)
{
	if (!pool)
		return;
	if (pool->slots)
		trap_slots_close(pool->mm->trap, pool->slots, pool->slots_len);
	os_meta_free(pool->meta, pool->meta_len);
	os_meta_free(pool, sizeof(*pool));
}
