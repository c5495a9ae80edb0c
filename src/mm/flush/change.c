/* SPDX-License-Identifier: MIT */
/* The begin and the end of a change of a file: see change.h. */
#include "mm/flush/change.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/gate.h"
#include "mm/base/mm.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/flush/file_writes.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/map/map_lock.h"
#include "os/atomic.h"
#include "os/os.h"

#include <errno.h>

int resize_begin(struct fm_file *file, uint64_t until_ns)
{
	uint32_t free = 0;
	might_block(file->mm);
	if (atomic_cas(&file->writes->resizing, &free, 1u))
		return 0;
	while (atomic_xchg(&file->writes->resizing, 2u) != 0)
		if (os_futex_wait(&file->writes->resizing, 2, OS_FUTEX_ANY, until_ns) == -ETIMEDOUT)
			return -ETIMEDOUT;
	return 0;
}

void resize_end(struct fm_file *file)
{
	if (atomic_xchg(&file->writes->resizing, 0u) == 2)
		os_futex_wake(&file->writes->resizing, 1, OS_FUTEX_ANY);
}

int page_lock_unwritten(struct fm_file *file, struct page *page, uint64_t until_ns)
{
	int err = 0;

	while (!err) {
		if (!page_trylock(page)) {
			err = page_wait(file->mm, page, false, until_ns);
			continue;
		}
		if (!page_is(page, PG_WRITEBACK))
			return 0;
		page_unlock(file->pool, page);
		err = page_wait_written(file->mm, page, until_ns);
	}
	return err;
}

struct waiting {
	uint64_t until_ns;
	int err;
};

static void wait_writes(struct fm_file *file, struct page *page, void *arg)
{
	struct waiting *wait = arg;
	if (!wait->err)
		wait->err = page_lock_unwritten(file, page, wait->until_ns);
	if (!wait->err)
		page_unlock(file->pool, page);
}

/* Wait for syncs that had to pass by pages because of changes. No change may begin until such a
 * sync has ended. Returns 0 or -ETIMEDOUT. */
static int wait_for_syncs(struct fm_file *file, uint64_t until_ns)
{
	for (;;) {
		uint32_t seq = atomic_get(&file->writes->ended.seq);
		if (!atomic_get(&file->writes->syncs_alone) || atomic_get(&file->mm->dying))
			return 0;
		uint64_t now = os_now_ns(), slice = now + 20 * OS_NSEC_PER_MSEC;
		if (now >= until_ns)
			return -ETIMEDOUT;
		gate_wait(&file->writes->ended, seq, slice < until_ns ? slice : until_ns);
	}
}

void change_end(struct fm_file *file)
{
	atomic_add(&file->writes->written_seq,
		   1u); /* before a waiting sync goes on: the sync makes the change durable, too */
	atomic_set(&file->dirt->punch_first, UINT64_MAX);
	atomic_set(&file->dirt->punch_last, 0u);
	gate_open(&file->writes->ended);
}

int change_begin(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns)
{
	struct waiting wait = {until_ns, wait_for_syncs(file, until_ns)};

	if (wait.err)
		return wait.err;
	/* Raise the last index before lowering the first: so no thread sees a larger range than
	 * this range. */
	atomic_set(&file->dirt->punch_last, last);
	atomic_set(&file->dirt->punch_first, first);
	file_each_cached(file, first, last, wait_writes, &wait);
	if (wait.err)
		change_end(file);
	return wait.err;
}
