/* SPDX-License-Identifier: MIT */
/*
 * The public calls: they check arguments, tell live objects from dead objects, block signals
 * before any lock is taken, and hand the work to mm.
 * May call: live.c, mm, trap, store, stats, os.
 */
#include "api/live.h"
#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/report.h"
#include "mm/base/view.h"
#include "mm/fault/batch.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/replay.h"
#include "mm/flush/durable.h"
#include "mm/flush/keep.h"
#include "mm/flush/range.h"
#include "mm/flush/resize.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/pool.h"
#include "mm/space/file_open.h"
#include "mm/space/handle.h"
#include "mm/space/mm.h"
#include "mm/space/ranges.h"
#include "mm/space/release.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/store.h"
#include "trap/parts.h"
#include "trap/trap.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FM_STRING(x) #x
#define FM_VERSION_OF(a, b, c) FM_STRING(a) "." FM_STRING(b) "." FM_STRING(c)

const char *fm_version(void)
{
	return FM_VERSION_OF(FM_VERSION_MAJOR, FM_VERSION_MINOR, FM_VERSION_PATCH);
}

static bool page_size_valid(uint32_t page_size)
{
	return page_size >= OS_PAGE && page_size <= (2u << 20) && !(page_size & (page_size - 1));
}

uint64_t fm_budget_min(uint32_t page_size)
{
	return page_size_valid(page_size) ? (uint64_t)page_size * MM_FRAMES_MIN : 0;
}

/* Copy the caller's options. The caller's structure may be older and shorter than the library's,
 * but never longer. */
static int copy_options(void *ours, size_t our_size, const void *theirs)
{
	size_t size;
	memset(ours, 0, our_size);
	if (!theirs)
		return 0;
	memcpy(&size, theirs, sizeof(size));
	if (size < sizeof(size) || size > our_size)
		return -EINVAL;
	memcpy(ours, theirs, size);
	return 0;
}

/* ------------------------------------------------------------------ address spaces */

/* The number of frames, and twice that number, must fit in 32 bits. */
#define BUDGET_MOST (8ull << 40)

static void say_line(const struct fm_mm_options *options, const char *line)
{
	if (options->log)
		options->log(options->log_arg, FM_LOG_ERROR, line);
}

int fm_mm_create(const struct fm_mm_options *options, fm_mm **ret_mm)
{
	struct fm_mm_options ours;
	struct fm_mm *mm;
	int err = copy_options(&ours, sizeof(ours), options);
	if (err || !ret_mm || ours.trap > FM_TRAP_CALL || ours.install > FM_INSTALL_COPY ||
	    (ours.flags & ~(uint32_t)(FM_MM_HOLD_LOCK | FM_KEEP | FM_MM_NO_SIGNALS)) || ours.reserved)
		return -EINVAL;
	if ((ours.flags & FM_MM_NO_SIGNALS) &&
	    (ours.trap != FM_TRAP_THREAD || (ours.flags & FM_KEEP) ||
	     ours.install == FM_INSTALL_MOVE))
		return -EINVAL;
	if (ours.budget_bytes && ours.budget_bytes < fm_budget_min(OS_PAGE))
		return -EINVAL;
	if (ours.budget_bytes > BUDGET_MOST) {
		say_line(&ours, "the budget is above 8 TiB, the maximum for an address space");
		return -EINVAL;
	}
	live_forget_parents();
	err = mm_create(&ours, &mm);
	if (err == -EAGAIN)
		say_line(&ours, "the library cannot start its threads: this user has reached the limit "
				"of threads; raise RLIMIT_NPROC (ulimit -u) or pids.max of the "
				"cgroup");
	if (err)
		return err;
	err = live_add(mm);
	if (err) {
		mm_destroy(mm);
		return err;
	}
	*ret_mm = mm;
	return 0;
}

