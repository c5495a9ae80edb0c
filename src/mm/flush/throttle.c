/* SPDX-License-Identifier: MIT */
/* Holding back write faults while too many pages are dirty. */
#include "mm/flush/throttle.h"

#include "mm/base/bell.h"
#include "mm/base/file.h"
#include "mm/base/gate.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty_limit.h"
#include "mm/base/access.h"
#include "mm/cache/file_dirt.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/request.h"
#include "mm/frames/page.h"
#include "mm/map/map_lock.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>

#define WAIT_SLICE_NS (5 * OS_NSEC_PER_MSEC)
#define WAIT_SLICE_MOST_NS (20 * OS_NSEC_PER_MSEC)

/*
 * Return whether a write fault must not make the page writable now. The page lock is held, and the
 * map lock may be held. If *ret_error is set, the page must not become writable at all: the store
 * refuses the write-back, so that there will be no room.
 */
bool dirty_must_wait(const struct access *access, const struct page *page, int *ret_error)
{
	struct fm_file *file = access->file;
	uint32_t state = page_state(page);

	*ret_error = 0;
	if (range_is_punched(file, access->index) || page_is_written_in_place(state))
		return true;
	if (state & PG_DIRTY)
		return false;
	if (dirty_over(file)) {
		if (atomic_get(&file->dirt->failing))
			*ret_error = atomic_get(&file->dirt->write_error);
		return true;
	}
	return !access->paced && !(access->flags & FM_FAULT_RETRY_NOWAIT) &&
	       dirty_pause_ns(file, file->pool) > 0;
}

/* Return whether a write fault that has read a fresh, locked page may write to the page at once.
 * The fault's pause comes after that. */
bool dirty_may_come(const struct access *access)
{
	return !range_is_punched(access->file, access->index) && !dirty_over(access->file);
}

/* Pause after a page has become dirty. No lock held. Blocks. */
void dirty_pace(struct access *access)
{
	uint64_t pause = access->paced ? 0 : dirty_pause_ns(access->file, access->file->pool);
	if (!pause)
		return;
	might_block(access->mm);
	access->paced = true;
	stats_add(access->mm->stats, write_throttled, 1);
	stats_record(&access->mm->stats->throttle_ns, pause);
	os_sleep_until(os_now_ns() + pause);
}

/* Return whether the wait of a write fault is over. `over`: too many pages were dirty when the wait
 * began. If the wait ends with an error, *ret_error is set. */
static bool wait_is_over(struct access *access, bool over, uint64_t until, int *ret_error)
{
	struct fm_file *file = access->file;

	if (atomic_get(&access->mm->dying))
		*ret_error = -ECANCELED;
	else if (os_now_ns() >= until)
		*ret_error = -ETIMEDOUT;
	else if (range_is_punched(file, access->index) ||
		 (access->page && page_is_written_in_place(page_state(access->page))))
		return false;
	else if (!over || dirty_has_room(file) || (access->page && page_is(access->page, PG_DIRTY)))
		return true;
	else if (atomic_get(&file->dirt->failing))
		*ret_error = atomic_get(&file->dirt->write_error);
	else
		return false;
	return true;
}

/* Wait until a write fault may go on. No lock held, access->page pinned. Blocks. Returns 0 if the
 * fault must look again, else the error with which the fault ends. */
int dirty_wait(struct access *access)
{
	struct fm_file *file = access->file;
	uint64_t begun = os_now_ns(), until = access_deadline(access),
		 pause = dirty_pause_ns(file, file->pool), slice = WAIT_SLICE_NS;
	bool over = dirty_over(file), urge = true;
	int error = 0;

	might_block(access->mm);
	stats_add(access->mm->stats, write_throttled, 1);
	while (!wait_is_over(access, over, until, &error)) {
		uint32_t seq = atomic_get(&file->writes->ended.seq);
		if (urge)
			writeback_urge(access->mm);
		if (wait_is_over(access, over, until, &error))
			break;
		urge = gate_wait(&file->writes->ended, seq, os_now_ns() + slice) == -ETIMEDOUT;
		if (urge && slice < WAIT_SLICE_MOST_NS) /* nothing ends: do not ask an almost
							   dead store again and again */
			slice *= 2;
	}
	if (!error && !access->paced && pause) {
		access->paced = true;
		os_sleep_until(begun + pause);
	}
	stats_record(&access->mm->stats->throttle_ns, os_now_ns() - begun);
	return error;
}
