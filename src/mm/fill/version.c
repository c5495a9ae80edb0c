/* SPDX-License-Identifier: MIT */
/* The version of the object behind a snapshot: whether it has changed, and what its size is. */
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

/*
 * The object's version is `now`, which the store was asked for in `epoch`. Takes it over where it
 * is another one and the policy is FM_CHANGED_REFRESH, and marks the file as changed under
 * FM_CHANGED_ERROR. Returns whether what is cached may be older. A version that was young when it
 * was taken over may have been given to a later change, too: once no more change can get it, all
 * that was read meanwhile is old, though the version is the same.
 */
static bool version_note(struct fm_file *file, uint32_t epoch, const struct fm_store_version *now,
			 uint64_t asked)
{
	bool refresh = file->changed_policy == FM_CHANGED_REFRESH;

	os_lock(&file->reads->version_lock);
	bool late =
		atomic_get(&file->reads->epoch) !=
		epoch; /* another thread has taken over a version meanwhile, maybe a newer one */
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
	return old;
}

/*
 * After a read that began in `epoch`, and ended at `ended`, by io_ends() (UINT64_MAX: the engine
 * knows nothing of it): has somebody changed the object since we opened it? 0, or -ESTALE under
 * FM_CHANGED_ERROR. Under FM_CHANGED_REFRESH -EAGAIN: what was read is to be forgotten with the
 * rest, read again. The kernel sets a file's mtime before it lets new bytes be seen, so a read that
 * saw any is found out here; stores through somebody's writable mapping are not, after the first to
 * a page. Where several reads had ended before the store was asked, its answer is for all of them.
 */
int file_recheck(struct fm_file *file, uint32_t epoch, uint64_t ended)
{
	struct fm_store_version now;
	const struct fm_store_ops *ops = file->store->ops;

	if (atomic_get(&file->reads->changed))
		return -ESTALE;
	if (file->writable) /* whose changes are our own */
		return 0;
	if (!ops->version)
		return 0;
	covered_if(atomic_get(&file->reads->checked) >= ended, a10_asked_for_several);
	if (atomic_get(&file->reads->checked) >= ended)
		return atomic_get(&file->reads->epoch) == epoch ? 0 : -EAGAIN;
	uint64_t asked = io_ends(file->mm->io); /* before the store is: what had come by now is
						   judged by its answer */
	uint32_t before = atomic_get(&file->reads->epoch);
	if (ops->version(file->store, &now) < 0)
		return 0;
	if (!version_note(file, before, &now, asked))
		return atomic_get(&file->reads->epoch) == epoch ? 0 : -EAGAIN;
	return atomic_get(&file->reads->changed) ? -ESTALE : -EAGAIN;
}

/* The file whose version decides: a private mapping's file has the size of its base. */
static struct fm_file *file_of_version(const struct fm_file *file)
{
	return file->base ? file->base : (struct fm_file *)(uintptr_t)file;
}

/* Whether an end that is known may be an old one, so that the store is to be asked. */
bool file_may_grow(const struct fm_file *file)
{
	const struct fm_file *known = file_of_version(file);
	return known->changed_policy == FM_CHANGED_REFRESH && !known->writable &&
	       known->store->ops->version;
}

/* Ask the store for the version of a file under FM_CHANGED_REFRESH. What is cached of an older one
 * is forgotten, and the size is the present one at return. 0, or the store's error. No lock but
 * page locks of others may be held. */
int file_look(struct fm_file *file)
{
	struct fm_file *known = file_of_version(file);
	struct fm_store_version now;
	uint64_t asked = io_ends(known->mm->io);
	uint32_t before = atomic_get(&known->reads->epoch);
	int err = known->store->ops->version(known->store, &now);

	if (!err && version_note(known, before, &now, asked))
		file_forget(known);
	return err;
}

/* The version as it is now, of which the file is to be a snapshot: see snapshot_settle(). */
static int version_settled(struct fm_file *file, struct fm_store_version *ret_now)
{
	const struct fm_store_ops *ops = file->store->ops;
	int err = ops->version(file->store, ret_now);

	if (err || !ret_now->young_ns || file->changed_policy != FM_CHANGED_ERROR)
		return err;
	os_sleep_until(os_now_ns() + ret_now->young_ns);
	return ops->version(file->store, ret_now);
}

/* Make the file a snapshot of the object as it is now, also where it was found changed (-ESTALE).
 * Of a file that is not open for writing. *ret_changed: it was of another version. Blocks on the
 * store. */
int snapshot_renew(struct fm_file *file, bool *ret_changed)
{
	struct fm_store_version now;

	for (;;) {
		uint32_t epoch = atomic_get(&file->reads->epoch);
		int err = version_settled(file, &now);
		if (err)
			return err;
		os_lock(&file->reads->version_lock);
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

/* A change explains what the read came to better than its own result. */
int file_recheck_after(struct fm_file *file, uint32_t epoch, uint64_t ended, int err)
{
	int changed = file_recheck(file, epoch, ended);
	return changed ? changed : err;
}
