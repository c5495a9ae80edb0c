/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md A5: a page is evicted between the tries, so that threads only keep the storage busy.
 * The page's pin survives to the next try. The test evicts all evictable pages before each try,
 * and one fault still costs one read. A fault also costs one read with a budget of a few pages
 * and many more threads. Seen to fail with out_retry that puts the page's pin (tests/HAZARDS.md).
 */
#include "hazard_support.h"

#define THREADS    48
#define TOUCHES    (SUPPORT_SANITIZED ? 20 : 60)
#define FILE_PAGES 4096

static fm_mm *mm;
static const char *map;

/* ---- the linker puts this around map_lock_shared(), with which a try begins */

static _Atomic unsigned evictions_left;

void __real_map_lock_shared(struct map_lock *lock);
void __wrap_map_lock_shared(struct map_lock *lock);
void __wrap_map_lock_shared(struct map_lock *lock)
{
	if (evictions_left) {
		evictions_left--;
		reclaim(mm->pool[0], mm->pool[0]->frames, true);
	}
	__real_map_lock_shared(lock);
}

static void test_one_fault(void)
{
	enum { TRIES = 5 };
	const struct fm_file_options no_readahead = {.size = sizeof(no_readahead),
						     .readahead_bytes = UINT32_MAX};
	mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, "faulty:memory:16M?seed=3", &no_readahead);
	map = support_map(file, 0, FILE_PAGES * PAGE);
	for (unsigned i = 1; i <= 20; i++) {
		evictions_left = TRIES;
		CHECK_OK(fm_fault_in(mm, map + i * PAGE, 1, 0));
		CHECK_LT(evictions_left, TRIES - 1); /* there was a second try */
		evictions_left = 0;
		CHECK_EQ(support_stats(mm).reads, i);
	}
	CHECK_OK(fm_unmap(mm, (void *)(uintptr_t)map, FILE_PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ---- many threads */

static void *worker(void *arg)
{
	uint64_t random = 0x9e3779b97f4a7c15ull * ((uint64_t)(uintptr_t)arg + 1);
	for (int i = 0; i < TOUCHES; i++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		const char *at = map + (random >> 33) % FILE_PAGES * PAGE;
		if (test_trap() == FM_TRAP_CALL)
			CHECK_OK(fm_fault_in(mm, at, 1, 0));
		else
			*(const volatile char *)at;
	}
	return NULL;
}

int main(void)
{
	const struct fm_file_options no_readahead = {.size = sizeof(no_readahead),
						     .readahead_bytes = UINT32_MAX};
	pthread_t thread[THREADS];

	hazard_watch("threads evict each other's pages before they are used");
	test_one_fault();
	mm = support_mm(16 * PAGE);
	fm_file *file = support_open(mm, "faulty:memory:16M?seed=3&delay=1ms..4ms", &no_readahead);
	map = support_map(file, 0, FILE_PAGES * PAGE);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, worker, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	struct fm_stats stats = support_stats(mm);
	printf("%llu faults, %llu reads, %llu tries more\n", (unsigned long long)stats.faults,
	       (unsigned long long)stats.reads, (unsigned long long)stats.fault_retries);
	/* A thread that does not run between its install and its access may find the page
	 * evicted. The thread then faults again, and the page is read again. */
	CHECK_LE(stats.reads, stats.faults);
	CHECK_OK(fm_unmap(mm, (void *)(uintptr_t)map, FILE_PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	return 0;
}
