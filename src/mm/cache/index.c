/* SPDX-License-Identifier: MIT */
/*
 * The index of cached pages: look-up, insertion and removal of a page of a file.
 *
 * A page's life, and the function behind each transition:
 *
 *   FREE --frame_alloc--> LOCKED --page_add--> LOCKED, in the index
 *     LOCKED --read ok: page_unlock--> UPTODATE --page_install--> UPTODATE|INSTALLED
 *     LOCKED --read into a staging slot: page_install_from--> UPTODATE|INSTALLED
 *     LOCKED --read failed: page_fail, page_unlock--> ERROR (read again by the next fault)
 *     UPTODATE|INSTALLED --reclaim: page_take_out--> UPTODATE|SOFT --page_install--> ...
 *     any, locked --page_remove--> GONE --last pin put, and unlocked--> FREE
 *
 * Invariants
 *   1. A page that is pinned or locked keeps its identity (file, index) and its frame.
 *   2. PG_FREE is set by one compare-and-swap, from a word without pins and lock.
 *   3. The index holds no page twice: a bucket's lock covers both look-up and insertion.
 *   4. A reader of the index that is overtaken by a writer may miss a page. The reader never
 *      returns a wrong page: the reader checks the page's identity after the reader has the pin.
 *      A caller that needs certainty calls page_add().
 *
 * This file may call the folders base/ and frames/, other files of cache/, os/, and stats/.
 */
#include "mm/cache/index.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/lock.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/ghosts.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

/* Return the bucket of a page. The buckets of neighbouring pages lie side by side, as many as a
 * line of the processor's cache holds. */
static struct bucket *bucket_of(const struct fm_file *file, uint64_t index)
{
	uint64_t hash = index / BUCKET_LINE + ((uintptr_t)file >> 6) * 0x9e3779b97f4a7c15ull;
	hash *= 0xff51afd7ed558ccdull;
	hash ^= hash >> 32;
	uint64_t line = (uint32_t)hash * (uint64_t)file->pool->bucket_lines >> 32;
	return &file->pool->buckets[line * BUCKET_LINE +
				    (index ^ hash >> 40) %
					    BUCKET_LINE]; /* strided access uses each bucket, too */
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
		else /* the lock's holder has lost the processor */
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
	return __atomic_load_n(&page->file, __ATOMIC_ACQUIRE) == file && /* pairs with page_insert() */
	       __atomic_load_n(&page->index, __ATOMIC_RELAXED) == index;
}

static struct page *bucket_search(struct frame_pool *pool, struct bucket *bucket,
				  const struct fm_file *file, uint64_t index)
{
	uint32_t id = atomic_get(&bucket->head);
	/* A frame that is reused meanwhile leads into another chain: the bound ends such a walk. */
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

/* Search as bucket_search() does, with the bucket locked. No page leaves the chain meanwhile, so a
 * page that matches is the right page. Therefore the function never has to put a pin, which could
 * free a frame under this lock. Sets *ret_full and returns NULL if the page can take no pin. */
static struct page *bucket_search_locked(struct frame_pool *pool, struct bucket *bucket,
					 const struct fm_file *file, uint64_t index, bool *ret_full)
{
	*ret_full = false;
	for (uint32_t id = atomic_get(&bucket->head); id != NONE;
	     id = atomic_get(&pool->pages[id].hash_next)) {
		struct page *page = &pool->pages[id];
		if (!page_is_of(page, file, index))
			continue;
		*ret_full = !page_try_pin(page);
		return *ret_full ? NULL : page;
	}
	return NULL;
}

/* Find a cached page and pin the page. Returns NULL if the page is not in the cache, or if the
 * search was overtaken. Takes no lock, so that a caller may hold the map lock. */
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

static bool bucket_glance(struct frame_pool *pool, struct bucket *bucket,
			  const struct fm_file *file, uint64_t index,
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

/* Read the present state of a page. Takes no pin, because other threads would take a pin as a
 * sign that the page is needed. Returns false if the page is not in the cache, or if the search
 * was overtaken. */
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

/* Insert `fresh`, a new page as frame_alloc() returns it, as page `index` of the file. Returns
 * NULL if `fresh` was inserted. If the page is cached already, returns the cached page, pinned. If
 * the cached page has the maximum number of pins, returns `fresh` itself, unchanged. */
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
		__atomic_store_n(&fresh->index, index,
				 __ATOMIC_RELAXED); /* before `file`: `index` is still that of the
						       frame's previous page */
		__atomic_store_n(&fresh->file, file, __ATOMIC_RELEASE); /* as frame_free() does */
		atomic_set(&fresh->hash_next, atomic_get(&bucket->head));
		fresh->advised_keep = false;
		if (ghost_take(pool, file, index, flags & ADD_STREAM))
			page_set(fresh, PG_HOT, 0);
		atomic_set(&bucket->head, (uint32_t)(fresh - pool->pages));
	}
	bucket_unlock(bucket);
	return found;
}

