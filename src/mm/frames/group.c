/* SPDX-License-Identifier: MIT */
/*
 * Groups: 512 frames of 4 KiB, side by side, whose memory is one huge page. Who reads a file from
 * one end to the other gets them: 2 MiB of it go into the view, and out again, by one change of a
 * page table. To everybody else their pages are pages like others; what moves one of them by itself
 * splits the huge page, and that is all that comes of it.
 *
 * One is whole as long as its pages have moved together only. Its free frames wait on PARKED, and
 * on GROUPS when all of them are free; only there a stream finds them. Others get none of them
 * until they have no frame otherwise: then one is split, and its free frames are free like others.
 * A stream that finds none makes one, of holes as long as the budget has room, else it takes what
 * is oldest out of the cache, as any fault does; the background thread makes some in advance.
 *
 * Owns a pool's bits of which groups are whole, the numbers of free frames in them, and the two
 * lists. The pool lock protects all of it; the bits may be looked at without, by who can do with an
 * old answer.
 */
#include "mm/frames/group.h"

#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#ifdef FM_SIM
#define LEAST 4u /* groups in a pool: its pools are small */
#else
#define LEAST 6u
#endif

uint32_t group_of(const struct frame_pool *pool, const struct page *page)
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
	for (uint32_t group = group_of(pool, first);
	     group <= group_of(pool, first + count - 1) && group < pool->groups; group++) {
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

/* Somebody else needs a frame: one that is whole is split, so that those of its frames that are
 * free are to be had. False: there is none that has any. */
bool group_break(struct frame_pool *pool)
{
	if (likely(!groups_free(pool)))
		return false;
	os_lock(&pool->lock);
	uint32_t id = pool->queue[LIST_GROUPS].head != NONE ? pool->queue[LIST_GROUPS].head
							    : pool->queue[LIST_PARKED].head;
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

bool group_enough(struct frame_pool *pool)
{
	uint32_t some = pool->groups / 8 < GROUPS_AHEAD ? pool->groups / 8 + 1 : GROUPS_AHEAD;
	return lru_count(pool, LIST_GROUPS) >= some * GROUP_PAGES;
}

/* The frames of the one that has been free for the longest time. */
struct page *group_take_free(struct frame_pool *pool)
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
