/* SPDX-License-Identifier: MIT */
/*
 * Signals and cancellation. The test shows what a handler, a cancelled thread and a jump out of a
 * handler do to the library. The test also shows what the library does to a program's own handlers.
 *
 * Seen to fail:
 *   test_alarm: signals stay open in the calls: the handler meets a lock that its own thread holds.
 *   test_cancel: signal 32 stays open in the handler: a page stays locked for ever.
 *   test_errno: errno is not restored.
 *   foreign(): a foreign SIGBUS is claimed.
 */
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED 37
#define PAGES 64u

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;
static const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};

static void begin(uint64_t budget)
{
	mm = support_mm(budget);
	file = support_open(mm, support_format("faulty:%s", support_file(PAGES * PAGE, SEED)), &alone);
	addr = support_map(file, 0, PAGES * PAGE);
}

static void end(void)
{
	CHECK_OK(fm_file_control(file, "delay=0ms"));
	CHECK_OK(fm_file_control(file, "error-every=0"));
	support_expect(mm, addr, 0, PAGES * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ---- a timer's handler touches a view, whatever code the handler interrupts */

static volatile sig_atomic_t alarms, alarm_wrong;

static void on_alarm(int signo)
{
	unsigned at = (unsigned)alarms * 37 % PAGES * PAGE + (unsigned)alarms % PAGE;
	int saved = errno;

	(void)signo;
	errno = 4711;
	if (((const volatile unsigned char *)addr)[at] != support_byte(at, SEED) || errno != 4711)
		alarm_wrong = 1;
	alarms = alarms + 1;
	errno = saved;
}

static void test_alarm(void)
{
	struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART}, old;
	uint64_t until = support_now_ns() + 20000 * MS_NS;

	begin(fm_budget_min(4096)); /* so that each touch may fault */
	alarms = alarm_wrong = 0;
	CHECK_EQ(sigaction(SIGALRM, &action, &old), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
	for (unsigned i = 0; alarms < 400 && support_now_ns() < until; i++) {
		unsigned page = i * 11 % (PAGES - 8);
		void *again = support_map(file, page * PAGE, 2 * PAGE);
		CHECK_OK(fm_fault_in(mm, addr + page * PAGE, 2 * PAGE, 0));
		CHECK_OK(fm_pin(mm, addr + page * PAGE, PAGE, 0));
		CHECK_OK(fm_advise(mm, addr + page * PAGE, 3 * PAGE, FM_ADVICE_WILLNEED));
		CHECK_OK(fm_advise(mm, addr + (page + 5) * PAGE, 2 * PAGE, FM_ADVICE_DONTNEED));
		CHECK_OK(fm_unpin(mm, addr + page * PAGE, PAGE));
		(void)support_stats(mm);
		CHECK_OK(fm_unmap(mm, again, 2 * PAGE));
		fm_file *other = support_open(mm, "memory:64K", NULL);
		CHECK_OK(fm_file_close(other));
	}
	CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
	CHECK_EQ(sigaction(SIGALRM, &old, NULL), 0);
	CHECK_GE(alarms, 400);
	CHECK_EQ(alarm_wrong, 0);
	end();
}

/* ---- pthread_cancel */

static atomic_uint touches;
static void *cancelled(void *arg)
{
	uint64_t page = (uintptr_t)arg >> 1;
	int old;

	/* Not under TSan: a thread cancelled inside TSan's runtime leaves the runtime's locks held
	 * for ever. */
	if ((uintptr_t)arg & 1 && !SUPPORT_TSAN)
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
	for (;;) {
		page = (page * 5 + 7) % PAGES;
		if (test_trap() == FM_TRAP_CALL)
			fm_fault_in(mm, addr + page * PAGE, 1, 0);
		else
			(void)*(volatile unsigned char *)(addr + page * PAGE);
		touches++;
		pthread_testcancel();
	}
	return NULL;
}

static void test_cancel(void)
{
	pthread_t thread[6];
	void *result;

	begin(fm_budget_min(4096));
	CHECK_OK(fm_file_control(file, "delay=0ms..4ms"));
	for (int round = 0; round < 8; round++) {
		touches = 0;
		for (uintptr_t i = 0; i < 6; i++)
			CHECK_EQ(pthread_create(&thread[i], NULL, cancelled, (void *)i), 0);
		EVENTUALLY(touches > 6);
		support_sleep_ms(round);
		for (int i = 0; i < 6; i++)
			CHECK_EQ(pthread_cancel(thread[i]), 0);
		for (int i = 0; i < 6; i++) {
			CHECK_EQ(pthread_join(thread[i], &result), 0);
			CHECK(result == PTHREAD_CANCELED);
		}
	}
	end(); /* reads every page: no page is left locked or pinned */
}

/* ---- many jumps out of a handler, with the mask as it was */

static void test_jump(void)
{
	sigset_t before, after;

	begin(fm_budget_min(4096));
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &before), 0);
	CHECK_OK(fm_file_control(file, "error-every=1"));
	for (unsigned i = 0; i < 300; i++)
		support_expect_signal(support_load(addr + i % PAGES * PAGE + i), SIGBUS, EIO,
				      addr + i % PAGES * PAGE + i);
	CHECK_OK(fm_file_control(file, "error-every=0"));
	CHECK_OK(fm_unmap(mm, addr + 8 * PAGE, PAGE));
	for (unsigned i = 0; i < 100; i++)
		support_expect_signal(support_load(addr + 8 * PAGE + i), SIGSEGV, EFAULT,
				      addr + 8 * PAGE + i);
	CHECK(support_map(file, 8 * PAGE, PAGE) == addr + 8 * PAGE);
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &after), 0);
	for (int signo = 1; signo < 65; signo++)
		CHECK_EQ(sigismember(&before, signo), sigismember(&after, signo));
	end();
}

