/* SPDX-License-Identifier: MIT */
/*
 * Groups are 2 MiB of small frames whose memory is one huge page. A reader that goes from one end
 * of a file to the other gets groups. A group holds the file's bytes, in whichever direction the
 * file is read, and also if the budget is smaller than the file. A page that needs treatment of
 * its own splits its group. A reader of single pages gets the frames of groups.
 *
 * Seen to fail: with windows that end anywhere (test_forward); with pages that are read into each
 * other's frames (test_forward); with free frames of a split group that no page can get
 * (test_single_pages never ends); with pages that leave the view one by one (test_mapped_again).
 * See tests/break/groups_*.patch.
 */
#include "support.h"

#define SEED 41
#define GROUP (2 * MIB)
#define FILE_GROUPS 40u
#define SIZE (FILE_GROUPS * GROUP + 3 * PAGE + 100)
#define BUDGET (64 * MIB)

static const char *path;
static fm_mm *mm;
static fm_file *file;
static const unsigned char *addr;

static bool has_groups(void)
{
	const char *install = getenv("FM_TEST_INSTALL");
	return !install || strcmp(install, "copy") != 0;
}

/* Tell whether the program's reads raise faults. Under the call trap the program asks for pages
 * before the reads. */
static bool faults(void)
{
	const char *trap = getenv("FM_TEST_TRAP");
	return !trap || strcmp(trap, "call") != 0;
}

static void begin(uint64_t budget, uint32_t readahead)
{
	const struct fm_file_options options = {.size = sizeof(options), .readahead_bytes = readahead};
	mm = support_mm(budget);
	file = support_open(mm, path, &options);
	addr = support_map(file, 0, SIZE);
}

