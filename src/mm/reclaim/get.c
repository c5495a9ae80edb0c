/* SPDX-License-Identifier: MIT */
/* A frame for a page, from another page if none is free. */
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

#define TAKE_MOST (2 * GROUP_PAGES) /* frames to be freed for one that is whole */

/*
 * Find or insert. On 0 *ret_page is pinned; when *ret_new, it is also locked, not uptodate, and its
 * frame has memory (but see ADD_HOLE). -ENOMEM: no frame is free.
 */
int page_add(struct fm_file *file, uint64_t index, unsigned flags, struct page **ret_page,
	     bool *ret_new)
{
	struct frame_pool *pool = file->pool;
	struct page *found = page_find(file, index);
	struct page *fresh = NULL;

	if (!found) {
		fresh = frame_get(pool, flags);
		/* A huge frame that is about to be populated is worth the wait; others' pages are
		 * not to make way for it. */
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

/* The frames of a free one, as they come from frame_alloc(), to be read ahead. NULL: there is none;
 * with `evict` what is oldest makes way. No lock held, and none of the kernel's taken but regions'.
 */
struct page *group_take(struct frame_pool *pool, bool evict)
{
	struct page *first = group_take_free(pool);
	uint32_t spare = pool->frames / 8 + TAKE_MOST; /* single frames, that lie here and there:
							  those of a group may be among them soon */

	if (!group_enough(pool) && !atomic_xchg(&pool->wants_groups, 1u))
		background_kick(pool->mm);
	if (!first && group_make(pool, true))
		first = group_take_free(pool);
	/* What a stream has left behind lies together, and goes as fast as it came. Of what others
	 * have, some first. */
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
