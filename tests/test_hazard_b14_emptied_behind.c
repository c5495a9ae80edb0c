/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md B14, and the row "recorded as installed, yet it faulted" of the truth table: somebody
 * empties the view or the frames behind our back (here with MADV_DONTNEED, while threads read). The
 * bytes are read again; never zeros, and no access faults for ever. Where they were the only ones,
 * that is told. Seen to fail with page_really_there() that always believes, with a hole met by MOVE
 * taken for an error, and with one taken out as zeros, and with a dirty page that was lost told to
 * nobody (tests/HAZARDS.md).
 */
#include "write_support.h"

#include <sys/mman.h>

#define FILE_BYTES (2 * MIB)

static struct {
	fm_mm *mm;
	fm_file *file;
	char *map;
	atomic_bool stop;
} shared;

static void quiet(void)
{
	fm_mm *mm = shared.mm;
	struct frame_pool *pool = shared.file->pool;

	hazard_same(mm, shared.file, shared.map, 0, 64 * PAGE);
	for (int round = 0; round < 3; round++) {
		madvise(shared.map, FILE_BYTES, MADV_DONTNEED); /* what is installed */
		hazard_same(mm, shared.file, shared.map, 0, 64 * PAGE);
	}
	CHECK_GE(support_stats(mm).emptied_behind, 1);
	for (int round = 0; round < 3;
	     round++) { /* what is installed, and taken out before anybody touches it */
		madvise(shared.map, FILE_BYTES, MADV_DONTNEED);
		CHECK_OK(fm_unmap(mm, shared.map, 64 * PAGE));
		CHECK(support_map(shared.file, 0, 64 * PAGE) == shared.map);
		hazard_same(mm, shared.file, shared.map, 0, 64 * PAGE);
	}
	for (int round = 0; round < 3; round++) {
		/* What is cached and not installed. Under COPY nothing of ours asks whether it is there. */
		CHECK_OK(fm_advise(mm, shared.map, 64 * PAGE, FM_ADVICE_WILLNEED));
		EVENTUALLY(support_stats(mm).requests == 0);
		if (mm->install == FM_INSTALL_MOVE)
			madvise(pool->slots, pool->slots_len, MADV_DONTNEED);
		hazard_same(mm, shared.file, shared.map, 0, FILE_BYTES);
	}
}

static struct page *page_of(struct fm_file *file, uint64_t index)
{
	for (uint32_t i = 0; i < file->pool->frames; i++)
		if (file->pool->pages[i].file == file && file->pool->pages[i].index == index)
			return &file->pool->pages[i];
	CHECK_FAIL("page %llu is not cached", (unsigned long long)index);
	return NULL;
}

/* The only bytes of a dirty page, which is one of many that go into the view together, go: that is
 * told, and costs no other page. */
static void dirty(void)
{
	const uint64_t len = 64 * PAGE, gone = 9, seed = 9;

	fm_mm *mm = support_mm(4 * MIB);
	const char *path = support_file(len, 8);
	fm_file *file = write_open(mm, path);
	unsigned char *map = write_map(file, 0, len);
	write_pattern(mm, map, 0, len, seed);
	CHECK_OK(fm_unmap(mm, map, len)); /* out of the view, into the slots */
	struct page *page = page_of(file, gone);
	bool there = (page->state & PG_DIRTY) && mm->install == FM_INSTALL_MOVE;
	if (there)
		madvise((char *)file->pool->slots + (size_t)(page - file->pool->pages) * PAGE, PAGE,
			MADV_DONTNEED);
	CHECK(write_map(file, 0, len) == map);
	support_expect(mm, map, 0, gone * PAGE, seed);
	support_expect(mm, map + gone * PAGE, gone * PAGE, PAGE, there ? 8 : seed);
	support_expect(mm, map + (gone + 1) * PAGE, (gone + 1) * PAGE, len - (gone + 1) * PAGE, seed);
	CHECK_EQ(support_stats(mm).dirty_lost, there);
	CHECK_EQ(fm_sync(mm, map, len, 0), there ? -EIO : 0);
	write_expect_file(path, 0, gone * PAGE, seed);
	write_expect_file(path, gone * PAGE, PAGE, there ? 8 : seed);
	write_expect_file(path, (gone + 1) * PAGE, len - (gone + 1) * PAGE, seed);
	CHECK_OK(fm_unmap(mm, map, len));
	CHECK_OK(fm_file_close(file));
	int err = fm_mm_destroy(mm); /* what was lost is told here, too */
	CHECK(err == 0 || (there && err == -EIO));
}

static void *empty(void *arg)
{
	(void)arg;
	while (!shared.stop) {
		madvise(shared.map, FILE_BYTES, MADV_DONTNEED);
		support_sleep_ms(1);
	}
	return NULL;
}

int main(void)
{
	pthread_t thread;

	if (test_trap() == FM_TRAP_CALL)
		SKIP("under the call trap nobody is told that a page is gone");
	hazard_watch("an access to a page that was emptied behind us faults for ever");
	dirty();
	fm_mm *mm = shared.mm = support_mm(128 * PAGE);
	fm_file *file = shared.file = support_open(mm, support_file(FILE_BYTES, 8), NULL);
	shared.map = support_map(file, 0, FILE_BYTES);
	quiet();
	CHECK_EQ(pthread_create(&thread, NULL, empty, NULL), 0);
	for (int round = 0; round < (SUPPORT_SANITIZED || support_slower() > 1 ? 5 : 20); round++)
		hazard_same(mm, file, shared.map, 0, FILE_BYTES);
	shared.stop = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	hazard_same(mm, file, shared.map, 0, FILE_BYTES);
	CHECK_OK(fm_unmap(mm, shared.map, FILE_BYTES));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	return 0;
}
