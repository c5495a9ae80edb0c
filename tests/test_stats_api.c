/* SPDX-License-Identifier: MIT */
/*
 * fm_stats(): its arguments, and figures that follow what happens. Each fault is counted once,
 * gauges rise and fall, and histograms agree with their counters. Seen to fail: with a fault
 * counted at each try (test_faults), and with a gauge that is not lowered (support_mm_end).
 */
#include "support.h"

#include <pthread.h>

#define SEED 41
static const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};

static void test_arguments(void)
{
	fm_mm *mm = support_mm(MIB);
	struct fm_stats stats = {.size = sizeof(stats) - 1};

	CHECK_EQ(fm_stats(mm, &stats), -EINVAL);
	stats.size = 0;
	CHECK_EQ(fm_stats(mm, &stats), -EINVAL);
	CHECK_EQ(fm_stats(mm, NULL), -EINVAL);
	stats.size = sizeof(stats);
	CHECK_EQ(fm_stats(NULL, &stats), -EINVAL);
	CHECK_OK(fm_stats(mm, &stats));
	CHECK_EQ(stats.size, sizeof(stats));
	CHECK_EQ(stats.budget_bytes, MIB);
	CHECK_EQ(stats.frames, MIB / PAGE);
	CHECK_EQ(stats.faults, 0);
	support_mm_end(mm);
	CHECK_EQ(fm_stats(mm, &stats), -EOWNERDEAD);
}

static void test_faults(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, support_format("faulty:%s?delay=1ms",
							support_file(32 * PAGE, SEED)), &alone);
	unsigned char *addr = support_map(file, 0, 32 * PAGE);

	for (unsigned page = 0; page < 32; page++)
		CHECK_OK(fm_fault_in(mm, addr + page * PAGE, 1, 0));
	struct fm_stats stats = support_stats(mm);
	CHECK_EQ(stats.faults, 32);
	CHECK_EQ(stats.faults_major, 32);
	CHECK_EQ(stats.faults_minor, 0);
	CHECK_GE(stats.fault_retries, 32);
	CHECK_EQ(stats.reads, 32);
	CHECK_EQ(stats.read_bytes, 32 * PAGE);
	CHECK_EQ(stats.pages_installed, 32);
	CHECK_EQ(stats.frames_used, 32);
	CHECK_EQ(stats.installs_move + stats.installs_copy, 32);
	CHECK_EQ(stats.fault_major_ns.count, 32);
	CHECK_EQ(stats.read_ns.count, 32);
	CHECK_GE(stats.read_ns.p50_ns, MS_NS / 2);
	CHECK_GE(stats.fault_major_ns.max_ns, stats.fault_major_ns.p50_ns);
	CHECK_GE(stats.lock_hold_shared_ns.count, 32);
	CHECK_GE(stats.charged_bytes, 32 * PAGE);
	for (unsigned page = 0; page < 32; page++)
		CHECK_OK(fm_fault_in(mm, addr + page * PAGE, 1, 0));
	stats = support_stats(mm);
	CHECK_EQ(stats.faults, 64);
	CHECK_EQ(stats.faults_minor, 32);
	CHECK_EQ(stats.reads, 32);
	CHECK_EQ(fm_fault_in(mm, addr + 40 * PAGE, 1, 0), -EFAULT);
	CHECK_EQ(support_stats(mm).faults_segv, stats.faults_segv + 1);
	CHECK_OK(fm_unmap(mm, addr, 32 * PAGE));
	CHECK_EQ(support_stats(mm).pages_installed, 0);
	CHECK_EQ(support_stats(mm).frames_used, 32); /* pages stay cached while the file is open */
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_gauges(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file[5];
	void *addr[5];

	for (unsigned i = 0; i < 5; i++) {
		file[i] = support_open(mm, "memory:1M", NULL);
		addr[i] = support_map(file[i], 0, MIB);
		CHECK_EQ(support_stats(mm).files, i + 1);
		CHECK_EQ(support_stats(mm).views, i + 1);
		CHECK_EQ(support_stats(mm).mappings, i + 1);
		CHECK_EQ(support_stats(mm).maps, i + 1);
	}
	for (unsigned i = 0; i < 5; i++) {
		CHECK_OK(fm_advise(mm, addr[i], PAGE, FM_ADVICE_RANDOM));
		CHECK_EQ(support_stats(mm).advises, i + 1);
		CHECK_OK(fm_unmap(mm, addr[i], MIB));
		CHECK_EQ(support_stats(mm).unmaps, i + 1);
		CHECK_EQ(support_stats(mm).mappings, 4 - i);
		CHECK_OK(fm_file_close(file[i]));
	}
	support_mm_end(mm);
}

struct reader {
	fm_mm *mm;
	uint64_t looks;
	bool stop;
};

/* Check that no counter falls, whichever thread reads the counter. */
static void *watch(void *arg)
{
	struct reader *reader = arg;
	struct fm_stats last = support_stats(reader->mm);

	while (!__atomic_load_n(&reader->stop, __ATOMIC_SEQ_CST)) {
		struct fm_stats now = support_stats(reader->mm);
#define FM_X(name, help) CHECK_GE(now.name, last.name);
		FM_COUNTERS(FM_X)
#undef FM_X
		last = now;
		__atomic_add_fetch(&reader->looks, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void test_watched(void)
{
	struct reader reader = {.mm = support_mm(MIB)};
	pthread_t thread;
	fm_file *file = support_open(reader.mm, support_file(512 * PAGE, SEED), NULL);
	unsigned char *addr = support_map(file, 0, 512 * PAGE);

	CHECK_EQ(pthread_create(&thread, NULL, watch, &reader), 0);
	support_expect(reader.mm, addr, 0, 512 * PAGE, SEED);
	EVENTUALLY(__atomic_load_n(&reader.looks, __ATOMIC_SEQ_CST) > 10);
	__atomic_store_n(&reader.stop, true, __ATOMIC_SEQ_CST);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_OK(fm_unmap(reader.mm, addr, 512 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(reader.mm);
}

static void test(void)
{
	test_arguments();
	test_faults();
	test_gauges();
	test_watched();
}

int main(void)
{
	return support_run(test);
}
