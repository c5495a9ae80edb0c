/* SPDX-License-Identifier: MIT */
/*
 * Who reads in equal steps, forwards or backwards: what comes next is in the view before it is
 * touched, by way of staging slots, so that few of the pages are faults. They hold what the file
 * holds, and nothing is read for what the mapping does not show; who advised that each touch is to
 * be seen, or that nothing is to be read ahead, has as many faults as pages. Seen to fail: with the
 * pages of a window in each other's places (strides_other_bytes), with windows that do not go into
 * the view (strides_not_shown); see break/.
 */
#include "support.h"

#define SEED 43
#define STEP 37u
#define PAGES 16384u
#define SIZE ((uint64_t)PAGES * PAGE + 100)
#define BUDGET (2 * SIZE) /* also what is filled in advance: there are frames without memory */

static const char *path;

static bool stages(void)
{
	const char *trap = getenv("FM_TEST_TRAP"), *install = getenv("FM_TEST_INSTALL");
	return (!trap || strcmp(trap, "call") != 0) && (!install || strcmp(install, "copy") != 0);
}

/* Pages first, first + STEP... of [low, high), from one end or the other. Returns how many were
 * faults, of a hundred. */
static uint64_t walk(fm_mm *mm, const unsigned char *addr, uint64_t low, uint64_t high,
		     bool backward)
{
	uint64_t count = (high - low + STEP - 1) / STEP, before = support_stats(mm).faults;
	unsigned char buf[PAGE];

	for (uint64_t i = 0; i < count; i++) {
		uint64_t index = low + (backward ? count - 1 - i : i) * STEP;
		uint64_t len = SIZE - index * PAGE < PAGE ? SIZE - index * PAGE : PAGE;
		CHECK_OK(support_read(mm, addr + (index - low) * PAGE, buf, len));
		CHECK_EQ(support_differs(buf, index * PAGE, len, SEED), UINT64_MAX);
	}
	return (support_stats(mm).faults - before) * 100 / count;
}

/* Pages low to high of the file are mapped. */
static uint64_t walk_mapped(uint64_t low, uint64_t high, bool backward, enum fm_advice advice)
{
	fm_mm *mm = support_mm(BUDGET);
	fm_file *file = support_open(mm, path, NULL);
	uint64_t len = (high * PAGE < SIZE ? high * PAGE : SIZE) - low * PAGE;
	unsigned char *addr = support_map(file, low * PAGE, len);

	CHECK_OK(fm_advise(mm, addr, len, advice));
	uint64_t faults = walk(mm, addr, low, high, backward);
	struct fm_stats stats = support_stats(mm);
	/* Nothing for what is not mapped, nor for what lies between; but who begins at the
	 * beginning may go on page after page. */
	CHECK(stats.read_bytes <= ((high - low) / STEP + 1 + (low ? 0 : 8)) * PAGE);
	CHECK_OK(fm_unmap(mm, addr, len));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	return faults;
}

/* The system may be slow to read ahead, and a page be late: that is a fault. */
static void expect_few(uint64_t low, uint64_t high, bool backward)
{
	uint64_t faults = 100;
	for (int tries = 0; tries < 20 && faults > 50; tries++)
		faults = walk_mapped(low, high, backward, FM_ADVICE_NORMAL);
	if (stages() && faults > 50)
		CHECK_FAIL("of 100 pages %llu are faults", (unsigned long long)faults);
}

int main(void)
{
	support_start();
	path = support_file(SIZE, SEED);
	expect_few(0, PAGES + 1, false);
	expect_few(0, PAGES + 1, true);
	expect_few(PAGES / 4, PAGES / 2, false);
	expect_few(PAGES / 4, PAGES / 2, true);
	if (stages())
		CHECK_EQ(walk_mapped(0, PAGES, false, FM_ADVICE_RANDOM), 100);
	support_end();
	return 0;
}
