/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md A9 (killed while waiting) and A11 (the convoy), with a store that never answers.
 *
 * A9: threads wait for the read of a page, for a page lock and for a frame. When the mm is
 * destroyed, their waits end with -ECANCELED. The same holds for a store that cannot be told to
 * give up.
 *
 * A11: a fault waits for the store. Meanwhile DONTNEED, map, unmap and advise of the same range go
 * on, and so do the faults of other threads. A dead store leaves frames and requests to the other
 * stores.
 *
 * Seen to fail: A9 with a page_wait() and with a frame_wait() that do not look at `dying`. A11 with
 * a drop() that waits for the page lock. The last test with a store that may have all the requests.
 */
#include "hazard_support.h"

#define FILE_BYTES (16 * MIB)

static const struct fm_file_options no_readahead = {.size = sizeof(no_readahead),
						    .readahead_bytes = UINT32_MAX};

static void test_a09(const struct fm_file_options *options)
{
	struct hazard_access access[32];
	fm_mm *mm = support_mm(16 * PAGE);
	fm_file *file = support_open(mm, "faulty:memory:16M?stuck=1", options);
	char *map = support_map(file, 0, FILE_BYTES);

	for (unsigned i = 0; i < 32; i++)
		hazard_begin(&access[i], mm, map + i / 2 * PAGE);
	EVENTUALLY(support_stats(mm).faults_major >= 16);
	/* An access that begins after the end of the mm would be an error of the program. So wait
	 * until every thread is in its fault. */
	for (unsigned i = 0; i < 32; i++)
		EVENTUALLY(hazard_asleep(&access[i]));
	CHECK_OK(fm_mm_destroy(mm));
	for (unsigned i = 0; i < 32; i++) {
		int err = hazard_end(&access[i]);
		if (err != -ECANCELED && err != -EFAULT && err != -EOWNERDEAD)
			CHECK_FAIL("a thread that waited for a store got %d", err);
	}
}

/* ---- A store that cannot be told to give up: a thread that reads is stuck until the store
 * answers. A thread that only waits is not. */

static const struct fm_store_ops *memory_ops;
static atomic_bool answers;

static int stubborn_read(struct fm_store *store, const struct iovec *iov, int iov_count,
			 uint64_t offset, size_t *ret_done)
{
	while (!answers)
		support_sleep_ms(1);
	return memory_ops->read(store, iov, iov_count, offset, ret_done);
}

static void *destroy(void *arg)
{
	CHECK_OK(fm_mm_destroy(arg));
	return NULL;
}

/* Of the 16 frames 12 are pinned and 4 are in reads. The other threads wait for a page in a read,
 * for room at the store, or for a frame. Not run under the thread trap: its handler makes all the
 * requests there, so no thread waits. */
static void test_a09_stubborn(void)
{
	enum { READ = 4, WAIT = 4 };
	static struct hazard_access reads[READ], page[WAIT], room[WAIT], frame[WAIT];
	struct fm_store_ops ops;
	pthread_t destroyer;

	if (test_trap() == FM_TRAP_THREAD)
		return;
	fm_mm *mm = support_mm(16 * PAGE);
	fm_file *file = support_open(mm, "memory:16M", &no_readahead);
	fm_file *fast = support_open(mm, "memory:16M", &no_readahead);
	char *map = support_map(file, 0, FILE_BYTES), *fast_map = support_map(fast, 0, FILE_BYTES);
	CHECK_OK(fm_pin(mm, fast_map, 12 * PAGE, 0));
	memory_ops = file->store->ops;
	ops = *memory_ops;
	ops.read = stubborn_read;
	file->store->ops = &ops;
	answers = false;
	for (unsigned i = 0; i < READ; i++)
		hazard_begin(&reads[i], mm, map + i * PAGE);
	EVENTUALLY(file->reads->inflight == READ);
	for (unsigned i = 0; i < WAIT; i++) {
		hazard_begin(&page[i], mm, map + i % READ * PAGE);
		hazard_begin(&room[i], mm, map + (64 + i) * PAGE);
		hazard_begin(&frame[i], mm, fast_map + (64 + i) * PAGE);
	}
	EVENTUALLY(support_stats(mm).frame_waits > 0);
	support_sleep_ms(50);
	CHECK_EQ(pthread_create(&destroyer, NULL, destroy, mm), 0);
	for (unsigned i = 0; i < WAIT; i++) {
		EVENTUALLY(page[i].done);
		EVENTUALLY(room[i].done);
		EVENTUALLY(frame[i].done);
	}
	for (unsigned i = 0; i < READ; i++)
		CHECK(!reads[i].done);
	answers = true;
	CHECK_EQ(pthread_join(destroyer, NULL), 0);
	for (unsigned i = 0; i < READ; i++)
		hazard_end(&reads[i]);
	for (unsigned i = 0; i < WAIT; i++) {
		CHECK_EQ(hazard_end(&page[i]), -ECANCELED);
		CHECK_EQ(hazard_end(&room[i]), -ECANCELED);
		/* One of these threads may have got a frame. */
		int err = hazard_end(&frame[i]);
		CHECK(!err || err == -ECANCELED || err == -EOWNERDEAD);
	}
}

