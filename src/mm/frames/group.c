/* SPDX-License-Identifier: MIT */
/*
 * Groups: 512 frames of 4 KiB, side by side, whose memory is one huge page. A reader that goes
 * through a file from one end to the other gets groups. One change of a page table then moves 2
 * MiB of the file into the view, or out of the view. For all other purposes a group's pages are
 * pages like others. A move of a single page splits the huge page, and has no other effect.
 *
 * A group is whole as long as its pages have only moved together. Free frames of a whole group
 * wait on PARKED, or on GROUPS if all frames of the group are free. A stream finds groups only
 * on GROUPS. Other faults get no frame of a group while there are other frames. When there are
 * none, a group is split, and its free frames become free like others. A stream that finds no
 * group makes a group of holes while the budget has room. Otherwise the stream takes the oldest
 * pages out of the cache, as any fault does. The background thread makes some groups in
 * advance.
 *
 * This file owns a pool's bits that tell which groups are whole, the numbers of free frames in
 * the groups, and the two lists. The pool lock protects all of these. A caller that can use an
 * old answer may read the bits without the lock.
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
#define LEAST 4u /* groups in a pool: pools in the simulation are small */
#else
#define LEAST 6u
#endif

uint32_t group_of(const struct frame_pool *pool, const struct page *page)
{
	return (uint32_t)(page - pool->pages) / GROUP_PAGES;
}

/* Return how many groups a pool should have, from its number of frames. */
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

/* Return whether the `count` pages from `first` are all pages of a whole group. */
bool group_is_all(const struct frame_pool *pool, const struct page *first, uint32_t count)
{
	return count == GROUP_PAGES && first == group_first(pool, first) && group_is_whole(pool, first);
}

/* Split a whole group: the group's free frames become free like others. The caller holds the pool
 * lock. */
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

/* Split the groups of pages that have moved, unless the pages are all pages of a whole group.
 * Takes the pool lock. */
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

/* Put a free frame of a whole group onto PARKED. The frame is on no list. If the frame is the
 * group's last, all frames of the group go onto GROUPS. The caller holds the pool lock. */
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

/* Return the number of free frames that are kept for streams while there are other free
 * frames. */
uint32_t groups_free(struct frame_pool *pool)
{
	return lru_count(pool, LIST_GROUPS) + lru_count(pool, LIST_PARKED);
}

/* Split a whole group for a caller that needs a single frame: the group's free frames become
 * available. Takes the pool lock. Returns false if no whole group has a free frame. */
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

/* Count a whole group that has been installed in a view. Split the groups of any other pages. */
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

/* Take the group that has been free for the longest time. Takes the pool lock. Returns the
 * first of the group's frames, off all lists, or NULL if no group is free. */
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
