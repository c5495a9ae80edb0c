/* SPDX-License-Identifier: MIT */
/*
 * Creates and destroys address spaces. Owns struct fm_mm. The struct and all its metadata are
 * allocated at creation, in proportion to the budget. Not signal-safe.
 */
#include "mm/space/mm.h"

#include "filemap.h"
#include "io/io.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/patience.h"
#include "mm/base/refs.h"
#include "mm/base/report.h"
#include "mm/fault/batch.h"
#include "mm/fault/trap_client.h"
#include "mm/fill/abandon.h"
#include "mm/fill/replay.h"
#include "mm/fill/request.h"
#include "mm/flush/end.h"
#include "mm/flush/keep.h"
#include "mm/flush/writer.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/frames/pool.h"
#include "mm/map/map_lock.h"
#include "mm/reclaim/pin_sets.h"
#include "mm/space/background.h"
#include "mm/space/default_budget.h"
#include "mm/space/file_end.h"
#include "mm/space/file_open.h"
#include "mm/space/ranges.h"
#include "mm/view/later.h"
#include "mm/view/page_tables.h"
#include "os/atomic.h"
#include "os/keeper.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#define END_SOON_NS                                                                                \
	(OS_NSEC_PER_SEC / 2) /* what fm_mm_destroy() waits for requests where it has waited for   \
				 their store before */

static size_t round64(size_t len)
{
	return (len + 63) & ~(size_t)63;
}

/*
 * Return the number of requests for a budget of `frames`. A store may have half of the requests
 * under way at once, because small random reads come in scores. Each request takes some KiB.
 */
static uint32_t requests_for(uint32_t frames)
{
	uint32_t few = frames / 64 < 16 ? 16 : frames / 64 > 64 ? 64 : frames / 64;
	uint32_t many = frames / 512 > 256 ? 256 : frames / 512;
	return few > many ? few : many;
}

static int alloc_meta(struct fm_mm *mm)
{
	uint32_t frames = (uint32_t)(mm->budget_bytes / OS_PAGE);
	uint32_t requests = requests_for(frames);
	/* At worst each page lies in a range of its own. The page's page table then takes as much of
	 * the budget as the page. */
	uint32_t ranges = frames / 2 + 512 < PT_END ? frames / 2 + 512 : PT_END, heads = 16,
		 after = frames / 32 + 64;
	while (heads < frames / 8)
		heads *= 2;
	size_t requests_len = round64(requests * sizeof(struct read_request));
	size_t ranges_len = round64(ranges * sizeof(struct pt_range));
	size_t heads_len = round64(heads * sizeof(uint32_t));
	size_t after_len = round64(after * sizeof(struct after_item));
	mm->meta_len = requests_len + ranges_len + heads_len + after_len;
	char *mem = mm->meta = os_meta_alloc(mm->meta_len);
	if (!mem)
		return -ENOMEM;
	mm->requests = (struct read_request *)mem;
	mm->request_count = mm->requests_left = requests;
	mm->request_free = NONE;
	for (uint32_t i = requests; i-- > 0;) {
		mm->requests[i].next_free = mm->request_free;
		mm->request_free = i;
	}
	mm->pt->range = (struct pt_range *)(mem += requests_len);
	mm->pt->entries = ranges;
	mm->pt->heads = (uint32_t *)(mem += ranges_len);
	mm->pt->mask = heads - 1;
	mm->after->item = (struct after_item *)(mem + heads_len);
	mm->after->capacity = after;
	return pt_init(mm);
}

static int open_trap(struct fm_mm *mm, const struct fm_mm_options *options)
{
	struct trap_options trap = {
		.kind = options->trap ? (enum fm_trap)options->trap : FM_TRAP_INLINE,
		.want_move = options->install != FM_INSTALL_COPY &&
			     !(options->flags & FM_MM_NO_SIGNALS),
		.silent = options->flags & FM_MM_NO_SIGNALS,
		.client = &fault_trap_client,
		.note = mm_note,
		.note_arg = mm,
	};
	int err = trap_create(&trap, &mm->trap);
	if (err)
		return err;
	bool move = trap.want_move && trap_has_move(mm->trap);
	if (options->install == FM_INSTALL_MOVE && !move) {
		mm_log(mm, FM_LOG_ERROR, "install=move needs Linux 6.8 or later; use copy or auto");
		return -EOPNOTSUPP;
	}
	mm->install = move ? FM_INSTALL_MOVE : FM_INSTALL_COPY;
	return 0;
}

