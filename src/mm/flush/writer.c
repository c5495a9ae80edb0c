/* SPDX-License-Identifier: MIT */
/*
 * The write-back of dirty pages: requests, fm_sync(), flushes, and the thread that writes in the
 * background.
 *
 * A write takes a page out of the view, marks the page as being written, and drops the page
 * lock. cache/dirty.c says what may happen to the page during the write. So a request holds
 * no lock, only pins, and only a thread that syncs waits for the request. Neighbouring
 * pages are written together. Pages that are written at one time go in the order of the
 * file. Each file has at most one flush at a time. A thread that asks for a flush shares
 * the present flush if that flush began after the thread's writes had ended.
 *
 * Errors. A page whose write failed is dirty again, and so is a page written before a flush that
 * failed. `error_seq` counts the failures, and `error_told` counts how many of them some call has
 * returned. Each call compares `error_seq` at its end with `error_told` at its beginning. The
 * background tries again after RETRY_NS.
 *
 * The end of a file. The last reference may be put while pages are dirty: the background
 * thread then hands the file to this folder. The background thread gets the file back when
 * all pages are written, or when writes have failed for mm_patience_ns. Pages that are
 * still dirty then are lost: the log and `dirty_lost` tell so.
 *
 * The end of the mm, and of the process. writeback_finish() writes each file. A file that has lost
 * its last reference and has not been handed over yet is waited for. A store that refuses is tried
 * again, with pauses. A store that does not answer is waited for. Both end after mm_patience_ns.
 *
 * Owns struct writeback. wb->lock protects the list of free requests. No thread waits with a page
 * lock held, unless for the kernel.
 */
#include "mm/flush/writer.h"

#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/submit.h"
#include "mm/cache/dirty_limit.h"
#include "mm/cache/file_dirt.h"
#include "mm/flush/batch.h"
#include "mm/flush/durable.h"
#include "mm/flush/end.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/gather.h"
#include "mm/flush/keep.h"
#include "mm/flush/lost.h"
#include "mm/flush/range.h"
#include "mm/flush/request.h"
#include "mm/flush/sweep.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "os/atomic.h"
#include "os/os.h"

#include <errno.h>
#include <stdlib.h>

#define AGE_NS (5 * OS_NSEC_PER_SEC)
#define TICK_NS (100 * OS_NSEC_PER_MSEC)

/* Write pages of a pool whose bits are set, until few pages are dirty or no request is available.
 * With `all`, do not stop at few pages. */
static void pool_write_held(struct writeback *wb, int place, uint64_t *bits, bool all, unsigned how)
{
	struct frame_pool *pool = wb->mm->pool[place];
	uint32_t *at = &wb->cursor[place], looked = 0;
	uint64_t now = os_now_ns();
	const struct fm_file *full = NULL; /* a file that has its share of requests and its own
					      request: other files must not wait for it */
	struct batch batch;

	while (looked < 2) {
		uint32_t begun = *at;
		if (!batch_next(pool, bits, NULL, 0, 0, at, &batch)) {
			*at = 0; /* start again from the beginning, once */
			looked++;
			continue;
		}
		for (uint32_t i = 0; i < batch.count; i++) {
			struct page *page = &pool->pages[batch.id[i]];
			if (!bit_is(bits, batch.id[i]) || (full && page_word(page, file) == full) || !page_try_pin(page))
				continue;
			struct fm_file *file = page->file; /* may be NULL if no longer dirty */
			int err = 0;
			/* A page that the program has pinned stays dirty: its write makes no room.
			 * A file without references is written by its end (end.c). */
			bool in_vain = bits == pool->dirty_bits && page_word(page, user_pins);
			if (page_is(page, PG_DIRTY) && !in_vain && !write_rests(file, now) &&
			    (!file->scratch || bits == pool->dirty_bits) && file_try_get(file)) {
				err = write_run(file, page, FOR_EVER, how, 0);
				if (err == -ENOBUFS && atomic_get(&file->dirt->dirty) < atomic_get(&pool->dirty)) {
					full = file;
					err = 0;
				}
				file_put(file);
			}
			if (err > 0)
				page_unpin(pool, page);
			else
				page_unpin_quiet(pool,
						 page); /* a waiter for a frame asks for this pass:
							   both would wake each other for ever */
			if (err == -ENOBUFS || (!all && dirty_few(pool))) {
				*at = begun; /* the next pass writes the rest */
				return;
			}
		}
	}
}

static void pool_write(struct writeback *wb, int place, uint64_t *bits, bool all, unsigned how)
{
	requests_hold(wb->mm);
	pool_write_held(wb, place, bits, all, how);
	requests_send(wb->mm);
}

static void age(struct frame_pool *pool)
{
	uint32_t words = (pool->frames + 63) / 64;
	for (uint32_t word = 0; word < words; word++)
		atomic_set(&pool->aged_bits[word], atomic_get(&pool->dirty_bits[word]));
}

static void pools_write(struct writeback *wb, uint64_t now, bool urgent)
{
	struct fm_mm *mm = wb->mm;
	bool old = now >= wb->aged_ns + AGE_NS;

	for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++) {
		struct frame_pool *pool = mm->pool[i];
		if (!atomic_get(&pool->dirty))
			continue;
		if (urgent || dirty_many(pool))
			pool_write(wb, i, pool->dirty_bits, urgent, urgent ? HOW_DEMAND : 0);
		if (!old)
			continue;
		pool_write(wb, i, pool->aged_bits, true, 0);
		age(pool);
	}
	if (old)
		wb->aged_ns = now;
}

