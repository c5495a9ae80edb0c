/* SPDX-License-Identifier: MIT */
/*
 * The mappings that the library serves in place of the kernel.
 *
 * Two mappings for one. The kernel first makes the mapping that the program asked for: the shadow.
 * The program never learns the shadow's address. No thread touches the shadow, so the shadow costs
 * no memory. The program gets the address of the library's view. To hand the mapping over, one
 * mremap() puts the shadow in the view's place. The program then has exactly what the kernel would
 * have given, without a descriptor and without a moment between. A forked child does the same with
 * its copy of the shadow.
 *
 * Lease or kernel. A mapping is served only while this process has a read lease on the file. When a
 * program opens the file for writing, its open() waits while the lease thread hands over the
 * mappings of the file. Then the lease thread gives the lease up. When a page cannot be read, or is
 * past the end, the mapping is handed over, too, and the access is repeated there: all signals are
 * the kernel's.
 *
 * Owns the table of served mappings and the library's address space. `lock` protects both; all
 * signals are blocked meanwhile. A call of the program that touches no served mapping takes no
 * lock: the library's own threads, and malloc() in the program's threads, make such calls while
 * another thread has the lock.
 * May call: filemap.h, lease.c, next.c, settings.c, choose.c, os.
 */
#include "served.h"

#include "choose.h"
#include "filemap.h"
#include "lease.h"
#include "settings.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/os.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SERVED_MOST 1024
#define TRIES_MOST  5
#define ROUND(len)  (((len) + OS_PAGE - 1) & ~(size_t)(OS_PAGE - 1))
/* Address space for all views at once. A view spans its whole file. */
#define VIEWS_MOST (16ull << 40)

struct served {
	uint64_t start, end; /* what the program sees; atomic; `end` 0: the place is free */
	uint64_t shadow;
	uint64_t view_bytes;
	fm_file *file;
	int lease;
	uint32_t failed; /* a page could not be given; atomic */
	bool handing;    /* the kernel's mapping is in place; the rest follows */
};

enum engine { ENGINE_NONE, ENGINE_RUNS, ENGINE_CANNOT };

static struct served served[SERVED_MOST];
static uint32_t served_used; /* places below this may be in use; atomic */
static struct os_lock lock;
static enum engine engine;
static fm_mm *mm;
static uint64_t views_bytes;
static uint32_t stopped; /* atomic */
static long own_pid;
static os_sigmask fork_mask;

/* ------------------------------------------------------------------ the table */

static os_sigmask table_lock(void)
{
	os_sigmask mask = os_signals_block();

	os_lock(&lock);
	return mask;
}

static void table_unlock(os_sigmask mask)
{
	os_unlock(&lock);
	os_signals_restore(mask);
}

static bool touches(const struct served *s, uint64_t start, uint64_t end)
{
	uint64_t until = atomic_get(&s->end);

	return until && start < until && end > atomic_get(&s->start);
}

bool served_overlaps(const void *addr, size_t len)
{
	uint64_t start = (uint64_t)(uintptr_t)addr, end = start + len;
	uint32_t used = atomic_get(&served_used);

	if (end < start)
		end = UINT64_MAX;
	for (uint32_t i = 0; i < used; i++)
		if (touches(&served[i], start, end))
			return true;
	return false;
}

static struct served *place_free(void)
{
	for (uint32_t i = 0; i < SERVED_MOST; i++)
		if (!atomic_get(&served[i].end))
			return &served[i];
	return NULL;
}

/* ------------------------------------------------------------------ handing over */

static void die(const char *what)
{
	say_always("%s: the program is ended, since it would read old bytes", what);
	os_syscall3(SYS_tgkill, os_syscall1(SYS_getpid, 0), os_gettid(), SIGKILL);
	os_syscall1(SYS_exit_group, 127);
}

/* Put the shadow in the view's place. The kernel may lack memory, or a place for one more mapping:
 * then the call is repeated for a while. */
static void shadow_move(const struct served *s, uint64_t start, uint64_t len)
{
	long from = (long)(s->shadow + (start - s->start)), ret = -1;

	for (int tries = 0; tries < 10000; tries++) {
		ret = os_syscall6(SYS_mremap, from, (long)len, (long)len,
				  MREMAP_MAYMOVE | MREMAP_FIXED, (long)start, 0);
		if (ret == (long)start)
			return;
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
	}
	die("a mapping cannot be handed to the kernel, which has no memory or too many mappings");
}

