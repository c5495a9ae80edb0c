/* SPDX-License-Identifier: MIT */
/*
 * Hot sets: read the pages that an earlier run touched first, before this run asks for the
 * pages.
 *
 * Owns struct replay: a file's list of ranges, and how far the replay has come. Also owns the
 * list of replays under way (mm->replays; files_lock), and the thread that works on the list.
 * The thread reads ahead of all faults by speculative requests, which demand requests
 * overtake. The thread uses only a part of the requests and of the frames that may be under
 * way. The thread reads into free frames only, until a quarter of the frames is left. So a
 * replay takes no frame from another reader, and the pages it reads are evicted first. The
 * thread holds a reference to a file only while it works on the file. So the thread keeps no
 * file open that the program has closed.
 */
#include "mm/fill/replay.h"

#include "filemap.h"
#include "io/io.h"
#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/report.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/request.h"
#include "mm/fill/share.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "mm/reclaim/get.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/hotset.h"
#include "store/store.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* the pause when no read under way will signal that there is room */
#define PAUSE_NS (2 * OS_NSEC_PER_MSEC)
#define PATIENCE_NS                                                                                \
	(300 * OS_NSEC_PER_MSEC) /* wait for a spare frame: copies may be dropped soon */
#define LOOK_MOST 1024                  /* pages to look at in a single run */

struct replay {
	struct hotset set;
	struct replay *next; /* next in mm->replays */
	struct fm_file *file;
	size_t at;      /* the range at which the replay continues */
	uint64_t inside; /* the place in that range */
	uint64_t read;  /* pages that were asked for */
	uint64_t dry_ns; /* since when no frame is free; 0: a frame is free */
	uint32_t alone;  /* turns in a row in which the file was unused */
};

/* Return how many frames are free without taking a frame from a page. */
static uint64_t frames_spare(struct frame_pool *pool)
{
	uint64_t charged = atomic_get(&pool->mm->charged_bytes), budget = pool->mm->budget_bytes;
	uint64_t free_bytes = charged < budget ? budget - charged : 0, holes = lru_count(pool, LIST_HOLES);

	if (pool->grows ||
	    holes > free_bytes >>
		    pool->shift) /* huge frames without memory are on no list */
		holes = free_bytes >> pool->shift;
	return pool_spare(pool) + holes;
}

static uint32_t run_most(const struct fm_file *file)
{
	uint32_t most = file->pool->frames / 8;
	return most < IO_SEGMENTS_MAX ? most : IO_SEGMENTS_MAX;
}

/* Return whether another read would take frames of the last quarter. */
static bool frames_low(const struct fm_file *file)
{
	struct frame_pool *pool = file->pool;
	uint32_t least = pool->frames / 4 > 2 * pool->free_high ? pool->frames / 4 : 2 * pool->free_high;
	return frames_spare(pool) < least + run_most(file);
}

static bool has_room(struct fm_file *file)
{
	return atomic_get(&file->mm->requests_busy) < replay_requests_most(file->mm) &&
	       atomic_get(&file->reads->inflight) + run_most(file) <= file->pool->frames / 8 &&
	       read_has_room(file, false);
}

/* Return whether no program handle, mapping or fault has a reference to the file. */
static bool is_alone(const struct fm_file *file)
{
	return !atomic_get(&file->handles) &&
	       atomic_get(&file->refs) <= 1 + atomic_get(&file->reads->requests);
}

static void drop_unread(struct fm_file *file, struct page *page)
{
	page_set(page, 0, PG_SPEC);
	page_remove(file->pool, page);
	page_unlock(file->pool, page);
}

/* Collect neighbouring pages that are not cached, from the place the replay has reached.
 * *ret_dry tells that there was no frame for the next page. Returns the number of pages. */
static uint32_t gather(struct replay *replay, struct page **run, bool *ret_dry)
{
	struct fm_file *file = replay->file;
	const struct hotset_range *range = &replay->set.range[replay->at];
	uint64_t end = file_pages(file);
	uint32_t count = 0, most = run_most(file);

	*ret_dry = false;
	for (int looked = 0; looked < LOOK_MOST && count < most && replay->inside < range->count;
	     looked++) {
		uint64_t index = range->start + replay->inside;
		bool fresh = false;
		if (index >= end) { /* the file is shorter by now */
			replay->inside = range->count;
			break;
		}
		if (page_add(file, index, ADD_STREAM | ADD_SINGLE, &run[count], &fresh) < 0) {
			*ret_dry = true;
			/* the background thread populates huge frames, a few at a time */
			background_kick(file->mm);
			break;
		}
		if (fresh) {
			page_set(run[count++], PG_SPEC, 0);
		} else {
			page_unpin(file->pool, run[count]);
			if (count)
				break;
		}
		replay->inside++;
	}
	return count;
}

