/* SPDX-License-Identifier: MIT */
/*
 * fm_advise(): readahead follows the advice, WILLNEED reads without waiting, DONTNEED drops; a part that is not
 * mapped gives -ENOMEM and the rest is advised; the bytes are the same under any advice.
 * Seen to fail: with RANDOM taken for NORMAL (test_random), with DONTNEED doing nothing (test_dontneed).
 */
#include "support.h"

#define SEED 19

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;
#define PAGES 512u

static void begin(void)
{
	mm = support_mm(16 * MIB);
	file = support_open(mm, support_format("faulty:%s", support_file(PAGES * PAGE, SEED)), NULL);
	addr = support_map(file, 0, PAGES * PAGE);
}

static void end(void)
{
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_arguments(void)
{
	begin();
	CHECK_EQ(fm_advise(NULL, addr, PAGE, FM_ADVICE_RANDOM), -EINVAL);
	CHECK_EQ(fm_advise(mm, addr + 1, PAGE, FM_ADVICE_RANDOM), -EINVAL);
	CHECK_EQ(fm_advise(mm, addr, 0, FM_ADVICE_RANDOM), -EINVAL);
	CHECK_EQ(fm_advise(mm, addr, PAGE, (enum fm_advice)5), -EINVAL);
	CHECK_EQ(fm_advise(mm, addr, PAGE, (enum fm_advice)-1), -EINVAL);
	end();
}

static void test_random(void)
{
	begin();
	CHECK_OK(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_RANDOM));
	for (unsigned i = 0; i < PAGES; i += 3)
		support_expect(mm, addr + i * PAGE, i * PAGE, PAGE, SEED);
	struct fm_stats stats = support_stats(mm);
	CHECK_EQ(stats.ra_pages, 0);
	CHECK_EQ(stats.reads, (PAGES + 2) / 3);
	/* And back. */
	CHECK_OK(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_DONTNEED));
	CHECK_OK(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_NORMAL));
	support_expect(mm, addr, 0, PAGES * PAGE, SEED);
	CHECK_GT(support_stats(mm).ra_pages, 0);
	end();
}

static void test_sequential(void)
{
	begin();
	CHECK_OK(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_SEQUENTIAL));
	support_expect(mm, addr, 0, PAGES * PAGE, SEED);
	struct fm_stats stats = support_stats(mm);
	CHECK_GT(stats.ra_pages, PAGES / 2);
	CHECK_LT(stats.reads, PAGES / 4);
	end();
}

/* Of a part only: the segment is cut, the bytes are not. */
static void test_part(void)
{
	begin();
	CHECK_OK(fm_advise(mm, addr + 100 * PAGE, 100 * PAGE, FM_ADVICE_RANDOM));
	CHECK_EQ(support_stats(mm).mappings, 3);
	support_expect(mm, addr + 130 * PAGE, 130 * PAGE, 20 * PAGE, SEED);
	CHECK_EQ(support_stats(mm).ra_pages, 0);
	support_expect(mm, addr, 0, PAGES * PAGE, SEED);
	end();
}

static void test_willneed(void)
{
	begin();
	CHECK_OK(fm_file_control(file, "stuck=1"));
	/* Were it to wait, it would wait for ever. */
	CHECK_OK(fm_advise(mm, addr, 64 * PAGE, FM_ADVICE_WILLNEED));
	CHECK_GT(support_stats(mm).requests, 0);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	EVENTUALLY(support_stats(mm).requests == 0);
	uint64_t reads = support_stats(mm).reads;
	support_expect(mm, addr, 0, 64 * PAGE, SEED);
	CHECK_EQ(support_stats(mm).reads, reads);
	end();
}

static void test_dontneed(void)
{
	begin();
	support_expect(mm, addr, 0, PAGES * PAGE, SEED);
	CHECK_GE(support_stats(mm).frames_used, PAGES);
	uint64_t bytes = support_stats(mm).read_bytes;
	CHECK_OK(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_DONTNEED));
	EVENTUALLY(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_DONTNEED) == 0 &&
		   support_stats(mm).frames_used == 0);
	CHECK_EQ(support_stats(mm).pages_installed, 0);
	support_expect(mm, addr, 0, PAGES * PAGE, SEED); /* read anew */
	CHECK_GE(support_stats(mm).read_bytes, bytes + PAGES * PAGE);
	end();
}

static void test_holes(void)
{
	begin();
	CHECK_OK(fm_unmap(mm, addr + 10 * PAGE, 10 * PAGE));
	for (int advice = FM_ADVICE_NORMAL; advice <= FM_ADVICE_DONTNEED; advice++) {
		CHECK_EQ(fm_advise(mm, addr, 30 * PAGE, (enum fm_advice)advice), -ENOMEM);
		CHECK_EQ(fm_advise(mm, addr + 10 * PAGE, PAGE, (enum fm_advice)advice), -ENOMEM);
		CHECK_EQ(fm_advise(mm, &mm - (uintptr_t)&mm % PAGE / sizeof(mm), PAGE,
				   (enum fm_advice)advice),
			 -ENOMEM);
	}
	/* The rest was advised: behind the hole too. */
	CHECK_OK(fm_advise(mm, addr + 20 * PAGE, (PAGES - 20) * PAGE, FM_ADVICE_NORMAL));
	CHECK_EQ(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_RANDOM), -ENOMEM);
	support_expect(mm, addr + 200 * PAGE, 200 * PAGE, 50 * PAGE, SEED);
	CHECK_EQ(support_stats(mm).ra_hits, 0);
	end();
}

/* Past the end of the file there is nothing to read, and nothing to fail. */
static void test_past_end(void)
{
	begin();
	unsigned char *far = support_map(file, PAGES * PAGE, 64 * PAGE);
	for (int advice = FM_ADVICE_NORMAL; advice <= FM_ADVICE_DONTNEED; advice++) {
		CHECK_OK(fm_advise(mm, far, 64 * PAGE, (enum fm_advice)advice));
		CHECK_OK(fm_advise(mm, far - 8 * PAGE, 72 * PAGE, (enum fm_advice)advice));
	}
	CHECK_OK(fm_unmap(mm, far, 64 * PAGE));
	support_expect(mm, addr, 0, PAGES * PAGE, SEED);
	end();
}

static void test(void)
{
	test_arguments();
	test_random();
	test_sequential();
	test_part();
	test_willneed();
	test_dontneed();
	test_holes();
	test_past_end();
}

int main(void)
{
	return support_run(test);
}
