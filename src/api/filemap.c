/* SPDX-License-Identifier: MIT */
/*
 * The public calls: arguments are checked, objects are told alive from dead, signals are blocked before any lock is
 * taken, and the work is handed to mm.
 * Owns the table of live address spaces, by which a forked child's and a late caller's objects are known.
 * May call: mm, trap, store, stats, os.
 */
#include "api/process_ends.h"
#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/report.h"
#include "mm/base/self.h"
#include "mm/base/view.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fault/attempt.h"
#include "mm/fault/drive.h"
#include "mm/fault/fault.h"
#include "mm/fault/vmf.h"
#include "mm/fault/queue.h"
#include "mm/fill/ahead.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/record.h"
#include "mm/fill/replay.h"
#include "mm/fill/share.h"
#include "mm/flush/durable.h"
#include "mm/flush/end.h"
#include "mm/flush/keep.h"
#include "mm/flush/range.h"
#include "mm/flush/resize.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/frames/pool.h"
#include "mm/map/segments.h"
#include "mm/space/file_open.h"
#include "mm/space/handle.h"
#include "mm/space/mm.h"
#include "mm/space/ranges.h"
#include "mm/view/range.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/store.h"
#include "trap/trap.h"

#include <errno.h>
#include <string.h>
#include <limits.h>
#include <stdlib.h>

#define LIVE_MAX 256
#define FM_STRING(x) #x
#define FM_VERSION_OF(a, b, c) FM_STRING(a) "." FM_STRING(b) "." FM_STRING(c)

#define EXIT_NS (2 * OS_NSEC_PER_SEC) /* how long the end of the process waits for recordings to be written */

static struct fm_mm *live[LIVE_MAX]; /* atomic */
static struct fm_mm *flushing;       /* seq_cst: the one that the end of the process is looking at */
static uint32_t finishing;           /* calls of fm_mm_destroy() that still write; atomic */
static uint32_t ending;              /* the thread that writes for the end of the process; 0: none does; atomic */

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

/* ------------------------------------------------------------------ who is alive */

static void forget_parents(void)
{
	if (trap_is_child()) {
		for (int i = 0; i < LIVE_MAX; i++)
			atomic_set(&live[i], NULL);
		atomic_set(&flushing, NULL);
		atomic_set(&finishing, 0u);
		atomic_set(&ending, 0u);
		self()->finishing = 0;
		queues_forget();
		objects_forget();
	}
}

static int live_add(struct fm_mm *mm)
{
	for (int i = 0; i < LIVE_MAX; i++) {
		struct fm_mm *none = NULL;
		if (atomic_cas(&live[i], &none, mm))
			return 0;
	}
	return -EMFILE;
}

static bool live_remove(struct fm_mm *mm)
{
	for (int i = 0; i < LIVE_MAX; i++) {
		struct fm_mm *here = mm;
		if (atomic_cas(&live[i], &here, NULL))
			return true;
	}
	return false;
}

static int mm_alive(const struct fm_mm *mm)
{
	if (!mm)
		return -EINVAL;
	if (trap_is_child())
		return -EOWNERDEAD;
	for (int i = 0; i < LIVE_MAX; i++)
		if (atomic_get(&live[i]) == mm)
			return 0;
	return -EOWNERDEAD;
}

static int file_alive(const struct fm_file *file)
{
	return file ? mm_alive(file->mm) : -EINVAL;
}

/* ------------------------------------------------------------------ the end of the process */

/*
 * Most programs end without taking anything down: what is dirty is written then, and what was recorded. The program's own
 * last words may come before or after any handler of ours, so the same is done at several moments:
 *   - by atexit(), from the first file on that there is something to be written of. It runs before handlers that are older.
 *   - by a destructor of the lowest priority. It runs after the atexit() handlers and static destructors of the program, and
 *     after those of shared libraries that use this one.
 *   - by an atexit() handler that the destructor adds. The C library calls it after the destructors of all shared libraries,
 *     which matters where this library is linked into the program itself.
 *   - by at_quick_exit(), from the loading of this library on: handlers run in the reverse order.
 * After the last of them a write to a mapping is told to the log function.
 */

/* Only one thread at a time. False: the calling thread is inside already, and a callback has called exit(). */
static bool ending_begin(void)
{
	uint32_t own = os_gettid(), other = 0;

	while (!atomic_cas(&ending, &other, own)) {
		if (other == own)
			return false;
		other = 0;
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
	}
	return true;
}

static void finish_mm(struct fm_mm *mm, uint64_t until, bool last)
{
	os_sigmask mask = os_signals_block();
	writeback_finish(mm);
	os_signals_restore(mask);
	records_flush(mm, until);
	if (last)
		atomic_set(&mm->ended, true);
}

