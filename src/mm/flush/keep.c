/* SPDX-License-Identifier: MIT */
/*
 * FM_KEEP: the keeper (os/keeper.h) writes pages that are dirty when the process has ended. The
 * kernel does the same for the mappings of a program that was killed.
 *
 * The program's threads may have died anywhere: with locks held, lists half changed, a page between
 * its slot and the view, a write under way. So the keeper trusts only the state words, which change
 * by one instruction each, and the memory that is there. A dirty page's bytes are in the view, in
 * its slot, or, for a moment, in a place between the two. No other thread is left, so the keeper
 * takes no lock. A page that was being written is written once more. A page that is not uptodate
 * has lost its bytes, though the page may still be dirty: its slot has zeros instead.
 *
 * The keeper works in rounds over all pages that are left, by runs of neighbouring pages. So a page
 * that its store refuses holds up no other page. The work ends when no page is left, when no page
 * could be written for QUIET_NS, or after MOST_NS.
 *
 * The keeper makes raw system calls only.
 */
#include "mm/flush/keep.h"

#include "filemap.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/report.h"
#include "mm/base/view.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/request.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/view/later.h"
#include "os/keeper.h"
#include "os/os.h"
#include "store/store.h"
#include "trap/trap.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define RUN_PAGES 64u
/* Other processes that have the file open may write for this long before the keeper writes. */
#define OTHERS_NS (250 * OS_NSEC_PER_MSEC)
#define PAUSE_NS (100 * OS_NSEC_PER_MSEC)
#define QUIET_NS (10 * OS_NSEC_PER_SEC)
#define MOST_NS  (120 * OS_NSEC_PER_SEC)
#define LEFT     (PG_DIRTY | PG_WRITEBACK)

/* A run: neighbouring pages of a file, and the places of their bytes. */
struct keep_run {
	struct fm_file *file;
	uint64_t offset;
	uint32_t count;
	struct page *page[RUN_PAGES];
	struct iovec iov[RUN_PAGES];
};

static struct os_kept *kept_of(const struct fm_file *file)
{
	return file->writes->kept ? &file->mm->keeper.file[file->writes->kept - 1] : NULL;
}

static bool has_bytes(const struct fm_mm *mm, uint64_t addr)
{
	return trap_present(addr) != 0 || os_keeper_swapped(&mm->keeper, addr);
}

/* Return whether the view has bytes at `addr`, and not memory that the program has put there. */
static bool view_has_bytes(const struct view *view, uint64_t addr)
{
	return trap_is_ours(view->mm->trap, addr, OS_PAGE) && has_bytes(view->mm, addr);
}

/* Return the place of a page's bytes, or NULL if the bytes are gone. */
static char *bytes_at(const struct frame_pool *pool, const struct page *page, uint32_t state)
{
	const struct view *view = &page->file->view;
	uint64_t shown = page_addr(view, pool, page), slot = (uint64_t)slot_of(pool, page);
	/* For a page that may be written to, the view has newer bytes than the slot may still have.
	 * A page that is on its way out of the view, or into the view, is in one of the two. */
	bool first = (state & PG_INSTALLED) && view_has_bytes(view, shown);

	if (first)
		return (char *)shown;
	if (!pool->registered || has_bytes(pool->mm, slot))
		return (char *)slot;
	return view_has_bytes(view, shown) ? (char *)shown : NULL;
}

/* Return whether the page still has to be written. */
static bool is_left(const struct page *page)
{
	uint32_t state = page_state(page);
	const struct fm_file *file = page->file;

	return (state & LEFT) && !(state & PG_FREE) && file && file->writable && !file->scratch &&
	       file->writes->kept;
}

static void is_done(struct page *page)
{
	page->state &= ~(uint32_t)LEFT;
}

static void is_lost(struct page *page, int error)
{
	struct os_kept *kept = kept_of(page->file);

	kept->lost++;
	kept->error = kept->error ? kept->error : error;
	is_done(page);
}

/* Return the place of the i-th id in the list of pages that are left. The list uses a word of each
 * page descriptor that is no longer needed: the keeper cannot allocate memory. */
static uint32_t *order_at(const struct frame_pool *pool, uint32_t i)
{
	return &pool->pages[i].lru_next;
}

static bool comes_before(const struct frame_pool *pool, uint32_t a, uint32_t b)
{
	const struct page *pa = &pool->pages[a], *pb = &pool->pages[b];

	if (pa->file != pb->file)
		return (uintptr_t)pa->file < (uintptr_t)pb->file;
	return pa->index < pb->index;
}

static void sift(struct frame_pool *pool, uint32_t root, uint32_t count)
{
	uint32_t id = *order_at(pool, root);

	for (;;) {
		uint32_t child = 2 * root + 1;
		if (child >= count)
			break;
		if (child + 1 < count &&
		    comes_before(pool, *order_at(pool, child), *order_at(pool, child + 1)))
			child++;
		if (!comes_before(pool, id, *order_at(pool, child)))
			break;
		*order_at(pool, root) = *order_at(pool, child);
		root = child;
	}
	*order_at(pool, root) = id;
}

