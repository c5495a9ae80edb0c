/* SPDX-License-Identifier: MIT */
/*
 * What the program sees of a bad access: the signal, its errno and the exact address. The mapping's
 * callback runs before the signal. A write raises SIGSEGV. If the page is absent or was installed
 * by COPY, the signal comes at once. If the page was installed by MOVE, the signal comes once the
 * page is write-protected.
 *
 * Seen to fail:
 *   test_errno: si_errno is left 0.
 *   test_callback: FM_ERROR_RETRY is taken for RAISE.
 *   test_write: a page is not protected after a MOVE.
 *   test_broken_memory: each kind of SIGBUS is taken for the library's.
 */
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SEED 5

static const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};

static bool traps(void)
{
	return test_trap() != FM_TRAP_CALL;
}

static void test_past_end(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, support_file(2 * PAGE + 1, SEED), NULL);
	unsigned char *addr = support_map(file, 0, 10 * PAGE);

	support_expect(mm, addr, 0, 2 * PAGE + 1, SEED);
	if (traps()) {
		for (unsigned at = 0; at < PAGE; at += 511)
			support_expect_signal(support_load(addr + 3 * PAGE + at), SIGBUS, ENXIO,
					      addr + 3 * PAGE + at);
		struct support_signal got = support_load(addr + 4 * PAGE + 1);
		CHECK(got.code == BUS_ADRERR);
	}
	CHECK_OK(fm_unmap(mm, addr, 10 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* The signal carries the store's errno. The errno is raised once: the next access reads again. */
static void test_errno(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	const char *uri = support_format("faulty:%s", support_file(8 * PAGE, SEED));
	fm_file *file = support_open(mm, uri, &alone);
	unsigned char *addr = support_map(file, 0, 8 * PAGE);

	CHECK_OK(fm_file_control(file, "error=EREMOTEIO"));
	CHECK_OK(fm_file_control(file, "error-at=8200"));
	if (traps()) {
		support_expect_signal(support_load(addr + 2 * PAGE + 3), SIGBUS, EREMOTEIO,
				      addr + 2 * PAGE + 3);
		support_expect_signal(support_load(addr + 2 * PAGE + 5), SIGBUS, EREMOTEIO,
				      addr + 2 * PAGE + 5);
	}
	CHECK_EQ(fm_fault_in(mm, addr + 2 * PAGE, 1, 0), -EREMOTEIO);
	support_expect(mm, addr, 0, 2 * PAGE, SEED);
	support_expect(mm, addr + 3 * PAGE, 3 * PAGE, 5 * PAGE, SEED);
	CHECK_OK(fm_file_control(file, "error-at=none"));
	support_expect(mm, addr, 0, 8 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, 8 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static struct support_signal stored;
static bool store_refused(unsigned char *addr)
{
	stored = support_store(addr);
	return stored.signo != 0;
}

static void test_write(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	const char *path = support_file(8 * PAGE, SEED);
	fm_file *file = support_open(mm, path, &alone);
	unsigned char *addr = support_map(file, 0, 8 * PAGE), got[8];
	size_t len;

	/* The page is absent: the signal comes at once under every install. */
	if (traps()) {
		struct support_signal absent = support_store(addr + 5);
		CHECK_EQ(absent.signo, SIGSEGV);
		CHECK_EQ(absent.code, SEGV_ACCERR);
		CHECK(absent.addr == addr + 5);
	}
	/* The page is installed. Under COPY the signal comes at once. Under MOVE the signal comes
	 * once the page is write-protected. */
	for (unsigned page = 0; page < 8; page++)
		CHECK_OK(fm_fault_in(mm, addr + page * PAGE, 1, 0));
	if (test_install() == FM_INSTALL_COPY)
		CHECK(store_refused(addr + PAGE + 9));
	else
		EVENTUALLY(store_refused(addr + PAGE + 9));
	CHECK_EQ(stored.signo, SIGSEGV);
	CHECK_EQ(stored.code, SEGV_ACCERR);
	CHECK(stored.addr == addr + PAGE + 9);
	/* A write that got through before the protection never reached the store. */
	CHECK_OK(fm_file_read(file, got, 8, PAGE + 8, &len));
	CHECK_EQ(support_differs(got, PAGE + 8, 8, SEED), UINT64_MAX);
	/* The other pages stay readable, and are protected too. */
	for (unsigned page = 2; page < 8; page++) {
		support_expect(mm, addr + page * PAGE, page * PAGE, PAGE, SEED);
		EVENTUALLY(store_refused(addr + page * PAGE));
	}
	/* A write past the end of the mapping, and a write to an unmapped page. */
	if (traps())
		CHECK_NE(support_store(addr + 8 * PAGE).signo, 0);
	CHECK_OK(fm_unmap(mm, addr, 8 * PAGE));
	CHECK(store_refused(addr));
	CHECK_EQ(stored.signo, SIGSEGV);
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ---- on_error runs in signal context, so the callbacks only count */

static struct fm_error told;
static unsigned calls;
static fm_file *to_repair;

static enum fm_error_action raise_it(void *arg, const struct fm_error *error)
{
	CHECK(arg == &calls);
	calls++;
	told = *error;
	return FM_ERROR_RAISE;
}

/* Repair the store at the third call. */
static enum fm_error_action retry_it(void *arg, const struct fm_error *error)
{
	(void)arg;
	told = *error;
	if (++calls == 3)
		fm_file_control(to_repair, "error-every=0");
	return FM_ERROR_RETRY;
}

static void test_callback(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	const char *uri = support_format("faulty:%s", support_file(8 * PAGE, SEED));
	fm_file *file = support_open(mm, uri, &alone);
	struct fm_map_options options = {.size = sizeof(options), .on_error = raise_it,
					 .on_error_arg = &calls};
	unsigned char *addr;
	void *same;

	CHECK_OK(fm_map(file, 0, 8 * PAGE, &options, (void **)&addr));
	CHECK_OK(fm_file_control(file, "error-every=1"));
	calls = 0;
	support_expect_signal(support_load(addr + PAGE + 1), SIGBUS, EIO, addr + PAGE + 1);
	CHECK_EQ(calls, 1);
	CHECK_EQ(told.error, -EIO);
	CHECK_EQ(told.signo, SIGBUS);
	CHECK_EQ(told.offset, PAGE + 1);
	CHECK(told.addr == addr + PAGE + 1);

	options.on_error = retry_it;
	CHECK_OK(fm_map(file, 0, 8 * PAGE, &options, &same));
	CHECK(same == addr);
	to_repair = file;
	calls = 0;
	support_expect(mm, addr + PAGE, PAGE, PAGE, SEED);
	CHECK_EQ(calls, 3);
	CHECK_EQ(told.error, -EIO);
	CHECK_OK(fm_unmap(mm, addr, 8 * PAGE));
	CHECK_OK(fm_unmap(mm, addr, 8 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ---- many threads fault at once: each thread gets its own address */

static unsigned char *shared;
static void *bad_loads(void *arg)
{
	unsigned mine = (unsigned)(uintptr_t)arg;
	for (unsigned i = 0; i < 50; i++) {
		unsigned char *at = shared + (i % 4) * PAGE + mine * 16 + i % 16;
		support_expect_signal(support_load(at), SIGBUS, ENXIO, at);
	}
	return NULL;
}

static void test_threads(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, support_file(PAGE, SEED), NULL);
	pthread_t thread[8];

	shared = (unsigned char *)support_map(file, 0, 5 * PAGE) + PAGE;
	for (uintptr_t i = 0; i < 8; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, bad_loads, (void *)i), 0);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_OK(fm_unmap(mm, shared - PAGE, 5 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* Send the signal by which the kernel reports broken memory. */
static void broken(void *addr)
{
	siginfo_t info = {.si_signo = SIGBUS, .si_code = BUS_MCEERR_AR, .si_addr = addr};
	CHECK_EQ(syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), SIGBUS, &info), 0);
}

/* Broken memory is reported to the program. Under the thread trap a poison mark of the library
 * raises the same signal. Memory that can be read is not broken: the signal is dropped there. */
static void test_broken_memory(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, support_file(2 * PAGE, SEED), NULL);
	unsigned char *addr = support_map(file, 0, 2 * PAGE);

	support_expect(mm, addr, 0, 2 * PAGE, SEED);
	struct support_signal got = support_catch(broken, addr + 5);
	if (test_trap() == FM_TRAP_THREAD) {
		CHECK_EQ(got.signo, 0);
	} else {
		CHECK_EQ(got.signo, SIGBUS);
		CHECK_EQ(got.code, BUS_MCEERR_AR);
		CHECK(got.addr == addr + 5);
	}
	support_expect(mm, addr, 0, 2 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, 2 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test(void)
{
	test_past_end();
	test_broken_memory();
	test_errno();
	test_write();
	if (traps()) {
		/* The call trap makes no callback, and an absent page has no errno. */
		test_callback();
		test_threads();
	}
}

int main(void)
{
	return support_run(test);
}