/* Take a page out of the index. The caller holds the page lock and a pin, and has taken the page
 * out of the view. The frame is free when the lock and the last pin have been put. */
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
	if (page->file->writable) /* a flush of the page may have begun, or failed, meanwhile */
		page_drop_dirty(pool, page);
	lru_set(pool, page, 1, LIST_NONE);
	if (page_is(page, PG_SPEC)) {
		stats_add(pool->mm->stats, ra_waste, 1);
		ra_wasted(page->file);
	}
	/* The page was truncated; or the object changed, and the new read of the page was given up.
	 * fm_unpin() does not find the page any more. */
	page_drop_pins(page->file, page);
}

uint64_t file_pages(struct fm_file *file)
{
	return (file_size(file) + file->pool->page_size - 1) >> file->pool->shift;
}

/* Find and pin a page as page_find() does, but without being overtaken: takes the bucket's lock.
 * The caller must not hold the map lock. */
static struct page *page_find_surely(struct fm_file *file, uint64_t index)
{
	struct bucket *bucket = bucket_of(file, index);
	bool full;
	bucket_lock(bucket);
	struct page *page = bucket_search_locked(file->pool, bucket, file, index, &full);
	bucket_unlock(bucket);
	return page;
}

/* Call fn on each cached page of [first, last], with the page pinned. Looks each page up if the
 * range is small. Otherwise walks over the frame table, so that a terabyte costs no more than the
 * budget. A page that is cached throughout the call is not missed. */
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
		/* Test the file once more before reading the index. A frame that is just becoming a
		 * page of the file has the former index until its file is set. */
		bool ours = __atomic_load_n(&page->file, __ATOMIC_ACQUIRE) == file;
		uint64_t index = __atomic_load_n(&page->index, __ATOMIC_RELAXED);
		if (ours && index >= first && index <= last && !page_is(page, PG_GONE))
			fn(file, page, arg);
		page_unpin(pool, page);
	}
}

bool page_is_cached(struct fm_file *file, uint64_t index)
{
	struct page_glance unused; /* no pin: to put a pin would wake threads that wait for a frame */
	return page_glance(file, index, &unused);
}

void ra_wasted(struct fm_file *file)
{
	ra_put(file->dirt->wasted, ra_get(file->dirt->wasted) + 1);
}

static void unpin_page(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	if (!page_word(page, user_pins)) /* the page may be locked by a read that does not end */
		return;
	while (!page_trylock(page))
		os_sleep_until(os_now_ns() + 50000);
	page_drop_pins(file, page);
	page_unlock(file->pool, page);
}

/* Drop the pins that the program never gave back. Called when the file or the mm ends: a pinned
 * page stays dirty however often the page is written. */
void file_drop_pins(struct fm_file *file)
{
	if (atomic_get(&file->pool->user_pinned))
		file_each_cached(file, 0, UINT64_MAX >> file->pool->shift, unpin_page, NULL);
}
