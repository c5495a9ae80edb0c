/* SPDX-License-Identifier: MIT */
/*
 * Making a file longer or shorter, punching holes, and dropping pages, while faults and writes of
 * the file are in flight.
 *
 * Each file has one such change at a time (`resizing`). A truncate to a shorter size, and a punch,
 * work in steps. First the range of pages is published: no page of the range becomes dirty
 * (dirty_must_wait()) or is gathered for a write, and a sync waits until the change is over. Then
 * the writes of these pages that are under way are waited for. So no write makes the store longer
 * again, or fills the hole. Then the store changes. Then the pages go, dirty or not: if the store
 * refuses, the pages stay as they were.
 *
 * A shorter file has its new size before the store begins (store_resize()). Private
 * mappings of the file lose their pages past the new end, too. A read that began before the
 * store changed has its page locked, or in the index, when the pages are looked for. A read
 * that begins later gets the new bytes. No page lock is held over a wait, unless over the
 * kernel's.
 */
#include "mm/flush/resize.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fill/demand.h"
#include "mm/fill/share.h"
#include "mm/fill/version.h"
#include "mm/flush/change.h"
#include "mm/flush/durable.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/range.h"
#include "mm/flush/request.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/map/map_lock.h"
#include "mm/reclaim/get.h"
#include "mm/reclaim/wait.h"
#include "mm/view/out.h"
#include "os/atomic.h"
#include "os/os.h"
#include "store/store.h"

#include <errno.h>
#include <string.h>

#define PAUSE_NS 50000u
#define TRIES_MOST 200

struct drop_count {
	uint64_t until_ns;
	uint32_t busy;
	int err; /* -ETIMEDOUT: the rest of the pages was left */
};

/* Remove a page from the view and the cache, whatever its state, even if the page is pinned. No
 * write of the page begins any more. A read that holds the page's lock ends by the file's
 * deadline. */
static void drop_page(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	for (int tries = 0;; tries++) {
		(void)page_lock_unwritten(file, page, OS_FOREVER);
		bool gone = page_is(page, PG_GONE);
		bool out = gone || !page_is(page, PG_INSTALLED) || page_copy_out(&file->view, page) == 0;
		if (!out && tries > TRIES_MOST) { /* a page pinned by the kernel goes with its bytes */
			page_discard(&file->view, page);
			out = true;
		}
		if (out && !gone)
			page_remove(file->pool, page);
		page_unlock(file->pool, page);
		if (out)
			return;
		os_sleep_until(os_now_ns() + PAUSE_NS);
	}
}

static void count_pinned(struct fm_file *file, struct page *page, void *arg)
{
	struct drop_count *count = arg;
	(void)file;
	count->busy += page_word(page, user_pins) != 0;
}

/* Remove a page from the cache if the page is clean and not in use, else count the page as busy. */
static void drop_clean(struct fm_file *file, struct page *page, void *arg)
{
	struct drop_count *count = arg;
	for (int tries = 0;; tries++) {
		if (!count->err)
			count->err = page_lock_unwritten(file, page, count->until_ns);
		if (count->err)
			return;
		bool gone = page_is(page, PG_GONE);
		/* A page that waits for a flush is in the store, too. If the flush fails, bytes
		 * read in the meantime are as old. */
		bool may = !gone && !page->user_pins && !page_is(page, PG_DIRTY);
		if (may && page_is(page, PG_INSTALLED))
			may = page_copy_out(&file->view, page) == 0;
		may = may && !page_is_unsaved(file->pool, page);
		if (may)
			page_remove(file->pool, page);
		page_unlock(file->pool, page);
		if (gone || may)
			return;
		if (tries > TRIES_MOST || page_word(page, user_pins) || page_is(page, PG_DIRTY)) {
			count->busy++;
			return;
		}
		os_sleep_until(os_now_ns() + PAUSE_NS);
	}
}

/* Get a page, and read the page if needed. May block. On success (0) the page is locked and pinned,
 * and no write of the page is under way. */