/* ---- errno */

static void test_errno(void)
{
	begin(fm_budget_min(4096));
	for (unsigned round = 0; round < 3; round++)
		for (unsigned page = 0; page < PAGES; page++) {
			errno = 4711;
			(void)*(volatile unsigned char *)(addr + page * PAGE);
			CHECK_EQ(errno, 4711);
		}
	end();
}

/* ---- small alternate stacks */

static size_t stack_bytes;
static void *on_small_stack(void *arg)
{
	char *mem = mmap(NULL, stack_bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stack_t stack = {.ss_sp = mem + PAGE, .ss_size = stack_bytes}, none = {.ss_flags = SS_DISABLE};
	uint64_t page = (uintptr_t)arg;

	CHECK(mem != MAP_FAILED);
	CHECK_EQ(mprotect(mem + PAGE, stack_bytes, PROT_READ | PROT_WRITE), 0);
	memset(mem + PAGE, 0x5a, stack_bytes);
	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	for (int i = 0; i < 200; i++) {
		page = (page * 5 + 7) % PAGES;
		/* The read runs without a guard: the fault is served on this stack, or the process
		 * dies. */
		CHECK_EQ(*(volatile unsigned char *)(addr + page * PAGE), support_byte(page * PAGE, SEED));
	}
	/* Errors are raised here too, with the program's handler on top. */
	support_expect_signal(support_load(addr + PAGES * PAGE), SIGSEGV, EFAULT, addr + PAGES * PAGE);
	CHECK_EQ(sigaltstack(&none, NULL), 0);
	size_t untouched = 0;
	while (untouched < stack_bytes && mem[PAGE + untouched] == 0x5a)
		untouched++;
	CHECK_GT(untouched, 0);
	CHECK_EQ(munmap(mem, stack_bytes + 2 * PAGE), 0);
	return (void *)untouched;
}

static void test_small_stack(size_t bytes, const char *setting, bool readahead)
{
	pthread_t thread[3];
	void *left;

	begin(fm_budget_min(4096));
	if (readahead) { /* with the default window more happens in the handler */
		CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
		CHECK_OK(fm_file_close(file));
		file = support_open(mm, support_format("faulty:%s", support_file(PAGES * PAGE, SEED)),
				    NULL);
		addr = support_map(file, 0, PAGES * PAGE);
	}
	CHECK_OK(fm_file_control(file, setting));
	stack_bytes = bytes;
	for (uintptr_t i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, on_small_stack, (void *)i), 0);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(pthread_join(thread[i], &left), 0);
		if (getenv("FM_TEST_VERBOSE"))
			printf("%zu bytes, %s: %zu left\n", bytes, setting, (size_t)left);
	}
	end();
}

static void test(void)
{
	test_cancel();
	if (test_trap() == FM_TRAP_CALL)
		return;
	/* TSan runs such a handler later, with all signals blocked. A fault in the handler then
	 * ends the process. */
	if (!SUPPORT_TSAN || test_trap() != FM_TRAP_INLINE)
		test_alarm();
	test_jump();
	test_errno();
	if (SUPPORT_SANITIZED) /* a sanitizer's stack frames are larger */
		return;
	test_small_stack(8 * KIB, "delay=0ms", false);
	test_small_stack(8 * KIB, "delay=0ms", true);
	test_small_stack(8 * KIB, "short-every=2", true);
	test_small_stack((size_t)sysconf(_SC_SIGSTKSZ), "delay=1ms", true);
}