static bool is_intact(uint64_t start, uint64_t len)
{
	bool intact;

	return fm_intact(mm, (void *)(uintptr_t)start, len, &intact) == 0 && intact;
}

/* Put the shadow in the view's place, wherever the view still is. A program that calls the kernel
 * without the C library may have unmapped a part, or put its own memory there. */
static void shadow_place(const struct served *s, uint64_t start, uint64_t len)
{
	uint64_t half = ROUND(len / 2);

	if (is_intact(start, len)) {
		shadow_move(s, start, len);
	} else if (len <= OS_PAGE) {
		os_syscall2(SYS_munmap, s->shadow + (start - s->start), len);
	} else {
		shadow_place(s, start, half);
		shadow_place(s, start + half, len - half);
	}
}

/* The first part: from here on the program has the kernel's mapping, and writers may go on. The
 * lock is held. */
static void hand_begin(struct served *s)
{
	if (s->handing)
		return;
	shadow_place(s, s->start, s->end - s->start);
	lease_give(s->lease);
	s->handing = true;
}

/* The second part: the library lets go of the range. Waits for reads under way. The lock is
 * held. */
static void hand_end(struct served *s)
{
	int err = fm_release(mm, (void *)(uintptr_t)s->start, s->end - s->start);

	if (err)
		say_always("fm_release(): %s", strerror(-err));
	(void)fm_file_close(s->file);
	views_bytes -= s->view_bytes;
	s->handing = false;
	atomic_set(&s->end, 0ull);
}

/* Hand over all mappings that `wanted` picks. The lock is held. */
static void hand_all(bool (*wanted)(const struct served *s, const void *arg), const void *arg,
		     const char *why)
{
	uint32_t used = atomic_get(&served_used);

	for (uint32_t i = 0; i < used; i++)
		if (atomic_get(&served[i].end) && !served[i].handing && wanted(&served[i], arg)) {
			choose_count_handed(why); /* first: a writer goes on, and may end the process */
			hand_begin(&served[i]);
			say("%#llx: handed to the kernel: %s", (unsigned long long)served[i].start, why);
		}
	for (uint32_t i = 0; i < used; i++)
		if (served[i].handing)
			hand_end(&served[i]);
}

static bool is_broken(const struct served *s, const void *arg)
{
	(void)arg;
	return lease_is_broken(s->lease);
}

static bool is_torn(const struct served *s, const void *arg)
{
	(void)arg;
	return !is_intact(s->start, s->end - s->start);
}

static bool has_failed(const struct served *s, const void *arg)
{
	(void)arg;
	return atomic_get(&s->failed);
}

struct range {
	uint64_t start, end;
};

static bool in_range(const struct served *s, const void *arg)
{
	const struct range *range = arg;

	return touches(s, range->start, range->end);
}

/* Runs in the lease thread. */
static void heard(void)
{
	os_sigmask mask = table_lock();

	hand_all(is_broken, NULL, "the file is opened for writing");
	hand_all(has_failed, NULL, "a page cannot be read, or is past the end");
	table_unlock(mask);
}

void served_hand_over(const void *addr, size_t len, const char *why)
{
	struct range range = {(uint64_t)(uintptr_t)addr, (uint64_t)(uintptr_t)addr + len};
	os_sigmask mask = table_lock();

	if (range.end < range.start)
		range.end = UINT64_MAX;
	hand_all(in_range, &range, why);
	table_unlock(mask);
}

void served_stop(const char *why)
{
	struct range all = {0, UINT64_MAX};
	os_sigmask mask = table_lock();

	atomic_set(&stopped, 1u);
	hand_all(in_range, &all, why);
	table_unlock(mask);
}

/* ------------------------------------------------------------------ serving */

/* Called in the trap's thread. */
static enum fm_error_action on_error(void *arg, const struct fm_error *error)
{
	(void)error;
	atomic_set(&((struct served *)arg)->failed, 1u);
	lease_kick();
	return FM_ERROR_RAISE;
}

static void on_log(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	say("%s", line);
}

