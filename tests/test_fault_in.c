/* SPDX-License-Identifier: MIT */
/*
 * fm_fault_in() brings pages in as if they were touched. With FM_NOWAIT the call never waits, and
 * tells the caller to come again. Seen to fail: with NOWAIT left out of the fault's flags
 * (test_nowait); with the errno of an attempt lost if no thread waited for the attempt
 * (test_nowait_error).
 */
#include "support.h"

#define SEED 13

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;
static const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};

static void begin(uint64_t size, const struct fm_file_options *options)
{
	mm = support_mm(4 * MIB);
	file = support_open(mm, support_format("faulty:%s", support_file(size, SEED)), options);
	addr = support_map(file, 0, size + 4 * PAGE);
}

static void end(uint64_t size)
{
	CHECK_OK(fm_unmap(mm, addr, size + 4 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_arguments(void)
{
	begin(8 * PAGE, &alone);
	CHECK_EQ(fm_fault_in(NULL, addr, PAGE, 0), -EINVAL);
	CHECK_EQ(fm_fault_in(mm, addr, 0, 0), -EINVAL);
	CHECK_EQ(fm_fault_in(mm, addr, SIZE_MAX, 0), -EINVAL);
	CHECK_EQ(fm_fault_in(mm, addr, PAGE, 4), -EINVAL);
	CHECK_EQ(fm_fault_in(mm, &mm, 1, 0), -EFAULT);
	CHECK_EQ(fm_fault_in(mm, NULL, 1, 0), -EFAULT);
	CHECK_EQ(fm_fault_in(mm, addr + 13 * PAGE, 1, 0), -EFAULT);
	CHECK_EQ(fm_fault_in(mm, addr + 7 * PAGE, PAGE + 1, 0), -ENXIO);
	CHECK_EQ(fm_fault_in(mm, addr + 8 * PAGE, 1, FM_NOWAIT), -ENXIO);
	CHECK_EQ(fm_fault_in(mm, addr + 13 * PAGE, 1, FM_NOWAIT), -EFAULT);
	end(8 * PAGE);
}

/* Pages that the call has installed are readable without a fault. */
static void test_installs(void)
{
	begin(64 * PAGE, NULL);
	CHECK_OK(fm_fault_in(mm, addr + 3, 64 * PAGE - 3, 0));
	uint64_t faults = support_stats(mm).faults;
	CHECK_EQ(support_stats(mm).pages_installed, 64);
	CHECK_EQ(support_differs(addr, 0, 64 * PAGE, SEED), UINT64_MAX);
	CHECK_EQ(support_stats(mm).faults, faults);
	end(64 * PAGE);
}

static void test_nowait(void)
{
	begin(64 * PAGE, &alone);
	CHECK_OK(fm_file_control(file, "stuck=1"));
	/* The store is stuck: a call that waited would wait for ever. */
	for (int i = 0; i < 50; i++)
		CHECK_EQ(fm_fault_in(mm, addr, 8 * PAGE, FM_NOWAIT), -EAGAIN);
	struct fm_stats stats = support_stats(mm);
	CHECK_EQ(stats.fault_in_again, 50);
	CHECK_GE(stats.requests, 1);
	CHECK_LE(stats.requests, 8); /* the reads are asked for once, not fifty times */
	CHECK_EQ(stats.pages_installed, 0);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	EVENTUALLY(fm_fault_in(mm, addr, 8 * PAGE, FM_NOWAIT) == 0);
	CHECK_EQ(support_differs(addr, 0, 8 * PAGE, SEED), UINT64_MAX);
	end(64 * PAGE);
}

/* One thread has many reads under way. */
static void test_nowait_many(void)
{
	begin(256 * PAGE, &alone);
	CHECK_OK(fm_file_control(file, "delay=20ms"));
	EVENTUALLY(fm_fault_in(mm, addr, 256 * PAGE, FM_NOWAIT) == 0);
	CHECK_EQ(support_differs(addr, 0, 256 * PAGE, SEED), UINT64_MAX);
	end(256 * PAGE);
}

static int last;
static bool ended(void)
{
	last = fm_fault_in(mm, addr + PAGE, PAGE, FM_NOWAIT);
	return last != -EAGAIN;
}

/* The errno reaches the caller that asked for the page, though no thread waited. */
static void test_nowait_error(void)
{
	begin(8 * PAGE, &alone);
	CHECK_OK(fm_file_control(file, "delay=5ms"));
	CHECK_OK(fm_file_control(file, "error-every=1"));
	EVENTUALLY(ended());
	CHECK_EQ(last, -EIO);
	CHECK_OK(fm_file_control(file, "error-every=0"));
	EVENTUALLY(ended()); /* the error is told once; then the page is read again */
	CHECK_EQ(last, 0);
	support_expect(mm, addr, 0, 8 * PAGE, SEED);
	end(8 * PAGE);
}

/* The range is larger than the budget. Each page has been in, and no page is promised to stay. */
static void test_larger_than_budget(void)
{
	mm = support_mm(fm_budget_min(4096));
	file = support_open(mm, support_file(512 * PAGE, SEED), NULL);
	addr = support_map(file, 0, 512 * PAGE);
	CHECK_OK(fm_fault_in(mm, addr, 512 * PAGE, 0));
	CHECK_GE(support_stats(mm).read_bytes, 512 * PAGE);
	support_expect(mm, addr, 0, 512 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, 512 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test(void)
{
	test_arguments();
	test_installs();
	test_nowait();
	test_nowait_many();
	test_nowait_error();
	test_larger_than_budget();
}

int main(void)
{
	return support_run(test);
}
