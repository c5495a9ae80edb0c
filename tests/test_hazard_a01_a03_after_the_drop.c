/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md A1: the mapping's descriptor is touched after the map lock was dropped. While a
 * fault waits for a slow store, the fault's mapping goes. The table of mappings is replaced, and
 * its memory is unmapped. A2: the file reference is lost on the exit without a frame, or on the
 * exit of a failed page lock. The file could then never end. A3: an error exit unlocks a NULL
 * page. The wait for a frame ends with an error, and there is no page.
 *
 * Seen to fail: A1 with fault.c that reads vma->advice after read_page(); A2 with out_retry that
 * does not put the file; A3 with an unlock of vmf->page after add_page() failed.
 */
#include "hazard_support.h"

#define FILE_BYTES (16 * MIB)
#define SLOW "faulty:memory:16M?seed=3"

static void test_a01(void)
{
	struct hazard_access access;
	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *slow = support_open(mm, SLOW, NULL), *other = support_open(mm, "memory:16M", NULL);
	char *map = support_map(slow, 0, 4 * PAGE);

	CHECK_OK(fm_file_control(slow, "stuck=1"));
	hazard_begin(&access, mm, map);
	EVENTUALLY(support_stats(mm).faults_major == 1);
	CHECK_OK(fm_unmap(mm, map, 4 * PAGE));
	for (unsigned i = 0; i < 1000; i++) /* every second page: the mappings do not merge */
		support_map(other, i * 2 * PAGE, PAGE);
	CHECK_OK(fm_file_control(slow, "stuck=0"));
	CHECK_EQ(hazard_end(&access), -EFAULT); /* SIGSEGV: nothing is mapped there any more */
	for (unsigned i = 0; i < 1000; i++)
		CHECK_OK(fm_unmap(mm, (char *)(uintptr_t)other->view.region.base + i * 2 * PAGE, PAGE));
	CHECK_OK(fm_file_close(slow));
	CHECK_OK(fm_file_close(other));
	support_mm_end(mm);
}

/* Pins leave a quarter of the frames free. Reads that never end take these frames. */
static void test_a02_a03(void)
{
	const struct fm_file_options deadline = {.size = sizeof(deadline),
						 .readahead_bytes = UINT32_MAX,
						 .deadline_ns = 300 * MS_NS};
	struct hazard_access access[24];
	fm_mm *mm = support_mm(16 * PAGE);
	fm_file *slow = support_open(mm, SLOW, &deadline), *fast = support_open(mm, "memory:16M", NULL);
	char *map = support_map(slow, 0, FILE_BYTES), *pinned = support_map(fast, 0, 12 * PAGE);

	CHECK_OK(fm_pin(mm, pinned, 12 * PAGE, 0));
	CHECK_OK(fm_file_control(slow, "stuck=1"));
	/* Two threads touch each page. One thread has the page lock and reads, and the other
	 * thread waits for the lock. The threads of the other pages wait for a frame. */
	for (unsigned i = 0; i < 24; i++)
		hazard_begin(&access[i], mm, map + i / 2 * PAGE);
	for (unsigned i = 0; i < 24; i++)
		CHECK_EQ(hazard_end(&access[i]), -ETIMEDOUT);
	CHECK_GT(support_stats(mm).frame_waits, 0);
	CHECK_OK(fm_file_control(slow, "stuck=0"));
	CHECK_OK(fm_unpin(mm, pinned, 12 * PAGE));
	hazard_same(mm, slow, map, 0, 8 * PAGE);
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_unmap(mm, pinned, 12 * PAGE));
	CHECK_OK(fm_file_close(slow));
	CHECK_OK(fm_file_close(fast));
	support_mm_end(mm); /* no file is left: each reference was put */
}

int main(void)
{
	hazard_watch("a fault that lost its mapping, its file or its frame never ended");
	test_a01();
	test_a02_a03();
	return 0;
}
