/* SPDX-License-Identifier: MIT */
/* Limit how many requests and frames the reads of a single file may use. */
#include "mm/fill/share.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/fill/file_reads.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/pool.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/store.h"

#include <errno.h>

/* Return whether the thread that wants a page does the demand read itself. */
bool read_is_inline(const struct fm_file *file)
{
	return !file->deadline_ns && (atomic_get(&file->store->caps) & FM_STORE_READ_INLINE);
}

/* Begin a read in the faulting thread. Such a read holds frames as a request does, and for as
 * long, so it counts like a request. Sets *more to 0 if the share has no room for more pages.
 * Returns false if the share has no room at all. */
bool read_inline_begin(struct fm_file *file, uint32_t *more)
{
	uint32_t cap = file->pool->frames / 4, before = atomic_add(&file->reads->inflight, 1u);
	if (before && before >= cap) {
		atomic_sub(&file->reads->inflight, 1u);
		return false;
	}
	if (before + 1 + *more > cap)
		*more = 0;
	return true;
}

void read_inline_end(struct fm_file *file, uint32_t count)
{
	if (atomic_sub(&file->reads->inflight, count) >= file->pool->frames / 4)
		pool_wake_waiters(file->pool); /* a thread may wait for room */
}

/* Wait until a read is done, when no request is free or the store holds too many frames. The
 * caller must hold no frame: frames of waiters would exceed the store's share. Returns 0 to
 * try again, else -ETIMEDOUT or -ECANCELED. */
int read_wait_for_room(struct fm_file *file, uint64_t until_ns)
{
	uint32_t *seq = &file->pool->free_seq, before;
	uint64_t now = os_now_ns(), slice = now + 10 * OS_NSEC_PER_MSEC;
	int ret = 0;
	if (now >= until_ns)
		return -ETIMEDOUT;
	stats_add(file->mm->stats, frame_waits, 1);
	atomic_add(&file->pool->free_waiters, 1u);
	do { /* two waiters must not keep waking each other by the pages they put */
		before = atomic_get(seq);
		if (atomic_get(&file->mm->dying))
			ret = -ECANCELED;
	} while (!ret && !read_has_room(file, true) &&
		 os_futex_wait(seq, before, OS_FUTEX_ANY, slice < until_ns ? slice : until_ns) == 0);
	atomic_sub(&file->pool->free_waiters, 1u);
	return ret;
}

/* Return how many requests the reads of a store may have: as many as the store leaves to other
 * stores. That is half of all requests, or a quarter if a store has died with half. If a store
 * died with all requests, no other store could read. */
uint32_t read_requests_most(const struct fm_file *file)
{
	return atomic_get(&file->mm->requests_left);
}

/* Return whether a demand read could begin now. The read runs in the caller's thread if the
 * caller may wait and the store allows that, else as a request. */
bool read_has_room(struct fm_file *file, bool may_wait)
{
	uint32_t inflight = atomic_get(&file->reads->inflight);
	bool here = may_wait && read_is_inline(file);
	bool place = atomic_get(&file->mm->request_free) != NONE &&
		     atomic_get(&file->reads->requests) < read_requests_most(file);
	return (here || place) && (!inflight || inflight < file->pool->frames / 4);
}
