/* SPDX-License-Identifier: MIT */
/*
 * Opens files and frame pools. file_end.c ends files: the last reference may be put by a fault
 * handler, so the background thread and then the closer thread do that work. Owns struct fm_file
 * and the list of files (files_lock).
 */
#include "mm/space/file_open.h"

#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/report.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/record.h"
#include "mm/fill/replay.h"
#include "mm/fill/share.h"
#include "mm/fill/streams.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/keep.h"
#include "mm/flush/range.h"
#include "mm/flush/request.h"
#include "mm/flush/writer.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/make.h"
#include "mm/reclaim/pin_sets.h"
#include "mm/space/file_end.h"
#include "mm/space/handle.h"
#include "mm/view/run_in.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/store.h"
#include "trap/parts.h"
#include "trap/trap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MOST_NS ((uint64_t)INT64_MAX)
#define VIEW_MOST (1ull << 46)
#define VIEW_SLACK (1ull << 30) /* how far past the end a mapping may reach */
#define VIEW_SLACK_LEAST (64ull << 10)
#define VIEW_SLACK_SHARE 8192u /* the slack is at most 1/8192 of the process's limit */

/* Create a pool and its pin sets. On failure nothing is left of the pool. */
int pool_open(struct fm_mm *mm, uint32_t page_size, struct frame_pool **ret_pool)
{
	struct frame_pool *pool;
	int err = pool_create(mm, page_size, &pool);
	if (err)
		return err;
	err = progress_open(pool);
	if (err)
		pool_drop(pool);
	else
		*ret_pool = pool;
	return err;
}

void pool_close(struct frame_pool *pool)
{
	if (pool)
		progress_close(pool);
	pool_destroy(pool);
}

static int pool_for(struct fm_mm *mm, uint32_t page_size, struct frame_pool **ret_pool)
{
	for (;;) {
		int place = 0;
		struct frame_pool *made;
		while (place < MM_POOLS_MAX && atomic_get(&mm->pool[place]))
			if (mm->pool[place++]->page_size == page_size) {
				*ret_pool = mm->pool[place - 1];
				return 0;
			}
		mm_assert(place < MM_POOLS_MAX);
		int err = pool_open(mm, page_size, &made);
		if (err)
			return err;
		os_sigmask mask = os_signals_block();
		os_lock(&mm->pools_lock);
		bool ours = !mm->pool[place];
		if (ours)
			atomic_set(&mm->pool[place], made);
		os_unlock(&mm->pools_lock);
		os_signals_restore(mask);
		if (!ours) { /* another thread was faster; look again */
			progress_close(made);
			pool_drop(made);
		}
	}
}

/*
 * Return how far a view reaches past the end of its file: as far as the program asked for.
 * Otherwise the slack is large, because address space costs nothing. But if the process has a
 * limit on its address space, thousands of files must fit.
 */
static uint64_t view_slack(const struct fm_file *file)
{
	uint64_t limit = trap_address_limit(), share = limit / VIEW_SLACK_SHARE;

	if (file->reserve_bytes)
		return file->reserve_bytes;
	if (limit == UINT64_MAX || share > VIEW_SLACK)
		return VIEW_SLACK;
	return share > VIEW_SLACK_LEAST ? share : VIEW_SLACK_LEAST;
}

static int view_open(struct fm_file *file)
{
	uint64_t unit = file->pool->page_size, slack = view_slack(file);
	if (file_size(file) > VIEW_MOST || slack > VIEW_MOST)
		return -EOVERFLOW;
	uint64_t len = (file_size(file) + unit - 1) / unit * unit + (slack + unit - 1) / unit * unit;
	file->view.mm = file->mm;
	file->view.file = file;
	bool groups = file->pool->groups && !file->writable;
	int err =
		trap_region_open(file->mm->trap, &file->view.region, len,
				 groups ? TRAP_TOGETHER : unit, unit >= TRAP_TOGETHER, &file->view);
	if (!err)
		stats_add(file->mm->stats, views, 1);
	return err;
}

