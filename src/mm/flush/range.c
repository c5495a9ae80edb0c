/* SPDX-License-Identifier: MIT */
/* Writing all dirty pages of a range, and waiting for the writes to end. */
#include "mm/flush/range.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/gate.h"
#include "mm/base/patience.h"
#include "mm/base/submit.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/lock.h"
#include "mm/cache/merged.h"
#include "mm/flush/batch.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/gather.h"
#include "mm/flush/request.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/map/map_lock.h"
#include "os/atomic.h"
#include "os/os.h"

#include <errno.h>

/*
 * Write a dirty, pinned page and the dirty pages that follow the page. If the page is already being
 * written, it was dirtied again after that write began. With HOW_FORCE and HOW_WAIT, wait for that
 * write, then write the page again. range_wait() may miss the page: the bit that range_wait() looks
 * for is cleared before WRITEBACK. A write that begins after the first wait has the wanted bytes.
 */
static int write_surely(struct fm_file *file, struct page *page, uint64_t last, unsigned how,
			uint64_t until_ns)
{
	int err = write_run(file, page, last, how, until_ns);
	for (int tries = 0; err == -EAGAIN && (how & HOW_FORCE) && (how & HOW_WAIT) && tries < 2;
	     tries++) {                  /* the write may have ended since */
		requests_send(file->mm); /* the write may be this thread's own */
		requests_hold(file->mm);
		if (page_wait_written(file->mm, page, until_ns) < 0)
			return -ENOBUFS; /* the time has passed */
		err = page_is(page, PG_DIRTY) ? write_run(file, page, last, how, until_ns) : 0;
	}
	return err;
}

static int range_begin_held(struct fm_file *file, uint64_t first, uint64_t last, unsigned how,
			    uint64_t until_ns)
{
	struct frame_pool *pool = file->pool;
	struct batch batch;
	uint32_t at = 0;

	while (atomic_get(&file->dirt->dirty) &&
	       batch_next(pool, pool->dirty_bits, file, first, last, &at, &batch))
		for (uint32_t i = 0; i < batch.count; i++) {
			struct page *page = &pool->pages[batch.id[i]];
			/* Most pages have been written together with a page before them. */
			if (!bit_is(pool->dirty_bits, batch.id[i]) || !page_try_pin(page))
				continue;
			int err = 0;
			if (batch_is_in(page, file, first, last) && page_is(page, PG_DIRTY))
				err = write_surely(file, page, last, how, until_ns);
			page_unpin(pool, page);
			if (err == -ENOBUFS || err == -ETIMEDOUT)
				return os_now_ns() >= until_ns ? -ETIMEDOUT : 0;
		}
	return 0;
}

/* Begin to write the dirty pages of a range. Returns 0 or -ETIMEDOUT. */
int range_begin(struct fm_file *file, uint64_t first, uint64_t last, unsigned how,
		uint64_t until_ns)
{
	requests_hold(file->mm);
	int err = range_begin_held(file, first, last, how, until_ns);
	requests_send(file->mm);
	return err;
}

/* Wait for the writes of a range that are under way. Returns 0 or -ETIMEDOUT. */
static int range_wait(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns)
{
	struct frame_pool *pool = file->pool;
	struct batch batch;
	uint32_t at = 0;
	int err = 0;

	while (!err && atomic_get(&file->dirt->writing) &&
	       batch_next(pool, pool->writing_bits, file, first, last, &at, &batch))
		for (uint32_t i = 0; i < batch.count && !err; i++) {
			struct page *page = &pool->pages[batch.id[i]];
			if (!page_try_pin(page))
				continue;
			if (batch_is_in(page, file, first, last))
				err = page_wait_written(file->mm, page, until_ns);
			page_unpin(pool, page);
		}
	return err;
}

static bool range_changes(struct fm_file *file, uint64_t first, uint64_t last)
{
	uint64_t from = atomic_get(&file->dirt->punch_first), to = atomic_get(&file->dirt->punch_last);
	return from <= to && from <= last && to >= first;
}