/* An address space and its parts, in one allocation. */
struct whole_mm {
	struct fm_mm mm;
	struct map_lock map;
	struct pt_table pt;
	struct after_work after;
};

/* Free an address space. Skips missing parts, and so also cleans up a creation that failed. */
static void mm_free(struct fm_mm *mm)
{
	for (int i = 0; i < MM_POOLS_MAX; i++)
		pool_close(mm->pool[i]);
	if (mm->trap)
		trap_destroy(mm->trap);
	stats_page_destroy(mm->stats, mm->stats_fd);
	if (mm->event_fd >= 0)
		os_event_close(mm->event_fd);
	writeback_free(mm);
	os_keeper_free(&mm->keeper);
	os_meta_free(mm->segment_mem, mm->segment_mem_len);
	os_meta_free(mm->meta, mm->meta_len);
	os_meta_free(mm, sizeof(struct whole_mm));
}

int mm_create(const struct fm_mm_options *options, struct fm_mm **ret_mm)
{
	struct io_engine_options io = {.note = mm_note};
	struct whole_mm *whole = os_meta_alloc(sizeof(*whole));
	if (!whole)
		return -ENOMEM;
	struct fm_mm *mm = &whole->mm;
	mm->map = &whole->map;
	mm->pt = &whole->pt;
	mm->after = &whole->after;
	mm->stats_fd = mm->event_fd = -1;
	mm->flags = options->flags;
	mm->log = options->log;
	mm->log_arg = options->log_arg;
	mm->segment_free = NONE;
	mm->budget_bytes = options->budget_bytes ? options->budget_bytes : default_budget();
	io.note_arg = mm;
	int err = alloc_meta(mm);
	if (!err)
		err = open_trap(mm, options);
	if (!err)
		err = stats_page_create(
			trap_kind_name(options->trap ? (enum fm_trap)options->trap : FM_TRAP_INLINE),
			mm->install == FM_INSTALL_MOVE ? "move" : "copy", &mm->stats, &mm->stats_fd);
	if (!err) {
		mm->map->stats = mm->stats;
		stats_put(mm->stats, budget_bytes, mm->budget_bytes);
		stats_put(mm->stats, frames, mm->budget_bytes / OS_PAGE);
		err = pool_open(mm, OS_PAGE, &mm->pool[0]);
	}
	if (!err)
		err = io_engine_create(&io, &mm->io);
	if (!err)
		err = background_start(mm);
	if (!err) {
		err = closer_start(mm);
		if (err)
			background_stop(mm);
	}
	if (err) {
		if (mm->io)
			io_engine_destroy(mm->io);
		mm_free(mm);
		return err;
	}
	if (mm->flags & FM_KEEP) {
		err = keep_start(mm);
		if (err) {
			mm_finish(mm);
			mm_destroy(mm);
			return err;
		}
	}
	os_populate_self();
	*ret_mm = mm;
	return 0;
}

/*
 * Wake all waiters, so that each waiter sees that the mm is dying. A wait that begins meanwhile
 * may miss the wake-up, so the caller repeats the call until no fault is inside.
 */
static void wake_all(struct fm_mm *mm)
{
	for (int p = 0; p < MM_POOLS_MAX && atomic_get(&mm->pool[p]); p++) {
		struct frame_pool *pool = mm->pool[p];
		for (uint32_t i = 0; i < pool->frames; i++)
			if (page_is(&pool->pages[i], PG_WAITERS))
				os_futex_wake(&pool->pages[i].state, INT_MAX, OS_FUTEX_ANY);
		os_futex_wake(&pool->free_seq, INT_MAX, OS_FUTEX_ANY);
		os_futex_wake(&pool->pin_set_seq, INT_MAX, OS_FUTEX_ANY);
		pool_wake_waiters(pool);
		progress_tick(pool);
	}
}

static bool faults_inside(struct fm_mm *mm)
{
	bool some = false;
	os_lock(&mm->files_lock);
	for (struct fm_file *file = mm->files; file && !some; file = file->next)
		some = atomic_get(&file->view.region.pins) != 0;
	os_unlock(&mm->files_lock);
	return some;
}

static void abort_stores(struct fm_mm *mm)
{
	os_lock(&mm->files_lock);
	for (struct fm_file *file = mm->files; file; file = file->next)
		if (file->store->ops->abort)
			file->store->ops->abort(file->store);
	os_unlock(&mm->files_lock);
}

/*
 * Put the program's file references. The mappings are gone by now, so each file ends as soon as
 * its requests end.
 */
