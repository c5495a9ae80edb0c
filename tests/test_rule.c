/* SPDX-License-Identifier: MIT */
/*
 * The rule, watched from outside the library. Under the map lock there is no system call except the
 * wake-up of a futex, and no page fault (CONTRIBUTING.md states the rule; HAZARDS.md A11, B8).
 *
 * System calls: a traced child runs a full workload with a small budget over slow and fast stores.
 * The workload faults, pins, maps, unmaps, advises, reads statistics and calls fm_fault_in(). A
 * seccomp filter stops each thread of the child at each system call. The tracer then reads the
 * thread's `map_held`, which the library keeps. The control is the same workload with
 * FM_MM_HOLD_LOCK: there the tracer must find system calls under the lock.
 *
 * Page faults: the kernel counts the faults of each thread (getrusage). The linker puts wrappers
 * around the functions of the map lock. The wrappers read the counter before the lock is taken and
 * before the lock is released, and the two counts must be equal. These reads are system calls under
 * the lock, so page faults have a run of their own. The run is skipped under a sanitizer, whose
 * shadow memory faults. The control is a run whose wrapper touches a fresh page. All metadata must
 * be resident too.
 *
 * Seen to fail: with read_page() called before maybe_unlock_map_for_io() (system calls), and with
 * os_meta_alloc() that does not populate (page faults).
 */
#include "inside.h"
#include "os/syscall.h"
#include "support.h"

#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define THREADS    8
#define OPS        (SUPPORT_SANITIZED ? 60 : 150)
#define BUDGET     (64 * PAGE)
#define FILE_BYTES (4 * MIB)
#define SLOTS      4096 /* slots by tid; a power of two */

enum mode { MODE_PLAIN, MODE_PUBLISH, MODE_COUNT };

/* ------------------------------------------------------------------ the wrappers */

static enum mode mode;

/* Where each thread keeps its map_held, for the tracer. The memory is shared with the tracer. */
struct published {
	_Atomic uint32_t tid;
	_Atomic uint64_t held_addr;
};
static struct published *published;

/* Page faults of a thread before the thread took the lock, by tid. */
static struct counted {
	uint32_t tid;
	long faults;
} counted[SLOTS];
static _Atomic uint64_t sections, faulted, faults_seen;
static void *_Atomic faulted_at;
static volatile char *touch; /* control: fresh memory, a page for each section */
static _Atomic uint64_t touched;

void __real_map_lock_shared(struct map_lock *lock);
void __real_map_unlock_shared(struct map_lock *lock);
void __real_map_lock_exclusive(struct map_lock *lock);
void __real_map_unlock_exclusive(struct map_lock *lock);
void *__real_os_meta_alloc(size_t len);
void __real_os_meta_free(void *mem, size_t len);
void __wrap_map_lock_shared(struct map_lock *lock);
void __wrap_map_unlock_shared(struct map_lock *lock);
void __wrap_map_lock_exclusive(struct map_lock *lock);
void __wrap_map_unlock_exclusive(struct map_lock *lock);
void *__wrap_os_meta_alloc(size_t len);
void __wrap_os_meta_free(void *mem, size_t len);

/* No thread-locals and no errno here: the wrappers must not fault in memory for the library. */
static uint32_t own_tid(void)
{
	return (uint32_t)os_syscall1(SYS_gettid, 0);
}