/* Make the address space. The lock is held. */
static bool engine_start(void)
{
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = settings_get()->budget_bytes,
					.trap = FM_TRAP_THREAD,
					.flags = FM_MM_NO_SIGNALS,
					.log = on_log};
	int err;

	if (engine != ENGINE_NONE)
		return engine == ENGINE_RUNS;
	engine = ENGINE_CANNOT;
	err = fm_mm_create(&options, &mm);
	if (err == -EPERM)
		say("the kernel serves all mappings: faults of system calls are not granted to this "
		    "user (vm.unprivileged_userfaultfd is 0, and there is no CAP_SYS_PTRACE)");
	else if (err)
		say("the kernel serves all mappings: the library cannot start: %s", strerror(-err));
	else if (!os_fds_apart())
		say("the kernel serves all mappings: a thread with descriptors of its own is refused");
	else if (lease_start(heard))
		say("the kernel serves all mappings: no thread can be started");
	else
		engine = ENGINE_RUNS;
	return engine == ENGINE_RUNS;
}

/* Open the file and map it. The lock is held, and the lease is taken. */
static int serve(struct served *s, const struct wish *wish)
{
	uint64_t end = (uint64_t)wish->offset + ROUND(wish->len), size = (uint64_t)wish->st.st_size;
	struct fm_file_options options = {.size = sizeof(options),
					  .changed = FM_CHANGED_LEASE,
					  .readahead_bytes = (uint32_t)settings_get()->readahead_bytes,
					  .reserve_bytes = end > size ? ROUND(end - size + 1) : OS_PAGE};
	struct fm_map_options map = {.size = sizeof(map), .on_error = on_error, .on_error_arg = s};
	struct stat now;
	void *addr;
	int err = fm_file_open_fd(mm, wish->fd, &options, &s->file);

	if (err)
		return err;
	/* Another thread may have put another file at the number meanwhile. */
	err = fstat(wish->fd, &now) || now.st_dev != wish->st.st_dev || now.st_ino != wish->st.st_ino;
	if (err) {
		(void)fm_file_close(s->file);
		return -ESTALE;
	}
	err = fm_map(s->file, (uint64_t)wish->offset, wish->len, &map, &addr);
	if (err) {
		(void)fm_file_close(s->file);
		return err;
	}
	s->start = (uint64_t)(uintptr_t)addr;
	return 0;
}

/* Take the lease, and serve. The lock is held. Returns NULL, or why the kernel serves. */
static const char *begin(const struct wish *wish, void **ret_addr)
{
	uint64_t view = (uint64_t)wish->st.st_size + wish->len;
	struct served *s = place_free();
	int lease;

	if (atomic_get(&stopped))
		return "mlockall() was called";
	if (!s || views_bytes + view > VIEWS_MOST)
		return "too many are served";
	if (!engine_start())
		return "not possible on this machine";
	lease = lease_take(wish->fd, &wish->st);
	if (lease < 0)
		return lease == -EAGAIN   ? "somebody has it open for writing"
		       : lease == -EACCES ? "another user's file"
					  : "no lease";
	*s = (struct served){.shadow = (uint64_t)(uintptr_t)wish->shadow,
			     .view_bytes = view,
			     .lease = lease};
	int err, tries = 0;
	/* After the program has closed the library's numbers, the late end of an earlier handle of the
	 * file can close the number that the new handle has just got. */
	do
		err = serve(s, wish);
	while (err == -EBADF && ++tries < TRIES_MOST);
	if (err) {
		lease_give(lease);
		say("%s", strerror(-err));
		return "cannot be served";
	}
	views_bytes += view;
	atomic_set(&s->end, s->start + ROUND(wish->len));
	if (s - served >= atomic_get(&served_used))
		atomic_set(&served_used, (uint32_t)(s - served) + 1);
	*ret_addr = (void *)(uintptr_t)s->start;
	return NULL;
}

void *served_begin(void *shadow, size_t len, int prot, int flags, int fd, off_t offset)
{
	struct wish wish = {shadow, len, prot, flags, fd, offset, {0}};
	void *addr = shadow;
	int saved = errno;
	const char *why = choose(&wish);

	if (!why && os_syscall1(SYS_getpid, 0) != own_pid)
		why = "a forked process";
	if (!why) {
		os_sigmask mask = table_lock();
		why = begin(&wish, &addr);
		table_unlock(mask);
	}
	choose_count(why);
	choose_say(&wish, addr, why);
	errno = saved;
	return addr;
}

