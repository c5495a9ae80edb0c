/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md A12 to A14.
 *
 * A12: a larger page is mapped whole, and the SIGBUS past the end of the file is lost. The tail of
 * the last page reads as zeros.
 *
 * A13: window arithmetic near page 0, near the end and past 2^32 pages; marks that are missed or
 * met twice. A sequential scan reads every page once.
 *
 * A14: populate loops whose retries have no bound. fm_fault_in() over an error, over a store that
 * fails now and then, and over a range larger than the pool must end.
 *
 * Seen to fail (tests/HAZARDS.md): A12 with a page_shown_bytes() that does not clip to the size.
 * A13 with an ra_submit() that cuts the start to 32 bits, with a window before page 0, and with a
 * mark that is never met. A14 with a read error taken as "look again".
 */
#include "hazard_support.h"

#define HUGE_FILE (20ull << 40)

/* Give each part the whole time of the watchdog: on a busy machine the whole test takes longer. */
static void part_begins(void)
{
	hazard_watch("a window or a populate loop never ended");
}

static void test_a12(uint32_t page_size)
{
	static const uint64_t sizes[] = {1, 4095, 4096, 4097, 65536, 65537, (2 << 20) + 8191};
	const struct fm_file_options options = {.size = sizeof(options), .page_size = page_size};

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t size = sizes[i], shown = (size + PAGE - 1) & ~(PAGE - 1);
		fm_mm *mm = support_mm(fm_budget_min(page_size) + MIB);
		fm_file *file = support_open(mm, support_file(size, 3), &options);
		char *map = support_map(file, 0, shown + 4 * MIB);
		unsigned char byte = 1;

		support_expect(mm, map, 0, size, 3);
		for (uint64_t at = size; at < shown; at += 97) {
			CHECK_OK(support_read(mm, map + at, &byte, 1));
			CHECK_EQ(byte, 0);
		}
		CHECK_EQ(support_read(mm, map + shown, &byte, 1), -ENXIO);
		CHECK_EQ(support_read(mm, map + shown + PAGE, &byte, 1), -ENXIO);
		CHECK_EQ(support_read(mm, map + shown + 3 * MIB, &byte, 1), -ENXIO);
		CHECK_OK(fm_unmap(mm, map, shown + 4 * MIB));
		CHECK_OK(fm_file_close(file));
		support_mm_end(mm);
	}
}

static void touch(fm_mm *mm, const char *at)
{
	unsigned char byte;
	CHECK_OK(support_read(mm, at, &byte, 1));
}

/* Read the pages around `offset`, in both directions and with each advice. */
static void around(fm_mm *mm, fm_file *file, char *map, uint64_t offset, uint64_t size)
{
	for (int advice = FM_ADVICE_NORMAL; advice <= FM_ADVICE_SEQUENTIAL; advice++) {
		uint64_t start = offset > 256 * PAGE ? offset - 256 * PAGE : 0;
		uint64_t end = offset + 256 * PAGE < size ? offset + 256 * PAGE : size;
		CHECK_OK(fm_advise(mm, map + start, end - start, FM_ADVICE_DONTNEED));
		struct fm_stats before = support_stats(mm);
		CHECK_OK(fm_advise(mm, map + start, end - start, (enum fm_advice)advice));
		for (uint64_t at = start; at < end; at += PAGE)
			touch(mm, map + at);
		struct fm_stats after = support_stats(mm);
		/* Most windows must lie where the reader was. */
		if (advice == FM_ADVICE_SEQUENTIAL)
			CHECK_GT(after.ra_hits, before.ra_hits + (end - start) / PAGE / 2);
		/* The windows must also be ahead of the reader, except for the pages that DONTNEED
		 * left in the cache. See test_a13_once() for the thread trap. */
		if (advice == FM_ADVICE_SEQUENTIAL && after.ra_aborted == before.ra_aborted &&
		    test_trap() != FM_TRAP_THREAD)
			CHECK_LE(after.faults_major, before.faults_major + (end - start) / PAGE / 64);
		hazard_same(mm, file, map + start, start, end - start);
		CHECK_OK(fm_advise(mm, map + start, end - start, FM_ADVICE_DONTNEED));
		for (uint64_t at = end; at > start; at -= PAGE)
			touch(mm, map + at - PAGE);
		hazard_same(mm, file, map + start, start, end - start);
	}
}

