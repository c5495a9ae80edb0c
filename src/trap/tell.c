/* SPDX-License-Identifier: MIT */
/*
 * The thread trap: how a failed access is told.
 *
 *   no page there: the page is poisoned, a mark that each access meets. The thread gets SIGBUS, and
 * the library's handler finds the error in the thread's note. A system call gets EFAULT.
 *   a page there (a write): no mark can stand there, and the page stays, even if a thread has the
 * page pinned. A thread of the program that may get SIGBUS is sent SIGBUS, with its note. The
 * kernel itself refuses a system call, or a thread that blocks SIGBUS: the page's place is
 * read-only for a moment. A signal would only make a system call repeat its message without end,
 * or would not wake a system call that waits for pinned pages.
 *   no marks (before Linux 6.6): an access with no page there is told like a write to a page that
 * is there. The page's place allows no access for that moment.
 *
 * Owns struct telling: the notes, one for each thread, since a thread waits for one page at a time.
 * A note ends with the thread's next message, and with its mark. The note of a system call exists
 * only for its mark's sake. A thread that has not run since it was told keeps its note, since
 * trap_drain() waits for notes: otherwise a late thread would find that its view has gone.
 * Marks are removed while installs run, and COPY puts pages into the marks' places. So the kernel
 * is asked first what stands there. `begun` and `ended` let an install see a removal in progress.
 * `lock` protects the notes. May call: uffd.c, os, the kernel.
 */
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/uffd.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NOTES 2048
#define OTHERS_NS                                                                                  \
	(20 * OS_NSEC_PER_MSEC) /* the time a woken thread needs to meet the mark */
#define UNASKED_NS (200 * OS_NSEC_PER_MSEC) /* time a thread has to ask; then its mark goes */
#define TURN_NS (20 * OS_NSEC_PER_MSEC)     /* after running that long a thread never asks */
#define REFUSE_NS (200000u)
#define REFUSE_DOUBLED 6 /* doublings at most, for a thread that is slow to wake up */
#define MOMENTS 16
#define LATE_NS                                                                                    \
	(OS_NSEC_PER_SEC) /* a SIGSEGV that comes later after a moment of refusal has another cause */
#define RUNNING 64
#define RUNNING_MOST 8

struct note {
	uint32_t tid; /* 0: free */
	bool call;    /* a system call was told, by EFAULT: the thread will not ask */
	bool asking;  /* no error: the thread met another thread's mark in its own access, and
			 waits for its own answer */
	bool over;    /* the mark has gone: a late thread will find nothing there, and ask anew;
			 trap_drain() waits for the thread */
	uint64_t page, told_ns;
	uint64_t ran_ns; /* the thread's run time when the error was told; see ran_ns() */
	struct fm_error error;
	fm_error_fn fn;
	void *arg;
};

struct telling {
	struct os_lock lock;
	uint32_t count; /* notes in use; atomic */
	struct note note[NOTES];
	uint32_t begun, ended; /* removals of marks, begun and ended; atomic */
	uint32_t writable;     /* installs of writable pages that are under way; atomic */
	struct { /* threads found awake again and again; a hash. Handler thread only */
		uint32_t tid, count;
	} running[RUNNING];
	struct { /* the latest access that the kernel refused for the library. Handler thread
		    only */
		uint64_t page;
		uint32_t tid, times;
	} refused;
	uint64_t refusing;     /* the page with reduced access for a moment; 0: none; atomic */
	uint32_t refusals;     /* moments of refusal so far; atomic */
	struct { /* the latest moments of refusal, for a thread that met a moment and is told
		    late. Each is atomic */
		uint64_t page, ended_ns;
		uint32_t meant; /* the thread that is to get the kernel's SIGSEGV; 0: none */
	} moment[MOMENTS];
};

int telling_open(struct trap *trap)
{
	trap->telling = os_meta_alloc(sizeof(*trap->telling));
	if (!trap->telling)
		return -ENOMEM;
	return trap->silent || uffd_has_poison(trap) ? 0 : trap_sigsegv_install();
}

void telling_close(struct trap *trap)
{
	if (trap->telling)
		os_meta_free(trap->telling, sizeof(*trap->telling));
	trap->telling = NULL;
}

static uint64_t page_of(uint64_t addr)
{
	return addr & ~(uint64_t)(OS_PAGE - 1);
}

/* Return how long the thread has been on a processor. UINT64_MAX: the thread has ended, or the
 * kernel does not say. */