static void file_list(struct fm_file *file)
{
	struct fm_mm *mm = file->mm;
	os_sigmask mask = os_signals_block();
	atomic_add(&mm->file_count, 1u);
	os_lock(&mm->files_lock);
	file->next = mm->files;
	file->pprev = &mm->files;
	if (file->next)
		file->next->pprev = &file->next;
	mm->files = file;
	os_unlock(&mm->files_lock);
	os_signals_restore(mask);
	stats_add(mm->stats, files, 1);
}

/* A file and all its parts, in one allocation. */
struct whole_file {
	struct fm_file file;
	struct file_dirt dirt;
	struct write_streams write_streams;
	struct file_reads reads;
	struct file_writes writes;
	char uri[];
};

static struct fm_file *file_alloc(struct fm_mm *mm, const char *uri)
{
	struct whole_file *whole = calloc(1, sizeof(*whole) + strlen(uri) + 1);
	if (!whole)
		return NULL;
	struct fm_file *file = &whole->file;
	memcpy(whole->uri, uri, strlen(uri));
	file->uri = whole->uri;
	file->dirt = &whole->dirt;
	file->write_streams = &whole->write_streams;
	file->reads = &whole->reads;
	file->writes = &whole->writes;
	file->mm = mm;
	file->refs = file->handles = file->open = 1;
	file->cache = file;
	file->dirt->punch_first = file->dirt->lost_first = UINT64_MAX;
	return file;
}

static int file_be_writable(struct fm_file *file)
{
	int err = file_prepare_writing(file);
	if (!err)
		file->writable = true;
	return err;
}

/*
 * Wait until every later change of the object gets another version. Only then does a snapshot
 * show a single moment. A very recent change may make this untrue for some milliseconds, or for a
 * second on a file system that stores whole seconds. May block. Waits once: a program that writes
 * all the time is found by its next change.
 */
static void snapshot_settle(struct fm_file *file)
{
	struct fm_store *store = file->store;
	struct fm_store_version now;

	if (file->writable || file->changed_policy != FM_CHANGED_ERROR || !store->opened.young_ns)
		return;
	os_sleep_until(os_now_ns() + store->opened.young_ns);
	if (store->ops->version(store, &now) < 0)
		return;
	store->opened = now;
	store_size_set(store, now.size);
}

/*
 * Set up everything except the store. Returns 0 or an errno. On failure the caller frees the
 * file.
 */
static int file_begin(struct fm_file *file, uint32_t readahead_bytes)
{
	struct fm_mm *mm = file->mm;
	snapshot_settle(file);
	file->reads->version = file->store->opened;
	file->reads->readahead_bytes = readahead_bytes;
	ra_init(file, readahead_bytes);
	int err = 0;
	if (file->base) /* the same object: its touches are recorded with the base's */
		file->reads->record = file->base->reads->record;
	else
		err = record_begin(file);
	file->recorded = file->reads->record != NULL;
	if (!err)
		err = replay_ask(file);
	if (err)
		return err;
	err = view_open(file);
	if (err) {
		mm_log(mm, FM_LOG_ERROR,
		       "no address space for a view of %llu bytes: %s; raise ulimit -v and -d, or "
		       "lower `reserve_bytes`, the space reserved for the growth of the file",
		       (unsigned long long)file_size(file), strerror(-err));
		return err;
	}
	file_list(file);
	if (file->reads->replay)
		replay_begin(file);
	if (file->reads->record && !file->base)
		record_list(file);
	return 0;
}

static int check_options(struct fm_mm *mm, const char *uri, const struct fm_file_options *options,
			 uint32_t page_size)
{
	if (!(options->flags & FM_FILE_WRITE))
		return 0;
	if (page_size == OS_PAGE)
		return 0;
	mm_log(mm, FM_LOG_ERROR,
	       "%s: a file opened for writing needs a page_size of 4096, not %u", uri,
	       page_size);
	return -EINVAL;
}

/*
 * Open a file by `uri`. If `fd` is not negative, open by that descriptor: then `uri` is only the
 * file's name. May block. Returns 0 or an errno.
 */
