/* SPDX-License-Identifier: MIT */
/*
 * Handles and objects: the process has one page cache for each object.
 *
 * Every fm_file_open() that succeeds gives a handle. The first handle of a cache is the struct
 * fm_file that holds the cache. Each further handle is a struct fm_file of its own that only
 * points to the first (`cache`). A handle has a right to write, a callback for failed writes, and
 * a record of the failures that were reported to the handle.
 *
 * An object is what a store opened: a device and inode, or a block device (struct fm_store_id).
 * `objects` lists the files of the whole process whose store has such an identity. A file is
 * listed from before its cache is used until all its dirty bytes have been written. So a file
 * that is opened again sees the dirty bytes, never older bytes.
 *
 * Several caches of the same object may exist side by side only if all their files are open for
 * reading. As soon as a file is open for writing, all handles of the object share its cache. A
 * file that is open for reading becomes a file for writing in place: see file_upgrade(). One
 * cache is impossible for two address spaces, or for stores with different filters. Then the
 * later fm_file_open() fails with -EBUSY and names the file that was opened first.
 *
 * Owns the list of objects and its lock. The lock is held for some tens of instructions, with no
 * other lock held. Ordinary context only.
 */
#include "mm/space/handle.h"

#include "filemap.h"
#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/patience.h"
#include "mm/base/refs.h"
#include "mm/base/report.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/share.h"
#include "mm/flush/keep.h"
#include "mm/flush/writer.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/view/later.h"
#include "mm/view/out.h"
#include "os/atomic.h"
#include "os/os.h"
#include "store/hotset.h"
#include "store/store.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_SLICE_NS OS_NSEC_PER_MSEC

static struct os_lock objects_lock;

static struct fm_file *objects;

/* The obstacle that a file meets at its open; the worst is last. */
enum meeting {
	MEETS_NOBODY,
	MEETS_READER,  /* `other` is to be shared, if `other` is still up to date */
	MEETS_WRITER,  /* `other` is to be shared */
	MEETS_UPGRADE, /* `other` is open for reading: upgrade to writing, then share */
	MEETS_CHANGE,  /* `other` is being opened, upgraded or closed: wait */
	MEETS_ANOTHER, /* `other` cannot be shared */
};

/* Forget all objects, in the child of a fork(): the child has none of its parent's files. */
void objects_forget(void)
{
	objects_lock = (struct os_lock){0};
	objects = NULL;
}

static bool same_object(const struct fm_store_id *a, const struct fm_store_id *b)
{
	return a->kind == b->kind && a->device == b->device && a->inode == b->inode;
}

/* Tell whether two files that are open for reading would have the same cache. */
static bool alike(const struct fm_file *a, const struct fm_file *b)
{
	return a->mm == b->mm && a->pool == b->pool && a->changed_policy == b->changed_policy &&
	       a->deadline_ns == b->deadline_ns && !a->store->id.filtered && !b->store->id.filtered;
}

/* Tell how a listed file of the same object meets the fresh file. objects_lock is held. */
static enum meeting meet(const struct fm_file *fresh, struct fm_file *other, bool write)
{
	bool same_chain = fresh->store->id.filtered == other->store->id.filtered &&
			  (!fresh->store->id.filtered || !strcmp(fresh->uri, other->uri));

	if (!atomic_get(&other->refs) || other->ending) /* no new user sees the pages of `other`:
							   only the pending writes count */
		return other->writable ? MEETS_CHANGE : MEETS_NOBODY;
	if (!write && !other->writable && !other->settling)
		return alike(fresh, other) && !fresh->alone ? MEETS_READER : MEETS_NOBODY;
	if (other->settling && other->mm == fresh->mm)
		return MEETS_CHANGE;
	if (other->settling && !write && !other->will_write)
		return MEETS_NOBODY;
	if (other->mm != fresh->mm || !same_chain)
		return MEETS_ANOTHER;
	if (other->writable)
		return MEETS_WRITER;
	return other->pool->page_size == OS_PAGE && other->store->ops->upgrade ? MEETS_UPGRADE
									       : MEETS_ANOTHER;
}