static uint64_t ran_ns(uint32_t tid)
{
	struct timespec ran;
	/* The thread's own clock: CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED. */
	long clock = (long)(int)(~tid << 3 | 6);

	if (os_syscall2(SYS_clock_gettime, clock, &ran) < 0)
		return UINT64_MAX;
	return (uint64_t)ran.tv_sec * OS_NSEC_PER_SEC + (uint64_t)ran.tv_nsec;
}

/* ------------------------------------------------------------------ notes; lock held */

static void note_free(struct telling *t, struct note *note)
{
	note->tid = 0;
	atomic_sub(&t->count, 1u);
}

static void notes_of_page_end(struct telling *t, uint64_t page)
{
	for (uint32_t i = 0; i < NOTES; i++)
		if (t->note[i].tid && t->note[i].page == page)
			t->note[i].over = true;
}

static bool page_has_young(const struct telling *t, uint64_t page, uint32_t but_tid, uint64_t now)
{
	for (uint32_t i = 0; i < NOTES; i++) {
		const struct note *n = &t->note[i];
		if (n->tid && n->tid != but_tid && n->page == page && !n->over && now < n->told_ns + OTHERS_NS)
			return true;
	}
	return false;
}

/* Return the thread's own note, or a free note that becomes the thread's. NULL: there are more
 * threads than notes, and the access is just repeated. */
static struct note *note_of(struct telling *t, uint32_t tid)
{
	struct note *own = NULL;
	for (uint32_t i = 0; i < NOTES && (!own || own->tid != tid); i++)
		if (t->note[i].tid == tid || (!own && !t->note[i].tid))
			own = &t->note[i];
	if (own && !own->tid) {
		*own = (struct note){.tid = tid};
		atomic_add(&t->count, 1u);
	}
	return own;
}

static void note_put(struct trap *trap, uint32_t tid, bool call, uint64_t page,
		     const struct fm_error *error, fm_error_fn fn, void *arg)
{
	struct telling *t = trap->telling;
	uint64_t ran = ran_ns(tid);

	os_lock(&t->lock);
	struct note *own = note_of(t, tid);
	if (own) {
		call &= !own->asking; /* an asking thread sleeps in the library handler's system
					 call */
		*own = (struct note){.tid = tid, .call = call, .page = page,
				     .told_ns = os_now_ns(), .ran_ns = ran,
				     .error = *error, .fn = fn, .arg = arg};
		if (error->offset)
			own->error.offset &= ~(uint64_t)(OS_PAGE - 1);
	}
	os_unlock(&t->lock);
}

/* Tell whether a thread was told an error and has not asked for the error yet. */
bool tell_pending(struct trap *trap)
{
	return trap->telling && atomic_get(&trap->telling->count) != 0;
}

/* ------------------------------------------------------------------ marks */

/* Remove the mark of a page, so that the next access asks anew. An install may have put its page
 * in the mark's place: then the page stays. An install between the question and the discard finds
 * the loss by trap_kept(). An install of a writable page, which must not be lost, cannot come
 * between: see trap_writable_begin(). May block. */
static void unmark(struct trap *trap, uint64_t page)
{
	atomic_add(&trap->telling->begun, 1u);
	while (atomic_get(&trap->telling->writable))
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 50);
	if (trap_present(page) == 0)
		trap_discard_ours(trap, page, OS_PAGE);
	atomic_add(&trap->telling->ended, 1u);
}

/* Begin an install of writable pages. The installing thread gives way to a removal of a mark. The
 * thread may hold a page lock, but no lock that a removal waits for. */
void trap_writable_begin(struct trap *trap)
{
	struct telling *t = trap->telling;
	while (t) {
		atomic_add(&t->writable, 1u);
		if (atomic_get(&t->begun) == atomic_get(&t->ended))
			return;
		atomic_sub(&t->writable, 1u);
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 50);
	}
}

void trap_writable_end(struct trap *trap)
{
	if (trap->telling)
		atomic_sub(&trap->telling->writable, 1u);
}

uint32_t trap_unmarks(struct trap *trap)
{
	return trap->telling ? atomic_get(&trap->telling->ended) : 0;
}

/* Wait for the end of a moment of refusal in the range. On return, a page that is there can be
 * read, also by a system call. */
static void await_refusal(struct telling *t, uint64_t addr, uint64_t len)
{
	uint64_t page;
	while (t && (page = atomic_get(&t->refusing)) >= addr && page < addr + len)
		os_sleep_until(os_now_ns() + REFUSE_NS / 8);
}