int file_open(struct fm_mm *mm, const char *uri, int fd, const struct fm_file_options *options,
	      struct fm_file **ret_file)
{
	uint32_t page_size = options->page_size == FM_PAGE_SIZE_AUTO ? OS_PAGE : options->page_size;
	unsigned flags = (options->flags & FM_FILE_WRITE ? FM_STORE_OPEN_WRITE : 0u) |
			 (options->flags & FM_FILE_CREATE ? FM_STORE_OPEN_CREATE : 0u) |
			 (trap_serves_calls(mm->trap) ? FM_STORE_OPEN_LOCKLESS : 0u);
	char why[256] = "";
	int err = check_options(mm, uri, options, page_size);
	if (err)
		return err;
	struct fm_file *file = file_alloc(mm, uri);
	if (!file)
		return -ENOMEM;
	file->changed_policy = options->changed;
	file->on_write_error = options->on_write_error;
	file->on_write_error_arg = options->on_write_error_arg;
	file->reserve_bytes = options->reserve_bytes;
	err = pool_for(mm, page_size, &file->pool);
	if (err == -ENOSPC)
		mm_log(mm, FM_LOG_ERROR, "the budget of %llu bytes is too small: pages of %u bytes need at least "
		       "%llu bytes",
		       (unsigned long long)mm->budget_bytes, page_size,
		       (unsigned long long)page_size * MM_FRAMES_MIN);
	if (err)
		goto fail;
	err = fd < 0 ? store_open(uri, flags, why, sizeof(why), &file->store)
		     : store_open_fd(fd, uri, flags, why, sizeof(why), &file->store);
	if (err) {
		mm_log(mm, FM_LOG_ERROR, "%s", why[0] ? why : uri);
		goto fail;
	}
	bool write = options->flags & FM_FILE_WRITE;
	file->may_write = write;
	if (options->flags & FM_FILE_LOCK)
		file->locked = write ? LOCK_WRITING : LOCK_READING;
	file->deadline_ns = options->deadline_ns ? options->deadline_ns : file->store->deadline_ns;
	if (file->deadline_ns > DEADLINE_MOST_NS) /* the deadline is added to the time */
		file->deadline_ns = DEADLINE_MOST_NS;
	if (file->store->kept.lost || file->store->kept.error)
		mm_log(mm, FM_LOG_WARNING,
		       "%s: %u dirty pages of process %d, which has ended, are lost: its keeper "
		       "process (FM_KEEP) could not write the pages: %s",
		       uri, file->store->kept.lost, file->store->kept.program,
		       file->store->kept.error == -ESTALE ? "another program changed the file in the meantime"
							  : strerror(-file->store->kept.error));
	err = object_enter(file, write, ret_file);
	if (err)
		goto fail;
	if (*ret_file)
		return 0;
	if (write) {
		err = keep_file(file, file->store);
		if (!err)
			err = file_be_writable(file);
		file->writes->written_seq = options->flags & FM_FILE_CREATE ? 1 : 0; /* the name may be new */
	}
	if (!err)
		err = file_begin(file, options->readahead_bytes);
	if (err)
		goto fail;
	object_settled(file);
	*ret_file = file;
	return 0;
fail:
	file_free(file);
	return err;
}

/*
 * Open a private mapping's own file over the file `base`. Writes to the private file go to a
 * scratch file. Returns 0 or an errno.
 */
int file_open_private(struct fm_file *base, struct fm_file **ret_file)
{
	struct fm_mm *mm = base->mm;
	char why[256] = "";
	struct fm_file *file;
	/* The private mapping shows what was written to `base` before. Write those bytes to the store
	 * now, because the private file reads from the store. */
	int err = writeback_all(base);

	if (err)
		return err;
	file = file_alloc(mm, base->uri);
	if (!file)
		return -ENOMEM;
	file->scratch = true;
	file->reserve_bytes = base->reserve_bytes;
	file->deadline_ns = base->deadline_ns;
	err = pool_for(mm, OS_PAGE, &file->pool);
	if (!err)
		err = store_private_open(base->store, why, sizeof(why), &file->store);
	if (err && why[0])
		mm_log(mm, FM_LOG_ERROR, "%s", why);
	if (!err) {
		file_get(base);
		file->base = base;
		err = file_be_writable(file);
	}
	if (!err)
		err = file_begin(file, base->reads->readahead_bytes);
	if (err) {
		file_free(file);
		return err;
	}
	*ret_file = file;
	return 0;
}
