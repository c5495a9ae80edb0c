/* SPDX-License-Identifier: MIT */
/*
 * Groups: 512 frames of 4 KiB, side by side, whose memory is one huge page. Who reads a file from one end to the other gets them:
 * 2 MiB of it go into the view, and out again, by one change of a page table. To everybody else their pages are pages like others;
 * what moves one of them by itself splits the huge page, and that is all that comes of it.
 *
 * One is whole as long as its pages have moved together only. Its free frames wait on PARKED, and on GROUPS when all of them are
 * free; only there a stream finds them. Others get none of them until they have no frame otherwise: then one is split, and its
 * free frames are free like others. A stream that finds none makes one, of holes as long as the budget has room, else it takes what
 * is oldest out of the cache, as any fault does; the background thread makes some in advance.
 *
 * Owns a pool's bits of which groups are whole, the numbers of free frames in them, and the two lists. The pool lock protects all of
 * it; the bits may be looked at without, by who can do with an old answer.
 * May call: page_cache, frame_pool, reclaim, trap, os, stats.
 */
#include "mm/mm.h"

#define AHEAD 8u /* groups */
#define TAKE_MOST (2 * GROUP_PAGES) /* frames to be freed for one that is whole */
#define PAUSE_NS (100 * OS_NSEC_PER_MSEC)
#define LOOK_AT 64u /* groups, under the pool lock */
#ifdef FM_SIM
#define LEAST 4u /* groups in a pool: its pools are small */
#else
#define LEAST 6u
#endif

static uint32_t group_of(const struct frame_pool *pool, const struct page *page)
{
	return (uint32_t)(page - pool->pages) / GROUP_PAGES;
}

/* How many a pool of so many frames is to have. */
uint32_t groups_for(const struct frame_pool *pool)
{
	uint32_t count = pool->frames / GROUP_PAGES;
	bool may = pool->page_size == OS_PAGE && pool->mm->install == FM_INSTALL_MOVE;
	return may && count >= LEAST ? count : 0;
}

bool group_is_whole(const struct frame_pool *pool, const struct page *page)
{
	uint32_t group = group_of(pool, page);
	return group < pool->groups && bit_is(pool->whole_bits, group);
}

struct page *group_first(const struct frame_pool *pool, const struct page *page)
{
	return &pool->pages[group_of(pool, page) * GROUP_PAGES];
}

/* They are all of one that is whole. */
bool group_is_all(const struct frame_pool *pool, const struct page *first, uint32_t count)
{
	return count == GROUP_PAGES && first == group_first(pool, first) && group_is_whole(pool, first);
}

/* It is none any more: those of its frames that are free are free like others. Pool lock. */
void group_split_locked(struct frame_pool *pool, uint32_t group)
{
	struct page *first = &pool->pages[group * GROUP_PAGES];

	if (!bit_is(pool->whole_bits, group))
		return;
	covered_if(pool->group_free[group], group_parted);
	bit_clear(pool->whole_bits, group);
	pool->group_free[group] = 0;
	for (struct page *page = first; page < first + GROUP_PAGES; page++) {
		if (page->list == LIST_GROUPS || page->list == LIST_PARKED) {
			queue_unlink(pool, page);
			queue_append(pool, page, LIST_FREE);
		}
	}
	stats_add(pool->mm->stats, groups_split, 1);
}

/* Some pages have moved by themselves. */
void group_split(struct frame_pool *pool, const struct page *first, uint32_t count)
{
	if (likely(!pool->groups) || group_is_all(pool, first, count))
		return;
	for (uint32_t group = group_of(pool, first); group <= group_of(pool, first + count - 1) && group < pool->groups; group++) {
		if (likely(!bit_is(pool->whole_bits, group)))
			continue;
		os_lock(&pool->lock);
		group_split_locked(pool, group);
		os_unlock(&pool->lock);
	}
}

/* A frame of one that is whole, on no list, is free; with the last one all of it. Pool lock. */
void group_park_locked(struct frame_pool *pool, struct page *page)
{
	struct page *first = group_first(pool, page);

	queue_append(pool, page, LIST_PARKED);
	if (++pool->group_free[group_of(pool, page)] < GROUP_PAGES)
		return;
	covered(group_freed);
	for (page = first; page < first + GROUP_PAGES; page++) {
		queue_unlink(pool, page);
		queue_append(pool, page, LIST_GROUPS);
	}
}

