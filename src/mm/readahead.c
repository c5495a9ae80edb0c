/* SPDX-License-Identifier: MIT */
/*
 * Readahead: which pages to read beside the one that is wanted.
 *
 * Owns struct ra_state. Deciding (ra_sync_window, ra_async_window) happens under the map lock: plain numbers,
 * read and written without a lock, where a race costs a guess; submitting (ra_submit) happens after it is
 * dropped. The rules are those of Linux's mmap readahead, so that programs see what they are used to:
 *   random advice      nothing
 *   sequential advice  a full window from the wanted page on
 *   goes on where the last window ended   the next window, twice as large
 *   else               around the wanted page, until too many misses say that it does not pay
 * A window carries a mark on its first page of the asynchronous part: touching it submits the next. One fault
 * counts once in mmap_miss, however many tries it takes; a retry is no hit. An error shrinks the window.
 * May call: page_cache, read, os, stats.
 */
#include "mm/mm.h"

#define MISS_LIMIT 100u      /* Linux: MMAP_LOTSAMISS */
#define MISS_MAX (MISS_LIMIT * 10)
#define RA_BYTES_DEFAULT (128u << 10)

#define ra_get(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define ra_put(field, v) __atomic_store_n(&(field), (v), __ATOMIC_RELAXED)

void ra_init(struct fm_file *file, uint32_t max_bytes)
{
	uint32_t page_size = file->pool->page_size;
	if (!max_bytes)
		max_bytes = RA_BYTES_DEFAULT;
	file->ra = (struct ra_state){
		.max_pages = max_bytes == UINT32_MAX ? 0 : max_bytes / page_size};
	if (max_bytes != UINT32_MAX && !file->ra.max_pages)
		file->ra.max_pages = 1;
	/* At most an eighth of the frames: readahead must not eat what it brought. */
	if (file->ra.max_pages > file->pool->frames / 8)
		file->ra.max_pages = file->pool->frames / 8;
}

static bool window_set(struct fault *vmf, uint64_t start, uint32_t size, uint32_t async)
{
	struct ra_state *ra = &vmf->file->ra;
	uint64_t end = file_pages(vmf->file);

	covered_if(start >= end, a13_past_end);
	if (start >= end || !size)
		return false;
	covered_if(!start, a13_start);
	covered_if(start >> 32, a13_past_4g);
	covered_if(size > end - start, a13_end);
	if (size > end - start)
		size = (uint32_t)(end - start);
	if (async > size)
		async = size;
	ra_put(ra->start, start);
	ra_put(ra->size, size);
	ra_put(ra->async_size, async);
	vmf->ra_start = start;
	vmf->ra_size = size;
	vmf->ra_async = async;
	return true;
}

static uint32_t next_size(const struct ra_state *ra, uint32_t max)
{
	uint32_t size = ra_get(ra->size);
	if (size < 4)
		return max < 4 ? max : 4;
	return size < max / 2 ? size * 2 : max;
}

/* The wanted page is not cached: choose the window into vmf->ra_*. False: read it alone. Map lock held. */
bool ra_sync_window(struct fault *vmf)
{
	struct ra_state *ra = &vmf->file->ra;
	uint32_t max = ra_get(ra->max_pages);

	vmf->ra_size = 0;
	if (max <= 1 || vmf->advice == FM_ADVICE_RANDOM)
		return false;
	if (vmf->advice == FM_ADVICE_SEQUENTIAL)
		return window_set(vmf, vmf->index, max, max / 2);
	if (ra_get(ra->size) && vmf->index == ra_get(ra->start) + ra_get(ra->size)) {
		uint32_t size = next_size(ra, max);
		return window_set(vmf, vmf->index, size, size / 2);
	}
	uint32_t miss = ra_get(ra->mmap_miss);
	if (!vmf->counted_miss && miss < MISS_MAX)
		ra_put(ra->mmap_miss, ++miss);
	vmf->counted_miss = true;
	if (miss > MISS_LIMIT)
		return false;
	covered_if(vmf->index < max / 2, a13_start_cut);
	uint64_t start = vmf->index > max / 2 ? vmf->index - max / 2 : 0;
	return window_set(vmf, start, max, max / 4);
}