/*
 * Find the worst obstacle among all files of the object, and the file that is the obstacle. Two
 * caches cannot both be upgraded. objects_lock is held.
 */
static enum meeting meet_all(const struct fm_file *fresh, bool write, struct fm_file **ret_other)
{
	enum meeting worst = MEETS_NOBODY;

	*ret_other = NULL;
	for (struct fm_file *other = objects; other; other = other->object_next) {
		if (!same_object(&other->store->id, &fresh->store->id))
			continue;
		enum meeting now = meet(fresh, other, write);
		if (now == MEETS_UPGRADE && worst == MEETS_UPGRADE)
			now = MEETS_ANOTHER;
		if (now > worst) {
			worst = now;
			*ret_other = other;
		}
	}
	return worst;
}

static void object_list(struct fm_file *file)
{
	file->object_next = objects;
	objects = file;
	file->listed = true;
}

/*
 * Take a file out of the list of objects. The file's cache has ended, or was never begun. May be
 * called again.
 */
void object_leave(struct fm_file *file)
{
	os_sigmask mask = os_signals_block();

	os_lock(&objects_lock);
	if (file->listed) {
		struct fm_file **at = &objects;
		while (*at != file)
			at = &(*at)->object_next;
		*at = file->object_next;
		file->listed = false;
	}
	os_unlock(&objects_lock);
	os_signals_restore(mask);
}

/*
 * Mark a file as ending, after its last reference is put. The write-back at the end takes a
 * reference again. No new handle may share that reference.
 */
void object_ending(struct fm_file *file)
{
	os_sigmask mask = os_signals_block();

	os_lock(&objects_lock);
	file->ending = true;
	os_unlock(&objects_lock);
	os_signals_restore(mask);
}

/* Mark the file as settled. The file's cache can be shared from now on. */
void object_settled(struct fm_file *file)
{
	os_sigmask mask = os_signals_block();

	os_lock(&objects_lock);
	file->settling = false;
	os_unlock(&objects_lock);
	os_signals_restore(mask);
}

/*
 * Look once for another file of the same object. A file that is to be shared is returned with a
 * reference. A file that is to be upgraded is also marked as settling. If there is no other file,
 * `fresh` is listed. *name is a copy of the name of `other` for the log, because `other` may end
 * at any time.
 */
static enum meeting look(struct fm_file *fresh, bool write, struct fm_file **ret_other, char *name,
			 size_t name_len)
{
	os_sigmask mask = os_signals_block();

	os_lock(&objects_lock);
	enum meeting meeting = meet_all(fresh, write, ret_other);
	struct fm_file *other = *ret_other;
	if (meeting == MEETS_NOBODY)
		object_list(fresh);
	if ((meeting == MEETS_READER || meeting == MEETS_WRITER || meeting == MEETS_UPGRADE) &&
	    !file_try_get(other))
		meeting = MEETS_CHANGE;
	if (meeting == MEETS_UPGRADE) {
		other->settling = true;
		other->will_write = true;
	}
	if (meeting == MEETS_CHANGE || meeting == MEETS_ANOTHER) {
		size_t len = strlen(other->uri);
		len = len < name_len ? len : name_len - 1;
		memcpy(name, other->uri, len);
		name[len] = 0;
	}
	os_unlock(&objects_lock);
	os_signals_restore(mask);
	return meeting;
}

/*
 * Tell whether the object has changed since `file` was opened for reading. A new open of the
 * object wants the present bytes.
 */
static bool is_stale(struct fm_file *file)
{
	struct fm_store_version now;

	if (atomic_get(&file->reads->changed))
		return true;
	if (file->changed_policy != FM_CHANGED_ERROR || !file->store->ops->version)
		return false;
	return file->store->ops->version(file->store, &now) < 0 ||
	       !store_version_same(&now, &file->reads->version);
}