/* Frames that are free, and kept for streams as long as others have some. */
uint32_t groups_free(struct frame_pool *pool)
{
	return lru_count(pool, LIST_GROUPS) + lru_count(pool, LIST_PARKED);
}

/* Somebody else needs a frame: one that is whole is split, so that those of its frames that are free are to be had. False: there
 * is none that has any. */
bool group_break(struct frame_pool *pool)
{
	if (likely(!groups_free(pool)))
		return false;
	os_lock(&pool->lock);
	uint32_t id = pool->queue[LIST_GROUPS].head != NONE ? pool->queue[LIST_GROUPS].head : pool->queue[LIST_PARKED].head;
	if (id != NONE)
		group_split_locked(pool, id / GROUP_PAGES);
	os_unlock(&pool->lock);
	return id != NONE;
}

/* Into a view. */
void group_installed(struct frame_pool *pool, const struct page *first, uint32_t count)
{
	if (group_is_all(pool, first, count)) {
		covered(group_in);
		stats_add(pool->mm->stats, group_installs, 1);
	}
	group_split(pool, first, count);
}

static bool enough(struct frame_pool *pool)
{
	uint32_t some = pool->groups / 8 < AHEAD ? pool->groups / 8 + 1 : AHEAD;
	return lru_count(pool, LIST_GROUPS) >= some * GROUP_PAGES;
}

/* For one more, of holes. */
static bool has_room(struct frame_pool *pool)
{
	uint64_t len = (uint64_t)GROUP_PAGES << pool->shift;
	return lru_count(pool, LIST_HOLES) >= GROUP_PAGES && atomic_get(&pool->mm->charged_bytes) + len <= pool->mm->budget_bytes;
}

/* The frames of the one that has been free for the longest time. */
static struct page *take(struct frame_pool *pool)
{
	struct page *first = NULL;

	if (!lru_count(pool, LIST_GROUPS))
		return NULL;
	os_lock(&pool->lock);
	uint32_t id = pool->queue[LIST_GROUPS].head;
	if (id != NONE) {
		first = group_first(pool, &pool->pages[id]);
		pool->group_free[id / GROUP_PAGES] = 0;
		for (struct page *page = first; page < first + GROUP_PAGES; page++)
			queue_unlink(pool, page);
	}
	os_unlock(&pool->lock);
	return first;
}

/* All frames of a group that is none now, off this list; NULL: of the next few there is none. */
static struct page *take_all(struct frame_pool *pool, enum page_list list)
{
	struct page *first = NULL;

	if (lru_count(pool, list) < GROUP_PAGES)
		return NULL;
	os_lock(&pool->lock);
	for (uint32_t tries = 0; !first && tries < LOOK_AT && tries < pool->groups; tries++) {
		first = &pool->pages[pool->group_next * GROUP_PAGES];
		pool->group_next = (pool->group_next + 1) % pool->groups;
		for (struct page *page = first; first && page < first + GROUP_PAGES; page++)
			if (page->list != list)
				first = NULL;
	}
	for (struct page *page = first; first && page < first + GROUP_PAGES; page++)
		queue_unlink(pool, page);
	os_unlock(&pool->lock);
	return first;
}

static void put_all(struct frame_pool *pool, struct page *first, bool whole)
{
	os_lock(&pool->lock);
	if (whole)
		bit_set(pool->whole_bits, group_of(pool, first));
	for (struct page *page = first; page < first + GROUP_PAGES; page++)
		if (whole)
			group_park_locked(pool, page);
		else
			queue_append(pool, page, page_is(page, PG_HOLE) ? LIST_HOLES : LIST_FREE);
	os_unlock(&pool->lock);
}

