/* SPDX-License-Identifier: MIT */
/* End a read for each of its pages. */
#include "mm/fill/pages.h"

#include "filemap.h"
#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty_limit.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/share.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/lists.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>
#include <string.h>

uint64_t page_bytes(struct fm_file *file, const struct page *page)
{
	uint64_t size = file_size(file), start = page->index << file->pool->shift;
	uint64_t rest = start < size ? size - start : 0;
	return rest < file->pool->page_size ? rest : file->pool->page_size;
}

static void zero_tail(struct frame_pool *pool, struct page *page, uint64_t bytes)
{
	memset(slot_of(pool, page) + bytes, 0, pool->page_size - bytes);
}

/* Note that the file has changed: a read that began in `epoch` ended before the file's end.
 * Marks the file as changed under FM_CHANGED_ERROR. Returns -ESTALE. */
int file_changed_behind(struct fm_file *file, uint32_t epoch)
{
	os_lock(&file->reads->version_lock);
	if (atomic_get(&file->reads->epoch) == epoch) /* else the file has another version by now */
		atomic_set(&file->reads->changed, file->changed_policy == FM_CHANGED_ERROR);
	os_unlock(&file->reads->version_lock);
	return -ESTALE;
}

/* End the read of a page: `bytes` of the page were read, or the read failed with `error`. Page
 * locked. Returns the list for the page. */
static enum page_list page_has_come(struct fm_file *file, struct page *page, uint64_t bytes,
				    int error, uint32_t epoch)
{
	struct frame_pool *pool = file->pool;
	uint64_t wanted = page_bytes(file, page);

	covered_if(!error && !wanted, a10_all_past_end);
	covered_if(!error && bytes < wanted, a10_ended_early);
	/* The page had no memory, which a read of 0 bytes does not notice. */
	if (!error && page_is(page, PG_HOLE))
		error = -ENOMEM;
	/* All past the end: zeros would be data if the file grows. The attempt leaves no error: a
	 * fault that began after the file grew may wait for an attempt that began before. Each fault
	 * looks again, and compares its address with the end itself. */
	if (!error && !wanted) {
		page_set(page, 0, PG_SPEC | PG_MARK | PG_ERROR);
		return LIST_INACTIVE;
	}
	if (!error && bytes < wanted &&
	    file->writable) /* the file grew meanwhile: zero the rest, lose no data */
		wanted = bytes;
	else if (!error && bytes < wanted) /* the read ended early: the file was truncated */
		error = file_changed_behind(file, epoch);
	if (error) {
		page_fail(page, error);
		return LIST_INACTIVE;
	}
	/* While a file is being made shorter, bytes past its new end still belong to the file,
	 * in case the store refuses. shrink() zeroes these bytes. */
	if (wanted < bytes && range_is_punched(file, page->index))
		wanted = bytes;
	covered_if(wanted < pool->page_size, a12_tail);
	if (wanted < pool->page_size)
		zero_tail(pool, page, wanted);
	page_set(page, PG_UPTODATE, PG_ERROR);
	/* file_forget() skips pages that are not uptodate. So set PG_UPTODATE before the test
	 * of the epoch: either file_forget() or this test sees the other. */
	covered_if(file->reads->epoch != epoch, a10_changed_meanwhile);
	if (atomic_get(&file->reads->epoch) != epoch)
		page_set(page, 0, PG_UPTODATE);
	return LIST_AHEAD;
}

/* End the read of a single page, and unlock the page. See page_has_come(). */
void page_end_read(struct fm_file *file, struct page *page, uint64_t bytes, int error,
		   uint32_t epoch)
{
	lru_set(file->pool, page, 1, page_has_come(file, page, bytes, error, epoch));
	page_unlock(file->pool, page);
}

/* End a read attempt that tells nothing about this page alone, as if the attempt had not been
 * made. Called with the page locked; the lock is dropped here. */
void page_end_unread(struct fm_file *file, struct page *page)
{
	struct frame_pool *pool = file->pool;
	page_set(page, 0, PG_SPEC | PG_MARK | PG_ERROR);
	if (PG_PINS(atomic_get(&page->state)) == 1)
		page_remove(pool, page); /* no thread wants the page */
	else
		lru_set(pool, page, 1, LIST_INACTIVE);
	page_unlock(pool, page);
}

