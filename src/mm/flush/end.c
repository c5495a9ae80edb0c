/* SPDX-License-Identifier: MIT */
/* How a file and an address space end while they have dirty pages. */
#include "mm/flush/end.h"

#include "filemap.h"
#include "io/io.h"
#include "mm/base/bell.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/patience.h"
#include "mm/base/refs.h"
#include "mm/base/report.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/index.h"
#include "mm/cache/merged.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/range.h"
#include "mm/flush/request.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>
#include <string.h>

#define LATE_NS (OS_NSEC_PER_SEC / 2)
#define FINISH_LEAST_NS                                                                            \
	(100 * OS_NSEC_PER_MSEC) /* if the end of the process has waited mm_patience_ns before */
#define PAUSE_LEAST_NS                                                                             \
	(5 * OS_NSEC_PER_MSEC) /* between two tries at a store that refuses, at the end */
#define PAUSE_MOST_NS (500 * OS_NSEC_PER_MSEC)

static bool has_unwritten(struct fm_file *file)
{
	return atomic_get(&file->dirt->dirty) || atomic_get(&file->dirt->writing);
}

/* Tell the log which pages of a file have not been written, and why. The reason is `error`, or
 * -ETIMEDOUT if the store has not answered. */
static void tell_unwritten(struct fm_file *file, int error)
{
	uint32_t dirty = atomic_get(&file->dirt->dirty), writing = atomic_get(&file->dirt->writing);
	int last = atomic_get(&file->dirt->write_error);

	if (error == -ETIMEDOUT && !writing && last)
		error = last;
	if (writing)
		mm_log(file->mm, FM_LOG_ERROR,
		       "%s: the store has not answered for %u seconds: %u pages are still being "
		       "written and may be lost; %u more pages are dirty and are lost: %s",
		       file->uri, (uint32_t)(mm_patience_ns / OS_NSEC_PER_SEC), writing, dirty,
		       strerror(ETIMEDOUT));
	else
		mm_log(file->mm, FM_LOG_ERROR,
		       "%s: the file was closed, but %u dirty pages could not be written: %s", file->uri, dirty,
		       strerror(-error));
}

/* Give up the file: no page of the file is written from here on, and its dirty pages are lost. */
static void give_up(struct fm_file *file, int error)
{
	if (atomic_xchg(&file->writes->given_up, true))
		return;
	if (atomic_get(&file->mm->dying))
		atomic_set(&file->mm->lost, true);
	stats_add(file->mm->stats, dirty_lost, atomic_get(&file->dirt->dirty));
	tell_unwritten(file, error);
}

/* Return whether the writes of a file without references have failed for mm_patience_ns. The end of
 * the mm does its own waiting. */
static bool close_in_vain(struct fm_file *file, uint64_t now)
{
	if (!atomic_get(&file->dirt->failing))
		file->writes->closing_ns = 0;
	else if (!file->writes->closing_ns)
		file->writes->closing_ns = now;
	return file->writes->closing_ns && now >= file->writes->closing_ns + mm_patience_ns &&
	       !atomic_get(&file->dirt->writing);
}

/* Go on with the end of a file. The caller's reference is the file's last reference. Returns true
 * if the reference has been put. */
static bool close_one(struct fm_file *file, uint64_t now)
{
	bool given_up = atomic_get(&file->writes->given_up);
	if (given_up ? !atomic_get(&file->dirt->writing) : !has_unwritten(file)) {
		file_put(file);
		return true;
	}
	if (given_up || !atomic_get(&file->dirt->dirty))
		return false;
	if (close_in_vain(file, now)) {
		give_up(file, atomic_get(&file->dirt->write_error));
		file_put(file);
		return true;
	}
	if (write_rests(file, now))
		return false;
	file_drop_pins(file);
	range_begin(file, 0, FOR_EVER, HOW_DEMAND | HOW_FORCE, now);
	return false;
}

void writeback_close_some(struct writeback *wb, uint64_t now)
{
	struct fm_file *file = atomic_xchg(&wb->closing, NULL), **at = &wb->closing_list;

	while (file) {
		struct fm_file *next = file->reap_next;
		file->reap_next = wb->closing_list;
		wb->closing_list = file;
		file = next;
	}
	while ((file = *at) != NULL) {
		struct fm_file *next = file->reap_next;
		if (close_one(file, now))
			*at = next;
		else
			at = &file->reap_next;
	}
}

/* Take a file without references from the background thread. Returns true if the file must be
 * written first: the background thread then gets the file back later. */
bool writeback_close(struct fm_file *file)
{
	struct writeback *wb = atomic_get(&file->mm->wb);

	if (file->writable && !file->writes->given_up)
		writeback_look_for_merging(file->mm);
	if (!file->writable || file->scratch || file->writes->given_up ||
	    !(atomic_get(&file->dirt->dirty) + atomic_get(&file->dirt->writing)))
		return false;
	file_drop_pins(file);
	atomic_set(&file->refs, 1u);
	struct fm_file *head = atomic_get(&wb->closing);
	do {
		file->reap_next = head;
	} while (!atomic_cas(&wb->closing, &head, file));
	writeback_kick(file->mm);
	return true;
}