static int refuse(struct fm_file *fresh, enum meeting meeting, const char *name, bool write)
{
	if (meeting == MEETS_CHANGE)
		mm_log(fresh->mm, FM_LOG_ERROR,
		       "%s: another thread has been opening or closing this file as '%s' for too "
		       "long; try again",
		       fresh->uri, name);
	else
		mm_log(fresh->mm, FM_LOG_ERROR,
		       "%s: this file is already open as '%s', and %s handle is for writing: one "
		       "cache cannot serve both handles (another address space, other filters, or "
		       "a page_size above 4096); close the other handle first, or use it",
		       fresh->uri, name, write ? "the new" : "that");
	return meeting == MEETS_CHANGE ? -ETIMEDOUT : -EBUSY;
}

/*
 * Lock the object of `file` against other processes, for the file `fresh` that is being opened.
 * `file` and `fresh` may be the same. Returns 0 or an errno.
 */
static int lock_object(struct fm_file *file, struct fm_file *fresh, bool write)
{
	int holder = -1;
	int err = file->store->ops->lock ? file->store->ops->lock(file->store, write, &holder)
					 : -EOPNOTSUPP;

	if (!err)
		file->locked = write ? LOCK_WRITING : LOCK_READING;
	else if (err == -EAGAIN && holder > 0)
		mm_log(fresh->mm, FM_LOG_ERROR, "%s: is locked by process %d", fresh->uri, holder);
	else if (err == -EAGAIN)
		mm_log(fresh->mm, FM_LOG_ERROR,
		       "%s: another open file description holds a lock on the file, possibly that "
		       "of a keeper process (FM_KEEP); see /proc/locks",
		       fresh->uri);
	else
		mm_log(fresh->mm, FM_LOG_ERROR, "%s: cannot be locked: %s", fresh->uri, strerror(-err));
	return err;
}

/*
 * Take a page of a file that was open for reading out of the view, and let the page be read
 * again. Blocks. A dirty page was made dirty only by a MOVE (move_had_worked()), because no
 * thread may write yet.
 */
static void page_begin_again(struct fm_file *file, struct page *page, void *arg)
{
	(void)arg;
	for (int tries = 0;;) {
		if (page_is(page, PG_GONE) || !(page_state(page) & (PG_UPTODATE | PG_INSTALLED)))
			return; /* a read under way brings bytes of the same object */
		if (!page_trylock(page)) {
			page_wait(file->mm, page, false, os_now_ns() + 50000);
			continue;
		}
		bool out = !page_is(page, PG_INSTALLED) || page_take_out(&file->view, page, true) == 0;
		if (!out && ++tries > 20) { /* the kernel has the page pinned, or has no memory */
			page_discard(&file->view, page);
			out = true;
		}
		if (out) {
			page_drop_dirty(file->pool, page);
			page_set(page, 0, PG_UPTODATE | PG_SPEC | PG_MARK | PG_SOFT);
		}
		page_unlock(file->pool, page);
		if (out)
			return;
		os_sleep_until(os_now_ns() + 50000);
	}
}

static void count_pinned(struct fm_file *file, struct page *page, void *arg)
{
	uint32_t *count = arg;
	(void)file;
	*count += page_word(page, user_pins) != 0;
}

/* Wait until the background thread has ended all work that the thread began before this call. */
static void background_pass(struct fm_mm *mm)
{
	uint32_t begun = atomic_get(&mm->after->passes);

	while (atomic_get(&mm->after->passes) - begun < 2 && !atomic_get(&mm->background_stop)) {
		background_kick(mm);
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
	}
}

/*
 * Make a file that is open for reading a file for writing, while threads fault on its pages.
 * Pages of a file open for reading may be in the view unprotected, for a moment or for ever. In a
 * file open for writing such a page counts as dirty. So the store is changed first, and then
 * `writable`. Installs read `writable` with the page locked, so every install that begins from
 * here on is an install of a writable file. Then the background thread ends the protection work
 * that was left. Each page that was installed before is taken out once its page lock is free. No
 * thread can write before this function returns: no mapping allows writes yet. The file is
 * settling, so that no other handle comes meanwhile. Blocks. Returns 0 or an errno.
 */
