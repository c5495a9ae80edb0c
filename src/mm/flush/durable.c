/* SPDX-License-Identifier: MIT */
/* Flushes of a file, and fm_sync(). */
#include "mm/flush/durable.h"

#include "filemap.h"
#include "io/io.h"
#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/gate.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/submit.h"
#include "mm/cache/dirty.h"
#include "mm/cache/dirty_limit.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/merged.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/range.h"
#include "mm/flush/request.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/map/map_lock.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <errno.h>

/* Update each of the file's pages whose bit is set, at the begin (`begins`) or the end of a flush.
 * At the begin, the present flush takes over the written pages. At the end, the flush of these
 * pages has ended. */
static void flush_pages(struct fm_file *file, bool begins, bool failed)
{
	struct frame_pool *pool = file->pool;
	uint64_t *bits = begins ? pool->unflushed_bits : pool->flushing_bits;
	uint32_t words = (pool->frames + 63) / 64;

	/* The count is set after a bit, so the count can miss pages that other threads add just
	 * now. Such a page may begin with a later flush, but no page may end later. */
	for (uint32_t word = 0; word < words && (!begins || atomic_get(&file->dirt->unflushed)); word++)
		for (uint64_t left = atomic_get(&bits[word]); left; left &= left - 1) {
			uint32_t id = word * 64 + (uint32_t)__builtin_ctzll(left);
			struct page *page = &pool->pages[id];
			if (page_word(page, file) != file || !page_try_pin(page))
				continue;
			if (page->file == file && begins)
				page_flushing(pool, page);
			else if (page->file == file && bit_is(bits, id))
				page_flush_end(pool, page, bits, failed);
			page_unpin(pool, page);
		}
}

/* End a flush. Runs in the same threads as write_done(). */
static void flush_done(struct io_request *io)
{
	struct fm_file *file = io->owner;
	struct frame_pool *pool = file->pool;
	struct fm_mm *mm = file->mm;
	int error = store_error(
		io->error); /* the next flush may use the request before this function returns */

	stats_add(mm->stats, flushes, 1);
	if (error) {
		file_note_failure(file, error);
		atomic_add(&file->dirt->flush_failures, 1u);
		flush_pages(file, true, false); /* the store may have lost pages written since, too */
	}
	flush_pages(file, false, error != 0);
	if (error) {
		stats_add(mm->stats, flush_errors, 1);
		file_tell_failure(file, 0, 0, error);
	}
	os_lock(&file->writes->flush_lock);
	atomic_set(&file->writes->flushing, false);
	file->writes->flush_result = error;
	file->writes->flush_ended = file->writes->flush_covers;
	atomic_set(&file->writes->flushed_ns, os_now_ns());
	os_unlock(&file->writes->flush_lock);
	if (error) /* another flush is needed */
		atomic_add(&file->writes->written_seq, 1u);
	file_write_ended(file);
	if (unflushed_many(pool) || atomic_get(&mm->writer_bell.urgent) ||
	    atomic_get(&file->writes->swept_seq) != atomic_get(&file->view.unmap_seq))
		writeback_kick(mm);
	file_put(file);
}

/* Begin a flush of the file. Returns false if a flush is already under way. */
bool flush_begin(struct fm_file *file)
{
	os_lock(&file->writes->flush_lock);
	bool ours = !file->writes->flushing;
	if (ours) {
		atomic_set(&file->writes->flushing, true);
		file->writes->flush_covers = atomic_get(&file->writes->written_seq);
	}
	os_unlock(&file->writes->flush_lock);
	if (!ours)
		return false;
	flush_pages(file, true, false);
	struct io_request *io = file->writes->flush_io;
	io->store = file->store;
	io->offset = 0;
	io->iov_count = 0;
	io->priority = IO_DEMAND;
	io->op = IO_FLUSH;
	io->done = flush_done;
	io->owner = file;
	file_get(file);
	io_submit(file->mm->io, io);
	return true;
}

/* Wait until all writes that have ended by now are durable. Returns 0, or the errno of the flush
 * that should have made the writes durable. */
static int flush_wait(struct fm_file *file, uint64_t until_ns)
{
	uint32_t need = atomic_get(&file->writes->written_seq);

	for (;;) {
		uint32_t seq = atomic_get(&file->writes->ended.seq);
		os_lock(&file->writes->flush_lock);
		bool done = (int32_t)(file->writes->flush_ended - need) >= 0;
		int result = file->writes->flush_result;
		os_unlock(&file->writes->flush_lock);
		if (done)
			return result;
		if (atomic_get(&file->mm->dying))
			return -ECANCELED;
		if (os_now_ns() >= until_ns)
			return -ETIMEDOUT;
		if (flush_begin(file))
			continue;
		uint64_t slice = os_now_ns() + 20 * OS_NSEC_PER_MSEC;
		gate_wait(&file->writes->ended, seq, slice < until_ns ? slice : until_ns);
	}
}

int file_flush(struct fm_file *file)
{
	might_block(file->mm);
	return flush_wait(file, file_sync_deadline(file));
}

/* Make durable all bytes written to a range before the call. See fm_sync(). May block.
 * `error_told` belongs to a handle and counts the failures that the handle has reported. */
int file_sync(struct fm_file *file, uint64_t first, uint64_t last, unsigned flags,
	      uint32_t *error_told)
{
	uint64_t until = file_sync_deadline(file);
	uint32_t told = atomic_get(error_told);

	if (!file->writable || file->scratch)
		return 0;
	might_block(file->mm);
	writeback_look_for_merging(file->mm);
	if (flags & FM_SYNC_ASYNC) {
		range_begin(file, first, last, HOW_DEMAND, until);
		return 0;
	}
	int err = range_write(file, first, last, until);
	if (!err)
		err = flush_wait(file, until);
	uint32_t now = atomic_get(&file->dirt->error_seq);
	if (now != told) {
		uint32_t before = told;
		err = err ? err : atomic_get(&file->dirt->write_error);
		while ((int32_t)(now - before) > 0 && !atomic_cas(error_told, &before, now))
			;
	}
	return err;
}