/* Return whether a mapping is written to when the process has almost ended. Tells the log once. */
bool writeback_tell_late(struct fm_mm *mm)
{
	if (!atomic_get(&mm->late))
		return false;
	if (atomic_get(&mm->late) == 1) {
		mm_log(mm, FM_LOG_ERROR,
		       "the program wrote to a mapping so late in its exit that the library can "
		       "no longer write the bytes to the store: these bytes may be lost");
		atomic_set(&mm->late, 2u);
		os_futex_wake(&mm->late, INT32_MAX, OS_FUTEX_ANY);
	}
	return true;
}

/* Note that a mapping has been written to after the end of the process. The write-back thread must
 * tell the log, and write the page at once. With `may_wait`, the function waits until the log has
 * been told, since the process may end at any moment. */
void writeback_late(struct fm_mm *mm, bool may_wait)
{
	uint64_t until = os_now_ns() + LATE_NS;
	uint32_t none = 0;

	(void)atomic_cas(&mm->late, &none, 1u);
	writeback_kick(mm);
	while (may_wait && atomic_get(&mm->late) == 1 && os_now_ns() < until)
		os_futex_wait(&mm->late, 1, OS_FUTEX_ANY, until);
}

/* Find the next file that the call `finish` has not written yet. Returns the file with a reference,
 * or NULL. *ret_closing is set if a file without references is on its way to the thread that writes
 * the file: no reference to such a file can be taken. */
static struct fm_file *next_unwritten(struct fm_mm *mm, uint32_t finish, bool *ret_closing)
{
	struct fm_file *file;

	*ret_closing = false;
	os_lock(&mm->files_lock);
	for (file = mm->files; file; file = file->next) {
		if (!file->writable || file->scratch || file->writes->finished == finish ||
		    atomic_get(&file->writes->given_up) || !has_unwritten(file))
			continue;
		if (file_try_get(file))
			break;
		*ret_closing = true;
	}
	os_unlock(&mm->files_lock);
	return file;
}

/* Write the dirty pages of a file until the store has taken all of them. Blocks. Returns 0, or
 * -ETIMEDOUT if no bytes have reached the store for `most_ns`. Returns the store's errno if the
 * store has refused for `most_ns`. Does not wait for pages that other threads write meanwhile. */
static int write_out(struct fm_file *file, uint64_t most_ns)
{
	uint64_t pause = PAUSE_LEAST_NS, failing_ns = 0;

	for (;;) {
		uint32_t stored = atomic_get(&file->writes->stored_seq),
			 errors = atomic_get(&file->dirt->error_seq);
		uint64_t begun = os_now_ns();
		int err = range_write(file, 0, FOR_EVER, begun + most_ns);
		uint64_t now = os_now_ns();
		if (!has_unwritten(file))
			return 0;
		if (err == -ETIMEDOUT && atomic_get(&file->writes->stored_seq) != stored)
			continue; /* the store is slow */
		if (err)
			return err;
		if (atomic_get(&file->dirt->error_seq) == errors || atomic_get(&file->writes->given_up))
			return 0;
		failing_ns = failing_ns ? failing_ns : begun;
		if (now + pause >= failing_ns + most_ns)
			return atomic_get(&file->dirt->write_error);
		os_sleep_until(now + pause);
		pause = pause * 2 < PAUSE_MOST_NS ? pause * 2 : PAUSE_MOST_NS;
	}
}

/* Do the part of writeback_finish() for one file. The end of a process calls this function several
 * times: all calls together wait for mm_patience_ns. */
static void finish_one(struct fm_file *file)
{
	uint64_t begun = os_now_ns(), spent = file->writes->finish_spent_ns;
	int err;

	file_drop_pins(file);
	err = write_out(file, spent + FINISH_LEAST_NS < mm_patience_ns ? mm_patience_ns - spent
								       : FINISH_LEAST_NS);
	if (!err)
		return;
	file->writes->finish_spent_ns = spent + (os_now_ns() - begun);
	if (atomic_get(&file->mm->dying))
		give_up(file, err);
	else if (spent < mm_patience_ns)
		tell_unwritten(file, err);
}

/*
 * Write all dirty pages that the stores accept, at the end of the mm or of the process. Threads may
 * still write to pages that they have: such pages are written with the end of the file. For a file
 * without references, wait until the thread that writes the file has the file. From then on a
 * reference can be taken. Blocks for at most mm_patience_ns a file.
 */
void writeback_finish(struct fm_mm *mm)
{
	uint32_t finish = atomic_add(&mm->finishes, 1u) + 1;
	uint64_t waits_until = 0;

	writeback_look_for_merging(mm);
	while (atomic_get(&mm->wb)) {
		bool closing;
		struct fm_file *file = next_unwritten(mm, finish, &closing);
		if (file) {
			finish_one(file);
			file->writes->finished = finish;
			file_put(file);
			continue;
		}
		uint64_t now = os_now_ns();
		waits_until = waits_until ? waits_until : now + mm_patience_ns;
		if (!closing || now >= waits_until)
			return;
		os_sleep_until(now + OS_NSEC_PER_MSEC);
	}
}

/* Ask for an early end of the writes and flushes that are under way. The mm is dying and has given
 * up its dirty pages. */
void writeback_cancel(struct fm_mm *mm)
{
	struct writeback *wb = atomic_get(&mm->wb);

	for (uint32_t i = 0; wb && i < wb->count; i++)
		io_cancel(mm->io, &wb->request[i].io);
	os_lock(&mm->files_lock);
	for (struct fm_file *file = mm->files; file; file = file->next)
		if (file->writes->flush_io)
			io_cancel(mm->io, file->writes->flush_io);
	os_unlock(&mm->files_lock);
}