/* Wait until no page of the range is being punched. Returns 0 or -ETIMEDOUT. */
static int range_wait_change(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns)
{
	for (;;) {
		uint32_t seq = atomic_get(&file->writes->ended.seq);
		if (!range_changes(file, first, last))
			return 0;
		uint64_t now = os_now_ns(), slice = now + 20 * OS_NSEC_PER_MSEC;
		if (now >= until_ns)
			return -ETIMEDOUT;
		gate_wait(&file->writes->ended, seq, slice < until_ns ? slice : until_ns);
	}
}

/* Let no punch begin from here on. A page that was passed by because of a punch would be passed by
 * again if punches never paused. */
static void sync_alone(struct fm_file *file, bool *alone)
{
	if (*alone)
		return;
	*alone = true;
	atomic_add(&file->writes->syncs_alone, 1u);
}

static void sync_not_alone(struct fm_file *file, bool alone)
{
	if (!alone)
		return;
	atomic_sub(&file->writes->syncs_alone, 1u);
	gate_open(&file->writes->ended);
}

int range_write(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns)
{
	bool alone = false;
	int err = 0;
	/* Two passes: a page that was changed during its write, or that the kernel had pinned, is
	 * left for the second pass. A page that was passed by because of a punch is looked at
	 * again: if the punch failed, the page is still dirty. Punches elsewhere are not waited
	 * for: a program that always drops old segments of a log would keep the sync from ending. */
	for (int pass = 0; pass < 2 && !err; pass++) {
		uint32_t passed_by = atomic_get(&file->writes->passed_by);
		err = range_wait_change(file, first, last, until_ns);
		if (!err)
			err = range_begin(file, first, last, HOW_DEMAND | HOW_WAIT | (pass ? HOW_FORCE : 0), until_ns);
		if (!err)
			err = range_wait(file, first, last, until_ns);
		if (range_changes(file, first, last) || atomic_get(&file->writes->passed_by) != passed_by) {
			sync_alone(file, &alone);
			pass--;
		}
	}
	sync_not_alone(file, alone);
	return err;
}

uint64_t file_sync_deadline(const struct fm_file *file)
{
	return file->deadline_ns ? os_now_ns() + file->deadline_ns : OS_FOREVER;
}

/* Write the dirty pages of a file, without a flush. May block. Returns 0, or the errno of a failure
 * in the meantime. Returns -ETIMEDOUT if the file's deadline has passed. For a file without a
 * deadline, returns -ETIMEDOUT if the store has taken nothing for mm_patience_ns. */
int writeback_all(struct fm_file *file)
{
	uint32_t errors = atomic_get(&file->dirt->error_seq), stored;
	int err;

	if (!file->writable)
		return 0;
	might_block(file->mm);
	do {
		stored = atomic_get(&file->writes->stored_seq);
		err = range_write(file, 0, FOR_EVER,
				  os_now_ns() +
					  (file->deadline_ns ? file->deadline_ns : mm_patience_ns));
	} while (err == -ETIMEDOUT && !file->deadline_ns &&
		 atomic_get(&file->writes->stored_seq) != stored);
	return err                                            ? err
	       : atomic_get(&file->dirt->error_seq) != errors ? atomic_get(&file->dirt->write_error)
							      : 0;
}

/* Write the dirty pages of a range, without a flush. May block. With `wait`, the function waits for
 * the writes and returns the errno of a failure in the meantime. */
int writeback_range(struct fm_file *file, uint64_t first, uint64_t last, bool wait)
{
	uint64_t until = file_sync_deadline(file);
	uint32_t errors = atomic_get(&file->dirt->error_seq);

	if (!file->writable)
		return 0;
	might_block(file->mm);
	writeback_look_for_merging(file->mm);
	if (!wait)
		return range_begin(file, first, last, 0, until);
	int err = range_write(file, first, last, until);
	return err                                            ? err
	       : atomic_get(&file->dirt->error_seq) != errors ? atomic_get(&file->dirt->write_error)
							      : 0;
}
