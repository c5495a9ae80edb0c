/* SPDX-License-Identifier: MIT */
/*
 * The live address spaces, which have been made and not destroyed; and the end of the process,
 * which writes the dirty pages of all live address spaces. By the table a call recognizes a dead
 * object: an object of a forked child's parent, or an object that a caller uses too late.
 * Owns the table of live address spaces. May call: mm, trap, os.
 */
#include "api/live.h"

#include "filemap.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/self.h"
#include "mm/fault/batch.h"
#include "mm/fill/record.h"
#include "mm/flush/end.h"
#include "mm/space/handle.h"
#include "os/atomic.h"
#include "os/os.h"
#include "trap/trap.h"

#include <errno.h>
#include <stdlib.h>

#define LIVE_MAX 256

#define EXIT_NS                                                                                    \
	(2 *                                                                                       \
	 OS_NSEC_PER_SEC) /* how long the end of the process waits for recordings to be written */

static struct fm_mm *live[LIVE_MAX]; /* atomic */
static struct fm_mm *flushing; /* seq_cst: the address space that the end of the process is
				  handling */
static uint32_t finishing;           /* calls of fm_mm_destroy() that still write; atomic */
static uint32_t
	ending; /* the thread that writes for the end of the process; 0: no thread; atomic */

/* ------------------------------------------------------------------ live address spaces */

void live_forget_parents(void)
{
	if (trap_is_child()) {
		for (int i = 0; i < LIVE_MAX; i++)
			atomic_set(&live[i], NULL);
		atomic_set(&flushing, NULL);
		atomic_set(&finishing, 0u);
		atomic_set(&ending, 0u);
		self()->finishing = 0;
		queues_forget();
		objects_forget();
	}
}

int live_add(struct fm_mm *mm)
{
	for (int i = 0; i < LIVE_MAX; i++) {
		struct fm_mm *none = NULL;
		if (atomic_cas(&live[i], &none, mm))
			return 0;
	}
	return -EMFILE;
}

bool live_remove(struct fm_mm *mm)
{
	for (int i = 0; i < LIVE_MAX; i++) {
		struct fm_mm *here = mm;
		if (atomic_cas(&live[i], &here, NULL))
			return true;
	}
	return false;
}

int live_mm(const struct fm_mm *mm)
{
	if (!mm)
		return -EINVAL;
	if (trap_is_child())
		return -EOWNERDEAD;
	for (int i = 0; i < LIVE_MAX; i++)
		if (atomic_get(&live[i]) == mm)
			return 0;
	return -EOWNERDEAD;
}

int live_file(const struct fm_file *file)
{
	return file ? live_mm(file->mm) : -EINVAL;
}

int live_range(fm_mm *mm, const void *addr, size_t len, uint64_t *ret_start,
		       uint64_t *ret_end)
{
	uint64_t start = (uint64_t)(uintptr_t)addr;
	int err = live_mm(mm);
	if (err)
		return err;
	if (!len || len > INT64_MAX || start + len < start)
		return -EINVAL;
	*ret_start = start;
	*ret_end = (start + len + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1);
	return 0;
}

/* ------------------------------------------------------------------ the end of the process */

/*
 * Most programs end without destroying anything: the dirty pages and the recordings are written
 * at the end. The program's own last writes may come before or after any handler of the library.
 * So the same work is done at several moments:
 * - By atexit(), from the first file on that may need writing. This handler runs before handlers
 * that are older.
 * - By a destructor of the lowest priority. The destructor runs after the atexit() handlers and
 * static destructors of the program, and after those of shared libraries that use this library.
 * - By an atexit() handler that the destructor adds. The C library calls this handler after the
 * destructors of all shared libraries. This matters if this library is linked into the program
 * itself.
 * - By at_quick_exit(), from the loading of this library on: handlers run in the reverse order.
 * After the last of them a write to a mapping is reported to the log function.
 */

/* Let one thread at a time end the process. Returns false if the calling thread is inside
 * already, because a callback has called exit(). May block. */
static bool ending_begin(void)
{
	uint32_t own = os_gettid(), other = 0;

	while (!atomic_cas(&ending, &other, own)) {
		if (other == own)
			return false;
		other = 0;
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
	}
	return true;
}

static void finish_mm(struct fm_mm *mm, uint64_t until, bool last)
{
	os_sigmask mask = os_signals_block();
	writeback_finish(mm);
	os_signals_restore(mask);
	records_flush(mm, until);
	if (last)
		atomic_set(&mm->ended, true);
}

void api_process_ends(bool last)
{
	uint64_t until = os_now_ns() + EXIT_NS;
	if (trap_is_child() || !ending_begin())
		return;
	for (int i = 0; i < LIVE_MAX; i++) {
		struct fm_mm *mm = atomic_get(&live[i]);
		__atomic_store_n(&flushing, mm, __ATOMIC_SEQ_CST);
		if (mm && atomic_get(&live[i]) == mm) /* otherwise the address space may be gone:
							 see fm_mm_destroy() */
			finish_mm(mm, until, last);
		atomic_set(&flushing, NULL);
	}
	while (atomic_get(&finishing) > self()->finishing) /* other threads' fm_mm_destroy() */
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
	atomic_set(&ending, 0u);
}

bool live_is_flushing(const struct fm_mm *mm)
{
	return __atomic_load_n(&flushing, __ATOMIC_SEQ_CST) == mm;
}

void live_finishing(int calls)
{
	self()->finishing += (uint32_t)calls;
	atomic_add(&finishing, (uint32_t)calls);
}

static void write_at_exit(void)
{
	api_process_ends(false);
}

void live_watch_exit(void)
{
	static uint32_t watched; /* atomic */
	if (!atomic_xchg(&watched, 1u))
		atexit(write_at_exit);
}

#ifndef FM_SIM
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored                                                                     \
	"-Wprio-ctor-dtor" /* below 101, so that no destructor of the program runs later */

static void write_at_last(void)
{
	api_process_ends(true);
}

__attribute__((destructor(0))) static void write_at_unload(void)
{
	api_process_ends(false);
	atexit(write_at_last);
}

__attribute__((constructor(0))) static void watch_quick_exit(void)
{
	os_stay_loaded();
	at_quick_exit(write_at_last);
}

#pragma GCC diagnostic pop
#endif
