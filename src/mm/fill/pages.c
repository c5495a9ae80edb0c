/* SPDX-License-Identifier: MIT */
/* The end of a read for each of its pages. */
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

/* A read that began in `epoch` ended before the file's end. */
int file_changed_behind(struct fm_file *file, uint32_t epoch)
{
	os_lock(&file->reads->version_lock);
	if (atomic_get(&file->reads->epoch) == epoch) /* else the file has another version by now */
		atomic_set(&file->reads->changed, file->changed_policy == FM_CHANGED_ERROR);
	os_unlock(&file->reads->version_lock);
	return -ESTALE;
}

/* `bytes` of the page have come, or an error. Page locked. Returns the list where it belongs now.
 */
static enum page_list page_has_come(struct fm_file *file, struct page *page, uint64_t bytes,
				    int error, uint32_t epoch)
{
	struct frame_pool *pool = file->pool;
	uint64_t wanted = page_bytes(file, page);

	covered_if(!error && !wanted, a10_all_past_end);
	covered_if(!error && bytes < wanted, a10_ended_early);
	if (!error && page_is(page, PG_HOLE)) /* there was no memory for it, which a read of nothing
						 does not notice */
		error = -ENOMEM;
	if (!error &&
	    !wanted) /* all past the end by now: zeros that would be taken for data when it grows */
		error = -ENXIO;
	if (!error && bytes < wanted &&
	    file->writable) /* it has become longer meanwhile: zeros, and none of them lost */
		wanted = bytes;
	else if (!error && bytes < wanted) /* it ended before its end: somebody truncated it */
		error = file_changed_behind(file, epoch);
	if (error) {
		page_fail(page, error);
		return LIST_INACTIVE;
	}
	/* What the store has past the new end of a file that is being made shorter is the file's,
	 * should the store refuse. shrink() zeroes it. */
	if (wanted < bytes && range_is_punched(file, page->index))
		wanted = bytes;
	covered_if(wanted < pool->page_size, a12_tail);
	if (wanted < pool->page_size)
		zero_tail(pool, page, wanted);
	page_set(page, PG_UPTODATE, PG_ERROR);
	/* file_forget() passes by what is not uptodate: one of the two sees the other. */
	covered_if(file->reads->epoch != epoch, a10_changed_meanwhile);
	if (atomic_get(&file->reads->epoch) != epoch)
		page_set(page, 0, PG_UPTODATE);
	return LIST_AHEAD;
}

/* The same for one page, which is unlocked here. */
void page_end_read(struct fm_file *file, struct page *page, uint64_t bytes, int error,
		   uint32_t epoch)
{
	lru_set(file->pool, page, 1, page_has_come(file, page, bytes, error, epoch));
	page_unlock(file->pool, page);
}

/* An attempt that says nothing of this page alone: as if it had not been. Page locked. */
void page_end_unread(struct fm_file *file, struct page *page)
{
	struct frame_pool *pool = file->pool;
	page_set(page, 0, PG_SPEC | PG_MARK | PG_ERROR);
	if (PG_PINS(atomic_get(&page->state)) == 1)
		page_remove(pool, page); /* nobody wants it */
	else
		lru_set(pool, page, 1, LIST_INACTIVE);
	page_unlock(pool, page);
}

void page_begin_read(struct frame_pool *pool, struct page *page)
{
	mm_assert(page_is(page, PG_LOCKED) && !page_is(page, PG_UPTODATE));
	page_word_set(page, attempt, page->attempt + 1);
	page_word_set(page, error, 0);
	page_set(page, 0, PG_ERROR);
	if (page_is(page, PG_HOLE)) { /* it was emptied behind us */
		mm_charge(pool->mm, pool->page_size);
		if (frame_fill(pool, page) < 0) /* a hole it stays, and the read fails by EFAULT */
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

/* All pages of one attempt; each locked and pinned by it. Neighbours go onto their list together.
 */
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

/* Somebody emptied frames behind us, or a MOVE was interrupted: their slots get memory again. How
 * many had a hole: where none had, the EFAULT is the store's own, and would be there again.
 * -ENOMEM: the system has no memory; to try again at once would be to try without end. */
int pages_fill(struct frame_pool *pool, struct page **pages, uint32_t count)
{
	int holes = 0, err = 0;
	for (uint32_t i = 0; i < count && pool->registered; i++) /* else the kernel fills them itself */
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