bool trap_kept(struct trap *trap, uint32_t before, uint64_t addr, uint64_t len)
{
	bool kept = true;
	await_refusal(trap->telling, addr, len);
	while (trap->telling && atomic_get(&trap->telling->begun) != before) {
		before = atomic_get(&trap->telling->ended);
		kept = trap_all_present(addr, len);
		if (atomic_get(&trap->telling->begun) !=
		    before) /* also if some pages are lost: the next removal may take the others */
			os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 50);
	}
	return kept;
}

bool trap_poison_take(struct trap *trap, uint64_t addr, struct fm_error *ret_error,
		      fm_error_fn *ret_fn, void **ret_arg)
{
	struct telling *t = trap->telling;
	uint64_t page = page_of(addr), now = os_now_ns();
	uint32_t tid = os_gettid();
	uint64_t ran = ran_ns(tid);
	bool found = false;

	os_lock(&t->lock);
	for (uint32_t i = 0; i < NOTES && !found; i++) {
		struct note *n = &t->note[i];
		if (n->tid != tid || n->page != page || n->call || n->over)
			continue;
		*ret_error = n->error;
		ret_error->addr = (void *)(uintptr_t)addr;
		if (ret_error->error != -EFAULT) /* -EFAULT: there is no offset */
			ret_error->offset += addr & (OS_PAGE - 1);
		*ret_fn = n->fn;
		*ret_arg = n->arg;
		note_free(t, n);
		found = true;
	}
	/* The mark stays for other threads that are being told just now. Without the mark they
	 * would ask again, and be told twice. The last thread removes the mark. */
	bool others = page_has_young(t, page, tid, now);
	if (!others)
		notes_of_page_end(t, page);
	struct note *own = others && !found ? note_of(t, tid) : NULL;
	if (own)
		*own = (struct note){.tid = tid, .page = page, .told_ns = now, .ran_ns = ran,
				     .asking = true, .over = true};
	os_unlock(&t->lock);
	if (!others)
		unmark(trap, page);
	else if (!found)
		os_sleep_until(now + OS_NSEC_PER_MSEC / 20);
	return found;
}

/* Remove a page's mark, unless other threads are being told just now. The lock is held at the
 * call and released at return. */
static void mark_end(struct trap *trap, uint64_t page, uint64_t now)
{
	struct telling *t = trap->telling;
	bool others = page_has_young(t, page, 0, now);
	if (!others)
		notes_of_page_end(t, page);
	os_unlock(&t->lock);
	if (!others)
		unmark(trap, page);
}

/* End what this thread was told before. Called in the handler thread. */
void tell_forget(struct trap *trap, uint32_t tid)
{
	struct telling *t = trap->telling;
	for (uint32_t i = 0; atomic_get(&t->count) && i < NOTES; i++) {
		os_lock(&t->lock);
		if (t->note[i].tid != tid) {
			os_unlock(&t->lock);
			continue;
		}
		uint64_t page = t->note[i].page;
		note_free(t, &t->note[i]);
		mark_end(trap, page, os_now_ns());
		return;
	}
}

/* ------------------------------------------------------------------ a write where a page is */

static long read_of_thread(uint32_t tid, const char *name, char *text, size_t len)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/task/%u/%s", tid, name);
	long fd = os_syscall4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	long got = os_syscall3(SYS_read, fd, text, len - 1);
	os_syscall1(SYS_close, fd);
	text[got > 0 ? got : 0] = 0;
	return got;
}

enum access { ACCESS_OVER, ACCESS_OWN, ACCESS_CALL, ACCESS_UNKNOWN };

/* Tell whether the waiting access is the thread's own, or a system call's. OVER: the thread is
 * awake. */
static enum access access_of(const struct trap *trap, uint32_t tid)
{
	char text[256];
	if (read_of_thread(tid, "syscall", text, sizeof(text)) <= 0)
		return trap->user_mode_only ? ACCESS_OWN : ACCESS_UNKNOWN;
	return text[0] == 'r' ? ACCESS_OVER : text[0] == '-' ? ACCESS_OWN : ACCESS_CALL;
}

static bool has_sigbus(const char *status, const char *field)
{
	const char *at = strstr(status, field);
	return !at || (strtoull(at + strlen(field), NULL, 16) >> (SIGBUS - 1) & 1);
}

/* Tell whether the thread blocks SIGBUS, or the process ignores SIGBUS: a signal sent to the
 * thread then tells nothing. */
static bool refuses_sigbus(uint32_t tid)
{
	char text[4096];
	if (read_of_thread(tid, "status", text, sizeof(text)) <= 0)
		return true;
	return has_sigbus(text, "\nSigBlk:") || has_sigbus(text, "\nSigIgn:");
}

/* End the process, as the kernel does if a process blocks or ignores the SIGBUS of its own
 * access. */