static long own_faults(void)
{
	struct rusage usage;
	os_syscall2(SYS_getrusage, RUSAGE_THREAD, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

static void publish(void)
{
	uint32_t tid = own_tid();
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct published *p = &published[(tid + i) % SLOTS];
		uint32_t none = 0;
		if (p->tid == tid)
			return;
		if (__atomic_compare_exchange_n((uint32_t *)&p->tid, &none, tid, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
			p->held_addr = (uint64_t)(uintptr_t)&self()->map_held;
			return;
		}
	}
}

/* Tids of a process with some tens of threads do not collide in the table. If two tids collide, the
 * section is not checked. */
static void before_lock(void)
{
	if (mode == MODE_PUBLISH)
		publish();
	if (mode != MODE_COUNT)
		return;
	uint32_t tid = own_tid();
	struct counted *c = &counted[tid % SLOTS];
	c->tid = tid;
	own_faults(); /* faults in the stack of own_faults() */
	c->faults = own_faults();
}

static void before_unlock(void *from)
{
	if (mode != MODE_COUNT)
		return;
	uint32_t tid = own_tid();
	const struct counted *c = &counted[tid % SLOTS];
	if (touch)
		touch[(touched++ % 4096) * PAGE] = 1;
	long more = own_faults() - c->faults;
	if (c->tid != tid)
		return;
	sections++;
	if (more) {
		faulted++;
		faults_seen += (uint64_t)more;
		faulted_at = from;
	}
}

void __wrap_map_lock_shared(struct map_lock *lock)
{
	before_lock();
	__real_map_lock_shared(lock);
}

void __wrap_map_unlock_shared(struct map_lock *lock)
{
	before_unlock(__builtin_return_address(0));
	__real_map_unlock_shared(lock);
}

void __wrap_map_lock_exclusive(struct map_lock *lock)
{
	before_lock();
	__real_map_lock_exclusive(lock);
}

void __wrap_map_unlock_exclusive(struct map_lock *lock)
{
	before_unlock(__builtin_return_address(0));
	__real_map_unlock_exclusive(lock);
}

/* All metadata of the library. Page faults do not allocate metadata, so a mutex will do. */
#define META_MAX 1024
static struct {
	char *mem;
	size_t len;
} meta[META_MAX];
static pthread_mutex_t meta_mutex = PTHREAD_MUTEX_INITIALIZER;

void *__wrap_os_meta_alloc(size_t len)
{
	char *mem = __real_os_meta_alloc(len);
	int at = 0;
	pthread_mutex_lock(&meta_mutex);
	while (meta[at].mem)
		CHECK_LT(++at, META_MAX);
	meta[at].mem = mem;
	meta[at].len = len;
	pthread_mutex_unlock(&meta_mutex);
	return mem;
}

void __wrap_os_meta_free(void *mem, size_t len)
{
	pthread_mutex_lock(&meta_mutex);
	for (int i = 0; i < META_MAX; i++)
		if (mem && meta[i].mem == mem)
			meta[i].mem = NULL;
	pthread_mutex_unlock(&meta_mutex);
	__real_os_meta_free(mem, len);
}

static uint64_t meta_check_resident(void)
{
	uint64_t pages = 0;
	for (int i = 0; i < META_MAX; i++)
		for (size_t at = 0; meta[i].mem && at < meta[i].len; at += PAGE) {
			unsigned char vec = 0;
			CHECK_EQ(mincore(meta[i].mem + at, PAGE, &vec), 0);
			pages++;
			if (!(vec & 1))
				CHECK_FAIL("metadata at %p+%#zx of %#zx bytes is not resident",
					   (void *)meta[i].mem, at, meta[i].len);
		}
	return pages;
}

/* ------------------------------------------------------------------ the workload */

static struct work {
	fm_mm *mm;
	fm_file *file[2];
	char *map[2];
} work;

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void touch_page(char *page)
{
	if (test_trap() == FM_TRAP_CALL)
		CHECK_OK(fm_fault_in(work.mm, page, 1, 0));
	else
		*(volatile char *)page;
}

static void one_operation(uint64_t *random)
{
	uint64_t r = next_random(random), pages = FILE_BYTES / PAGE;
	unsigned which = (r & 7) == 0; /* the slow store in one operation of 8 */
	uint64_t index = (r >> 8) % (pages - 8);
	char *at = work.map[which] + index * PAGE;
	struct fm_stats stats = {.size = sizeof(stats)};
	unsigned char vec[8];
	void *addr;

	switch ((r >> 4) % 12) {
	case 0: /* many small mappings: the table grows and is cut */
		CHECK_OK(fm_map(work.file[which], index * PAGE, 3 * PAGE, NULL, &addr));
		touch_page(addr);
		CHECK_OK(fm_unmap(work.mm, addr, 3 * PAGE));
		break;
	case 1:
		CHECK_OK(fm_advise(work.mm, at, 4 * PAGE, (enum fm_advice)((r >> 40) % (FM_ADVICE_COLD + 1))));
		break;
	case 2:
		if (fm_pin(work.mm, at, 2 * PAGE, 0) == 0)
			CHECK_OK(fm_unpin(work.mm, at, 2 * PAGE));
		break;
	case 3:
		CHECK_OK(fm_stats(work.mm, &stats));
		CHECK_OK(fm_residency(work.mm, at, 8 * PAGE, vec));
		break;
	case 4:
		fm_fault_in(work.mm, at, 4 * PAGE, FM_NOWAIT);
		break;
	case 5:
		CHECK_OK(fm_fault_in(work.mm, at, 4 * PAGE, 0));
		break;
	default:
		touch_page(at);
	}
}

static void *worker(void *arg)
{
	uint64_t random = 0x9e3779b97f4a7c15ull * ((uint64_t)(uintptr_t)arg + 1);
	for (int i = 0; i < OPS; i++)
		one_operation(&random);
	return NULL;
}

static struct fm_stats workload(uint32_t flags)
{
	const struct fm_mm_options options = {.size = sizeof(options),
					      .budget_bytes = BUDGET,
					      .trap = test_trap(),
					      .install = test_install(),
					      .flags = flags};
	static const char *const uri[] = {"memory:4M?seed=3", "faulty:memory:4M?seed=4&delay=200us..2ms"};
	pthread_t thread[THREADS];

	int err = fm_mm_create(&options, &work.mm);
	if (err == -ENOSYS || err == -EPERM || err == -EOPNOTSUPP)
		SKIP("fm_mm_create: %s", strerror(-err));
	CHECK_OK(err);
	for (int i = 0; i < 2; i++) {
		void *addr;
		CHECK_OK(fm_file_open(work.mm, uri[i], NULL, &work.file[i]));
		CHECK_OK(fm_map(work.file[i], 0, FILE_BYTES, NULL, &addr));
		work.map[i] = addr;
	}
	if (mode == MODE_COUNT)
		meta_check_resident();
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, worker, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	if (mode == MODE_COUNT)
		CHECK_GT(meta_check_resident(), 0);
	struct fm_stats stats = support_stats(work.mm);
	for (int i = 0; i < 2; i++) {
		CHECK_OK(fm_unmap(work.mm, work.map[i], FILE_BYTES));
		CHECK_OK(fm_file_close(work.file[i]));
	}
	CHECK_OK(fm_mm_destroy(work.mm));
	return stats;
}

/* ------------------------------------------------------------------ page faults */

static void test_no_page_fault(void)
{
	mode = MODE_COUNT;
	struct fm_stats stats = workload(0);
	printf("page faults: %llu sections under the map lock, %llu faults\n",
	       (unsigned long long)sections, (unsigned long long)faults_seen);
	printf("hold times: shared p99.9 %llu ns, max %llu ns; exclusive p99.9 %llu ns, max %llu ns "
	       "(with this test's own calls inside)\n",
	       (unsigned long long)stats.lock_hold_shared_ns.p999_ns,
	       (unsigned long long)stats.lock_hold_shared_ns.max_ns,
	       (unsigned long long)stats.lock_hold_exclusive_ns.p999_ns,
	       (unsigned long long)stats.lock_hold_exclusive_ns.max_ns);
	CHECK_GT(sections, THREADS * OPS / 2);
	if (faulted)
		CHECK_FAIL("%llu page faults in %llu of %llu sections under the map lock, the last "
			   "released at %p",
			   (unsigned long long)faults_seen, (unsigned long long)faulted,
			   (unsigned long long)sections, faulted_at);
	CHECK_EQ(stats.lock_held_over_block, 0);

	touch = mmap(NULL, 4096 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(touch != MAP_FAILED);
	madvise((void *)(uintptr_t)touch, 4096 * PAGE, MADV_NOHUGEPAGE);
	workload(0);
	CHECK_GT(faulted, 0); /* otherwise the test could not see any fault */
	munmap((void *)(uintptr_t)touch, 4096 * PAGE);
	touch = NULL;
	mode = MODE_PLAIN;
}

/* ------------------------------------------------------------------ system calls */

struct watch {
	uint64_t calls, held_wakes, held_others;
	long last_nr;
};

static bool is_futex_wake(const struct __ptrace_syscall_info *info)
{
	unsigned op = (unsigned)info->seccomp.args[1] & 0x7f;
	return info->seccomp.nr == SYS_futex && (op == FUTEX_WAKE || op == FUTEX_WAKE_BITSET);
}

static bool holds_map_lock(pid_t tid)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		const struct published *p = &published[((uint32_t)tid + i) % SLOTS];
		if (!p->tid)
			return false;
		if (p->tid != (uint32_t)tid || !p->held_addr)
			continue;
		uint32_t held = 0;
		struct iovec ours = {&held, sizeof(held)};
		struct iovec theirs = {(void *)(uintptr_t)p->held_addr, sizeof(held)};
		CHECK_EQ(process_vm_readv(tid, &ours, 1, &theirs, 1, 0), sizeof(held));
		CHECK_LE(held, 1);
		return held;
	}
	return false;
}

static void look(pid_t tid, struct watch *watch)
{
	struct __ptrace_syscall_info info;
	if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) < 0)
		CHECK_FAIL("PTRACE_GET_SYSCALL_INFO: %s", strerror(errno));
	CHECK_EQ(info.op, PTRACE_SYSCALL_INFO_SECCOMP);
	watch->calls++;
	if (!holds_map_lock(tid))
		return;
	if (is_futex_wake(&info)) {
		watch->held_wakes++;
		return;
	}
	watch->held_others++;
	watch->last_nr = (long)info.seccomp.nr;
}

