/* SPDX-License-Identifier: MIT */
/* Allocation of a frame for a page. If no frame is free, another page is evicted. */
#include "mm/reclaim/get.h"

#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/index.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/lists.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "mm/reclaim/clock.h"
#include "os/atomic.h"
#include "stats/stats.h"

#include <errno.h>

#define TAKE_MOST (2 * GROUP_PAGES) /* frames to free in order to get a whole group */

/*
 * Find a page in the cache, or insert a new page. Returns 0 with *ret_page pinned, or -ENOMEM if no
 * frame is free. If *ret_new, the page is also locked and not uptodate, and the frame has memory
 * (unless ADD_HOLE is given). Also returns -ENOMEM if the cached page can take no more pins.
 */
int page_add(struct fm_file *file, uint64_t index, unsigned flags, struct page **ret_page,
	     bool *ret_new)
{
	struct frame_pool *pool = file->pool;
	struct page *found = page_find(file, index);
	struct page *fresh = NULL;

	if (!found) {
		fresh = frame_get(pool, flags);
		/* A huge frame that is about to be populated is worth the wait: no other page is
		 * evicted instead. */
		if (!fresh && (flags & ADD_RECLAIM) && !pool_may_grow(pool) && reclaim(pool, 4, false) > 0)
			fresh = frame_get(pool, flags);
		if (!fresh)
			return -ENOMEM;
		found = page_insert(file, index, fresh, flags);
		if (unlikely(found == fresh)) { /* retry later, when the page has fewer pins */
			frame_drop(pool, fresh);
			return -ENOMEM;
		}
	}
	if (found) {
		if (fresh) /* another thread inserted the page first */
			frame_drop(pool, fresh);
		*ret_page = found;
		*ret_new = false;
		return 0;
	}
	*ret_page = fresh;
	*ret_new = true;
	return 0;
}

/* Take the frames of a free group for readahead, each as frame_alloc() returns a frame. With
 * `evict`, the oldest pages are evicted if no group is free. Returns NULL if there is no free
 * group. The caller holds no lock. Of the kernel's locks, takes only the regions' locks. */
struct page *group_take(struct frame_pool *pool, bool evict)
{
	struct page *first = group_take_free(pool);
	uint32_t spare = pool->frames / 8 + TAKE_MOST; /* scattered single frames, which may soon
							  include all frames of a group */

	if (!group_enough(pool) && !atomic_xchg(&pool->wants_groups, 1u))
		background_kick(pool->mm);
	if (!first && group_make(pool, true))
		first = group_take_free(pool);
	/* Pages that a stream has left behind lie together, and are evicted as fast as they came.
	 * Of pages that other readers have, some are evicted first. */
	for (uint32_t freed = 0, some; !first && evict && freed < TAKE_MOST &&
				       lru_count(pool, LIST_FREE) < spare && !group_has_room(pool);
	     freed += some) {
		some = reclaim(pool, 1, false);
		first = group_take_free(pool);
		if (!some)
			break;
	}
	for (uint32_t i = 0; first && i < GROUP_PAGES; i++)
		frame_begin(first + i, 0);
	if (first)
		stats_add(pool->mm->stats, frames_used, GROUP_PAGES);
	return first;
}