void api_process_ends(bool last)
{
	uint64_t until = os_now_ns() + EXIT_NS;
	if (trap_is_child() || !ending_begin())
		return;
	for (int i = 0; i < LIVE_MAX; i++) {
		struct fm_mm *mm = atomic_get(&live[i]);
		__atomic_store_n(&flushing, mm, __ATOMIC_SEQ_CST);
		if (mm && atomic_get(&live[i]) == mm) /* else it may be gone: see fm_mm_destroy() */
			finish_mm(mm, until, last);
		atomic_set(&flushing, NULL);
	}
	while (atomic_get(&finishing) > self()->finishing) /* other threads' fm_mm_destroy() */
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
	atomic_set(&ending, 0u);
}

static void finishing_add(int calls)
{
	self()->finishing += (uint32_t)calls;
	atomic_add(&finishing, (uint32_t)calls);
}

static void write_at_exit(void)
{
	api_process_ends(false);
}

static void watch_exit(void)
{
	static uint32_t watched; /* atomic */
	if (!atomic_xchg(&watched, 1u))
		atexit(write_at_exit);
}

#ifndef FM_SIM
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wprio-ctor-dtor" /* below 101, so that a program has none that run later */

static void write_at_last(void)
{
	api_process_ends(true);
}

__attribute__((destructor(0))) static void write_at_unload(void)
{
	api_process_ends(false);
	atexit(write_at_last);
}

__attribute__((constructor(0))) static void watch_quick_exit(void)
{
	os_stay_loaded();
	at_quick_exit(write_at_last);
}

#pragma GCC diagnostic pop
#endif

/* A caller's structure may be older and shorter than ours, never longer. */
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

/* Frames are counted in 32 bits, and so is twice as many. */
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
	    (ours.flags & ~(uint32_t)(FM_MM_HOLD_LOCK | FM_KEEP)) || ours.reserved)
		return -EINVAL;
	if (ours.budget_bytes && ours.budget_bytes < fm_budget_min(OS_PAGE))
		return -EINVAL;
	if (ours.budget_bytes > BUDGET_MOST) {
		say_line(&ours, "the budget is above 8 TiB, which is as much as an address space can have");
		return -EINVAL;
	}
	forget_parents();
	err = mm_create(&ours, &mm);
	if (err == -EAGAIN)
		say_line(&ours, "the system lets this user have no more threads, and the library needs some of its own: raise RLIMIT_NPROC (ulimit -u), "
				"or pids.max of the cgroup");
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
	int err = mm_alive(mm);
	if (err)
		return err;
	finishing_add(1); /* before it is taken from the list: exit() in another thread finds it in one of the two */
	if (!live_remove(mm)) {
		finishing_add(-1);
		return -EOWNERDEAD;
	}
	while (__atomic_load_n(&flushing, __ATOMIC_SEQ_CST) == mm) /* another thread has called exit() */
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
	mm_finish(mm);
	finishing_add(-1);
	return mm_destroy(mm);
}

/* ------------------------------------------------------------------ files */

static int open_checked(fm_mm *mm, const char *uri, int fd, const struct fm_file_options *options, fm_file **ret_file)
{
	struct fm_file_options ours;
	int err = copy_options(&ours, sizeof(ours), options);
	uint32_t known = FM_FILE_WRITE | FM_FILE_LOCK | (fd < 0 ? FM_FILE_CREATE : 0u);

	if (err || !ret_file || ours.changed > FM_CHANGED_REFRESH || (ours.flags & ~known) ||
	    (ours.flags & (FM_FILE_WRITE | FM_FILE_CREATE)) == FM_FILE_CREATE ||
	    (ours.page_size != FM_PAGE_SIZE_AUTO && !page_size_valid(ours.page_size)))
		return -EINVAL;
	err = file_open(mm, uri, fd, &ours, ret_file);
	if (!err && ((*ret_file)->cache->reads->record || (*ret_file)->may_write))
		watch_exit();
	return err;
}

int fm_file_open(fm_mm *mm, const char *uri, const struct fm_file_options *options,
		 fm_file **ret_file)
{
	int err = mm_alive(mm);
	if (err || !uri)
		return err ? err : -EINVAL;
	return open_checked(mm, uri, -1, options, ret_file);
}

int fm_file_open_fd(fm_mm *mm, int fd, const struct fm_file_options *options, fm_file **ret_file)
{
	char name[PATH_MAX + 64];
	int err = mm_alive(mm);
	if (err || fd < 0)
		return err ? err : -EBADF;
	store_fd_name(fd, name, sizeof(name));
	return open_checked(mm, name, fd, options, ret_file);
}

