/* SPDX-License-Identifier: MIT */
/*
 * A store is stuck, and the store has a deadline: readers of the store get ETIMEDOUT. All other
 * readers are served meanwhile. Bytes that the device delivers late never show in another page.
 *
 * Seen to fail, each time by a hang: with read_expire() that does nothing (thread trap); with no
 * limit on the requests or frames of one store (test_share); with active pages kept while all
 * inactive pages belong to a stuck store.
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

/* Read pages after the store works again. On a busy machine a read may still take longer than the
 * short deadline. */
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
	/* Two threads read each page. */
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
	/* Other files are served. */
	support_expect(mm, in_good, 0, 64 * PAGE, SEED + 1);
	for (int i = 0; i < READERS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_EQ(timeouts, READERS);
	CHECK_GT(support_stats(mm).read_timeouts, 0);
	/* Calls time out, too. */
	CHECK_EQ(fm_fault_in(mm, stuck_addr + 9 * PAGE, PAGE, 0), -ETIMEDOUT);
	CHECK_EQ(fm_pin(mm, stuck_addr + 9 * PAGE, PAGE, 0), -ETIMEDOUT);
	if (test_trap() != FM_TRAP_CALL)
		support_expect_signal(support_load(stuck_addr + 10 * PAGE + 1), SIGBUS, ETIMEDOUT,
				      stuck_addr + 10 * PAGE + 1);
	/* The store works again. */
	CHECK_OK(fm_file_control(bad, "stuck=0"));
	expect_patiently(stuck_addr, 32);
	end(bad, stuck_addr, 32 * PAGE);
	end(good, in_good, 64 * PAGE);
}

/* The deadline comes from the URI. */
static void test_uri(void)
{
	fm_file *file = support_open(
		mm, support_format("faulty:%s?stuck=1&deadline=50ms", support_file(PAGE, SEED)), NULL);
	unsigned char *addr = support_map(file, 0, PAGE);

	CHECK_EQ(touch(addr), -ETIMEDOUT);
	end(file, addr, PAGE);
}

/* Reads time out again and again while another file needs every frame. No page may show bytes
 * that were meant for another page. */
static void test_late(void)
{
	fm_file *bad = open_slow(64 * PAGE, SEED, 20), *good = open_slow(64 * PAGE, SEED + 1, 0);
	unsigned char *in_bad = support_map(bad, 0, 64 * PAGE);
	unsigned char *in_good = support_map(good, 0, 64 * PAGE);

	for (int round = 0; round < 3; round++) {
		CHECK_OK(fm_file_control(bad, "stuck=1"));
		for (unsigned page = 0; page < 3; page++)
			CHECK_EQ(touch(in_bad + page * PAGE), -ETIMEDOUT);
		/* The frames of the reads that timed out go to the other file. */
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

/* A dead store may take a share of the frames, not all frames. A second file is read with the
 * other frames before any reader of the dead store returns. */
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
	test_share(0); /* without a deadline, each reader reads in its own thread */
	support_mm_end(mm);
}

int main(void)
{
	return support_run(test);
}