void page_begin_read(struct frame_pool *pool, struct page *page)
{
	mm_assert(page_is(page, PG_LOCKED) && !page_is(page, PG_UPTODATE));
	page_word_set(page, io_attempt, page->io_attempt + 1);
	page_word_set(page, error, 0);
	page_set(page, 0, PG_ERROR);
	if (page_is(page, PG_HOLE)) { /* the slot was emptied from outside */
		mm_charge(pool->mm, pool->page_size);
		/* the page stays a hole, and the read fails with EFAULT */
		if (frame_fill(pool, page) < 0)
			mm_uncharge(pool->mm, pool->page_size);
	}
}

void read_note_latency(struct fm_file *file, uint64_t ns)
{
	uint64_t old = atomic_get(&file->reads->latency_ns);
	atomic_set(&file->reads->latency_ns, old ? old - old / 8 + ns / 8 : ns);
	stats_record(&file->mm->stats->read_ns, ns);
}

int read_build_iov(struct fm_file *file, struct page **pages, uint32_t count, struct iovec *iov)
{
	int n = 0;
	for (uint32_t i = 0; i < count; i++) {
		char *slot = slot_of(file->pool, pages[i]);
		if (n && (char *)iov[n - 1].iov_base + iov[n - 1].iov_len == slot)
			iov[n - 1].iov_len += file->pool->page_size;
		else
			iov[n++] = (struct iovec){slot, file->pool->page_size};
	}
	return n;
}

void read_count(struct fm_mm *mm, uint64_t bytes, unsigned shorts, int error)
{
	stats_add(mm->stats, reads, 1);
	stats_add(mm->stats, read_bytes, bytes);
	if (shorts)
		stats_add(mm->stats, read_short, shorts);
	if (error && error != -ECANCELED)
		stats_add(mm->stats, read_errors, 1);
}

/* End a read attempt for all of its pages, each of which the attempt has locked and pinned.
 * Neighbouring pages go onto their list together. */
void pages_end_read(struct fm_file *file, struct page **pages, uint32_t count,
			   uint64_t bytes, int error, uint32_t epoch)
{
	bool unread = error && (count > 1 || error == -ECANCELED || error == -EAGAIN);
	uint32_t first = 0;
	enum page_list list = LIST_NONE;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t size = file->pool->page_size, at = i * size;
		uint64_t came = bytes > at ? bytes - at : 0;
		if (unread) {
			page_end_unread(file, pages[i]);
			continue;
		}
		enum page_list to = page_has_come(file, pages[i], came < size ? came : size, error, epoch);
		if (i && (to != list || pages[i] != pages[i - 1] + 1)) {
			lru_set(file->pool, pages[first], i - first, list);
			first = i;
		}
		list = to;
	}
	if (unread || !count)
		return;
	lru_set(file->pool, pages[first], count - first, list);
	for (uint32_t i = 0; i < count; i++)
		page_unlock(file->pool, pages[i]);
}

/* Fill slots that were emptied from outside, or by an interrupted MOVE, with memory again.
 * Returns the number of slots that had a hole, or an error. If the number is 0, the EFAULT is
 * the store's own, and a new attempt would fail too. -ENOMEM: the system has no memory. An
 * immediate new attempt would then repeat without end. */
int pages_fill(struct frame_pool *pool, struct page **pages, uint32_t count)
{
	int holes = 0, err = 0;
	/* else the kernel fills the slots itself */
	for (uint32_t i = 0; i < count && pool->registered; i++)
		if (!trap_all_present((uint64_t)slot_of(pool, pages[i]), pool->page_size)) {
			bool charged = !page_is(pages[i], PG_HOLE);
			int failed = frame_fill(pool, pages[i]);
			if (!failed && !charged)
				mm_charge(pool->mm, pool->page_size);
			err = failed ? failed : err;
			holes++;
		}
	stats_add(pool->mm->stats, emptied_behind, holes);
	return err ? err : holes;
}