int fm_file_hotset(fm_file *file, const char *path)
{
	int err = file_alive(file);
	if (err || !path || !*path)
		return err ? err : -EINVAL;
	return file_hotset(file->cache, path);
}

int fm_file_close(fm_file *file)
{
	int err = file_alive(file);
	if (err)
		return err;
	os_sigmask mask = os_signals_block();
	if (atomic_get(&file->open) && file->may_write) /* the program may look at the file by other means */
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
	int err = file_alive(file);
	if (err || !ret_size)
		return err ? err : -EINVAL;
	*ret_size = file_size(file->cache);
	return 0;
}

/* A plain read of the store. A local file serves what is aligned by its direct descriptor, and the
 * other descriptor of a file that is open for writing has no readahead. So the rest of the last
 * page is read by itself: the whole read would else be several times slower. */
int fm_file_refresh(fm_file *file, bool *ret_changed)
{
	bool changed = false;
	int err = file_alive(file);
	if (err)
		return err;
	os_sigmask mask = os_signals_block();
	err = file_refresh(file->cache, &changed);
	os_signals_restore(mask);
	if (!err && ret_changed)
		*ret_changed = changed;
	return err;
}

int fm_file_read(fm_file *file, void *buf, size_t len, uint64_t offset, size_t *ret_len)
{
	size_t tail = len % OS_PAGE, done = 0;
	struct iovec whole_pages = {buf, len - tail};
	unsigned shorts = 0;
	int err = file_alive(file);

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
	int err = file_alive(file);
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

/* The mapping's own file goes with it. */
static int map_private(fm_file *file, uint64_t offset, size_t len, const struct fm_map_options *options, void **ret_addr)
{
	struct fm_file *own;
	int err = file_open_private(file, &own);
	if (err)
		return err;
	err = offset + len > own->view.region.len ? -EOVERFLOW
						  : mm_map_range(&own->view, offset, len, options, ret_addr);
	handle_close(own);
	return err;
}

/* The program has put other memory into this part of the file's view, or unmapped it. It stays where it is: what is only read is shown
 * elsewhere, by a view of its own. */
static int map_elsewhere(fm_file *file, uint64_t offset, size_t len, const struct fm_map_options *options, void **ret_addr)
{
	if (!file->writable)
		return map_private(file, offset, len, options, ret_addr);
	mm_log(file->mm, FM_LOG_ERROR, "%s: the program's own memory lies where offset %llu would be mapped; close the file, and open it anew",
	       file->uri, (unsigned long long)offset);
	return -EADDRINUSE;
}

int fm_map(fm_file *file, uint64_t offset, size_t len, const struct fm_map_options *options,
	   void **ret_addr)
{
	struct fm_map_options ours;
	int err = file_alive(file);
	if (err)
		return err;
	err = copy_options(&ours, sizeof(ours), options);
	if (err || !ret_addr || !len || (offset & (OS_PAGE - 1)) || ours.reserved ||
	    (ours.flags & ~(uint32_t)(FM_MAP_WRITE | FM_MAP_PRIVATE)))
		return -EINVAL;
	if ((ours.flags & (FM_MAP_WRITE | FM_MAP_PRIVATE)) == FM_MAP_WRITE && !file->may_write)
		return -EACCES;
	file = file->cache;
	if (offset > INT64_MAX || len > INT64_MAX || offset + len > file->view.region.len)
		return -EOVERFLOW;
	os_sigmask mask = os_signals_block();
	uint64_t place = file->view.region.base + offset, bytes = (len + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1);
	if (ours.flags & FM_MAP_PRIVATE)
		err = map_private(file, offset, len, &ours, ret_addr);
	else if (unlikely(trap_any_foreign(file->mm->trap, place, bytes)))
		err = map_elsewhere(file, offset, len, &ours, ret_addr);
	else
		err = mm_map_range(&file->view, offset, len, &ours, ret_addr);
	os_signals_restore(mask);
	return err;
}

static int check_range(fm_mm *mm, const void *addr, size_t len, uint64_t *ret_start,
		       uint64_t *ret_end)
{
	uint64_t start = (uint64_t)(uintptr_t)addr;
	int err = mm_alive(mm);
	if (err)
		return err;
	if (!len || len > INT64_MAX || start + len < start)
		return -EINVAL;
	*ret_start = start;
	*ret_end = (start + len + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1);
	return 0;
}

int fm_unmap(fm_mm *mm, void *addr, size_t len)
{
	uint64_t start, end;
	int err = check_range(mm, addr, len, &start, &end);
	if (err || (start & (OS_PAGE - 1)))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	err = mm_unmap_range(mm, start, end);
	os_signals_restore(mask);
	return err;
}

int fm_advise(fm_mm *mm, void *addr, size_t len, enum fm_advice advice)
{
	uint64_t start, end;
	int err = check_range(mm, addr, len, &start, &end);
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
	int err = check_range(mm, addr, len, &start, &end);
	if (err || (start & (OS_PAGE - 1)) || !vec)
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	err = mm_residency_range(mm, start, end, vec);
	os_signals_restore(mask);
	return err;
}

/* ------------------------------------------------------------------ bringing pages in */

/* A fault at addr as a call, of which more follow up to `end`. `look`: what is recorded as installed may not be there. On 0 *ret_page, if
 * wanted, is the installed page with its pin. */
static int fault_call(fm_mm *mm, uint64_t addr, uint64_t end, uint64_t *ahead, unsigned flags, bool look,
		      struct frame_pool **ret_pool, struct page **ret_page)
{
	struct view *view = view_find(mm, addr);
	struct fault vmf;

	if (!view)
		return -EFAULT;
	fault_begin(&vmf, view, addr, fault_flags(mm, (flags & FM_NOWAIT ? FM_FAULT_RETRY_NOWAIT : 0u) |
							(flags & FM_WRITE ? FM_FAULT_WRITE : 0u)));
	vmf.exact = flags & FM_NOWAIT;
	*ahead = ra_range(view, addr, end, *ahead);
	vmf.repeated = look;
	int err = fault_drive(&vmf, NULL);
	if (!err && ret_page) {
		*ret_pool = view->file->pool;
		*ret_page = vmf.page;
		vmf.page = NULL;
	}
	fault_end(&vmf, err);
	region_unpin(&view->region);
	return err;
}

/* The next address to look at: pages may be larger than 4096. */
static uint64_t next_page(uint64_t addr)
{
	struct view_region *region = region_find(addr);
	uint64_t unit = OS_PAGE;
	if (region) {
		struct view *view = region->owner;
		unit = view->file->pool->page_size;
		region_unpin(region);
	}
	return (addr & ~(unit - 1)) + unit;
}

/* In some view the program has put other memory into the range. */
static bool range_is_foreign(fm_mm *mm, uint64_t start, uint64_t end)
{
	bool foreign = false;
	while (start < end && !foreign) {
		struct view *view = view_find(mm, start);
		if (!view)
			return false;
		uint64_t stop = view->region.base + view->region.len;
		stop = stop < end ? stop : end;
		start &= ~(uint64_t)(OS_PAGE - 1);
		foreign = trap_any_foreign(mm->trap, start, stop - start);
		region_unpin(&view->region);
		start = stop;
	}
	return foreign;
}

int fm_fault_in(fm_mm *mm, const void *addr, size_t len, unsigned flags)
{
	uint64_t start, end, ahead = 0;
	bool again = false;
	int err = check_range(mm, addr, len, &start, &end);
	if (err || (flags & ~(unsigned)(FM_NOWAIT | FM_WRITE)))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	if (flags & FM_NOWAIT) /* what ends from here on is told anew */
		atomic_set(&mm->event_signalled, 0u);
	bool look = range_is_foreign(mm, start, end);
	for (uint64_t at = start; at < end && !err; at = next_page(at)) {
		err = fault_call(mm, at, end, &ahead, flags, look, NULL, NULL);
		if (err == -EAGAIN && (flags & FM_NOWAIT)) {
			again = true;
			err = 0;
		}
	}
	if (!err && again) {
		stats_add(mm->stats, fault_in_again, 1);
		err = -EAGAIN;
	}
	os_signals_restore(mask);
	return err;
}

/* Lock a page that the caller has pinned. */
static int lock_page(fm_mm *mm, struct page *page)
{
	while (!page_trylock(page)) {
		int err = page_wait(mm, page, true, OS_FOREVER);
		if (err)
			return err;
	}
	return 0;
}

static int pin_one(fm_mm *mm, uint64_t addr, uint64_t end, uint64_t *ahead, unsigned flags)
{
	for (;;) {
		struct frame_pool *pool = NULL;
		struct page *page = NULL;
		/* What is pinned must really be there: somebody may have emptied the view. */
		int err = fault_call(mm, addr, end, ahead, flags, true, &pool, &page);
		if (err)
			return err;
		err = lock_page(mm, page);
		if (err) {
			page_unpin(pool, page);
			return err;
		}
		/* A write may have begun since the fault has put the lock: then it is clean, or protected. */
		uint32_t wants = PG_INSTALLED | (flags & FM_WRITE ? PG_DIRTY | PG_UNPROTECTED : 0u);
		bool there = (page_state(page) & (wants | PG_GONE)) == wants;
		bool first = there && !page->user_pins;
		uint32_t limit = pool->frames - pool->frames / 4;
		if (there && page->user_pins == UINT16_MAX) {
			err = -EOVERFLOW;
		} else if (first && atomic_add(&pool->user_pinned, 1u) >= limit) {
			atomic_sub(&pool->user_pinned, 1u);
			err = -ENOMEM;
		} else if (there) {
			page_word_set(page, user_pins, page->user_pins + 1);
			if (first)
				stats_add(mm->stats, pins, 1);
		}
		page_unlock(pool, page);
		if (err || !first)
			page_unpin(pool, page);
		if (err || there)
			return err;
	}
}

static int unpin_one(fm_mm *mm, uint64_t addr)
{
	struct view_region *region = region_find(addr);
	if (!region)
		return -EINVAL;
	struct view *view = region->owner;
	struct frame_pool *pool = view->file->pool;
	struct page *page = NULL;
	int err = -EINVAL;
	if (view->mm == mm)
		page = page_find(view->file, (addr - region->base) >> pool->shift);
	if (page && lock_page(mm, page) == 0) {
		bool last = page->user_pins == 1;
		if (page->user_pins) {
			page_word_set(page, user_pins, page->user_pins - 1);
			err = 0;
		}
		page_unlock(pool, page);
		if (last && !err) {
			atomic_sub(&pool->user_pinned, 1u);
			stats_sub(mm->stats, pins, 1);
			page_unpin(pool, page);
			/* Unmapped meanwhile, or mapped for reading only: the pin had kept it in the view. */
			if (!mm_range_allows(mm, addr, view->file->writable && page_is(page, PG_UNPROTECTED)))
				file_take_out(view->file, page->index, page->index);
		}
	}
	if (page)
		page_unpin(pool, page);
	region_unpin(region);
	return err;
}

int fm_pin(fm_mm *mm, const void *addr, size_t len, unsigned flags)
{
	uint64_t start, end, at, ahead = 0;
	int err = check_range(mm, addr, len, &start, &end);
	if (err || (flags & ~(unsigned)(FM_NOWAIT | FM_WRITE)))
		return err ? err : -EINVAL;
	os_sigmask mask = os_signals_block();
	if (flags & FM_NOWAIT)
		atomic_set(&mm->event_signalled, 0u);
	for (at = start; at < end; at = next_page(at)) {
		err = pin_one(mm, at, end, &ahead, flags);
		if (err)
			break;
	}
	for (uint64_t undo = start; err && undo < at; undo = next_page(undo))
		unpin_one(mm, undo);
	os_signals_restore(mask);
	return err;
}

int fm_unpin(fm_mm *mm, const void *addr, size_t len)
{
	uint64_t start, end;
	int err = check_range(mm, addr, len, &start, &end);
	if (err)
		return err;
	os_sigmask mask = os_signals_block();
	for (uint64_t at = start; at < end; at = next_page(at)) {
		int one = unpin_one(mm, at);
		err = err ? err : one;
	}
	os_signals_restore(mask);
	return err;
}

int fm_event_fd(fm_mm *mm, int *ret_fd)
{
	int err = mm_alive(mm);
	if (err || !ret_fd)
		return err ? err : -EINVAL;
	return mm_event_fd(mm, ret_fd);
}

/* ------------------------------------------------------------------ writing back */

/* [offset, offset + len) as pages; `len` 0: to the end. */
static int check_file_range(fm_file *file, uint64_t offset, uint64_t len, uint64_t *ret_first, uint64_t *ret_last)
{
	int err = file_alive(file);
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
	int err = check_range(mm, addr, len, &start, &end);
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

/* A call that changes the file, with signals blocked. */
static int change_file(fm_file *file, uint64_t offset, uint64_t len, int (*change)(struct fm_file *, uint64_t, uint64_t))
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
	int err = file_alive(file);
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
	int err = mm_alive(mm);
	if (err || !ret_queue)
		return err ? err : -EINVAL;
	return queue_create(mm, ranges, ret_queue);
}

/* Whether it is one of the living, queue.c knows. */
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

int fm_fault_in_batch(fm_queue *queue, const struct fm_range *ranges, size_t count, size_t *ret_begun)
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
	int err = mm_alive(mm);
	if (err)
		return err;
	if (!ret_stats || ret_stats->size != sizeof(*ret_stats))
		return -EINVAL;
	stats_collect(mm->stats, ret_stats);
	return 0;
}