static void test_a11(void)
{
	struct hazard_access slow[8], other;
	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, "faulty:memory:16M?seed=3", &no_readahead);
	fm_file *fast = support_open(mm, "memory:16M?seed=4", NULL);
	char *map = support_map(file, 0, FILE_BYTES), *fast_map = support_map(fast, 0, FILE_BYTES);

	/* The pinned page stays cached. */
	CHECK_OK(fm_pin(mm, map + 8 * PAGE, PAGE, 0));
	CHECK_OK(fm_file_control(file, "stuck=1"));
	for (unsigned i = 0; i < 8; i++)
		hazard_begin(&slow[i], mm, map + i * PAGE);
	EVENTUALLY(file->reads->inflight >= 4);
	for (int round = 0; round < 20; round++) {
		void *again;
		CHECK_OK(fm_advise(mm, map, 8 * PAGE, FM_ADVICE_DONTNEED));
		hazard_begin(&other, mm, map + 8 * PAGE);
		CHECK_OK(hazard_end(&other));
		CHECK_OK(fm_map(file, 0, 4 * PAGE, NULL, &again));
		CHECK_OK(fm_advise(mm, map, FILE_BYTES, FM_ADVICE_SEQUENTIAL));
		CHECK_OK(fm_unmap(mm, again, 4 * PAGE));
		hazard_same(mm, fast, fast_map + round * 32 * PAGE, round * 32 * PAGE, 32 * PAGE);
	}
	CHECK_OK(fm_file_control(file, "stuck=0"));
	for (unsigned i = 0; i < 8; i++)
		CHECK_OK(hazard_end(&slow[i]));
	CHECK_OK(fm_unpin(mm, map + 8 * PAGE, PAGE));
	hazard_same(mm, file, map, 0, 9 * PAGE);
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_unmap(mm, fast_map, FILE_BYTES));
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_file_close(fast));
	support_mm_end(mm);
}

/* Start as many faults on a dead store as its reads may hold frames, a quarter of the 256.
 * Meanwhile another store is read, also with requests. */
static void test_one_dead_store(void)
{
	enum { DEAD = 64 };
	const struct fm_file_options by_ring = {.size = sizeof(by_ring), .readahead_bytes = UINT32_MAX,
						.deadline_ns = 600000 * MS_NS};
	struct hazard_access access[DEAD];
	fm_mm *mm = support_mm(256 * PAGE);
	fm_file *dead = support_open(mm, "faulty:memory:16M?seed=3&stuck=1", &by_ring);
	fm_file *well = support_open(mm, "faulty:memory:16M?seed=4", &by_ring);
	char *map = support_map(dead, 0, FILE_BYTES), *well_map = support_map(well, 0, FILE_BYTES);

	for (unsigned i = 0; i < DEAD; i++)
		hazard_begin(&access[i], mm, map + i * 64 * PAGE);
	EVENTUALLY(support_stats(mm).requests > 0);
	support_sleep_ms(50);
	hazard_same(mm, well, well_map, 0, 256 * PAGE);
	CHECK_OK(fm_file_control(dead, "stuck=0"));
	for (unsigned i = 0; i < DEAD; i++)
		CHECK_OK(hazard_end(&access[i]));
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_unmap(mm, well_map, FILE_BYTES));
	CHECK_OK(fm_file_close(dead));
	CHECK_OK(fm_file_close(well));
	support_mm_end(mm);
}

int main(void)
{
	const struct fm_file_options by_ring = {.size = sizeof(by_ring), .deadline_ns = 600000 * MS_NS};

	hazard_watch("threads that wait for a dead store did not end with the mm");
	test_a09(&no_readahead);
	test_a09(&by_ring);
	test_a09_stubborn();
	hazard_watch("a thread waited behind a fault on a dead store");
	test_a11();
	hazard_watch("a dead store has all the frames or requests");
	test_one_dead_store();
	return 0;
}