/* Sort the pages that are left by a heap sort, which needs no extra memory and has no worst case.
 * Returns the number of pages. */
static uint32_t put_in_order(struct frame_pool *pool)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < pool->frames; i++)
		if (is_left(&pool->pages[i]))
			*order_at(pool, count++) = i;
	for (uint32_t i = count / 2; i-- > 0;)
		sift(pool, i, count);
	for (uint32_t last = count; last-- > 1;) {
		uint32_t id = *order_at(pool, last);
		*order_at(pool, last) = *order_at(pool, 0);
		*order_at(pool, 0) = id;
		sift(pool, 0, last);
	}
	return count;
}

/* Prepare a file before its first write. Another process may have made the file shorter: the file
 * must not grow again. */
static void file_begins(struct fm_file *file, struct os_kept *kept)
{
	if (kept->begun)
		return;
	kept->begun = true;
	kept->size = UINT64_MAX;
	kept->error = kept->fd < 0 ? -EBADF
				   : file->store->ops->keep_begin(file->store, kept->fd,
								  file->mm->keeper.began_ns + OTHERS_NS,
								  &kept->size);
}

/* Add a page to the run. Returns false if the page does not belong to the run, is lost, or lies
 * past the end of the file. */
static bool run_add(const struct frame_pool *pool, struct keep_run *run, struct page *page)
{
	struct fm_file *file = page->file;
	struct os_kept *kept = kept_of(file);
	uint64_t offset = page->index << pool->shift, size = file_size(file);

	file_begins(file, kept);
	size = size < kept->size ? size : kept->size;
	if (run->count &&
	    (run->file != file || run->offset + ((uint64_t)run->count << pool->shift) != offset))
		return false;
	if (offset >= size) { /* the file was made shorter meanwhile */
		is_done(page);
		return false;
	}
	char *from = page_state(page) & PG_UPTODATE ? bytes_at(pool, page, page_state(page)) : NULL;
	if (!from) {
		is_lost(page, -EIO);
		return false;
	}
	if (!run->count) {
		run->file = file;
		run->offset = offset;
	}
	run->page[run->count] = page;
	run->iov[run->count++] = (struct iovec){
		from, size - offset < pool->page_size ? size - offset : pool->page_size};
	return true;
}

static int write_some(struct fm_file *file, const struct os_kept *kept, const struct iovec *iov,
		      uint32_t count, uint64_t offset, size_t *ret_done)
{
	struct iovec part[RUN_PAGES];
	int err = 0;

	*ret_done = 0;
	for (uint32_t first = 0; !err && first < count;) {
		size_t done = 0, at = *ret_done;
		uint32_t parts = 0;
		/* collect the rest of the run: after a short write, the rest begins within a page */
		for (uint32_t i = 0; i < count; i++) {
			if (at >= iov[i].iov_len) {
				at -= iov[i].iov_len;
				first = i + 1;
				continue;
			}
			part[parts++] =
				(struct iovec){(char *)iov[i].iov_base + at, iov[i].iov_len - at};
			at = 0;
		}
		if (!parts)
			break;
		err = file->store->ops->keep_write(file->store, kept->fd, part, (int)parts,
						   offset + *ret_done, &done);
		*ret_done += done;
		if (!err && !done)
			err = -EIO;
	}
	return err;
}

/* Write a run. A page that the store refuses is left for the next round, and the pages behind that
 * page are tried. Returns the number of pages written. */
static uint32_t run_write(const struct frame_pool *pool, struct keep_run *run)
{
	struct os_kept *kept = kept_of(run->file);
	uint32_t at = 0, written = 0;
	int err;

	while (at < run->count && kept->error != -ESTALE && kept->error != -EBADF) {
		size_t done = 0;
		err = write_some(run->file, kept, run->iov + at, run->count - at,
				 run->offset + ((uint64_t)at << pool->shift), &done);
		uint32_t pages = err ? (uint32_t)(done >> pool->shift) : run->count - at;
		for (uint32_t i = 0; i < pages; i++)
			is_done(run->page[at + i]);
		written += pages;
		at += pages + (err ? 1 : 0);
		if (err == -ESTALE)
			kept->error = err;
	}
	/* Another process has written to the file, and its bytes must not be overwritten: all pages
	 * that are left are lost. */
	for (uint32_t i = 0; i < run->count && (kept->error == -ESTALE || kept->error == -EBADF);
	     i++)
		if (is_left(run->page[i]))
			is_lost(run->page[i], kept->error);
	return written;
}

/* Do one round over a pool. Returns the number of pages written. */
static uint32_t pool_round(struct frame_pool *pool, uint32_t count)
{
	struct keep_run run = {.count = 0};
	uint32_t written = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct page *page = &pool->pages[*order_at(pool, i)];
		if (!is_left(page))
			continue;
		if (run.count < RUN_PAGES && run_add(pool, &run, page))
			continue;
		if (run.count)
			written += run_write(pool, &run);
		run.count = 0;
		if (is_left(page))
			run_add(pool, &run, page);
	}
	return written + (run.count ? run_write(pool, &run) : 0);
}

