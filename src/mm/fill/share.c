/* SPDX-License-Identifier: MIT */
/* How many of the requests and of the frames the reads of one file may have. */
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

/* A demand read is done by the thread that wants it. */
bool read_is_inline(const struct fm_file *file)
{
	return !file->deadline_ns && (atomic_get(&file->store->caps) & FM_STORE_READ_INLINE);
}

/* A read in the faulting thread holds frames as a request does, and for as long: it counts like
 * one. */
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
		frame_freed(file->pool); /* somebody may wait for room */
}

/* No request to be had, or too many frames with this store: wait until one is done. The caller
 * holds no frame: those of the ones that wait would be beyond the store's share. 0: try again; else
 * -ETIMEDOUT or -ECANCELED. */
int read_wait_for_room(struct fm_file *file, uint64_t until_ns)
{
	uint32_t *seq = &file->pool->free_seq, before;
	uint64_t now = os_now_ns(), slice = now + 10 * OS_NSEC_PER_MSEC;
	int ret = 0;
	if (now >= until_ns)
		return -ETIMEDOUT;
	stats_add(file->mm->stats, frame_waits, 1);
	atomic_add(&file->pool->free_waiters, 1u);
	do { /* two that wait must not keep each other awake by the pages that they put */
		before = atomic_get(seq);
		if (atomic_get(&file->mm->dying))
			ret = -ECANCELED;
	} while (!ret && !read_has_room(file, true) &&
		 os_futex_wait(seq, before, OS_FUTEX_ANY, slice < until_ns ? slice : until_ns) == 0);
	atomic_sub(&file->pool->free_waiters, 1u);
	return ret;
}

/* One store may have as many as it leaves to others: half of them, or, where one has died with
 * half, a quarter. Were it to die with all, nobody else could read. */
uint32_t read_requests_most(const struct fm_file *file)
{
	return atomic_get(&file->mm->requests_left);
}

/* A demand read could begin now: in the caller's own thread, if it may wait and the store allows,
 * else as a request. */
bool read_has_room(struct fm_file *file, bool may_wait)
{
	uint32_t inflight = atomic_get(&file->reads->inflight);
	bool here = may_wait && read_is_inline(file);
	bool place = atomic_get(&file->mm->request_free) != NONE &&
		     atomic_get(&file->reads->requests) < read_requests_most(file);
	return (here || place) && (!inflight || inflight < file->pool->frames / 4);
}