static void test_a13_offsets(void)
{
	const struct fm_file_options wide = {.size = sizeof(wide), .readahead_bytes = 256 * KIB};
	fm_mm *mm = support_mm(8192 * PAGE);
	fm_file *file = support_open(mm, "memory:20T?seed=6", &wide);
	char *map = support_map(file, 0, HUGE_FILE);

	part_begins();
	around(mm, file, map, 0, HUGE_FILE);
	part_begins();
	around(mm, file, map, 1ull << 32, HUGE_FILE);
	part_begins();
	around(mm, file, map, PAGE << 31, HUGE_FILE);
	part_begins();
	around(mm, file, map, PAGE << 32, HUGE_FILE);
	part_begins();
	/* All of this range lies past page 2^32. */
	around(mm, file, map, (PAGE << 32) + 65536 * MIB, HUGE_FILE);
	part_begins();
	around(mm, file, map, HUGE_FILE, HUGE_FILE);
	CHECK_OK(fm_unmap(mm, map, HUGE_FILE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* Touch `touches` pages of a file of 1024 pages, each page `step` pages from the one before. Expect
 * that `read_beside_them` other pages are read. */
static void test_a13_window(uint64_t first, int64_t step, unsigned touches,
			    uint64_t read_beside_them)
{
	fm_mm *mm = support_mm(4096 * PAGE);
	fm_file *file = support_open(mm, "memory:4M", NULL);
	char *map = support_map(file, 0, 4 * MIB);

	for (unsigned i = 0; i < touches; i++) {
		touch(mm, map + (first + i * (uint64_t)step) * PAGE);
		EVENTUALLY(support_stats(mm).requests == 0);
		EVENTUALLY(support_stats(mm).faults == i + 1);
	}
	struct fm_stats stats = support_stats(mm);
	if (stats.ra_pages != read_beside_them || stats.read_bytes != (touches + stats.ra_pages) * PAGE)
		CHECK_FAIL("%u touches from page %llu in steps of %lld: %llu pages beside them, "
			   "not %llu; %llu bytes",
			   touches, (unsigned long long)first, (long long)step,
			   (unsigned long long)stats.ra_pages, (unsigned long long)read_beside_them,
			   (unsigned long long)stats.read_bytes);
	CHECK_EQ(stats.faults_major, touches);
	CHECK_OK(fm_unmap(mm, map, 4 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* Touch every page of a file that fits into the pool. Expect that the file is read exactly once,
 * and that readahead reads all pages except the first (backwards: the first two). Returns false
 * without a check if a fault took readahead for stuck. The I/O thread had then not run for a long
 * time. */
static bool test_a13_once(enum fm_advice advice, bool backwards, uint64_t size)
{
	fm_mm *mm = support_mm(4096 * PAGE);
	fm_file *file = support_open(mm, support_format("memory:%llu", (unsigned long long)size), NULL);
	char *map = support_map(file, 0, size);

	CHECK_OK(fm_advise(mm, map, size, advice));
	for (uint64_t at = 0; at < size; at += PAGE)
		touch(mm, map + (backwards ? (size - 1) / PAGE * PAGE - at : at));
	EVENTUALLY(support_stats(mm).requests == 0);
	/* A thread may go on before its fault has ended. */
	EVENTUALLY(support_stats(mm).pages_installed > size / PAGE);
	struct fm_stats stats = support_stats(mm);
	if (!stats.ra_aborted) {
		CHECK_EQ(stats.read_bytes, size);
		CHECK_EQ(stats.ra_waste, 0);
		/* The thread trap submits a window only after its page is under way. So the reader
		 * is sometimes ahead of the window. */
		uint64_t missed = test_trap() == FM_TRAP_THREAD ? size / PAGE / 33 : backwards ? 2 : 1;
		CHECK_LE(stats.faults_major, missed);
		CHECK_GE(stats.ra_pages, size / PAGE + 1 - missed);
	}
	CHECK_OK(fm_unmap(mm, map, size));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	return !stats.ra_aborted;
}

static void test_a14(void)
{
	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, "faulty:memory:4M?error-at=400000", NULL);
	char *map = support_map(file, 0, 4 * MIB);

	CHECK_EQ(fm_fault_in(mm, map, 4 * MIB, 0), -EIO);
	CHECK_OK(fm_file_control(file, "error-at=none"));
	CHECK_OK(fm_fault_in(mm, map, 4 * MIB, 0));
	CHECK_EQ(fm_pin(mm, map, 4 * MIB, 0), -ENOMEM);
	CHECK_EQ(support_stats(mm).pins, 0);
	CHECK_OK(fm_file_control(file, "error-every=2"));
	CHECK_OK(fm_advise(mm, map, 4 * MIB, FM_ADVICE_DONTNEED));
	for (int i = 0; i < 100; i++)
		if (fm_fault_in(mm, map, 32 * PAGE, 0) == 0)
			break;
	CHECK_OK(fm_file_control(file, "error-every=0"));
	hazard_same(mm, file, map, 0, 4 * MIB);
	CHECK_OK(fm_unmap(mm, map, 4 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

int main(void)
{
	part_begins();
	test_a12(4096);
	part_begins();
	test_a12(65536);
	part_begins();
	test_a12(2 << 20);
	part_begins();
	test_a13_offsets();
	part_begins();
	/* A single touch has no direction yet. */
	test_a13_window(500, 1, 1, 0);
	test_a13_window(1023, 1, 1, 0);
	/* At the start of the file the reader is taken as sequential: the first window has 4
	 * pages. */
	test_a13_window(0, 1, 1, 3);
	test_a13_window(500, 1, 2, 3);
	/* The window is cut off at the end of the file. */
	test_a13_window(1020, 1, 2, 2);
	test_a13_window(1022, 1, 2, 0);
	test_a13_window(500, -1, 2, 3);
	/* The window is cut off at the beginning of the file. */
	test_a13_window(3, -1, 2, 2);
	test_a13_window(1, -1, 2, 0);
	/* With a stride the first window has 2 pages. */
	test_a13_window(500, 10, 3, 1);
	test_a13_window(1000, 10, 3, 0);
	test_a13_window(500, -10, 3, 1);
	test_a13_window(25, -10, 3, 0);
	part_begins();
	EVENTUALLY(test_a13_once(FM_ADVICE_NORMAL, false, 4 * MIB + 123));
	part_begins();
	EVENTUALLY(test_a13_once(FM_ADVICE_SEQUENTIAL, false, 4 * MIB + 123));
	part_begins();
	EVENTUALLY(test_a13_once(FM_ADVICE_NORMAL, true, 4 * MIB + 123));
	part_begins();
	test_a14();
	return 0;
}
