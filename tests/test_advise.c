/* SPDX-License-Identifier: MIT */
/*
 * fm_advise(): readahead follows the advice. WILLNEED reads without waiting. DONTNEED drops
 * pages. If a part of the range is not mapped, the call returns -ENOMEM and advises the rest. The
 * bytes are the same under any advice. Pages with KEEP stay longer than other pages. Pages with
 * COLD go first, and are read from memory until then.
 *
 * Seen to fail: with RANDOM treated as NORMAL (test_random); with DONTNEED that does nothing
 * (test_dontneed); with KEEP ignored by the fault (test_keep); with COLD that does nothing, or
 * that drops the pages (test_cold).
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
	CHECK_EQ(fm_advise(mm, addr, PAGE, (enum fm_advice)(FM_ADVICE_COLD + 1)), -EINVAL);
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
	/* NORMAL switches readahead on again. */
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

/* Advice on a part of a mapping cuts the segment in three. The bytes stay the same. */
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
	/* The store is stuck: a call that waited would wait for ever. */
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
	support_expect(mm, addr, 0, PAGES * PAGE, SEED); /* the store is read again */
	CHECK_GE(support_stats(mm).read_bytes, bytes + PAGES * PAGE);
	end();
}

static unsigned cached(unsigned first, unsigned pages)
{
	static unsigned char vec[PAGES];
	unsigned n = 0;
	CHECK_OK(fm_residency(mm, addr + first * PAGE, pages * PAGE, vec));
	for (unsigned i = 0; i < pages; i++)
		n += vec[i] & FM_RESIDENT_CACHED;
	return n;
}

static void touch(unsigned page)
{
	support_expect(mm, addr + page * PAGE, page * PAGE, PAGE, SEED);
}

static void begin_small(void)
{
	const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};
	mm = support_mm(PAGES / 4 * PAGE);
	file = support_open(mm, support_file(PAGES * PAGE, SEED), &alone);
	addr = support_map(file, 0, PAGES * PAGE);
}

/* Touch two ranges in turn. Both ranges together need four times the budget. */
static void test_keep(void)
{
	begin_small();
	CHECK_OK(fm_advise(mm, addr, PAGES / 2 * PAGE, FM_ADVICE_KEEP));
	for (unsigned i = 0; i < PAGES / 2; i++) {
		touch(i);
		touch(PAGES / 2 + i);
	}
	unsigned kept = cached(0, PAGES / 2), others = cached(PAGES / 2, PAGES / 2);
	CHECK_GT(kept, 2 * others);
	/* KEEP is a weight, not a pin: pages that are no longer touched go in the end. */
	CHECK_OK(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_NORMAL));
	CHECK_OK(fm_advise(mm, addr + PAGES / 2 * PAGE, PAGES / 2 * PAGE, FM_ADVICE_KEEP));
	for (unsigned i = 0; i < 4 * PAGES; i++)
		touch(PAGES / 2 + i % (PAGES / 2));
	CHECK_EQ(cached(0, PAGES / 2), 0);
	end();
}

/* Bring in 48 pages and give COLD to the 16 pages in the middle. The cold pages go first, though
 * they are not the oldest pages. */
static void test_cold(void)
{
	begin_small();
	for (unsigned i = 0; i < 48; i++)
		touch(i);
	support_faults_settled(mm);
	CHECK_OK(fm_advise(mm, addr + 16 * PAGE, 16 * PAGE, FM_ADVICE_COLD));
	CHECK_EQ(cached(0, 48), 48);
	unsigned next = 48;
	while (cached(16, 16) == 16 && next < PAGES)
		touch(next++);
	CHECK_LT(next, PAGES); /* a cold page has gone */
	while (cached(16, 16) && next < PAGES) {
		CHECK_EQ(cached(0, 16) + cached(32, 16), 32); /* no other page has gone */
		touch(next++);
	}
	CHECK_EQ(cached(16, 16), 0);
	end();
}

/* A touched cold page is read from memory. */
static void test_cold_touched(void)
{
	begin_small();
	for (unsigned i = 0; i < 48; i++)
		touch(i);
	support_faults_settled(mm);
	uint64_t reads = support_stats(mm).reads;
	CHECK_OK(fm_advise(mm, addr, 48 * PAGE, FM_ADVICE_COLD));
	for (unsigned i = 0; i < 48; i++)
		touch(i);
	CHECK_EQ(support_stats(mm).reads, reads);
	end();
}

static void test_holes(void)
{
	begin();
	CHECK_OK(fm_unmap(mm, addr + 10 * PAGE, 10 * PAGE));
	for (int advice = FM_ADVICE_NORMAL; advice <= FM_ADVICE_COLD; advice++) {
		CHECK_EQ(fm_advise(mm, addr, 30 * PAGE, (enum fm_advice)advice), -ENOMEM);
		CHECK_EQ(fm_advise(mm, addr + 10 * PAGE, PAGE, (enum fm_advice)advice), -ENOMEM);
		CHECK_EQ(fm_advise(mm, &mm - (uintptr_t)&mm % PAGE / sizeof(mm), PAGE,
				   (enum fm_advice)advice),
			 -ENOMEM);
	}
	/* The rest was advised, also behind the hole. */
	CHECK_OK(fm_advise(mm, addr + 20 * PAGE, (PAGES - 20) * PAGE, FM_ADVICE_NORMAL));
	CHECK_EQ(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_RANDOM), -ENOMEM);
	support_expect(mm, addr + 200 * PAGE, 200 * PAGE, 50 * PAGE, SEED);
	CHECK_EQ(support_stats(mm).ra_hits, 0);
	end();
}

/* Past the end of the file, advice reads nothing and reports no error. */
static void test_past_end(void)
{
	begin();
	unsigned char *far = support_map(file, PAGES * PAGE, 64 * PAGE);
	for (int advice = FM_ADVICE_NORMAL; advice <= FM_ADVICE_COLD; advice++) {
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
	test_keep();
	test_cold();
	test_cold_touched();
	test_holes();
	test_past_end();
}

int main(void)
{
	return support_run(test);
}