static void die_of_sigbus(void)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	uint64_t mask = 1ull << (SIGBUS - 1);

	sigaction(SIGBUS, &dfl, NULL);
	os_syscall4(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, sizeof(mask));
	os_syscall3(SYS_tgkill, os_syscall1(SYS_getpid, 0), os_gettid(), SIGBUS);
}

/* Send a thread SIGBUS with the address in si_value. The kernel would use si_addr, but a thread
 * may send such a signal only to itself. */
static bool signal_thread(uint32_t tid, uint64_t addr)
{
	siginfo_t info;
	memset(&info, 0, sizeof(info));
	info.si_signo = SIGBUS;
	info.si_code = TRAP_TOLD;
	info.si_value.sival_ptr = (void *)(uintptr_t)addr;
	return os_syscall4(SYS_rt_tgsigqueueinfo, os_syscall1(SYS_getpid, 0), tid, SIGBUS, &info) == 0;
}

/* Return how long to refuse. A thread that is slower than the moment sends its message again:
 * each time the next moment lasts twice as long. */
static uint64_t refusal_ns(struct telling *t, uint32_t tid, uint64_t page)
{
	bool again = t->refused.tid == tid && t->refused.page == page;
	uint32_t times = again ? t->refused.times + 1 : 0;

	t->refused.tid = tid;
	t->refused.page = page;
	t->refused.times = times < REFUSE_DOUBLED ? times : REFUSE_DOUBLED;
	return (uint64_t)REFUSE_NS << t->refused.times;
}

/* Let the page's place allow only `prot` for a moment. The change is not for the region, in which
 * other threads may write to their own pages. The page does not move meanwhile; the page is
 * copied. The kernel's own SIGSEGV also refuses other writes there (or, with PROT_NONE, reads).
 * If there are no marks, trap_sigbus() has that access repeated. If there are marks, fm_guard()
 * does not see that signal. */
static void refuse_for_a_moment(struct trap *trap, uint32_t tid, uint64_t page, int prot,
				bool meant)
{
	struct telling *t = trap->telling;
	if (!trap_is_ours(trap, page, OS_PAGE)) /* the program's own memory is here by now */
		return;
	uint32_t at = atomic_add(&t->refusals, 1u) % MOMENTS;

	atomic_set(&t->moment[at].meant, meant ? tid : 0u);
	atomic_set(&t->moment[at].ended_ns, UINT64_MAX - LATE_NS);
	atomic_set(&t->moment[at].page, page);
	atomic_set(&t->refusing, page);
	os_syscall3(SYS_mprotect, page, OS_PAGE, prot);
	trap_wake(trap, page, OS_PAGE);
	os_sleep_until(os_now_ns() + refusal_ns(t, tid, page));
	/* Restore the protection that the region was opened with: see trap_region_open(). */
	if (!trap->has_wp || os_syscall3(SYS_mprotect, page, OS_PAGE, PROT_READ | PROT_WRITE) < 0)
		os_syscall3(SYS_mprotect, page, OS_PAGE, PROT_READ);
	atomic_set(&t->moment[at].ended_ns, os_now_ns());
	atomic_set(&t->refusing, 0ull);
}

/* Tell whether the kernel refused an access to this address only because of a moment of refusal
 * meant for another access. On true the access can be repeated. Signal-safe; may sleep until the
 * moment ends. */
bool tell_was_refusing(struct trap *trap, uint64_t addr)
{
	struct telling *t = trap->telling;
	uint64_t page = page_of(addr), now = os_now_ns();
	bool was = false, meant = false;

	for (uint32_t i = 0; t && i < MOMENTS; i++) {
		if (atomic_get(&t->moment[i].page) != page || now > atomic_get(&t->moment[i].ended_ns) + LATE_NS)
			continue;
		was = true;
		meant |= atomic_get(&t->moment[i].meant) == os_gettid();
	}
	while (was && !meant && atomic_get(&t->refusing) == page)
		os_sleep_until(os_now_ns() + REFUSE_NS / 8);
	return was && !meant;
}

/* Tell whether the thread is found awake every time. A thread that is awake sends its message
 * again if needed. A thread that is always awake has a signal pending, in a system call. */
static bool is_always_awake(struct telling *t, uint32_t tid, bool awake)
{
	uint32_t at = tid % RUNNING;
	if (t->running[at].tid != tid)
		t->running[at].count = 0;
	t->running[at].tid = tid;
	t->running[at].count = awake ? t->running[at].count + 1 : 0;
	return t->running[at].count > RUNNING_MOST;
}