static int file_upgrade(struct fm_file *file, struct fm_file *fresh)
{
	uint32_t pinned = 0;

	if (atomic_get(&file->pool->user_pinned))
		file_each_cached(file, 0, UINT64_MAX >> file->pool->shift, count_pinned, &pinned);
	if (pinned) {
		mm_log(file->mm, FM_LOG_ERROR,
		       "%s: cannot be opened for writing: the file is open for reading as '%s', "
		       "and fm_pin() holds %u of its pages; unpin the pages first",
		       fresh->uri, file->uri, pinned);
		return -EBUSY;
	}
	/* The keeper takes the descriptors of `fresh` before they become those of `file`: an upgrade
	 * of the store cannot be undone. */
	int err = file_prepare_writing(file);
	if (!err)
		err = keep_file(file, fresh->store);
	if (!err)
		err = file->store->ops->upgrade(file->store, fresh->store);
	if (err) {
		keep_forget(file);
		return err;
	}
	os_sigmask mask = os_signals_block();
	/* From here on no thread takes over a version that the thread asked for before. */
	os_lock(&file->reads->version_lock);
	file->writable = true;
	os_unlock(&file->reads->version_lock);
	background_pass(file->mm);
	file_each_cached(file, 0, UINT64_MAX >> file->pool->shift, page_begin_again, NULL);
	os_lock(&file->reads->version_lock);
	file->reads->version = fresh->store->opened;
	store_size_set(file->store, fresh->store->opened.size);
	atomic_set(&file->reads->changed, 0u);
	os_unlock(&file->reads->version_lock);
	os_signals_restore(mask);
	return 0;
}

/*
 * Find a closed handle to use again. The list of handles only grows, so no lock is needed.
 * Returns NULL if no handle is closed.
 */
static struct fm_file *handle_again(struct fm_file *cache)
{
	for (struct fm_file *handle = atomic_get(&cache->further); handle; handle = handle->further) {
		uint32_t closed = HANDLE_CLOSED;
		if (!atomic_cas(&handle->open, &closed, (uint32_t)HANDLE_IN_THE_MAKING))
			continue;
		while (atomic_get(&cache->telling)) /* another thread may be in its old callback */
			os_sleep_until(os_now_ns() + 50000);
		return handle;
	}
	return NULL;
}

/*
 * Make `fresh` a further handle of `cache`. The store of `fresh` is not needed and is closed.
 * `cache` has a reference for the new handle. Returns the handle, which may be a closed handle
 * that is used again: then `fresh` is freed.
 */
static struct fm_file *handle_make(struct fm_file *cache, struct fm_file *fresh, bool may_write)
{
	struct fm_file *handle = handle_again(cache);
	bool is_new = !handle;

	fresh->store->ops->close(fresh->store);
	fresh->store = NULL;
	if (is_new)
		handle = fresh;
	handle->cache = cache;
	handle->may_write = may_write;
	handle->on_write_error_arg = fresh->on_write_error_arg;
	handle->on_write_error = fresh->on_write_error;
	atomic_set(&handle->error_told, atomic_get(&cache->dirt->error_seq));
	atomic_add(&cache->handles, 1u);
	atomic_set(&handle->open, (uint32_t)HANDLE_OPEN);
	if (fresh->deadline_ns && (!cache->deadline_ns || fresh->deadline_ns < cache->deadline_ns))
		cache->deadline_ns = fresh->deadline_ns;
	if (is_new) {
		struct fm_file *head = atomic_get(&cache->further);
		do {
			handle->further = head;
		} while (!atomic_cas(&cache->further, &head, handle));
	} else {
		free(fresh);
	}
	return handle;
}

/* Close a handle for the program. Mappings and other handles keep the cache. May block. */
void handle_close(struct fm_file *handle)
{
	struct fm_file *cache = handle->cache;
	bool has_callback = handle->on_write_error != NULL;
	uint32_t open = HANDLE_OPEN;

	if (!atomic_cas(&handle->open, &open, (uint32_t)HANDLE_CLOSED))
		return;
	atomic_sub(&cache->handles, 1u);
	while (has_callback && atomic_get(&cache->handles) && atomic_get(&cache->telling))
		os_sleep_until(os_now_ns() + 50000);
	file_put(cache);
}