static void stop_at_each_call(void)
{
	struct sock_filter filter[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE)};
	struct sock_fprog program = {.len = 1, .filter = filter};
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
}

static pid_t start_child(uint32_t flags)
{
	fflush(stdout);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid)
		return pid;
	mode = MODE_PUBLISH;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(77);
	raise(SIGSTOP);
	stop_at_each_call();
	struct fm_stats stats = workload(flags);
	if (!(flags & FM_MM_HOLD_LOCK)) {
		CHECK_EQ(stats.lock_held_over_block, 0);
		printf("hold times: shared p99.9 %llu ns, exclusive p99.9 %llu ns (under ptrace)\n",
		       (unsigned long long)stats.lock_hold_shared_ns.p999_ns,
		       (unsigned long long)stats.lock_hold_exclusive_ns.p999_ns);
		fflush(stdout);
	}
	_exit(0);
}

/* Trace the child to its end. Returns its wait status. */
static int trace(pid_t child, struct watch *watch)
{
	const long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
	int status;

	CHECK_EQ(waitpid(child, &status, __WALL), child);
	if (WIFEXITED(status))
		SKIP("ptrace is forbidden here");
	CHECK(WIFSTOPPED(status));
	if (ptrace(PTRACE_SETOPTIONS, child, NULL, options) < 0)
		CHECK_FAIL("PTRACE_SETOPTIONS: %s", strerror(errno));
	ptrace(PTRACE_CONT, child, NULL, 0L);
	for (;;) {
		pid_t tid = waitpid(-1, &status, __WALL);
		CHECK(tid > 0);
		if (!WIFSTOPPED(status)) {
			if (tid == child)
				return status;
			continue;
		}
		long signo = WSTOPSIG(status);
		int event = status >> 16;
		if (event == PTRACE_EVENT_SECCOMP)
			look(tid, watch);
		/* A new thread first stops with a SIGSTOP that no process sent. */
		if (event || signo == SIGSTOP || signo == SIGTRAP)
			signo = 0;
		ptrace(PTRACE_CONT, tid, NULL, signo);
	}
}

