/* SPDX-License-Identifier: MIT */
/*
 * A store that is stuck, with a deadline: its readers get ETIMEDOUT, everybody else is served
 * meanwhile, and what the device delivers late never shows in another's page. Seen to fail, each by
 * a hang: with read_expire() doing nothing (thread trap), with no limit to the requests or to the
 * frames of one store (test_share), with active pages kept while all inactive ones are with a stuck
 * store.
 */
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#define SEED 23

static fm_mm *mm;

static fm_file *open_slow(uint64_t size, unsigned seed, uint64_t deadline_ms)
{
	struct fm_file_options options = {.size = sizeof(options), .readahead_bytes = UINT32_MAX,
					  .deadline_ns = deadline_ms * MS_NS};
	return support_open(mm, support_format("faulty:%s", support_file(size, seed)), &options);
}

static int touch(const unsigned char *addr)
{
	unsigned char byte;
	return support_read(mm, addr, &byte, 1);
}

/* The store is well again, yet on a busy machine a read may take longer than so short a deadline.
 */
static void expect_patiently(const unsigned char *addr, uint64_t pages)
{
	for (uint64_t page = 0; page < pages; page++) {
		EVENTUALLY(touch(addr + page * PAGE) != -ETIMEDOUT);
		unsigned char buf[PAGE];
		int err;
		while ((err = support_read(mm, addr + page * PAGE, buf, PAGE)) == -ETIMEDOUT)
			;
		CHECK_OK(err);
		CHECK_EQ(support_differs(buf, page * PAGE, PAGE, SEED), UINT64_MAX);
	}
}

static void end(fm_file *file, void *addr, size_t len)
{
	CHECK_OK(fm_unmap(mm, addr, len));
	CHECK_OK(fm_file_close(file));
}

#define READERS 8
static unsigned char *stuck_addr;
static atomic_uint timeouts;
static void *stuck_reader(void *arg)
{
	/* Two to a page. */
	CHECK_EQ(touch(stuck_addr + ((uintptr_t)arg / 2 + 1) * PAGE), -ETIMEDOUT);
	timeouts++;
	return NULL;
}

static void test_stuck(void)
{
	fm_file *bad = open_slow(32 * PAGE, SEED, 150), *good = open_slow(64 * PAGE, SEED + 1, 0);
	unsigned char *in_good = support_map(good, 0, 64 * PAGE);
	pthread_t thread[READERS];

	stuck_addr = support_map(bad, 0, 32 * PAGE);
	timeouts = 0;
	expect_patiently(stuck_addr, 1);
	CHECK_OK(fm_file_control(bad, "stuck=1"));
	for (uintptr_t i = 0; i < READERS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, stuck_reader, (void *)i), 0);
	/* Others are served. */
	support_expect(mm, in_good, 0, 64 * PAGE, SEED + 1);
	for (int i = 0; i < READERS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_EQ(timeouts, READERS);
	CHECK_GT(support_stats(mm).read_timeouts, 0);
	/* The call, too. */
	CHECK_EQ(fm_fault_in(mm, stuck_addr + 9 * PAGE, PAGE, 0), -ETIMEDOUT);
	CHECK_EQ(fm_pin(mm, stuck_addr + 9 * PAGE, PAGE, 0), -ETIMEDOUT);
	if (test_trap() != FM_TRAP_CALL)
		support_expect_signal(support_load(stuck_addr + 10 * PAGE + 1), SIGBUS, ETIMEDOUT,
				      stuck_addr + 10 * PAGE + 1);
	/* It comes back. */
	CHECK_OK(fm_file_control(bad, "stuck=0"));
	expect_patiently(stuck_addr, 32);
	end(bad, stuck_addr, 32 * PAGE);
	end(good, in_good, 64 * PAGE);
}

/* From the URI. */
static void test_uri(void)
{
	fm_file *file = support_open(
		mm, support_format("faulty:%s?stuck=1&deadline=50ms", support_file(PAGE, SEED)), NULL);
	unsigned char *addr = support_map(file, 0, PAGE);

	CHECK_EQ(touch(addr), -ETIMEDOUT);
	end(file, addr, PAGE);
}

/* Time out again and again while others need every frame: none shows what was meant for another. */
static void test_late(void)
{
	fm_file *bad = open_slow(64 * PAGE, SEED, 20), *good = open_slow(64 * PAGE, SEED + 1, 0);
	unsigned char *in_bad = support_map(bad, 0, 64 * PAGE);
	unsigned char *in_good = support_map(good, 0, 64 * PAGE);

	for (int round = 0; round < 3; round++) {
		CHECK_OK(fm_file_control(bad, "stuck=1"));
		for (unsigned page = 0; page < 3; page++)
			CHECK_EQ(touch(in_bad + page * PAGE), -ETIMEDOUT);
		/* Their frames go to others. */
		for (int pass = 0; pass < 2; pass++)
			support_expect(mm, in_good, 0, 64 * PAGE, SEED + 1);
		CHECK_OK(fm_file_control(bad, "stuck=0"));
		expect_patiently(in_bad, 64);
		CHECK_OK(fm_advise(mm, in_bad, 64 * PAGE, FM_ADVICE_DONTNEED));
	}
	end(bad, in_bad, 64 * PAGE);
	end(good, in_good, 64 * PAGE);
}

static void *dead_reader(void *arg)
{
	unsigned char byte;
	int err = support_read(mm, stuck_addr + (uintptr_t)arg * PAGE, &byte, 1);

	CHECK(err == -ETIMEDOUT || err == 0);
	return NULL;
}

/* A dead store may take a share of the frames, not all: a second file is read through what is left.
 * No reader of the dead one has come back when it has been. */
static void test_share(unsigned deadline_ms)
{
	fm_file *bad = open_slow(64 * PAGE, SEED, deadline_ms), *good = open_slow(64 * PAGE, SEED + 1, 0);
	unsigned char *in_good = support_map(good, 0, 64 * PAGE);
	pthread_t thread[40];

	stuck_addr = support_map(bad, 0, 64 * PAGE);
	CHECK_OK(fm_file_control(bad, "stuck=1"));
	for (uintptr_t i = 0; i < 40; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, dead_reader, (void *)i), 0);
	EVENTUALLY(support_stats(mm).frames_used > 3);
	for (int pass = 0; pass < 2; pass++)
		support_expect(mm, in_good, 0, 64 * PAGE, SEED + 1);
	CHECK_OK(fm_file_control(bad, "stuck=0"));
	for (int i = 0; i < 40; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	support_expect(mm, stuck_addr, 0, 64 * PAGE, SEED);
	end(bad, stuck_addr, 64 * PAGE);
	end(good, in_good, 64 * PAGE);
}

static void test(void)
{
	mm = support_mm(MIB);
	test_stuck();
	test_uri();
	test_share(60000); /* here requests are scarcer than frames */
	support_mm_end(mm);
	mm = support_mm(2 * fm_budget_min(4096));
	test_late();
	test_share(60000);
	test_share(0); /* its readers read themselves */
	support_mm_end(mm);
}

int main(void)
{
	return support_run(test);
}