/* Find a file whose flush is due. Returns the file with a reference, or NULL. */
static struct fm_file *flush_due(struct writeback *wb, uint64_t now, bool urgent)
{
	struct fm_mm *mm = wb->mm;
	struct fm_file *due = NULL;

	os_lock(&mm->files_lock);
	for (struct fm_file *file = mm->files; file && !due; file = file->next) {
		uint32_t unflushed = atomic_get(&file->dirt->unflushed);
		if (!file->writable || !unflushed || atomic_get(&file->writes->flushing) ||
		    write_rests(file, now))
			continue;
		bool many = unflushed_many(file->pool) || (urgent && unflushed >= file->pool->frames / 64);
		bool quiet = !atomic_get(&file->dirt->dirty) && !atomic_get(&file->dirt->writing);
		if ((many || (urgent && quiet) ||
		     now >= atomic_get(&file->writes->flushed_ns) + AGE_NS) &&
		    file_try_get(file))
			due = file;
	}
	os_unlock(&mm->files_lock);
	return due;
}

static void files_flush(struct writeback *wb, uint64_t now, bool urgent)
{
	struct fm_file *file;
	for (int most = 64; most && (file = flush_due(wb, now, urgent)); most--) {
		flush_begin(file);
		file_put(file);
	}
}

static bool anything_to_do(struct fm_mm *mm)
{
	bool some = false;
	for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++)
		some |= atomic_get(&mm->pool[i]->dirty) || atomic_get(&mm->pool[i]->writing) ||
			atomic_get(&mm->pool[i]->unflushed);
	return some;
}

static void *writeback_main(void *arg)
{
	struct writeback *wb = arg;
	for (;;) {
		atomic_set(&wb->mm->writer_bell.noted, 0u);
		uint32_t seq = atomic_get(&wb->mm->writer_bell.seq);
		if (atomic_get(&wb->stop))
			return NULL;
		uint64_t now = os_now_ns(), next = OS_FOREVER;
		bool urgent = atomic_xchg(&wb->mm->writer_bell.urgent, 0u);
		urgent |= writeback_tell_late(wb->mm);
		keep_alive(wb->mm);
		write_to_recheck(wb);
		writeback_tell_lost(wb);
		pools_write(wb, now, urgent);
		files_flush(wb, now, urgent);
		bool left = files_sweep(wb, now);
		writeback_close_some(wb, now);
		if (wb->closing_list)
			next = now + SWEEP_SOON_NS;
		else if (anything_to_do(wb->mm))
			next = now + TICK_NS;
		if (left && wb->sweep_ns < next)
			next = wb->sweep_ns;
		os_futex_wait(&wb->mm->writer_bell.seq, seq, OS_FUTEX_ANY, next);
	}
}

static uint32_t requests_for(const struct fm_mm *mm)
{
	uint64_t count = mm->budget_bytes / OS_PAGE / 256;
	return count < 8 ? 8 : count > 64 ? 64 : (uint32_t)count;
}

/* Start the write-back, with the first file opened for writing. Returns 0, -ENOMEM and the like. */
int writeback_open(struct fm_mm *mm)
{
	uint32_t count = requests_for(mm);
	size_t len = sizeof(struct writeback) + count * sizeof(struct write_request);
	struct writeback *wb, *none = NULL;

	if (atomic_get(&mm->wb))
		return 0;
	wb = os_meta_alloc(len);
	if (!wb)
		return -ENOMEM;
	wb->mm = mm;
	wb->len = len;
	wb->count = count;
	wb->aged_ns = os_now_ns();
	for (uint32_t i = 0; i < count; i++) {
		wb->request[i].next = wb->free;
		wb->free = &wb->request[i];
	}
	int err = os_thread_start(&wb->thread, "fm-write", writeback_main, wb);
	if (!err && atomic_cas(&mm->wb, &none, wb))
		return 0;
	if (!err) { /* another thread was faster */
		atomic_set(&wb->stop, 1u);
		writeback_kick(mm);
		os_thread_join(&wb->thread);
	}
	os_meta_free(wb, len);
	return err;
}

/* Stop the write-back thread. All files are gone. */
void writeback_stop(struct fm_mm *mm)
{
	struct writeback *wb = mm->wb;
	if (!wb)
		return;
	atomic_set(&wb->stop, 1u);
	writeback_kick(mm);
	os_thread_join(&wb->thread);
}

void writeback_free(struct fm_mm *mm)
{
	if (mm->wb)
		os_meta_free(mm->wb, mm->wb->len);
	mm->wb = NULL;
}

/* Set up all that a file needs for being written to, except `writable`. May be called
 * again. Returns 0, -ENOMEM and the like. */
int file_prepare_writing(struct fm_file *file)
{
	if (!file->writes->flush_io)
		file->writes->flush_io = calloc(1, sizeof(*file->writes->flush_io));
	if (!file->writes->own_write)
		file->writes->own_write = writeback_request_alloc();
	int err = file->writes->flush_io && file->writes->own_write ? writeback_open(file->mm) : -ENOMEM;
	file->writes->flushed_ns =
		os_now_ns(); /* as if just flushed: the first writes need no flush at once */
	return err;
}
