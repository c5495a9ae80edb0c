/* SPDX-License-Identifier: MIT */
/* The version of the object behind a snapshot: whether the object has changed, and its size. */
#include "mm/fill/version.h"

#include "filemap.h"
#include "io/io.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/share.h"
#include "mm/view/range.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/store.h"

#include <errno.h>

/* What the store's answer was worth. */
enum noted {
	NOTED_SAME, /* the object has the file's version */
	NOTED_OLD,  /* cached pages may be older than the object */
	NOTED_LATE, /* another thread took over a version meanwhile, older or newer than the answer */
};

/*
 * Note that the object's version is `now`; the store was asked in `epoch`. If the version is
 * new, FM_CHANGED_REFRESH takes over the version, and FM_CHANGED_ERROR marks the file as
 * changed. A version that was young when taken over may also have been given to a later change.
 * Once no more change can get that version, all pages read meanwhile are old, though the version
 * is the same.
 */
static enum noted version_note(struct fm_file *file, uint32_t epoch,
			       const struct fm_store_version *now, uint64_t asked)
{
	bool refresh = file->changed_policy == FM_CHANGED_REFRESH;

	os_lock(&file->reads->version_lock);
	if (file->writable) { /* since the store was asked: changes are the library's own */
		os_unlock(&file->reads->version_lock);
		return NOTED_SAME;
	}
	bool late = atomic_get(&file->reads->epoch) != epoch;
	bool same = store_version_same(now, &file->reads->version),
	     grown_up = file->reads->version.young_ns && !now->young_ns;
	bool old = late || !same || (grown_up && refresh);
	if (!old) {
		atomic_set(&file->reads->checked, asked);
	} else if (!late && refresh) {
		file->reads->version = *now;
		atomic_add(&file->reads->epoch, 1u);
		store_size_set(file->store, now->size);
	} else if (!late) {
		atomic_set(&file->reads->changed, 1u);
	}
	os_unlock(&file->reads->version_lock);
	if (!late && !same)
		stats_add(file->mm->stats, files_changed, 1);
	return late ? NOTED_LATE : old ? NOTED_OLD : NOTED_SAME;
}

/*
 * Check after a read whether the object has changed since the file was opened. The read began
 * in `epoch` and ended at `ended`, by io_ends(). UINT64_MAX: the engine knows nothing of the
 * read. Returns 0 if the object is unchanged, and -ESTALE under FM_CHANGED_ERROR. Under
 * FM_CHANGED_REFRESH returns -EAGAIN: the bytes read must be forgotten with the other cached
 * pages, and read again. The kernel sets a file's mtime before new bytes become visible, so a
 * read that saw new bytes is detected here. Stores through another writable mapping are not
 * detected after the first store to a page. If several reads had ended before the store was
 * asked, the answer holds for all of these reads.
 */
int file_recheck(struct fm_file *file, uint32_t epoch, uint64_t ended)
{
	struct fm_store_version now;
	const struct fm_store_ops *ops = file->store->ops;

	if (atomic_get(&file->reads->changed))
		return -ESTALE;
	/* changes to a writable file are filemap's own, and a lease is the program's affair */
	if (file->writable || file->changed_policy == FM_CHANGED_LEASE)
		return 0;
	if (!ops->version)
		return 0;
	covered_if(atomic_get(&file->reads->checked) >= ended, a10_asked_for_several);
	if (atomic_get(&file->reads->checked) >= ended)
		return atomic_get(&file->reads->epoch) == epoch ? 0 : -EAGAIN;
	/* read before the store is asked: the answer judges all reads that have ended by now */
	uint64_t asked = io_ends(file->mm->io);
	uint32_t before = atomic_get(&file->reads->epoch);
	if (ops->version(file->store, &now) < 0)
		return 0;
	if (version_note(file, before, &now, asked) == NOTED_SAME)
		return atomic_get(&file->reads->epoch) == epoch ? 0 : -EAGAIN;
	return atomic_get(&file->reads->changed) ? -ESTALE : -EAGAIN;
}

/* Return the file whose version decides: a private mapping's file has the size of its base. */
static struct fm_file *file_of_version(const struct fm_file *file)
{
	return file->base ? file->base : (struct fm_file *)(uintptr_t)file;
}

/* Return whether the known end of the file may be old, so that the store must be asked. */
bool file_may_grow(const struct fm_file *file)
{
	const struct fm_file *known = file_of_version(file);
	return known->changed_policy == FM_CHANGED_REFRESH && !known->writable &&
	       known->store->ops->version;
}

/* Ask the store for the version of a file under FM_CHANGED_REFRESH. Forgets the cached pages
 * of an older version; the size is current at return. Asks again when another thread took over a
 * version meanwhile: that version may be older than this call. Returns 0 or the store's error.
 * The caller may hold page locks of other pages, but no other lock. */
int file_look(struct fm_file *file)
{
	struct fm_file *known = file_of_version(file);
	struct fm_store_version now;
	enum noted noted;

	do {
		uint64_t asked = io_ends(known->mm->io);
		uint32_t before = atomic_get(&known->reads->epoch);
		int err = known->store->ops->version(known->store, &now);
		if (err)
			return err;
		noted = version_note(known, before, &now, asked);
		if (noted != NOTED_SAME)
			file_forget(known);
	} while (noted == NOTED_LATE);
	return 0;
}

/* Get the present version, of which the file becomes a snapshot: see snapshot_settle(). */
static int version_settled(struct fm_file *file, struct fm_store_version *ret_now)
{
	const struct fm_store_ops *ops = file->store->ops;
	int err = ops->version(file->store, ret_now);

	if (err || !ret_now->young_ns || file->changed_policy != FM_CHANGED_ERROR)
		return err;
	os_sleep_until(os_now_ns() + ret_now->young_ns);
	return ops->version(file->store, ret_now);
}

/* Make the file a snapshot of the present object, also if the file was found changed
 * (-ESTALE). *ret_changed tells whether the file was of another version. Blocks on the store.
 * Does nothing if the file is open for writing by now: see file_upgrade(). Returns 0 or the
 * store's error. */
int snapshot_renew(struct fm_file *file, bool *ret_changed)
{
	struct fm_store_version now;

	for (;;) {
		uint32_t epoch = atomic_get(&file->reads->epoch);
		int err = version_settled(file, &now);
		if (err)
			return err;
		os_lock(&file->reads->version_lock);
		if (file->writable) {
			os_unlock(&file->reads->version_lock);
			return 0;
		}
		bool late = atomic_get(&file->reads->epoch) != epoch;
		bool other = atomic_get(&file->reads->changed) ||
			     !store_version_same(&now, &file->reads->version);
		bool old = other || file->reads->version.young_ns;
		if (!late && old) {
			file->reads->version = now;
			atomic_add(&file->reads->epoch, 1u);
			store_size_set(file->store, now.size);
			atomic_set(&file->reads->changed, 0u);
		}
		os_unlock(&file->reads->version_lock);
		if (late)
			continue;
		if (old)
			file_forget(file);
		if (other)
			stats_add(file->mm->stats, files_changed, 1);
		*ret_changed = other;
		return 0;
	}
}

/* Check for a change as file_recheck(). Returns the result of that check if not 0, else `err`:
 * a change explains the read's result better. */
int file_recheck_after(struct fm_file *file, uint32_t epoch, uint64_t ended, int err)
{
	int changed = file_recheck(file, epoch, ended);
	return changed ? changed : err;
}
