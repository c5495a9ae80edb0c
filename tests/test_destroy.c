/* SPDX-License-Identifier: MIT */
/*
 * fm_mm_destroy() is called with everything still in use. Faults in flight end with ECANCELED,
 * whatever the faults wait for, and nothing is left behind.
 *
 * Seen to fail: with stores that are not told to abort (test_stuck hangs); with regions that go
 * before the threads that were told an error have run (trap_drain(); SIGSEGV in the thread trap);
 * with notes that end after 200 ms though the thread has not run (test_stopped); with late
 * signals that are passed on (test_late).
 */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED 29
#define READERS 8

static fm_mm *mm;
static unsigned char *addr;
static atomic_uint started, served, cancelled;

static void load(void *arg)
{
	(void)*(volatile unsigned char *)arg;
}

static int fault(unsigned char *at)
{
	return test_trap() == FM_TRAP_CALL ? fm_fault_in(mm, at, 1, 0) : fm_guard(load, at, NULL);
}

static void *reader(void *arg)
{
	started++;
	int err = fault(arg);
	CHECK(!err || err == -ECANCELED || err == -EOWNERDEAD);
	if (err)
		cancelled++;
	else
		served++;
	return NULL;
}

/* Wait until each reader's fault has taken the map lock. A fault that comes after the end gives
 * SIGSEGV, as after munmap(). */
static void wait_for_faults(uint64_t before, unsigned count)
{
	EVENTUALLY(started == count && support_stats(mm).lock_shared >= before + count);
	support_sleep_ms(40); /* by then the faults wait */
}

static void destroy_beneath(const char *setting, unsigned distinct)
{
	pthread_t thread[READERS];

	mm = support_mm(fm_budget_min(4096));
	fm_file *file = support_open(mm, support_format("faulty:%s", support_file(64 * PAGE, SEED)),
				     NULL);
	addr = support_map(file, 0, 64 * PAGE);
	started = served = cancelled = 0;
	CHECK_OK(fm_file_control(file, setting));
	uint64_t before = support_stats(mm).lock_shared;
	for (uintptr_t i = 0; i < READERS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, reader, addr + i % distinct * 4 * PAGE), 0);
	wait_for_faults(before, READERS);
	CHECK_OK(fm_mm_destroy(mm));
	for (int i = 0; i < READERS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_EQ(served + cancelled, READERS);
}

static void test_slow(void)
{
	destroy_beneath("delay=1s", READERS);
}

static void test_stuck(void)
{
	destroy_beneath("stuck=1", READERS);
	CHECK_EQ(cancelled, READERS);
	destroy_beneath("stuck=1", 1); /* all readers on one page */
	CHECK_EQ(cancelled, READERS);
}

/* With a deadline, the reads are requests. */
static void test_deadline(void)
{
	pthread_t thread[READERS];
	struct fm_file_options options = {.size = sizeof(options), .deadline_ns = 60000 * MS_NS};

	mm = support_mm(MIB);
	fm_file *file = support_open(mm, support_format("faulty:%s", support_file(64 * PAGE, SEED)),
				     &options);
	addr = support_map(file, 0, 64 * PAGE);
	started = served = cancelled = 0;
	CHECK_OK(fm_file_control(file, "stuck=1"));
	uint64_t before = support_stats(mm).lock_shared;
	for (uintptr_t i = 0; i < READERS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, reader, addr + i * PAGE), 0);
	wait_for_faults(before, READERS);
	CHECK_OK(fm_mm_destroy(mm));
	for (int i = 0; i < READERS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_EQ(cancelled, READERS);
}

static void start_readers(pthread_t *thread, unsigned count)
{
	uint64_t before = support_stats(mm).lock_shared;
	started = served = cancelled = 0;
	for (uintptr_t i = 0; i < count; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, reader, addr + i * PAGE), 0);
	wait_for_faults(before, count);
}

/* Pins hold three quarters of the frames, and a stuck store has the rest. The other readers of
 * the stuck store wait for room. The readers of a working store wait for a frame. */
static void test_frames(void)
{
	pthread_t stuck[READERS], well[READERS];
	const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};

	mm = support_mm(fm_budget_min(4096));
	fm_file *good = support_open(mm, support_file(64 * PAGE, SEED), &alone);
	fm_file *bad = support_open(mm, support_format("faulty:%s", support_file(64 * PAGE, SEED)),
				    &alone);
	unsigned char *pinned = support_map(good, 0, 64 * PAGE);
	CHECK_OK(fm_pin(mm, pinned + 32 * PAGE, 12 * PAGE, 0));
	CHECK_OK(fm_file_control(bad, "stuck=1"));
	addr = support_map(bad, 0, 64 * PAGE);
	start_readers(stuck, READERS);
	EVENTUALLY(support_stats(mm).frames_used >= 15); /* a page table may take a frame */
	addr = pinned;
	start_readers(well, READERS);
	CHECK_OK(fm_mm_destroy(mm));
	for (int i = 0; i < READERS; i++) {
		CHECK_EQ(pthread_join(stuck[i], NULL), 0);
		CHECK_EQ(pthread_join(well[i], NULL), 0);
	}
	CHECK_EQ(served + cancelled, 2 * READERS);
	CHECK_GE(cancelled, READERS);
}