/* ---------------------------------------------------------------- children without our handler */

static void child_begin(void)
{
	begin(4 * MIB);
	support_no_core();
}

static sigjmp_buf jump;
static siginfo_t got_info;
static int got_signo;
static sigset_t got_mask;

static void with_info(int signo, siginfo_t *info, void *ucontext)
{
	(void)ucontext;
	got_signo = signo;
	got_info = *info;
	pthread_sigmask(SIG_BLOCK, NULL, &got_mask);
	siglongjmp(jump, 1);
}

static void without_info(int signo)
{
	got_signo = signo;
	pthread_sigmask(SIG_BLOCK, NULL, &got_mask);
	siglongjmp(jump, 1);
}

static void install(int signo, bool info, int flags)
{
	struct sigaction action = {.sa_flags = flags};

	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIGUSR2);
	if (info) {
		action.sa_sigaction = with_info;
		action.sa_flags |= SA_SIGINFO;
	} else {
		action.sa_handler = without_info;
	}
	CHECK_EQ(sigaction(signo, &action, NULL), 0);
}

/* Returns true if the handler ran. */
static bool jumps_out(volatile unsigned char *at)
{
	got_signo = 0;
	if (sigsetjmp(jump, 1) == 0) {
		(void)*at;
		return false;
	}
	return true;
}

/* The mask must be the mask that the kernel would have set for the handler. */
static void expect_mask(bool nodefer)
{
	CHECK_EQ(sigismember(&got_mask, SIGBUS), !nodefer);
	CHECK_EQ(sigismember(&got_mask, SIGUSR2), 1);
	CHECK_EQ(sigismember(&got_mask, SIGUSR1), 0);
	CHECK_EQ(sigismember(&got_mask, SIGALRM), 0);
}

static int earlier_with_info(void *arg)
{
	install(SIGBUS, true, arg ? SA_NODEFER : 0);
	child_begin();
	CHECK_OK(fm_file_control(file, "error-every=1"));
	for (int i = 0; i < 3; i++) {
		CHECK(jumps_out(addr + 5 * PAGE + 1));
		CHECK_EQ(got_signo, SIGBUS);
		CHECK_EQ(got_info.si_signo, SIGBUS);
		CHECK_EQ(got_info.si_code, BUS_ADRERR);
		CHECK_EQ(got_info.si_errno, EIO);
		CHECK(got_info.si_addr == addr + 5 * PAGE + 1);
		expect_mask(arg != NULL);
	}
	end();
	return 0;
}

static int earlier_without_info(void *arg)
{
	(void)arg;
	install(SIGBUS, false, 0);
	child_begin();
	CHECK_OK(fm_file_control(file, "error-every=1"));
	CHECK(jumps_out(addr));
	CHECK_EQ(got_signo, SIGBUS);
	expect_mask(false);
	CHECK_OK(fm_file_control(file, "error-every=0"));
	CHECK(!jumps_out(addr));
	end();
	return 0;
}

/* The program installs its handler later, and the handler asks the library first. */
static unsigned served, passed_on;
static void later(int signo, siginfo_t *info, void *ucontext)
{
	if (fm_handle_sigbus(signo, info, ucontext)) {
		served++;
		return;
	}
	passed_on++;
	siglongjmp(jump, 1);
}

static void *foreign_page(void)
{
	const char *path = support_file(2 * PAGE, SEED);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *at = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);

	CHECK(at != MAP_FAILED);
	CHECK_EQ(ftruncate(fd, 0), 0);
	close(fd);
	return at;
}

static int later_handler(void *arg)
{
	struct sigaction action = {.sa_sigaction = later, .sa_flags = SA_SIGINFO};
	unsigned char *foreign = foreign_page();

	(void)arg;
	child_begin();
	sigfillset(&action.sa_mask);
	CHECK_EQ(sigaction(SIGBUS, &action, NULL), 0);
	CHECK_EQ(support_differs(addr, 0, 8 * PAGE, SEED), UINT64_MAX);
	if (test_trap() == FM_TRAP_INLINE)
		CHECK_GT(served, 0);
	CHECK_EQ(passed_on, 0);
	CHECK(jumps_out(foreign));
	CHECK_EQ(passed_on, 1);
	CHECK(!fm_handle_sigbus(SIGBUS, NULL, NULL));
	CHECK(!fm_handle_sigbus(SIGSEGV, &got_info, &action));
	end();
	return 0;
}