/* Note the time since which no frame is free. */
static void note_dry(struct replay *replay)
{
	if (!replay->dry_ns)
		replay->dry_ns = os_now_ns();
}

/* Start a single read. Returns false if no further read can start now. */
static bool replay_read(struct replay *replay)
{
	struct fm_file *file = replay->file;
	struct page *run[IO_SEGMENTS_MAX];
	bool dry;
	uint64_t before = replay->inside;
	uint32_t count = gather(replay, run, &dry);
	int err = count ? read_submit(file, run, count, true) : 0;

	for (uint32_t i = 0; i < count; i++) {
		if (err)
			drop_unread(file, run[i]);
		page_unpin(file->pool, run[i]);
	}
	if (err) {
		replay->inside = before;
		return false;
	}
	replay->read += count;
	stats_add(file->mm->stats, ra_pages, count);
	stats_add(file->mm->stats, hotset_pages, count);
	if (count)
		replay->dry_ns = 0;
	if (dry)
		note_dry(replay);
	return !dry;
}

/* Read as many pages as there is room for. Returns true if more is to be done later. */
static bool replay_turn(struct replay *replay)
{
	struct fm_file *file = replay->file;
	struct fm_mm *mm = file->mm;

	replay->alone = is_alone(file) ? replay->alone + 1
				       : 0; /* a new request may look like no user, once */
	for (; replay->at < replay->set.count; replay->at++, replay->inside = 0)
		while (replay->inside < replay->set.range[replay->at].count) {
			if (atomic_get(&mm->dying) || atomic_get(&file->reads->changed) || replay->alone > 1)
				return false;
			bool low = frames_low(file);
			if (low)
				note_dry(replay);
			if (replay->dry_ns && os_now_ns() > replay->dry_ns + PATIENCE_NS) {
				mm_log(mm, FM_LOG_INFO, "hotset: %llu of %llu pages were read: the budget has no room for more",
				       (unsigned long long)replay->read, (unsigned long long)replay->set.pages);
				return false;
			}
			bool room = has_room(file);
			if (!low && !room)
				replay->dry_ns = 0;
			if (low || !room || !replay_read(replay))
				return true;
		}
	return false;
}

static void append(struct fm_mm *mm, struct replay *replay) /* files_lock */
{
	struct replay **at = &mm->replays;
	while (*at)
		at = &(*at)->next;
	replay->next = NULL;
	*at = replay;
}

/* Take the first replay off the list, with a reference to its file. Skips files that are
 * ending: such a file frees its own replay. Returns NULL if no replay is left. */
static struct replay *take_first(struct fm_mm *mm)
{
	struct replay *replay;
	bool have = false;

	os_lock(&mm->files_lock);
	while (!have && (replay = mm->replays)) {
		mm->replays = replay->next;
		uint32_t refs = atomic_get(&replay->file->refs);
		while (refs && !(have = atomic_cas(&replay->file->refs, &refs, refs + 1)))
			;
	}
	os_unlock(&mm->files_lock);
	return have ? replay : NULL;
}

static void replay_free(struct replay *replay)
{
	hotset_free(&replay->set);
	free(replay);
}

static uint32_t replay_count(struct fm_mm *mm)
{
	uint32_t count = 0;
	os_lock(&mm->files_lock);
	for (struct replay *replay = mm->replays; replay; replay = replay->next)
		count++;
	os_unlock(&mm->files_lock);
	return count;
}

/* Give each replay on the list a turn. */
static void replay_all(struct fm_mm *mm)
{
	for (uint32_t turns = replay_count(mm); turns; turns--) {
		struct replay *replay = take_first(mm);
		if (!replay)
			return;
		struct fm_file *file = replay->file;
		bool more = replay_turn(replay);
		os_lock(&mm->files_lock);
		if (more) {
			append(mm, replay);
		} else {
			file->reads->replay = NULL;
			atomic_sub(&mm->replaying, 1u);
		}
		os_unlock(&mm->files_lock);
		if (!more)
			replay_free(replay);
		file_put(file);
	}
}

static void *replayer_main(void *arg)
{
	struct fm_mm *mm = arg;
	for (;;) {
		uint32_t seq = atomic_get(&mm->replay_seq);
		if (atomic_get(&mm->replay_stop))
			return NULL;
		replay_all(mm);
		os_futex_wait(&mm->replay_seq, seq, OS_FUTEX_ANY,
			      atomic_get(&mm->replaying) ? os_now_ns() + PAUSE_NS : OS_FOREVER);
	}
}

void replayer_stop(struct fm_mm *mm)
{
	atomic_set(&mm->replay_stop, true);
	replay_kick(mm);
	os_thread_join(&mm->replayer);
}