static struct watch run_traced(uint32_t flags)
{
	struct watch watch = {0};
	memset(published, 0, SLOTS * sizeof(*published));
	int status = trace(start_child(flags), &watch);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		exit(77);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		CHECK_FAIL("the watched child ended with status %#x", (unsigned)status);
	printf("%s: %llu system calls seen; under the map lock %llu wake-ups and %llu others\n",
	       flags ? "control (FM_MM_HOLD_LOCK)" : "system calls", (unsigned long long)watch.calls,
	       (unsigned long long)watch.held_wakes, (unsigned long long)watch.held_others);
	return watch;
}

static void test_no_system_call(void)
{
	published = mmap(NULL, SLOTS * sizeof(*published), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(published != MAP_FAILED);
	struct watch watch = run_traced(0);
	CHECK_GT(watch.calls, THREADS * OPS);
	if (watch.held_others)
		CHECK_FAIL("%llu system calls under the map lock, the last of number %ld",
			   (unsigned long long)watch.held_others, watch.last_nr);
	watch = run_traced(FM_MM_HOLD_LOCK);
	CHECK_GT(watch.held_others, 0); /* otherwise the test could not see any call */
	munmap(published, SLOTS * sizeof(*published));
}

int main(void)
{
	if (!SUPPORT_SANITIZED)
		test_no_page_fault();
	test_no_system_call();
	return 0;
}