/* The page is cached. Is it time for the next window? Counts a hit, once a fault. True: vmf->ra_* is to be
 * submitted, which changes something, so that dropping the lock for it is worth while. Map lock held. */
bool ra_async_window(struct fault *vmf, struct page *page)
{
	struct ra_state *ra = &vmf->file->ra;
	uint32_t miss = ra_get(ra->mmap_miss), max = ra_get(ra->max_pages);

	covered_if(vmf->flags & FM_FAULT_TRIED, a7_retry_no_hit);
	if (!vmf->counted_miss && !(vmf->flags & FM_FAULT_TRIED) && miss)
		ra_put(ra->mmap_miss, miss - 1);
	vmf->counted_miss = true;
	if (!page_is(page, PG_MARK))
		return false;
	page_set(page, 0, PG_MARK);
	covered_if(max <= 1 || vmf->advice == FM_ADVICE_RANDOM, a4_mark_changes_nothing);
	if (max <= 1 || vmf->advice == FM_ADVICE_RANDOM)
		return false;
	uint64_t start = ra_get(ra->start) + ra_get(ra->size);
	uint32_t size = next_size(ra, max);
	covered_if(page->index >= start || start - page->index > max, a13_window_moved);
	if (page->index >= start || start - page->index > max)
		start = page->index + 1; /* the window has moved elsewhere since */
	return window_set(vmf, start, size, size);
}

static void submit_run(struct fm_file *file, struct page **pages, uint32_t count)
{
	struct frame_pool *pool = file->pool;
	if (!count)
		return;
	int err = read_submit(file, pages, count, true);
	for (uint32_t i = 0; i < count; i++) {
		if (err) { /* no place for it: as if it had never been thought of */
			page_set(pages[i], 0, PG_SPEC | PG_MARK);
			page_remove(pool, pages[i]);
			page_unlock(pool, pages[i]);
		}
		page_unpin(pool, pages[i]);
	}
	if (err)
		return;
	stats_add(file->mm->stats, ra_windows, 1);
	stats_add(file->mm->stats, ra_pages, count);
}

/*
 * Start reading [start, start+size), what is not cached of it, and put the mark `async` pages before the end,
 * on a cached page too. No lock held. Takes only frames that are free.
 */
void ra_submit(struct fm_file *file, uint64_t start, uint32_t size, uint32_t async)
{
	struct frame_pool *pool = file->pool;
	struct page *run[READ_PAGES_MAX];
	uint32_t count = 0;
	uint64_t end = file_pages(file), mark = start + size - async;

	might_block(file->mm);
	if (atomic_get(&file->changed) || atomic_get(&file->mm->dying))
		return;
	if (end > start + size)
		end = start + size;
	for (uint64_t index = start; index < end && read_has_room(file, false); index++) {
		struct page *page;
		bool fresh = false;
		if (page_add(file, index, false, &page, &fresh) < 0)
			break;
		if (index == mark && async)
			page_set(page, PG_MARK, 0);
		covered_if(index == mark && async && !fresh, a13_mark_on_cached);
		covered_if(!fresh && count, a13_cached_inside);
		if (!fresh) {
			page_unpin(pool, page);
			submit_run(file, run, count);
			count = 0;
			continue;
		}
		page_set(page, PG_SPEC, 0);
		run[count++] = page;
		if (count == READ_PAGES_MAX) {
			submit_run(file, run, count);
			count = 0;
		}
	}
	submit_run(file, run, count);
}

/* A read of several pages failed: be careful for a while. */
void ra_shrink(struct fm_file *file)
{
	ra_put(file->ra.size, ra_get(file->ra.size) / 4);
}