/* Do one round over all pools. Returns whether pages are left. */
static bool all_round(struct fm_mm *mm, const uint32_t *counts, uint32_t *ret_written)
{
	bool some = false;

	*ret_written = 0;
	for (int p = 0; p < MM_POOLS_MAX && mm->pool[p]; p++) {
		*ret_written += pool_round(mm->pool[p], counts[p]);
		for (uint32_t i = 0; i < counts[p] && !some; i++)
			some = is_left(&mm->pool[p]->pages[*order_at(mm->pool[p], i)]);
	}
	return some;
}

static void give_up_rest(struct fm_mm *mm, const uint32_t *counts)
{
	for (int p = 0; p < MM_POOLS_MAX && mm->pool[p]; p++)
		for (uint32_t i = 0; i < counts[p]; i++) {
			struct page *page = &mm->pool[p]->pages[*order_at(mm->pool[p], i)];
			if (is_left(page))
				is_lost(page, -EIO);
		}
}

/* Write and flush all pages that are left. Runs in the keeper. */
static void keep(void *arg)
{
	struct fm_mm *mm = arg;
	uint64_t began = mm->keeper.began_ns = os_now_ns(), moved = began, now;
	uint32_t counts[MM_POOLS_MAX] = {0}, written;

	for (int p = 0; p < MM_POOLS_MAX && mm->pool[p]; p++)
		counts[p] = put_in_order(mm->pool[p]);
	while (all_round(mm, counts, &written)) {
		now = os_now_ns();
		moved = written ? now : moved;
		if (now >= moved + QUIET_NS || now >= began + MOST_NS)
			break;
		os_sleep_until(now + PAUSE_NS);
	}
	give_up_rest(mm, counts);
	for (struct fm_file *file = mm->files; file; file = file->next) {
		struct os_kept *kept = kept_of(file);
		if (!kept || !file->store || kept->fd < 0)
			continue;
		int err = file->store->ops->keep_flush(file->store, kept->fd);
		kept->error = kept->error ? kept->error : err;
	}
}

int keep_start(struct fm_mm *mm)
{
	int err = os_keeper_start(&mm->keeper, keep, mm, trap_descriptor(mm->trap));
	if (err)
		mm_log(mm, FM_LOG_ERROR,
		       "the keeper process (FM_KEEP) cannot be started: %s; the keeper needs "
		       "clone(), pidfd_open(), close_range(), seccomp filters and local sockets",
		       strerror(-err));
	return err;
}

void keep_stop(struct fm_mm *mm)
{
	os_keeper_stop(&mm->keeper);
}

/* Hand a file that is open for writing to the keeper, too. */
int keep_file(struct fm_file *file, struct fm_store *store)
{
	struct fm_mm *mm = file->mm;
	struct fm_store_kept kept;
	uint32_t place;

	if (!(mm->flags & FM_KEEP))
		return 0;
	if (!(store->caps & FM_STORE_KEEPS)) {
		mm_log(mm, FM_LOG_ERROR, "%s: a keeper (FM_KEEP) can write to local files only",
		       file->uri);
		return -EOPNOTSUPP;
	}
	int err = store->ops->keep(store, &kept);
	if (!err)
		err = os_keeper_take(&mm->keeper, kept.fd, &kept.st, &place);
	if (err)
		mm_log(mm, FM_LOG_ERROR, "%s: the keeper process (FM_KEEP) cannot take the file: %s",
		       file->uri, strerror(-err));
	else
		file->writes->kept = place + 1;
	return err;
}

/* Take a file from the keeper. All pages of the file are written or given up. */
void keep_forget(struct fm_file *file)
{
	if (file->writes->kept)
		os_keeper_forget(&file->mm->keeper, file->writes->kept - 1);
	file->writes->kept = 0;
}

/* Give a sign of life. By this sign the keeper knows which changes by other processes came before
 * the end of the process, and which came after. */
void keep_alive(struct fm_mm *mm)
{
	if (!(mm->flags & FM_KEEP))
		return;
	uint64_t stamp = os_stamp_ns();
	os_lock(&mm->files_lock);
	for (struct fm_file *file = mm->files; file; file = file->next)
		if (file->writes->kept)
			file->store->ops->alive(file->store, stamp);
	os_unlock(&mm->files_lock);
}

int keeper_wait(const char *path, uint64_t timeout_ns)
{
	uint64_t now = os_now_ns(),
		 until = timeout_ns < OS_FOREVER - now ? now + timeout_ns : OS_FOREVER;
	struct os_kept_end end;
	struct stat st;

	if (stat(path, &st))
		return -errno;
	int err = os_keepers_wait(&st, true, until, &end);
	return err ? err : end.error;
}
