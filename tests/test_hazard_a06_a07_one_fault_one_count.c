/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md A6: RETRY swallows an error. A permanent read error once cost three reads before the
 * error showed. One read must give one error, and the next access must ask again. A7: the
 * readahead heuristic counts a retry as a hit, and then never sees that readahead does not pay.
 * Or one fault is counted once for every try.
 *
 * Seen to fail (tests/HAZARDS.md): A6 with read_page()'s result dropped; A7 with
 * ra_async_window() that counts a retry, and with do_sync_map_readahead() that chooses a window
 * at each try.
 */
#include "hazard_support.h"

/* The distance between two places is never the same, so that the touches follow no pattern. */
#define PLACE(i) ((uint64_t)((i) + 1) * ((i) + 1) * 2 * MIB)

static void test_a06(void)
{
	const struct fm_file_options no_readahead = {.size = sizeof(no_readahead),
						     .readahead_bytes = UINT32_MAX};
	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, "faulty:memory:16M?error-at=8192", &no_readahead);
	char *map = support_map(file, 0, 16 * MIB);
	unsigned char byte;

	for (unsigned i = 1; i <= 5; i++) {
		CHECK_EQ(support_read(mm, map + 2 * PAGE, &byte, 1), -EIO);
		EVENTUALLY(support_stats(mm).faults_sigbus >= i);
		struct fm_stats stats = support_stats(mm);
		CHECK_EQ(stats.reads, i);
		CHECK_EQ(stats.read_errors, i);
		CHECK_EQ(stats.faults_sigbus, i);
	}
	CHECK_OK(fm_file_control(file, "error-at=none"));
	hazard_same(mm, file, map + 2 * PAGE, 2 * PAGE, PAGE);
	CHECK_OK(fm_unmap(mm, map, 16 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_a07(void)
{
	enum { TOUCHES = 40, CROWD = 8 };
	struct hazard_access access[CROWD];
	fm_mm *mm = support_mm(4096 * PAGE);
	fm_file *file = support_open(mm, "faulty:memory:4G?delay=1ms", NULL);
	char *map = support_map(file, 0, 4096 * MIB);
	unsigned char byte;

	for (uint64_t i = 0; i < TOUCHES; i++)
		CHECK_OK(support_read(mm, map + PLACE(i), &byte, 1));
	EVENTUALLY(support_stats(mm).faults == TOUCHES); /* the thread may go on before the count */
	struct fm_stats stats = support_stats(mm);
	CHECK_EQ(file->reads->ra.clock, TOUCHES); /* each fault looked once, and no retry did */
	CHECK_EQ(stats.ra_pages, 0);
	CHECK_EQ(stats.faults, TOUCHES);
	CHECK_EQ(stats.faults_major, TOUCHES);
	CHECK_EQ(stats.faults_minor, 0);

	/* Many threads touch one page. One thread misses. A wait for that thread's read is not a
	 * miss. */
	CHECK_OK(fm_file_control(file, "stuck=1"));
	for (int i = 0; i < CROWD; i++)
		hazard_begin(&access[i], mm, map + PLACE(TOUCHES));
	EVENTUALLY(support_stats(mm).faults_major > TOUCHES);
	support_sleep_ms(20);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	for (int i = 0; i < CROWD; i++)
		CHECK_OK(hazard_end(&access[i]));
	CHECK_LE(file->reads->ra.clock, TOUCHES + CROWD);
	CHECK_EQ(support_stats(mm).ra_pages, 0); /* a crowd on one page is no stream */
	EVENTUALLY(support_stats(mm).faults ==
		   support_stats(mm).faults_major + support_stats(mm).faults_minor);
	CHECK_LE(support_stats(mm).faults, TOUCHES + CROWD);
	CHECK_OK(fm_unmap(mm, map, 4096 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* There are more threads than the store may have requests. The other threads wait for room, and
 * try again and again. */
static void test_a07_no_room(void)
{
	enum { CROWD = 16 };
	const struct fm_file_options deadline = {.size = sizeof(deadline),
						 .deadline_ns = 600ull * 1000 * MS_NS};
	struct hazard_access access[CROWD];
	fm_mm *mm = support_mm(1024 * PAGE); /* 16 requests, 8 of them for one store */
	fm_file *file = support_open(mm, "faulty:memory:4G?stuck=1", &deadline);
	char *map = support_map(file, 0, 4096 * MIB);

	for (int i = 0; i < CROWD; i++)
		hazard_begin(&access[i], mm, map + PLACE(i));
	EVENTUALLY(support_stats(mm).requests == 8 && file->reads->ra.clock >= CROWD);
	/* A thread tries every 10 ms. A ticket tries when there is room. */
	EVENTUALLY(support_stats(mm).frame_waits >= (test_trap() == FM_TRAP_THREAD ? 1 : 6) * (CROWD - 8));
	CHECK_EQ(file->reads->ra.clock, CROWD);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	for (int i = 0; i < CROWD; i++)
		CHECK_OK(hazard_end(&access[i]));
	CHECK_EQ(file->reads->ra.clock, CROWD);
	CHECK_EQ(support_stats(mm).ra_pages, 0);
	CHECK_OK(fm_unmap(mm, map, 4096 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

int main(void)
{
	hazard_watch("a fault with an error or a retry did not end");
	test_a06();
	test_a07();
	test_a07_no_room();
	return 0;
}