static void end(void)
{
	CHECK_OK(fm_unmap(mm, (void *)addr, SIZE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void expect_some(uint64_t offset)
{
	unsigned char buf[64];
	uint64_t len = SIZE - offset < sizeof(buf) ? SIZE - offset : sizeof(buf);
	CHECK_OK(support_read(mm, addr + offset, buf, len));
	CHECK_EQ(support_differs(buf, offset, len, SEED), UINT64_MAX);
}

static void scan(bool backward)
{
	uint64_t pages = (SIZE + PAGE - 1) / PAGE;
	for (uint64_t i = 0; i < pages; i++)
		expect_some((backward ? pages - 1 - i : i) * PAGE + (i * 64) % 4000 % 100);
}

/* Scan until groups have been installed as a whole. The first groups are made while a scan runs,
 * and the scan may be faster. */
static void scan_groups(bool backward)
{
	for (int tries = 0; tries < 20; tries++) {
		uint64_t before = support_stats(mm).group_installs;
		scan(backward);
		if (!has_groups() || !faults() || support_stats(mm).group_installs >= before + FILE_GROUPS / 8)
			return;
	}
	CHECK_FAIL("%llu groups made, %llu split, but no group was installed at once",
		   (unsigned long long)support_stats(mm).groups_made,
		   (unsigned long long)support_stats(mm).groups_split);
}

static void test_forward(void)
{
	begin(BUDGET, 0);
	scan_groups(false);
	if (!has_groups())
		CHECK_EQ(support_stats(mm).groups_made, 0);
	end();
}

static void test_backward(void)
{
	begin(BUDGET, 0);
	scan_groups(true);
	end();
}

/* Check all bytes with a budget that holds the whole file. */
static void test_all_bytes(void)
{
	unsigned char *buf = malloc(GROUP);
	CHECK(buf);
	begin(2 * BUDGET, 0);
	for (uint64_t at = 0; at < SIZE; at += GROUP) {
		uint64_t len = SIZE - at < GROUP ? SIZE - at : GROUP;
		CHECK_OK(support_read(mm, addr + at, buf, len));
		CHECK_EQ(support_differs(buf, at, len, SEED), UINT64_MAX);
	}
	free(buf);
	end();
}

/* A pinned page stays when the rest of its group goes. That splits the group. */
static void test_page_of_its_own(void)
{
	unsigned char buf[PAGE];
	begin(BUDGET, 0);
	scan_groups(false);
	for (unsigned i = 0; i < FILE_GROUPS; i += 4)
		CHECK_OK(fm_pin(mm, (void *)(addr + i * GROUP + 77 * PAGE), PAGE, 0));
	scan(false);
	scan(false);
	for (unsigned i = 0; i < FILE_GROUPS; i += 4) {
		memcpy(buf, addr + i * GROUP + 77 * PAGE, PAGE);
		CHECK_EQ(support_differs(buf, i * GROUP + 77 * PAGE, PAGE, SEED), UINT64_MAX);
		CHECK_OK(fm_unpin(mm, (void *)(addr + i * GROUP + 77 * PAGE), PAGE));
	}
	if (support_stats(mm).groups_made > FILE_GROUPS / 2)
		CHECK(support_stats(mm).groups_split > 0);
	for (uint64_t i = 0; i < FILE_GROUPS; i++) {
		CHECK_OK(fm_advise(mm, (void *)(addr + i * GROUP + 5 * PAGE), PAGE, FM_ADVICE_DONTNEED));
		expect_some(i * GROUP + 5 * PAGE);
		expect_some(i * GROUP + 6 * PAGE);
	}
	end();
}

/* Frames that are kept for streams go to any page when no other frames are left. */
static void test_single_pages(void)
{
	uint64_t at = 1;
	begin(BUDGET, 0);
	scan_groups(false);
	CHECK_OK(fm_advise(mm, (void *)addr, SIZE, FM_ADVICE_RANDOM));
	for (unsigned i = 0; i < 30000; i++) {
		at = at * 6364136223846793005ull + 1442695040888963407ull;
		expect_some((at >> 33) % (SIZE / PAGE) * PAGE);
	}
	CHECK_OK(fm_advise(mm, (void *)addr, SIZE, FM_ADVICE_NORMAL));
	CHECK_OK(fm_advise(mm, (void *)addr, SIZE, FM_ADVICE_DONTNEED));
	scan_groups(false); /* the frames come back to streams */
	end();
}

/* A range that is unmapped and mapped again leaves the view in groups, and comes back in groups.
 * Nothing is read again. */
static void test_mapped_again(void)
{
	begin(2 * BUDGET, 0);
	scan_groups(false);
	struct fm_stats before = support_stats(mm);
	CHECK_OK(fm_unmap(mm, (void *)addr, SIZE));
	addr = support_map(file, 0, SIZE);
	scan(false);
	struct fm_stats stats = support_stats(mm);
	CHECK_EQ(stats.read_bytes, before.read_bytes);
	if (faults())
		CHECK_GE(stats.group_installs - before.group_installs, FILE_GROUPS / 8);
	CHECK_GE(before.groups_split + 2, stats.groups_split);
	end();
}

/* Close the file while its view holds pages, and open the file again. */
static void test_file_gone(void)
{
	begin(2 * BUDGET, 0);
	uint64_t charged = support_stats(mm).budget_bytes;
	for (int turn = 0; turn < 3; turn++) {
		scan(turn == 1);
		for (unsigned i = 1; i < FILE_GROUPS; i += 5) /* never unpinned */
			CHECK_OK(fm_pin(mm, (void *)(addr + i * GROUP + 77 * PAGE), PAGE, 0));
		CHECK_OK(fm_unmap(mm, (void *)addr, SIZE));
		CHECK_OK(fm_file_close(file));
		EVENTUALLY(support_stats(mm).files == 0);
		CHECK_EQ(support_stats(mm).pages_installed, 0);
		CHECK_EQ(support_stats(mm).frames_used, 0);
		CHECK_EQ(support_stats(mm).pins, 0);
		CHECK_GE(charged, support_stats(mm).charged_bytes);
		file = support_open(mm, path, NULL);
		addr = support_map(file, 0, SIZE);
	}
	scan_groups(false);
	CHECK_EQ(support_stats(mm).emptied_behind, 0);
	end();
}

/* Destroy the mm with everything that two files have in their views. */
static void test_mm_gone(void)
{
	begin(2 * BUDGET, 0);
	const unsigned char *first = addr;
	fm_file *other = support_open(mm, support_file(SIZE, SEED), NULL);
	scan(false);
	addr = support_map(other, 0, SIZE);
	scan(false);
	addr = first;
	for (unsigned i = 0; i < FILE_GROUPS; i++)
		expect_some(i * GROUP + 7 * PAGE);
	CHECK_OK(fm_mm_destroy(mm));
}

static void tests(void)
{
	path = support_file(SIZE, SEED);
	test_forward();
	test_all_bytes();
	if (!has_groups())
		return;
	test_backward();
	test_page_of_its_own();
	test_single_pages();
	test_mapped_again();
	test_file_gone();
	test_mm_gone();
}

int main(void)
{
	support_start();
	tests();
	support_end();
	return 0;
}
