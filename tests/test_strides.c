/* SPDX-License-Identifier: MIT */
/*
 * A reader in equal steps, forwards or backwards. By way of staging slots the next page is in the
 * view before the reader touches the page, so that few pages fault. The pages hold what the file
 * holds. No page is read that the mapping does not show. With FM_ADVICE_RANDOM every page faults.
 *
 * Seen to fail: with the pages of a window swapped (strides_other_bytes), and with windows that are
 * not installed in the view (strides_not_shown); see break/.
 */
#include "support.h"

#define SEED 43
#define STEP 37u
#define PAGES 16384u
#define SIZE ((uint64_t)PAGES * PAGE + 100)
#define BUDGET (2 * SIZE) /* room for pages read ahead: some frames have no memory */

static const char *path;

static bool stages(void)
{
	const char *trap = getenv("FM_TEST_TRAP"), *install = getenv("FM_TEST_INSTALL");
	return (!trap || strcmp(trap, "call") != 0) && (!install || strcmp(install, "copy") != 0);
}

/* Read the pages first, first + STEP... of [low, high), from the front or from the back. Returns
 * how many of 100 pages faulted. */
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

/* Map the pages low to high of the file, walk them, and return how many of 100 pages faulted. */
static uint64_t walk_mapped(uint64_t low, uint64_t high, bool backward, enum fm_advice advice)
{
	fm_mm *mm = support_mm(BUDGET);
	fm_file *file = support_open(mm, path, NULL);
	uint64_t len = (high * PAGE < SIZE ? high * PAGE : SIZE) - low * PAGE;
	unsigned char *addr = support_map(file, low * PAGE, len);

	CHECK_OK(fm_advise(mm, addr, len, advice));
	uint64_t faults = walk(mm, addr, low, high, backward);
	struct fm_stats stats = support_stats(mm);
	/* Neither unmapped pages nor the pages between the steps are read. A reader that begins at
	 * page 0 may first be taken for a sequential reader. */
	CHECK(stats.read_bytes <= ((high - low) / STEP + 1 + (low ? 0 : 8)) * PAGE);
	CHECK_OK(fm_unmap(mm, addr, len));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	return faults;
}

/* The system may read ahead slowly. A page that comes late is a fault, so the walk is repeated. */
static void expect_few(uint64_t low, uint64_t high, bool backward)
{
	uint64_t faults = 100;
	for (int tries = 0; tries < 20 && faults > 50; tries++)
		faults = walk_mapped(low, high, backward, FM_ADVICE_NORMAL);
	if (stages() && faults > 50)
		CHECK_FAIL("%llu of 100 pages raised a fault", (unsigned long long)faults);
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