int fm_mm_destroy(fm_mm *mm)
{
	int err = live_mm(mm);
	if (err)
		return err;
	if (mm_in_callback(mm)) /* the call would wait for the callback, which waits for the call */
		return -EDEADLK;
	live_finishing(1); /* counted before the address space leaves the list: exit() in another
			      thread finds the address space in one of the two */
	if (!live_remove(mm)) {
		live_finishing(-1);
		return -EOWNERDEAD;
	}
	while (live_is_flushing(mm)) /* another thread has called exit() */
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
	mm_finish(mm);
	live_finishing(-1);
	return mm_destroy(mm);
}

/* ------------------------------------------------------------------ files */

static int open_checked(fm_mm *mm, const char *uri, int fd, const struct fm_file_options *options,
			fm_file **ret_file)
{
	struct fm_file_options ours;
	int err = copy_options(&ours, sizeof(ours), options);
	uint32_t known = FM_FILE_WRITE | FM_FILE_LOCK | (fd < 0 ? FM_FILE_CREATE : 0u);

	if (err || !ret_file || ours.changed > FM_CHANGED_LEASE || (ours.flags & ~known) ||
	    (ours.flags & (FM_FILE_WRITE | FM_FILE_CREATE)) == FM_FILE_CREATE ||
	    (ours.page_size != FM_PAGE_SIZE_AUTO && !page_size_valid(ours.page_size)))
		return -EINVAL;
	if ((ours.flags & FM_FILE_WRITE) &&
	    ((mm->flags & FM_MM_NO_SIGNALS) || ours.changed == FM_CHANGED_LEASE))
		return -EINVAL;
	err = file_open(mm, uri, fd, &ours, ret_file);
	if (!err && ((*ret_file)->cache->reads->record || (*ret_file)->may_write))
		live_watch_exit();
	return err;
}

int fm_file_open(fm_mm *mm, const char *uri, const struct fm_file_options *options,
		 fm_file **ret_file)
{
	int err = live_mm(mm);
	if (err || !uri)
		return err ? err : -EINVAL;
	return open_checked(mm, uri, -1, options, ret_file);
}

int fm_file_open_fd(fm_mm *mm, int fd, const struct fm_file_options *options, fm_file **ret_file)
{
	char name[PATH_MAX + 64];
	int err = live_mm(mm);
	if (err || fd < 0)
		return err ? err : -EBADF;
	store_fd_name(fd, name, sizeof(name));
	return open_checked(mm, name, fd, options, ret_file);
}

int fm_file_hotset(fm_file *file, const char *path)
{
	int err = live_file(file);
	if (err || !path || !*path)
		return err ? err : -EINVAL;
	return file_hotset(file->cache, path);
}

int fm_file_close(fm_file *file)
{
	int err = live_file(file);
	if (err)
		return err;
	os_sigmask mask = os_signals_block();
	if (atomic_get(&file->open) &&
	    file->may_write) /* the program may read the file by other means */
		err = writeback_all(file->cache);
	handle_close(file);
	os_signals_restore(mask);
	return err;
}

int fm_keeper_wait(const char *path, uint64_t timeout_ns)
{
	return path ? keeper_wait(path, timeout_ns) : -EINVAL;
}

int fm_file_size(fm_file *file, uint64_t *ret_size)
{
	int err = live_file(file);
	if (err || !ret_size)
		return err ? err : -EINVAL;
	*ret_size = file_size(file->cache);
	return 0;
}

int fm_file_refresh(fm_file *file, bool *ret_changed)
{
	bool changed = false;
	int err = live_file(file);
	if (err)
		return err;
	os_sigmask mask = os_signals_block();
	err = file_refresh(file->cache, &changed);
	os_signals_restore(mask);
	if (!err && ret_changed)
		*ret_changed = changed;
	return err;
}

/* Read the store without the cache. A local file serves aligned bytes by its direct descriptor.
 * The other descriptor of a file that is open for writing has no readahead. So the rest of the
 * last page is read separately: otherwise the whole read would be several times slower. */