static int page_get(struct fm_file *file, uint64_t index, uint64_t until_ns, struct page **ret_page)
{
	struct frame_pool *pool = file->pool;
	struct page *page;
	bool fresh;

	for (;;) {
		int err = page_add(file, index, ADD_RECLAIM, &page, &fresh);
		if (err == -ENOMEM) {
			err = frame_wait(file, true, until_ns);
			if (err)
				return err;
			continue;
		}
		if (fresh)
			page_unlock_unread(pool, page);
		err = page_lock_unwritten(file, page, until_ns);
		if (err) {
			page_unpin(pool, page);
			return err;
		}
		if (page_is(page, PG_UPTODATE) && !page_is(page, PG_GONE)) {
			*ret_page = page;
			return 0;
		}
		if (page_is(page, PG_GONE))
			page_unlock(pool, page);
		else
			err = read_page(file, page, 0);
		page_unpin(pool, page);
		if (err == -EBUSY)
			err = read_wait_for_room(file, until_ns);
		if (err)
			return err;
	}
}

/* Fill [from, to) of a page with zeros. The page is locked and pinned, and is out of the view on
 * success. Returns -EBUSY if the program or the kernel has the page pinned. */
static int page_zero(struct fm_file *file, struct page *page, uint64_t from, uint64_t to)
{
	for (int tries = 0; page_is(page, PG_INSTALLED); tries++) {
		if (page->user_pins || tries > TRIES_MOST)
			return -EBUSY;
		if (page_copy_out(&file->view, page) < 0)
			os_sleep_until(os_now_ns() + PAUSE_NS);
	}
	if (page_is(page, PG_UPTODATE))
		memset(slot_of(file->pool, page) + from, 0, to - from);
	return 0;
}

/* Fill the last page with zeros past the size, so that a file that grows has zeros there. Only
 * memory needs this: the store never has bytes past the size. */
static int zero_past(struct fm_file *file, uint64_t size, uint64_t until_ns)
{
	struct frame_pool *pool = file->pool;
	uint64_t inside = size & (pool->page_size - 1);
	struct page *page = inside ? page_find(file, size >> pool->shift) : NULL;
	int err = 0;

	if (!page)
		return 0;
	err = page_lock_unwritten(file, page, until_ns);
	if (!err) {
		if (page_is(page, PG_UPTODATE) && !page_is(page, PG_GONE))
			err = page_zero(file, page, inside, pool->page_size);
		page_unlock(pool, page);
	}
	page_unpin(pool, page);
	return err;
}

static uint64_t last_index(const struct fm_file *file)
{
	return UINT64_MAX >> file->pool->shift;
}

/* Return the first page that is not wholly within `size`. first_gone(): the first page that is
 * wholly past `size`. */
static uint64_t first_cut(const struct fm_file *file, uint64_t size)
{
	return size >> file->pool->shift;
}

static uint64_t first_gone(const struct fm_file *file, uint64_t size)
{
	return (size + file->pool->page_size - 1) >> file->pool->shift;
}

/* Find the next private file over `base` after `last`. Puts the reference to `last`. Returns the
 * file with a reference, which also keeps the file's place in the list, or NULL if there is none. A
 * file that is being closed has no mapping any more, and is passed over. */
static struct fm_file *next_private(struct fm_file *base, struct fm_file *last)
{
	struct fm_mm *mm = base->mm;
	struct fm_file *file;

	os_lock(&mm->files_lock);
	for (file = last ? last->next : mm->files; file; file = file->next)
		if (file->base == base && file_try_get(file))
			break;
	os_unlock(&mm->files_lock);
	if (last)
		file_put(last);
	return file;
}

/* Cut a private mapping's file whose base has become shorter. If the program has written to
 * the last page, the page stays, past the new end too, as with mmap(). Otherwise the page
 * is dropped and read anew. */
static void cut_private(struct fm_file *own, uint64_t size)
{
	struct drop_count count = {.until_ns = OS_FOREVER};
	uint64_t first = first_cut(own, size), gone = first_gone(own, size);

	/* The base is shorter already. Writes go to a scratch file, and reads have a deadline. */
	(void)change_begin(own, first, last_index(own), OS_FOREVER);
	file_each_cached(own, gone, last_index(own), drop_page, NULL);
	(void)own->store->ops->resize(own->store, size);
	if (first < gone)
		file_each_cached(own, first, first, drop_clean, &count);
	change_end(own);
}

/* Cut all private files over `file`. A private file made from here on knows only the new size. */
static void cut_privates(struct fm_file *file, uint64_t size)
{
	for (struct fm_file *own = NULL; (own = next_private(file, own));)
		cut_private(own, size);
}

/* Drop all pages past the end of a store that has become shorter. */
static void cut(struct fm_file *file, uint64_t size)
{
	file_each_cached(file, first_gone(file, size), last_index(file), drop_page, NULL);
	/* No write is under way. A pinned page is zeroed when the file grows again. */
	(void)zero_past(file, size, OS_FOREVER);
}