/* ------------------------------------------------------------------ advice */

/* What becomes of an advice for a served mapping. */
enum advice_way {
	ADVICE_OTHER,  /* hand the mapping over */
	ADVICE_BOTH,   /* the library follows, and the shadow keeps the advice for later */
	ADVICE_OURS,   /* the library follows; for the shadow it would be wrong */
	ADVICE_SHADOW, /* has a meaning for the kernel's mapping only */
};

static enum advice_way advice_way(int advice, enum fm_advice *ret_ours)
{
	switch (advice) {
	case MADV_NORMAL:
		*ret_ours = FM_ADVICE_NORMAL;
		return ADVICE_BOTH;
	case MADV_RANDOM:
		*ret_ours = FM_ADVICE_RANDOM;
		return ADVICE_BOTH;
	case MADV_SEQUENTIAL:
		*ret_ours = FM_ADVICE_SEQUENTIAL;
		return ADVICE_BOTH;
	case MADV_WILLNEED:
		*ret_ours = FM_ADVICE_WILLNEED;
		return ADVICE_OURS;
	case MADV_DONTNEED: /* of a file: later accesses read the file again */
	case MADV_PAGEOUT:
		*ret_ours = FM_ADVICE_DONTNEED;
		return ADVICE_OURS;
	case MADV_COLD:
		*ret_ours = FM_ADVICE_COLD;
		return ADVICE_OURS;
	case MADV_DONTDUMP:
	case MADV_DODUMP:
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
		return ADVICE_SHADOW;
	default:
		return ADVICE_OTHER;
	}
}

static bool advise(const struct served *s, uint64_t start, uint64_t end, int advice, int *ret_err)
{
	enum fm_advice ours = FM_ADVICE_NORMAL;
	enum advice_way way = advice_way(advice, &ours);
	long err = 0;

	if (way == ADVICE_OTHER)
		return false;
	if (way != ADVICE_OURS)
		err = os_syscall3(SYS_madvise, s->shadow + (start - s->start), end - start, advice);
	if (!err && way != ADVICE_SHADOW)
		err = fm_advise(mm, (void *)(uintptr_t)start, end - start, ours);
	*ret_err = (int)err;
	return true;
}

bool served_advise(void *addr, size_t len, int advice, int *ret_err)
{
	uint64_t start = (uint64_t)(uintptr_t)addr, end = start + ROUND(len);
	bool done = false;

	if (start % OS_PAGE || end <= start)
		return false;
	os_sigmask mask = table_lock();
	uint32_t used = atomic_get(&served_used);
	for (uint32_t i = 0; i < used && !done; i++) {
		const struct served *s = &served[i];
		if (atomic_get(&s->end) && start >= s->start && end <= s->end)
			done = advise(s, start, end, advice, ret_err);
	}
	table_unlock(mask);
	return done;
}

/* ------------------------------------------------------------------ forks */

void served_fork_begin(void)
{
	os_sigmask mask = table_lock();

	fork_mask = mask;
	/* The child cannot tell which parts of a view are the program's. */
	if (os_syscall1(SYS_getpid, 0) == own_pid)
		hand_all(is_torn, NULL, "changed without the C library");
}

void served_fork_end(void)
{
	table_unlock(fork_mask);
}

/* In the child: there is one thread, and none of the library. Each served mapping becomes the
 * kernel's, before the child can touch it. */
void served_fork_child(void)
{
	uint32_t used = atomic_get(&served_used);

	for (uint32_t i = 0; i < used; i++)
		if (atomic_get(&served[i].end)) {
			shadow_move(&served[i], served[i].start, served[i].end - served[i].start);
			atomic_set(&served[i].end, 0ull);
		}
	atomic_set(&served_used, 0u);
	choose_forget();
	table_unlock(fork_mask);
}

/* ------------------------------------------------------------------ begin and end */

__attribute__((constructor)) static void served_init(void)
{
	(void)settings_get();
	own_pid = os_syscall1(SYS_getpid, 0);
}

__attribute__((destructor)) static void served_statistics(void)
{
	struct fm_stats stats = {.size = sizeof(stats)};
	bool runs = os_syscall1(SYS_getpid, 0) == own_pid && engine == ENGINE_RUNS &&
		    fm_stats(mm, &stats) == 0;

	choose_statistics(runs ? &stats : NULL);
}