int fm_file_read(fm_file *file, void *buf, size_t len, uint64_t offset, size_t *ret_len)
{
	size_t tail = len % OS_PAGE, done = 0;
	struct iovec whole_pages = {buf, len - tail};
	unsigned shorts = 0;
	int err = live_file(file);

	if (err || !ret_len || (!buf && len))
		return err ? err : -EINVAL;
	err = store_read_full(file->cache->store, &whole_pages, 1, offset, &done, &shorts);
	if (!err && tail && done == whole_pages.iov_len) {
		struct iovec rest = {(char *)buf + done, tail};
		size_t rest_done = 0;

		err = store_read_full(file->cache->store, &rest, 1, offset + done, &rest_done, &shorts);
		done += rest_done;
	}
	if (!err)
		*ret_len = done;
	return err;
}

int fm_file_control(fm_file *file, const char *setting)
{
	char key[64];
	int err = live_file(file);
	if (err || !setting)
		return err ? err : -EINVAL;
	const char *equals = strchr(setting, '=');
	if (!equals || equals == setting || (size_t)(equals - setting) >= sizeof(key))
		return -EINVAL;
	struct fm_store *store = file->cache->store;
	if (!store->ops->control)
		return -EOPNOTSUPP;
	memcpy(key, setting, (size_t)(equals - setting));
	key[equals - setting] = 0;
	return store->ops->control(store, key, equals + 1);
}

/* ------------------------------------------------------------------ mappings */

/* Map privately, through a file of the mapping's own. This file goes with the mapping. */
static int map_private(fm_file *file, uint64_t offset, size_t len,
		       const struct fm_map_options *options, void **ret_addr)
{
	struct fm_file *own;
	int err = file_open_private(file, &own);
	if (err)
		return err;
	err = offset + len > own->view.region.len ? -EOVERFLOW
						  : trap_region_grow(&own->view.region, offset, len);
	if (!err)
		err = mm_map_range(&own->view, offset, len, options, ret_addr);
	handle_close(own);
	return err;
}

/* Map a part of the file whose place in the view the program has unmapped or filled with other
 * memory. The program's memory stays. A file that is only read is mapped elsewhere, through a
 * view of its own. */
static int map_elsewhere(fm_file *file, uint64_t offset, size_t len,
			 const struct fm_map_options *options, void **ret_addr)
{
	if (!file->writable)
		return map_private(file, offset, len, options, ret_addr);
	mm_log(file->mm, FM_LOG_ERROR,
	       "%s: other memory of the program occupies the address at which offset %llu must be "
	       "mapped; close the file and open it again",
	       file->uri, (unsigned long long)offset);
	return -EADDRINUSE;
}

/* Map a part of the file's own view. The view may have to be reserved there first. */
static int map_shared(fm_file *file, uint64_t offset, size_t len,
		      const struct fm_map_options *options, void **ret_addr)
{
	struct view_region *region = &file->view.region;
	uint64_t bytes = (len + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1);
	int err = trap_region_grow(region, offset, bytes);

	if (err == -EEXIST ||
	    (!err && unlikely(atomic_get(&region->released_end) ||
			      trap_any_foreign(file->mm->trap, region->base + offset, bytes))))
		return map_elsewhere(file, offset, len, options, ret_addr);
	return err ? err : mm_map_range(&file->view, offset, len, options, ret_addr);
}