/* Tell an error without a mark: by a signal if the thread itself accesses the page, otherwise by
 * the kernel's own refusal. */
static void refuse(struct trap *trap, uint32_t tid, uint64_t addr, int prot,
		   const struct fm_error *error)
{
	enum access access = access_of(trap, tid);
	bool always = is_always_awake(trap->telling, tid, access == ACCESS_OVER);

	/* A sleeping thread has left its message. So if there is no later message, the thread
	 * sleeps here. */
	if (handler_is_elsewhere(trap, tid, addr)) {
		tell_forget(trap, tid);
		return;
	}
	bool deaf = access == ACCESS_OWN && refuses_sigbus(tid);
	if (access == ACCESS_OWN && !deaf && signal_thread(tid, addr))
		return;
	bool awake = access == ACCESS_OVER && !always;
	/* An awake thread may be about to sleep. Without marks its note stays until the thread
	 * sends its message again: the region does not go before (trap_drain()). */
	if (!awake || uffd_has_poison(trap))
		tell_forget(trap, tid);
	if (deaf && error->signo == SIGBUS)
		die_of_sigbus();
	if (awake)
		trap_wake(trap, page_of(addr), OS_PAGE);
	else
		refuse_for_a_moment(trap, tid, page_of(addr), prot, deaf);
}

/* ------------------------------------------------------------------ notes without a reader */

/* Tell whether the thread will not ask: the thread has run long enough since it was told, or does
 * something else. A thread that waits for a processor, or was stopped, may still ask. */
static bool will_not_ask(const struct trap *trap, const struct note *note)
{
	uint64_t ran = note->call ? UINT64_MAX : ran_ns(note->tid);

	if (ran == UINT64_MAX || note->ran_ns == UINT64_MAX || ran > note->ran_ns + TURN_NS)
		return true;
	return !note->asking && access_of(trap, note->tid) == ACCESS_CALL;
}

/* Remove marks after a while: otherwise later system calls there would fail for ever. A note is
 * freed when its thread will not ask any more. Called in the handler thread. */
void tell_sweep(struct trap *trap)
{
	struct telling *t = trap->telling;
	uint64_t now = os_now_ns();

	for (uint32_t i = 0; atomic_get(&t->count) && i < NOTES; i++) {
		struct note *n = &t->note[i];
		os_lock(&t->lock);
		struct note was = *n;
		os_unlock(&t->lock);
		if (!was.tid || now < was.told_ns + (was.call ? OTHERS_NS : UNASKED_NS))
			continue;
		bool ends = will_not_ask(trap, &was);
		os_lock(&t->lock);
		if (n->tid != was.tid || n->told_ns != was.told_ns) {
			/* The thread has asked meanwhile, or was told another error. */
			os_unlock(&t->lock);
			continue;
		}
		if (ends)
			note_free(t, n);
		if (was.over)
			os_unlock(&t->lock);
		else
			mark_end(trap, was.page, now);
	}
}

/* ------------------------------------------------------------------ telling */

/* Tell a thread an error. Called in the handler thread; the region is pinned. */
void tell_error(struct trap *trap, uint32_t tid, uint64_t addr, bool write,
		const struct fm_error *error, fm_error_fn fn, void *arg)
{
	uint64_t page = page_of(addr);
	bool unmapped = error->error == -EFAULT;
	enum access access = trap->user_mode_only && !unmapped ? ACCESS_OWN : access_of(trap, tid);

	/* Another thread's install may have woken the thread, before the page was unmapped. Its
	 * access has succeeded, and a note would be taken for a later access there. A thread that is
	 * awake and still wants the page sends its message again. Other errors are told all the
	 * same: trap_drain() waits for their notes. */
	if (unmapped && access == ACCESS_OVER && !is_always_awake(trap->telling, tid, true)) {
		trap_wake(trap, page, OS_PAGE);
		return;
	}
	bool call = !trap->user_mode_only && access == ACCESS_CALL;
	note_put(trap, tid, call, page, error, fn, arg);
	int err = uffd_has_poison(trap) ? uffd_poison(trap, page, OS_PAGE) : -EOPNOTSUPP;
	bool there = err && trap_present(page) != 0;
	if (there && write) {
		refuse(trap, tid, addr, PROT_READ, error);
	} else if (there || err == -EEXIST) {
		if (there) /* the page is there by now: the error is over */
			tell_forget(trap, tid);
		trap_wake(trap, page, OS_PAGE); /* or the thread meets the mark of another thread */
	} else if (err) {
		refuse(trap, tid, addr, PROT_NONE, error);
	}
}