static int replayer_start(struct fm_mm *mm)
{
	uint32_t no = 0;
	if (!atomic_cas(&mm->replayer_begun, &no, 1u))
		return 0;
	int err = os_thread_start(&mm->replayer, "fm-hotset", replayer_main, mm);
	if (err)
		atomic_set(&mm->replayer_begun, 0u);
	return err;
}

static void tell_difference(struct fm_file *file, const char *path, const struct hotset *set)
{
	const struct fm_store_version *now = &file->store->opened;

	if (!set->found)
		mm_log(file->mm, FM_LOG_WARNING, "hotset %s: has no ranges for %s", path,
		       file->uri);
	else if (set->size_bytes && (set->size_bytes != now->size || set->version != now->version[1]))
		mm_log(file->mm, FM_LOG_WARNING,
		       "hotset %s: the file has changed since the recording (now %llu bytes, then "
		       "%llu): the ranges inside the file are read",
		       path, (unsigned long long)now->size, (unsigned long long)set->size_bytes);
}

/* Load the list of a hot set, and start the replay thread. *ret_replay stays NULL if the list
 * has no range for this file. Returns 0 or an errno. */
static int replay_load(struct fm_file *file, const char *path, bool strictly,
		       struct replay **ret_replay)
{
	struct hotset_wanted wanted = {.uri = file->uri,
				       .strictly = strictly,
				       .size_bytes = file_size(file),
				       .shift = file->pool->shift,
				       .pages_max = file->pool->frames};
	char why[PATH_MAX + 256] = "";
	struct replay *replay = calloc(1, sizeof(*replay));
	int err = replay ? hotset_load(path, &wanted, why, sizeof(why), &replay->set) : -ENOMEM;

	if (!err)
		tell_difference(file, path, &replay->set);
	else if (why[0])
		mm_log(file->mm, err == -ENOENT || strictly ? FM_LOG_WARNING : FM_LOG_ERROR, "%s", why);
	bool some = !err && replay->set.count;
	if (some)
		err = replayer_start(file->mm);
	if (some && err)
		mm_log(file->mm, FM_LOG_WARNING,
		       "hotset %s: the list is not used, because no thread can be started: %s",
		       path, strerror(-err));
	if (!some || err) {
		if (replay)
			replay_free(replay);
		return err;
	}
	replay->file = file;
	*ret_replay = replay;
	return 0;
}

static void replay_list(struct fm_mm *mm, struct replay *replay) /* files_lock */
{
	append(mm, replay);
	atomic_add(&mm->replaying, 1u);
}

/* Implement fm_file_hotset(). Called in ordinary context. Reads the list in the caller's
 * thread, but no page of the file. Returns 0, -EBUSY if a replay of the file is under way, or
 * another errno. */
int file_hotset(struct fm_file *file, const char *path)
{
	struct fm_mm *mm = file->mm;
	struct replay *replay = NULL;
	int err = replay_load(file, path, false, &replay);
	if (err || !replay)
		return err;
	os_sigmask mask = os_signals_block();
	os_lock(&mm->files_lock);
	if (file->reads->replay)
		err = -EBUSY;
	else
		replay_list(mm, file->reads->replay = replay);
	os_unlock(&mm->files_lock);
	replay_kick(mm);
	os_signals_restore(mask);
	if (err)
		replay_free(replay);
	return err;
}

/* Load the hot set that the URI or the environment asks for, when the file is opened. No other
 * thread knows the file yet. A missing list is no error: a later recording makes the list. A
 * missing thread is no error: the file is only slower. A hot set that the environment asks for
 * must not keep a program from its file. */
int replay_ask(struct fm_file *file)
{
	char path[PATH_MAX];
	enum hotset_asked asked = hotset_to_read(file->uri, path);
	if (likely(asked == HOTSET_NO))
		return 0;
	int err = replay_load(file, path, asked == HOTSET_BY_ENVIRONMENT, &file->reads->replay);
	return err == -ENOENT || err == -EAGAIN || asked == HOTSET_BY_ENVIRONMENT ? 0 : err;
}

/* Start the replay, now that the file is open. */
void replay_begin(struct fm_file *file)
{
	struct fm_mm *mm = file->mm;
	os_sigmask mask = os_signals_block();
	os_lock(&mm->files_lock);
	replay_list(mm, file->reads->replay);
	os_unlock(&mm->files_lock);
	replay_kick(mm);
	os_signals_restore(mask);
}

/* Take the replay off the list, when the file has no reference any more. Background thread. */
void replay_unlist(struct fm_file *file) /* files_lock */
{
	struct replay **at = &file->mm->replays;
	while (*at && *at != file->reads->replay)
		at = &(*at)->next;
	if (*at)
		*at = file->reads->replay->next;
	atomic_sub(&file->mm->replaying, 1u);
}

/* Free the replay. Called by the closer, or by an opening that failed: calls free(). */
void replay_end(struct fm_file *file)
{
	replay_free(file->reads->replay);
	file->reads->replay = NULL;
}