int fm_map(fm_file *file, uint64_t offset, size_t len, const struct fm_map_options *options,
	   void **ret_addr)
{
	struct fm_map_options ours;
	int err = live_file(file);
	if (err)
		return err;
	err = copy_options(&ours, sizeof(ours), options);
	if (err || !ret_addr || !len || (offset & (OS_PAGE - 1)) || ours.reserved ||
	    (ours.flags & ~(uint32_t)(FM_MAP_WRITE | FM_MAP_PRIVATE)))
		return -EINVAL;
	if ((ours.flags & (FM_MAP_WRITE | FM_MAP_PRIVATE)) == FM_MAP_WRITE && !file->may_write)
		return -EACCES;
	if ((file->mm->flags & FM_MM_NO_SIGNALS) && (!ours.on_error || ours.flags))
		return -EINVAL;
	file = file->cache;
	if (offset > INT64_MAX || len > INT64_MAX || offset + len > file->view.region.len)
		return -EOVERFLOW;
	os_sigmask mask = os_signals_block();
	err = ours.flags & FM_MAP_PRIVATE ? map_private(file, offset, len, &ours, ret_addr)
					  : map_shared(file, offset, len, &ours, ret_addr);
	os_signals_restore(mask);
	return err;
}

int fm_unmap(fm_mm *mm, void *addr, size_t len)
{
	uint64_t start, end;
	int err = live_range(mm, addr, len, &start, &end);
	if (err || (start & (OS_PAGE - 1)))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	err = mm_unmap_range(mm, start, end);
	os_signals_restore(mask);
	return err;
}

int fm_release(fm_mm *mm, void *addr, size_t len)
{
	uint64_t start, end;
	int err = live_range(mm, addr, len, &start, &end);
	if (err || (start & (OS_PAGE - 1)))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	err = mm_release_range(mm, start, end);
	os_signals_restore(mask);
	return err;
}

int fm_intact(fm_mm *mm, const void *addr, size_t len, bool *ret_intact)
{
	uint64_t start, end;
	int err = live_range(mm, addr, len, &start, &end);
	if (err || (start & (OS_PAGE - 1)) || !ret_intact)
		return err ? err : -EINVAL;
	*ret_intact = !trap_any_foreign(mm->trap, start, end - start);
	return 0;
}

int fm_advise(fm_mm *mm, void *addr, size_t len, enum fm_advice advice)
{
	uint64_t start, end;
	int err = live_range(mm, addr, len, &start, &end);
	if (err || (start & (OS_PAGE - 1)) || (unsigned)advice > FM_ADVICE_COLD)
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	err = mm_advise_range(mm, start, end, advice);
	os_signals_restore(mask);
	return err;
}

int fm_residency(fm_mm *mm, const void *addr, size_t len, unsigned char *vec)
{
	uint64_t start, end;
	int err = live_range(mm, addr, len, &start, &end);
	if (err || (start & (OS_PAGE - 1)) || !vec)
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	err = mm_residency_range(mm, start, end, vec);
	os_signals_restore(mask);
	return err;
}

/* ------------------------------------------------------------------ writing back */

/* Check [offset, offset + len) and convert the range to pages; `len` 0: to the end. */
static int check_file_range(fm_file *file, uint64_t offset, uint64_t len, uint64_t *ret_first,
			    uint64_t *ret_last)
{
	int err = live_file(file);
	if (err)
		return err;
	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return -EINVAL;
	uint32_t shift = file->cache->pool->shift;
	*ret_first = offset >> shift;
	*ret_last = len ? (offset + len - 1) >> shift : UINT64_MAX;
	return 0;
}

int fm_sync(fm_mm *mm, void *addr, size_t len, unsigned flags)
{
	uint64_t start, end;
	int err = live_range(mm, addr, len, &start, &end);
	if (err || (flags & ~(unsigned)FM_SYNC_ASYNC))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	stats_add(mm->stats, syncs, 1);
	err = mm_sync_range(mm, start & ~(uint64_t)(OS_PAGE - 1), end, flags);
	os_signals_restore(mask);
	return err;
}

int fm_file_sync(fm_file *file, uint64_t offset, uint64_t len, unsigned flags)
{
	uint64_t first, last;
	int err = check_file_range(file, offset, len, &first, &last);
	if (err || (flags & ~(unsigned)FM_SYNC_ASYNC))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	stats_add(file->mm->stats, syncs, 1);
	err = file_sync(file->cache, first, last, flags, &file->error_told);
	os_signals_restore(mask);
	return err;
}