static void drop_handles(struct fm_mm *mm)
{
	for (;;) {
		struct fm_file *file;
		uint32_t handles = 0;
		os_lock(&mm->files_lock);
		for (file = mm->files; file; file = file->next)
			if ((handles = atomic_xchg(&file->handles, 0u)) != 0)
				break;
		os_unlock(&mm->files_lock);
		if (!file)
			return;
		while (handles--)
			file_put(file);
	}
}

/* End the faults that are under way, unmap everything, and put the program's references. Blocks. */
static void end_uses(struct fm_mm *mm)
{
	while (faults_inside(mm)) {
		read_cancel_all(mm, NULL);
		wake_all(mm);
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
	}
	trap_drain(mm->trap);
	mm_unmap_all(mm);
	for (int p = 0; p < MM_POOLS_MAX && atomic_get(&mm->pool[p]); p++)
		progress_drop_all(mm->pool[p]);
	drop_handles(mm);
}

/*
 * Wait until all files, and with the files all requests, have ended. Blocks. Returns false if a
 * file or a request is left at `until`.
 */
static bool wait_for_files(struct fm_mm *mm, uint64_t until)
{
	uint32_t left;
	while ((left = atomic_get(&mm->file_count)) != 0) {
		uint64_t now = os_now_ns();
		if (now >= until)
			return false;
		read_cancel_all(mm, NULL);
		os_futex_wait(&mm->file_count, left, OS_FUTEX_ANY, now + 10 * OS_NSEC_PER_MSEC);
	}
	while (atomic_get(&mm->requests_busy)) {
		uint64_t now = os_now_ns();
		if (now >= until)
			return false;
		os_sleep_until(now + OS_NSEC_PER_MSEC / 10);
	}
	return true;
}

/* End the threads and free the memory. Called after all files have ended. */
static void end_threads(struct fm_mm *mm)
{
	os_sigmask mask = os_signals_block();
	writeback_stop(mm);
	background_stop(mm);
	closer_stop(mm);
	if (__atomic_load_n(&mm->replayer_begun, __ATOMIC_ACQUIRE))
		replayer_stop(mm);
	trap_stop(mm->trap);
	os_signals_restore(mask);
	io_engine_destroy(mm->io);
	mm_free(mm);
}

/* Wait until no callback of the program runs any more. From here on no callback is called. */
static void silence(struct fm_mm *mm)
{
	atomic_set(&mm->silent, true);
	while (atomic_get(&mm->calling))
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
}

/*
 * Main function of a thread that waits, in place of the program, for a store that does not
 * answer.
 */
static void *end_later(void *arg)
{
	struct fm_mm *mm = arg;
	wait_for_files(mm, OS_FOREVER);
	end_threads(mm);
	return NULL;
}

/*
 * Start a thread that waits for a store's request that does not end. The memory that the request
 * uses stays until the request has ended. Returns false if no thread can be started.
 */
static bool leave_behind(struct fm_mm *mm)
{
	struct os_thread thread = {0};
	mm_log(mm, FM_LOG_WARNING,
	       "a request to a store has not ended: the memory of the address space is released "
	       "when the request ends");
	silence(mm);
	if (os_thread_start(&thread, "fm-end", end_later, mm)) {
		atomic_set(&mm->silent, false);
		return false;
	}
	os_thread_detach(&thread);
	return true;
}

/*
 * Begin the end of an address space: write the dirty pages, as far as the store accepts the
 * writes. Blocks.
 */
void mm_finish(struct fm_mm *mm)
{
	os_sigmask mask = os_signals_block();
	/* First, because otherwise pages could be dirtied again without end during write-back. */
	atomic_set(&mm->dying, true);
	writeback_finish(mm);
	os_signals_restore(mask);
}

/*
 * Complete the end of an address space, after mm_finish(). Blocks. Returns 0, or -EIO if dirty
 * bytes could not be written and are lost.
 */
int mm_destroy(struct fm_mm *mm)
{
	os_sigmask mask = os_signals_block();
	keep_stop(mm);
	queues_end(mm);
	abort_stores(mm);
	end_uses(mm);
	bool ended = wait_for_files(
		mm, os_now_ns() + (atomic_get(&mm->lost) ? END_SOON_NS : mm_patience_ns));
	if (!ended) {
		writeback_cancel(mm);
		ended = wait_for_files(mm, os_now_ns() + END_SOON_NS);
	}
	int ret = atomic_get(&mm->lost) || atomic_get(&mm->emptied) ? -EIO : 0;
	if (!ended && !leave_behind(mm))
		ended = wait_for_files(mm, OS_FOREVER);
	if (ended)
		end_threads(mm);
	os_signals_restore(mask);
	return ret;
}