/* Tell whether the file's URI asks for a recording or a hot set, which belong to a cache. */
static bool has_list(const struct fm_file *fresh)
{
	char path[PATH_MAX];

	return hotset_to_write(fresh->uri, path) == HOTSET_BY_URI ||
	       hotset_to_read(fresh->uri, path) == HOTSET_BY_URI;
}

/*
 * Share `cache` with a new handle, and upgrade the file before if needed. `cache` has a reference
 * for the new handle. Returns 0 or an errno. On failure the reference is put, and `fresh` stays
 * the caller's.
 */
static int share(struct fm_file *fresh, struct fm_file *cache, enum meeting meeting, bool write,
		 struct fm_file **ret_handle)
{
	int err = meeting == MEETS_UPGRADE ? file_upgrade(cache, fresh) : 0;

	if (!err && fresh->locked && cache->locked != (cache->writable ? LOCK_WRITING : LOCK_READING))
		err = lock_object(cache, fresh, cache->writable);
	if (meeting == MEETS_UPGRADE) {
		cache->will_write = cache->writable;
		object_settled(cache);
	}
	if (err) {
		os_sigmask mask = os_signals_block();
		file_put(cache);
		os_signals_restore(mask);
		return err;
	}
	if (has_list(fresh))
		mm_log(fresh->mm, FM_LOG_WARNING,
		       "%s: record= and hotset= have no effect: the file is open already, as '%s'",
		       fresh->uri, cache->uri);
	*ret_handle = handle_make(cache, fresh, write);
	return 0;
}

/*
 * Take the object's present version. This process may have written to the object since the store
 * was opened.
 */
static void look_again(struct fm_file *fresh)
{
	struct fm_store *store = fresh->store;
	struct fm_store_version now;

	if (!store->ops->version || store->ops->version(store, &now) < 0)
		return;
	store->opened = now;
	store_size_set(store, now.size);
}

/*
 * Find out whether the object of `fresh` is open already. `fresh` has its store and nothing else
 * yet. Returns 0 with *ret_handle NULL if the object is not open, or only with a cache beside
 * which a new cache may exist. Then `fresh` is listed and settling, and the caller must begin the
 * file. Returns 0 with a handle if the handle shares a cache: then `fresh` is used up. Returns an
 * errno otherwise. Blocks while the object is being opened or closed, for at most ten seconds or
 * the file's deadline.
 */
int object_enter(struct fm_file *fresh, bool write, struct fm_file **ret_handle)
{
	uint64_t bound = fresh->deadline_ns && fresh->deadline_ns < mm_patience_ns
				 ? fresh->deadline_ns
				 : mm_patience_ns;
	uint64_t until = os_now_ns() + bound;
	char name[200];

	*ret_handle = NULL;
	fresh->settling = true;
	fresh->will_write = write;
	fresh->alone = has_list(fresh) || fresh->changed_policy == FM_CHANGED_LEASE;
	if (fresh->store->id.kind == FM_STORE_ID_NONE)
		return fresh->locked ? lock_object(fresh, fresh, write) : 0;
	for (;;) {
		struct fm_file *other;
		enum meeting meeting = look(fresh, write, &other, name, sizeof(name));
		if (meeting == MEETS_NOBODY) {
			int err = fresh->locked ? lock_object(fresh, fresh, write) : 0;
			if (!err) /* earlier writes by this process do not count as a foreign change */
				look_again(fresh);
			return err;
		}
		if (meeting == MEETS_ANOTHER || (meeting == MEETS_CHANGE && os_now_ns() >= until))
			return refuse(fresh, meeting, name, write);
		if (meeting == MEETS_CHANGE) {
			os_sleep_until(os_now_ns() + WAIT_SLICE_NS);
		} else if (meeting == MEETS_READER && is_stale(other)) {
			os_sigmask mask = os_signals_block();
			file_put(other);
			os_signals_restore(mask);
			fresh->alone = true;
		} else {
			look_again(fresh);
			return share(fresh, other, meeting, write, ret_handle);
		}
	}
}