/* A truncated mapping of the kernel's has nothing to do with the library. */
static int foreign(void *arg)
{
	unsigned char *at = foreign_page();

	(void)arg;
	install(SIGBUS, true, 0);
	child_begin();
	CHECK(jumps_out(at + PAGE + 3));
	CHECK_EQ(got_info.si_code, BUS_ADRERR);
	CHECK_EQ(got_info.si_errno, 0);
	CHECK(got_info.si_addr == at + PAGE + 3);
	/* Nor has a signal that a thread sent. */
	got_signo = 0;
	if (sigsetjmp(jump, 1) == 0)
		raise(SIGBUS);
	CHECK_EQ(got_signo, SIGBUS);
	CHECK(got_info.si_code == SI_TKILL || got_info.si_code == SI_USER);
	end();
	return 0;
}

static int foreign_default(void *arg)
{
	unsigned char *at = foreign_page();

	(void)arg;
	child_begin();
	return *(volatile unsigned char *)at;
}

static int sent_default(void *arg)
{
	(void)arg;
	child_begin();
	raise(SIGBUS);
	return 1;
}

static int error_default(void *arg)
{
	child_begin();
	if (arg)
		signal(SIGBUS, SIG_IGN); /* the kernel ignores SIG_IGN for a fault */
	CHECK_OK(fm_file_control(file, "error-every=1"));
	return *(volatile unsigned char *)addr;
}

static int error_ignored_before(void *arg)
{
	signal(SIGBUS, SIG_IGN);
	return error_default(NULL) + (arg != NULL);
}

static int write_default(void *arg)
{
	(void)arg;
	child_begin();
	*(volatile unsigned char *)addr = 1;
	return 1;
}

static int blocked(void *arg)
{
	sigset_t set;

	(void)arg;
	child_begin();
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return *(volatile unsigned char *)addr;
}

/*
 * A program's SIGSEGV handler may be installed before or after the library. Either way the handler
 * runs.
 */
static int own_segv(void *arg)
{
	if (!arg)
		install(SIGSEGV, true, 0);
	child_begin();
	if (arg)
		install(SIGSEGV, true, 0);
	CHECK_OK(fm_unmap(mm, addr, PAGE));
	CHECK(jumps_out(addr + 7));
	CHECK_EQ(got_signo, SIGSEGV);
	CHECK_EQ(got_info.si_code, SEGV_MAPERR);
	CHECK(got_info.si_addr == addr + 7);
	got_signo = 0;
	if (sigsetjmp(jump, 1) == 0)
		*(volatile unsigned char *)(addr + 9 * PAGE + 2) = 1;
	CHECK_EQ(got_signo, SIGSEGV);
	CHECK_EQ(got_info.si_code, SEGV_ACCERR);
	CHECK(got_info.si_addr == addr + 9 * PAGE + 2);
	CHECK(support_map(file, 0, PAGE) == addr);
	end();
	return 0;
}

static void expect_well(int line, int (*fn)(void *), void *arg)
{
	int status = support_child(fn, arg);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		SKIP("the tested feature is not available; the child prints the reason");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		CHECK_FAIL("line %d: status %#x", line, status);
}

static void expect_death(int line, int (*fn)(void *), void *arg, int signo)
{
	int status = support_child(fn, arg);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != signo)
		CHECK_FAIL("line %d: status %#x, not signal %d", line, status, signo);
}

/* Each case runs in its own process, before this process has a handler. */
static void test_chain(void)
{
	char yes = 1;

	expect_well(__LINE__, earlier_with_info, NULL);
	expect_well(__LINE__, earlier_with_info, &yes);
	expect_well(__LINE__, earlier_without_info, NULL);
	expect_well(__LINE__, later_handler, NULL);
	expect_well(__LINE__, foreign, NULL);
	expect_well(__LINE__, own_segv, NULL);
	expect_well(__LINE__, own_segv, &yes);
	expect_death(__LINE__, foreign_default, NULL, SIGBUS);
	expect_death(__LINE__, sent_default, NULL, SIGBUS);
	expect_death(__LINE__, error_default, NULL, SIGBUS);
	expect_death(__LINE__, error_default, &yes, SIGBUS);
	expect_death(__LINE__, error_ignored_before, NULL, SIGBUS);
	expect_death(__LINE__, write_default, NULL, SIGSEGV);
	if (test_trap() == FM_TRAP_INLINE)
		expect_death(__LINE__, blocked, NULL, SIGBUS);
}

int main(void)
{
	support_path(); /* the children's files go into this process's folder */
	if (test_trap() != FM_TRAP_CALL && !getenv("GLIBC_TUNABLES"))
		test_chain();
	return support_run(test);
}