static int shrink(struct fm_file *file, uint64_t size, uint64_t until_ns)
{
	int err = change_begin(file, first_cut(file, size), last_index(file), until_ns);
	if (err)
		return err;
	err = store_resize(file->store, size);
	if (!err)
		cut(file, size);
	change_end(file);
	if (!err)
		cut_privates(file, size);
	return err;
}

/* Mark the page of the former end dirty. The program may have written past the former end after the
 * page was zeroed there. A write-back left those bytes out. The store must get the bytes that the
 * program sees. The store is longer already, so a deadline that has passed is no error: a page
 * that is being read has nothing that the program wrote, and a page that is being written is
 * written once more. */
static void write_past(struct fm_file *file, uint64_t before, uint64_t until_ns)
{
	struct frame_pool *pool = file->pool;
	struct page *page = before & (pool->page_size - 1) ? page_find(file, before >> pool->shift) : NULL;

	if (!page)
		return;
	if (page_lock_unwritten(file, page, until_ns) == 0 || page_trylock(page)) {
		if (page_is(page, PG_UPTODATE) && !page_is(page, PG_GONE))
			page_mark_dirty(pool, page);
		page_unlock(pool, page);
	}
	page_unpin(pool, page);
}

static int grow(struct fm_file *file, uint64_t size, uint64_t until_ns)
{
	uint64_t before = file_size(file);
	int err = zero_past(file, before, until_ns);
	if (!err)
		err = store_resize(file->store, size);
	if (!err)
		write_past(file, before, until_ns);
	return err;
}

int file_truncate(struct fm_file *file, uint64_t size)
{
	uint64_t until = file_sync_deadline(file);

	if (!file->store->ops->resize)
		return -EOPNOTSUPP;
	int err = resize_begin(file, until);
	if (err)
		return err;
	uint64_t before = file_size(file);
	if (size < before)
		err = shrink(file, size, until);
	else if (size > before)
		err = grow(file, size, until);
	if (!err)
		atomic_add(&file->writes->written_seq, 1u); /* the next sync makes the size durable */
	resize_end(file);
	return err;
}

/* Punch a part of one page: the part becomes zeros, and the page dirty. */
static int punch_part(struct fm_file *file, uint64_t offset, uint64_t len, uint64_t until_ns)
{
	struct frame_pool *pool = file->pool;
	uint64_t inside = offset & (pool->page_size - 1);
	bool done = false;

	while (!done) {
		struct page *page;
		int err = page_get(file, offset >> pool->shift, until_ns, &page);
		if (!err) {
			err = page_zero(file, page, inside, inside + len);
			done = !err &&
			       page_is(page, PG_UPTODATE); /* else the bytes vanished as the page
							      left the view: try again */
			if (done)
				page_mark_dirty(pool, page);
			page_unlock(pool, page);
			page_unpin(pool, page);
		}
		if (err)
			return err;
	}
	return 0;
}

static int punch_whole(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns)
{
	uint32_t shift = file->pool->shift;
	uint64_t end = (last + 1) << shift, size = file_size(file);
	struct drop_count count = {0};

	file_each_cached(file, first, last, count_pinned, &count);
	if (count.busy) /* a pinned page is promised to stay */
		return -EBUSY;
	int err = change_begin(file, first, last, until_ns);
	if (err)
		return err;
	if (end > size)
		end = (size + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1);
	err = file->store->ops->punch(file->store, first << shift, end - (first << shift));
	if (!err)
		file_each_cached(file, first, last, drop_page, NULL);
	change_end(file);
	return err;
}

int file_punch(struct fm_file *file, uint64_t offset, uint64_t len)
{
	uint64_t unit = file->pool->page_size, end = offset + len, until = file_sync_deadline(file);

	if (!file->store->ops->punch)
		return -EOPNOTSUPP;
	int err = resize_begin(file, until);
	if (err)
		return err;
	uint64_t size = file_size(file);
	if (end > size)
		end = size;
	if (offset < end) {
		uint64_t first = (offset + unit - 1) & ~(unit - 1),
			 stop = end == size ? (end + unit - 1) & ~(unit - 1) : end & ~(unit - 1);
		if (first > stop) { /* the range is inside one page */
			err = punch_part(file, offset, end - offset, until);
		} else {
			if (offset < first)
				err = punch_part(file, offset, first - offset, until);
			if (!err && stop < end)
				err = punch_part(file, stop, end - stop, until);
			if (!err && first < stop)
				err = punch_whole(file, first >> file->pool->shift,
						  (stop >> file->pool->shift) - 1, until);
		}
	}
	resize_end(file);
	return err;
}