/* Run a call that changes the file, with signals blocked. */
static int change_file(fm_file *file, uint64_t offset, uint64_t len,
		       int (*change)(struct fm_file *, uint64_t, uint64_t))
{
	uint64_t first, last;
	int err = check_file_range(file, offset, len, &first, &last);
	if (err || !len)
		return err ? err : -EINVAL;
	if (!file->may_write)
		return -EACCES;
	os_sigmask mask = os_signals_block();
	err = change(file->cache, offset, len);
	os_signals_restore(mask);
	return err;
}

int fm_truncate(fm_file *file, uint64_t size)
{
	int err = live_file(file);
	if (err)
		return err;
	if (!file->may_write)
		return -EACCES;
	file = file->cache;
	if (size > file->view.region.len)
		return -EFBIG;
	os_sigmask mask = os_signals_block();
	err = file_truncate(file, size);
	os_signals_restore(mask);
	return err;
}

int fm_punch(fm_file *file, uint64_t offset, uint64_t len)
{
	return change_file(file, offset, len, file_punch);
}

int fm_reserve(fm_file *file, uint64_t offset, uint64_t len)
{
	return change_file(file, offset, len, file_reserve);
}

int fm_invalidate(fm_file *file, uint64_t offset, uint64_t len)
{
	uint64_t first, last;
	int err = check_file_range(file, offset, len, &first, &last);
	if (err)
		return err;
	os_sigmask mask = os_signals_block();
	err = file_invalidate_range(file->cache, offset, len);
	os_signals_restore(mask);
	return err;
}

/* ------------------------------------------------------------------ queues */

int fm_queue_create(fm_mm *mm, unsigned ranges, fm_queue **ret_queue)
{
	int err = live_mm(mm);
	if (err || !ret_queue)
		return err ? err : -EINVAL;
	return queue_create(mm, ranges, ret_queue);
}

/* Check a queue pointer. queue.c knows whether the queue is alive. */
static int check_queue(const fm_queue *queue)
{
	if (!queue)
		return -EINVAL;
	return trap_is_child() ? -EOWNERDEAD : 0;
}

int fm_queue_destroy(fm_queue *queue)
{
	int err = check_queue(queue);
	if (err)
		return err;
	os_sigmask mask = os_signals_block();
	err = queue_destroy(queue);
	os_signals_restore(mask);
	return err;
}

int fm_queue_fd(fm_queue *queue, int *ret_fd)
{
	int err = check_queue(queue);
	if (err || !ret_fd)
		return err ? err : -EINVAL;
	return queue_fd(queue, ret_fd);
}

int fm_fault_in_batch(fm_queue *queue, const struct fm_range *ranges, size_t count,
		      size_t *ret_begun)
{
	int err = check_queue(queue);
	if (err || !ret_begun || (!ranges && count))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	err = queue_begin(queue, ranges, count, ret_begun);
	os_signals_restore(mask);
	return err;
}

int fm_completions(fm_queue *queue, struct fm_range *ret_ranges, size_t count, uint64_t timeout_ns,
		   size_t *ret_count)
{
	int err = check_queue(queue);
	if (err || !ret_count || !ret_ranges || !count)
		return err ? err : -EINVAL;
	return queue_completions(queue, ret_ranges, count, timeout_ns, ret_count);
}

/* ------------------------------------------------------------------ errors and statistics */

bool fm_handle_sigbus(int signo, siginfo_t *info, void *ucontext)
{
	return trap_sigbus(signo, info, ucontext);
}

int fm_stats(fm_mm *mm, struct fm_stats *ret_stats)
{
	int err = live_mm(mm);
	if (err)
		return err;
	if (!ret_stats || ret_stats->size != sizeof(*ret_stats))
		return -EINVAL;
	stats_collect(mm->stats, ret_stats);
	return 0;
}