/* Make one of frames that are off their list; `holes`: they have no memory yet, and it is charged for. False: they are single ones. */
static bool make_of(struct frame_pool *pool, struct page *first, bool holes)
{
	uint64_t slot = (uint64_t)slot_of(pool, first), len = (uint64_t)GROUP_PAGES << pool->shift;

	if (!holes) /* small pages, which become a huge one */
		trap_discard(pool->mm->trap, slot, len);
	uint64_t done;
	int err = trap_fill_whole(pool->mm->trap, slot, len, &done);
	uint32_t filled = err ? (uint32_t)(done >> pool->shift) : GROUP_PAGES;
	if (err)
		mm_uncharge(pool->mm, len - done);
	if (err && err != -EBUSY)
		atomic_set(&pool->groups_failed_ns, os_now_ns()); /* there may be small pages all the same */
	for (uint32_t i = 0; i < GROUP_PAGES; i++)
		page_set(first + i, i < filled ? 0 : PG_HOLE, i < filled ? PG_HOLE : 0);
	put_all(pool, first, !err);
	covered_if(!err && holes, group_made_of_holes);
	covered_if(!err && !holes, group_made_of_free);
	if (!err)
		stats_add(pool->mm->stats, groups_made, 1);
	return !err;
}

/* The system has just had no huge page. */
static bool pauses(struct frame_pool *pool)
{
	uint64_t failed_ns = atomic_get(&pool->groups_failed_ns);
	return unlikely(failed_ns) && os_now_ns() < failed_ns + PAUSE_NS;
}

/* Of holes, where there is room in the budget; else, but for `only_holes`, of frames that have become free together, as long as there
 * are more for others: that takes the kernel's lock. False: there are none. */
bool group_make(struct frame_pool *pool, bool only_holes)
{
	uint64_t len = (uint64_t)GROUP_PAGES << pool->shift;
	struct page *first = NULL;

	if (!pool->groups || pool_pauses(pool) || pauses(pool))
		return false;
	if (has_room(pool) && mm_try_charge(pool->mm, len)) {
		first = take_all(pool, LIST_HOLES);
		if (first)
			return make_of(pool, first, true);
		mm_uncharge(pool->mm, len);
	}
	if (!only_holes && lru_count(pool, LIST_FREE) >= 2 * GROUP_PAGES)
		first = take_all(pool, LIST_FREE);
	return first && make_of(pool, first, false);
}

/* The frames of a free one, as they come from frame_alloc(), to be read ahead. NULL: there is none; with `evict`
 * what is oldest makes way. No lock held, and none of the kernel's taken but regions'. */
struct page *group_take(struct frame_pool *pool, bool evict)
{
	struct page *first = take(pool);
	uint32_t spare = pool->frames / 8 + TAKE_MOST; /* single frames, that lie here and there: those of a group may be among them soon */

	if (!enough(pool) && !atomic_xchg(&pool->wants_groups, 1u))
		background_kick(pool->mm);
	if (!first && group_make(pool, true))
		first = take(pool);
	/* What a stream has left behind lies together, and goes as fast as it came. Of what others have, some first. */
	for (uint32_t freed = 0, some; !first && evict && freed < TAKE_MOST && lru_count(pool, LIST_FREE) < spare && !has_room(pool); freed += some) {
		some = reclaim(pool, 1, false);
		first = take(pool);
		if (!some)
			break;
	}
	for (uint32_t i = 0; first && i < GROUP_PAGES; i++)
		frame_begin(first + i, 0);
	if (first)
		stats_add(pool->mm->stats, frames_used, GROUP_PAGES);
	return first;
}

/* For huge pages: the views of files that streams have come to, and no others, whose faults it would hold up. Background thread. */
void groups_open_views(struct fm_mm *mm)
{
	struct fm_file *file;

	if (likely(!atomic_get(&mm->wants_huge)) || !atomic_xchg(&mm->wants_huge, 0u))
		return;
	do {
		os_lock(&mm->files_lock);
		for (file = mm->files; file && (atomic_get(&file->huge) != HUGE_WANTED || !file_try_get(file)); file = file->next)
			;
		os_unlock(&mm->files_lock);
		if (file) {
			trap_region_huge(&file->view.region);
			atomic_set(&file->huge, (uint32_t)HUGE_YES);
			file_put(file);
		}
	} while (file);
}

/* Make some, where streams want them. What nobody comes back to is left for the streams to take out: it is little work, and each
 * change of a page table by another thread would interrupt them. Background thread. */
void groups_fill_ahead(struct frame_pool *pool)
{
	if (!pool->groups || !atomic_xchg(&pool->wants_groups, 0u))
		return;
	for (uint32_t tries = 0; !enough(pool) && tries <= pool->groups / LOOK_AT + AHEAD; tries++)
		group_make(pool, false);
}