/* Take over a larger size of a file that is open for writing and has grown in the store. Other
 * processes may have written past the former end, in its last page: the cache lacks these bytes. */
static int grown(struct fm_file *file, uint64_t size, uint64_t until_ns)
{
	struct drop_count count = {.until_ns = until_ns};
	uint64_t before = file_size(file), last = first_cut(file, before);

	for (int tries = 0; tries < 10; tries++) { /* the program may write to the page again and again */
		int err = writeback_range(file, last, last, true);
		if (!err && atomic_get(&file->dirt->unflushed)) /* else the page would be held */
			err = file_flush(file);
		if (!err)
			err = change_begin(file, last, last, until_ns);
		if (err)
			return err;
		count.busy = 0;
		if (last < first_gone(file, before))
			file_each_cached(file, last, last, drop_clean, &count);
		if (!count.busy && !count.err)
			store_size_set(file->store, size);
		change_end(file);
		if (!count.busy || count.err)
			return count.err;
	}
	return -EBUSY;
}

/* Take over a smaller size of a file that has become shorter in the store. Returns -EAGAIN if a
 * write that was under way has made the file longer again. */
static int shrunk(struct fm_file *file, uint64_t size, uint64_t until_ns)
{
	struct fm_store_version now;
	int err = change_begin(file, first_cut(file, size), last_index(file), until_ns);

	if (err)
		return err;
	err = file->store->ops->version(file->store, &now);
	if (!err && now.size != size)
		err = -EAGAIN;
	if (!err) {
		store_size_set(file->store, size);
		cut(file, size);
	}
	change_end(file);
	if (!err)
		cut_privates(file, size);
	return err;
}

/* Take over the size that the store tells, for a file that is open for writing. *ret_other tells
 * whether the size has changed. */
static int size_renew(struct fm_file *file, bool *ret_other)
{
	struct fm_store_version now;
	uint64_t until = file_sync_deadline(file);
	int err = resize_begin(file, until);

	if (err)
		return err;
	uint64_t before = file_size(file);
	do {
		err = file->store->ops->version(file->store, &now);
		if (!err && now.size > before)
			err = grown(file, now.size, until);
		else if (!err && now.size < before)
			err = shrunk(file, now.size, until);
	} while (err == -EAGAIN);
	resize_end(file);
	*ret_other = !err && now.size != before;
	return err;
}

/* See fm_file_refresh(). */
int file_refresh(struct fm_file *file, bool *ret_changed)
{
	might_block(file->mm);
	if (!file->store->ops->version)
		return -EOPNOTSUPP;
	int err = file->writable ? 0 : snapshot_renew(file, ret_changed);
	if (err || !file->writable) /* the file may have become a file for writing meanwhile */
		return err;
	err = size_renew(file, ret_changed);
	return err ? err : file_drop(file, 0, 0);
}

/* Do fm_invalidate(), which also finds out the size of the file. A snapshot stays unchanged. */
int file_invalidate_range(struct fm_file *file, uint64_t offset, uint64_t len)
{
	bool other;
	int err = 0;

	might_block(file->mm);
	if (file->writable && file->store->ops->version)
		err = size_renew(file, &other);
	else if (file_may_grow(file))
		err = file_look(file);
	if (err && err != -EOPNOTSUPP) /* a store may be unable to tell its size */
		return err;
	return file_drop(file, offset, len);
}

int file_drop(struct fm_file *file, uint64_t offset, uint64_t len)
{
	uint32_t shift = file->pool->shift;
	uint64_t first = offset >> shift, last = len ? (offset + len - 1) >> shift : last_index(file);
	struct drop_count count = {.until_ns = file_sync_deadline(file)};

	might_block(file->mm);
	int err = writeback_range(file, first, last, true);
	if (!err && atomic_get(&file->dirt->unflushed)) /* else the pages would be held */
		err = file_flush(file);
	if (err)
		return err;
	file_each_cached(file, first, last, drop_clean, &count);
	return count.err ? count.err : count.busy ? -EBUSY : 0;
}

int file_reserve(struct fm_file *file, uint64_t offset, uint64_t len)
{
	might_block(file->mm);
	return file->store->ops->reserve ? file->store->ops->reserve(file->store, offset, len)
					 : -EOPNOTSUPP;
}