/* Mappings, files, pins and readahead are left as they are. */
static void test_left(void)
{
	mm = support_mm(MIB);
	fm_file *file = support_open(mm, support_file(256 * PAGE, SEED), NULL);
	addr = support_map(file, 0, 256 * PAGE);
	support_expect(mm, addr, 0, 100 * PAGE, SEED);
	CHECK_OK(fm_pin(mm, addr, 10 * PAGE, 0));
	support_open(mm, "memory:1M", NULL); /* opened, never used */
	fm_file *closed = support_open(mm, "memory:1M", NULL);
	support_map(closed, 0, MIB);
	CHECK_OK(fm_file_close(closed));
	CHECK_OK(fm_advise(mm, addr, 256 * PAGE, FM_ADVICE_WILLNEED));
	CHECK_OK(fm_mm_destroy(mm));
	CHECK_EQ(fm_mm_destroy(mm), -EOWNERDEAD); /* a late caller */
	CHECK_EQ(fm_unmap(mm, addr, PAGE), -EOWNERDEAD);
}

/* A signal of a fault comes to the library's handler after the mm has gone. The fault ends like
 * the faults that were in flight. */
static atomic_bool taken, destroyed;

static void come_late(int signo, siginfo_t *info, void *ucontext)
{
	taken = true;
	while (!destroyed)
		support_sleep_ms(1);
	if (!fm_handle_sigbus(signo, info, ucontext))
		_exit(3);
}

static void *read_late(void *arg)
{
	unsigned char byte;
	CHECK_EQ(support_read(mm, arg, &byte, 1), -ECANCELED);
	return NULL;
}

static void test_late(void)
{
	struct sigaction late = {.sa_sigaction = come_late, .sa_flags = SA_SIGINFO}, before;
	pthread_t thread;

	if (test_trap() == FM_TRAP_CALL)
		return;
	mm = support_mm(MIB);
	fm_file *file = support_open(mm, support_format("faulty:%s", support_file(16 * PAGE, SEED)),
				     NULL);
	addr = support_map(file, 0, 16 * PAGE);
	if (test_trap() == FM_TRAP_THREAD) /* the thread trap signals errors only */
		CHECK_OK(fm_file_control(file, "error-at=0"));
	taken = destroyed = false;
	CHECK_EQ(sigaction(SIGBUS, &late, &before), 0);
	CHECK_EQ(pthread_create(&thread, NULL, read_late, addr), 0);
	EVENTUALLY(taken);
	CHECK_OK(fm_mm_destroy(mm));
	destroyed = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(sigaction(SIGBUS, &before, NULL), 0);
}

/* A thread is stopped, as by a debugger or on an overloaded machine. The stop begins before the
 * thread's fault is given up, and ends well after the thread was told. The view must stay until
 * the thread has run. */
static atomic_int reader_tid;

static void *read_stopped(void *arg)
{
	unsigned char byte;
	reader_tid = gettid();
	CHECK_EQ(support_read(mm, arg, &byte, 1), -ECANCELED);
	return NULL;
}

static void *destroy(void *arg)
{
	CHECK_OK(fm_mm_destroy(arg));
	return NULL;
}

/* Stop the thread, report the stop, and let the thread go when asked. */
static void stopper(pid_t tid, int from, int to)
{
	int status;
	char word = 'y';

	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) || ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) ||
	    waitpid(tid, &status, __WALL) != tid)
		word = 'n';
	if (write(to, &word, 1) != 1 || read(from, &word, 1) != 1)
		_exit(1);
	ptrace(PTRACE_DETACH, tid, NULL, NULL);
	_exit(0);
}

static void test_stopped(void)
{
	pthread_t thread, destroyer;
	int ask[2], answer[2], status;
	char word;

	if (test_trap() != FM_TRAP_THREAD)
		return;
	mm = support_mm(MIB);
	fm_file *file = support_open(mm, support_format("faulty:%s", support_file(16 * PAGE, SEED)),
				     NULL);
	addr = support_map(file, 0, 16 * PAGE);
	CHECK_OK(fm_file_control(file, "stuck=1"));
	uint64_t before = support_stats(mm).lock_shared;
	reader_tid = 0;
	CHECK_EQ(pthread_create(&thread, NULL, read_stopped, addr), 0);
	EVENTUALLY(support_stats(mm).lock_shared > before);
	CHECK(pipe(ask) == 0 && pipe(answer) == 0);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	pid_t child = fork();
	if (!child)
		stopper(reader_tid, ask[0], answer[1]);
	CHECK_EQ(read(answer[0], &word, 1), 1);
	CHECK_EQ(pthread_create(&destroyer, NULL, destroy, mm), 0);
	if (word == 'y')
		support_sleep_ms(700); /* notes once lasted for 200 ms */
	CHECK_EQ(write(ask[1], "g", 1), 1);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(pthread_join(destroyer, NULL), 0);
	for (int i = 0; i < 2; i++)
		CHECK(close(ask[i]) == 0 && close(answer[i]) == 0);
}

static void test_empty(void)
{
	for (int i = 0; i < 20; i++)
		CHECK_OK(fm_mm_destroy(support_mm(MIB)));
	CHECK_EQ(fm_mm_destroy(NULL), -EINVAL);
}

static void test(void)
{
	test_empty();
	test_left();
	test_slow();
	test_stuck();
	test_deadline();
	test_frames();
	test_late();
	test_stopped();
}

int main(void)
{
	return support_run(test);
}
