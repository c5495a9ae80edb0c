/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md C and D: the hazards that no other test has.
 *
 * C3   A page is made visible before its bytes are complete. A thread that comes during the read
 *      must wait for the end of the read.
 * C5   A kernel mapping for each page or state. Thousands of mappings, pages and advices must
 *      cost no kernel mapping.
 * C6   The whole file is read at map time. Mapping and advising must read nothing.
 * C9   Statistics need the lock that they report on. They must be readable while a thread holds
 *      the map lock.
 * D    The same file is opened and mapped again and again. A thread that blocks all signals
 *      except SIGBUS, or under the thread trap all signals, is served and keeps its mask.
 *
 * tests/HAZARDS.md names the breaks that these tests were seen to fail with.
 */
#include "hazard_support.h"

#include <signal.h>

static const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};

static void test_c03(void)
{
	struct hazard_access first, second;
	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, "faulty:memory:16M?seed=3", &alone);
	char *map = support_map(file, 0, 16 * MIB);
	unsigned char plain;
	size_t len;

	CHECK_OK(fm_file_read(file, &plain, 1, 8 * PAGE + 9, &len));
	CHECK_OK(fm_file_control(file, "stuck=1"));
	hazard_begin(&first, mm, map + 8 * PAGE + 9);
	EVENTUALLY(atomic_get(&file->reads->inflight) > 0);
	hazard_begin(&second, mm, map + 8 * PAGE + 9);
	EVENTUALLY(second.tid);
	/* Without the wait, both accesses would be done by now. */
	support_sleep_ms(50);
	CHECK(!first.done && !second.done);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	CHECK_OK(hazard_end(&first));
	CHECK_OK(hazard_end(&second));
	CHECK_EQ(first.byte, plain);
	CHECK_EQ(second.byte, plain);
	CHECK_OK(fm_unmap(mm, map, 16 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ------------------------------------------------------------------ C5 */

static unsigned kernel_mappings(void)
{
	unsigned count = 0;
	FILE *maps = fopen("/proc/self/maps", "re");
	CHECK(maps);
	for (int c; (c = getc(maps)) != EOF;)
		count += c == '\n';
	fclose(maps);
	return count;
}

static bool all_protected(const struct frame_pool *pool)
{
	for (uint32_t i = 0; i < pool->frames; i++)
		if (page_is(&pool->pages[i], PG_UNPROTECTED))
			return false;
	return true;
}

static void test_c05(void)
{
	enum { MANY = 3000, TOUCHED = 1500 };
	fm_mm *mm = support_mm(4096 * PAGE);
	fm_file *file = support_open(mm, "memory:1G?seed=3", &alone);
	char *map = support_map(file, 0, PAGE);
	unsigned char byte;

	CHECK_OK(support_read(mm, map, &byte, 1));
	EVENTUALLY(all_protected(file->pool));
	unsigned before = kernel_mappings();
	for (unsigned i = 1; i < MANY; i++) {
		support_map(file, i * 2 * PAGE, PAGE);
		if (i % 3 == 0)
			CHECK_OK(fm_advise(mm, map + i * 2 * PAGE, PAGE, FM_ADVICE_RANDOM));
		if (i < TOUCHED)
			CHECK_OK(support_read(mm, map + i * 2 * PAGE, &byte, 1));
	}
	EVENTUALLY(all_protected(file->pool));
	CHECK_EQ(support_stats(mm).mappings, MANY);
	/* Allow for a thread's stack, a larger table and mappings by malloc(). */
	CHECK_LE(kernel_mappings(), before + 32);
	for (unsigned i = 1; i < MANY; i += 2)
		CHECK_OK(fm_unmap(mm, map + i * 2 * PAGE, PAGE));
	CHECK_LE(kernel_mappings(), before + 32);
	CHECK_OK(fm_unmap(mm, map, MANY * 2 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ------------------------------------------------------------------ C6 */

static void test_c06(void)
{
	fm_mm *mm = support_mm(1024 * PAGE);
	/* A read would never end, and would show in the statistics. */
	fm_file *file = support_open(mm, "faulty:memory:1G?stuck=1", NULL);
	char *map = support_map(file, 0, 1024 * MIB);

	CHECK_OK(fm_advise(mm, map, 1024 * MIB, FM_ADVICE_SEQUENTIAL));
	CHECK_OK(fm_advise(mm, map, 1024 * MIB, FM_ADVICE_RANDOM));
	struct fm_stats stats = support_stats(mm);
	CHECK_EQ(stats.requests, 0);
	CHECK_EQ(stats.reads, 0);
	CHECK_EQ(stats.frames_used, 0);
	CHECK_OK(fm_unmap(mm, map, 1024 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ------------------------------------------------------------------ C9 */

static struct stats_page read_from_outside;

static void *look(void *arg)
{
	struct hazard_access *access = arg;
	support_stats(access->mm);
	CHECK_OK(stats_read_process(getpid(), 0, &read_from_outside));
	access->done = true;
	return NULL;
}

static void test_c09(void)
{
	fm_mm *mm = support_mm(64 * PAGE);
	struct hazard_access access = {.mm = mm};
	os_sigmask mask = os_signals_block();

	map_lock_exclusive(mm->map);
	CHECK_EQ(pthread_create(&access.thread, NULL, look, &access), 0);
	EVENTUALLY(access.done);
	map_unlock_exclusive(mm->map);
	os_signals_restore(mask);
	CHECK_EQ(pthread_join(access.thread, NULL), 0);
	support_mm_end(mm);
}

/* ------------------------------------------------------------------ D */

static void test_again_and_again(void)
{
	fm_mm *mm = support_mm(64 * PAGE);
	const char *path = support_file(4 * PAGE, 7);
	unsigned fds = support_fds();

	for (int i = 0; i < 200; i++) {
		fm_file *file = support_open(mm, path, NULL), *second = support_open(mm, path, NULL);
		void *map = support_map(file, 0, 4 * PAGE), *other = support_map(second, PAGE, 2 * PAGE);
		CHECK_OK(fm_file_close(second));
		support_expect(mm, map, 0, 4 * PAGE, 7);
		support_expect(mm, other, PAGE, 2 * PAGE, 7);
		CHECK_OK(fm_unmap(mm, map, 4 * PAGE));
		CHECK_OK(fm_unmap(mm, other, 2 * PAGE));
		CHECK_OK(fm_file_close(file));
	}
	EVENTUALLY(support_stats(mm).files == 0);
	/* The stores are closed after the files have gone. */
	EVENTUALLY(support_fds() == fds);
	support_mm_end(mm);
}

static struct {
	fm_mm *mm;
	fm_file *file;
	unsigned char *map;
} shared;

static void same_mask(const sigset_t *mask)
{
	sigset_t now;
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &now), 0);
	for (int signo = 1; signo < 65; signo++)
		CHECK_EQ(sigismember(&now, signo), sigismember(mask, signo));
}

static void *blocks_signals(void *arg)
{
	sigset_t mask;
	void *again;

	sigfillset(&mask);
	/* Under the inline trap the kernel kills a thread that blocks SIGBUS. */
	if (test_trap() == FM_TRAP_INLINE)
		sigdelset(&mask, SIGBUS);
	CHECK_EQ(pthread_sigmask(SIG_SETMASK, &mask, NULL), 0);
	/* The mask at return does not have the signals of the C library. */
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
	if (test_trap() != FM_TRAP_CALL)
		for (unsigned page = 0; page < 64; page++)
			CHECK_EQ(((volatile unsigned char *)shared.map)[page * PAGE], support_byte(page * PAGE, 7));
	same_mask(&mask);
	CHECK_OK(fm_fault_in(shared.mm, shared.map + 64 * PAGE, 8 * PAGE, 0));
	CHECK_OK(fm_map(shared.file, 0, 4 * PAGE, NULL, &again));
	CHECK_OK(fm_pin(shared.mm, again, PAGE, 0));
	CHECK_OK(fm_unpin(shared.mm, again, PAGE));
	CHECK_OK(fm_unmap(shared.mm, again, 4 * PAGE));
	same_mask(&mask);
	return arg;
}

static void test_blocked(void)
{
	pthread_t thread;

	shared.mm = support_mm(16 * PAGE);
	shared.file = support_open(shared.mm, support_file(128 * PAGE, 7), &alone);
	shared.map = support_map(shared.file, 0, 128 * PAGE);
	CHECK_EQ(pthread_create(&thread, NULL, blocks_signals, NULL), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_OK(fm_unmap(shared.mm, shared.map, 128 * PAGE));
	CHECK_OK(fm_file_close(shared.file));
	support_mm_end(shared.mm);
}

int main(void)
{
	hazard_watch("a page did not appear, or statistics or a thread waited for a lock");
	test_c03();
	test_c05();
	test_c06();
	test_c09();
	test_again_and_again();
	test_blocked();
	return 0;
}
