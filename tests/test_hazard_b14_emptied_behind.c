/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md B14, and the row "recorded as installed, yet it faulted" of the truth table. The view
 * or the frames are emptied behind the library, here with MADV_DONTNEED while threads read. The
 * bytes are read again. No access sees zeros, and no access faults for ever. If the emptied memory
 * held the only copy of the bytes, the library reports the loss.
 *
 * Seen to fail (tests/HAZARDS.md): with a page_really_there() that always believes the record, and
 * with a hole met by MOVE taken for an error. Also with a hole taken out as zeros, and with a lost
 * dirty page not reported.
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
		/* Empty installed pages. */
		madvise(shared.map, FILE_BYTES, MADV_DONTNEED);
		hazard_same(mm, shared.file, shared.map, 0, 64 * PAGE);
	}
	CHECK_GE(support_stats(mm).emptied_behind, 1);
	/* Empty installed pages that are taken out before the next access. */
	for (int round = 0; round < 3; round++) {
		madvise(shared.map, FILE_BYTES, MADV_DONTNEED);
		CHECK_OK(fm_unmap(mm, shared.map, 64 * PAGE));
		CHECK(support_map(shared.file, 0, 64 * PAGE) == shared.map);
		hazard_same(mm, shared.file, shared.map, 0, 64 * PAGE);
	}
	for (int round = 0; round < 3; round++) {
		/* Empty pages that are cached and not installed. Under COPY the library does not
		 * check that such a page is still there. */
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

/* Empty the slot of one dirty page among many that go into the view together. The library must
 * report the lost bytes, and no other page may be lost. */
static void dirty(void)
{
	const uint64_t len = 64 * PAGE, gone = 9, seed = 9;

	fm_mm *mm = support_mm(4 * MIB);
	const char *path = support_file(len, 8);
	fm_file *file = write_open(mm, path);
	unsigned char *map = write_map(file, 0, len);
	write_pattern(mm, map, 0, len, seed);
	/* Move the pages out of the view into their slots. */
	CHECK_OK(fm_unmap(mm, map, len));
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
	/* fm_mm_destroy() also reports what was lost. */
	int err = fm_mm_destroy(mm);
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
		SKIP("under the call trap no fault tells that a page is gone");
	hazard_watch("an access to a page that the program emptied faults for ever");
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
