/* SPDX-License-Identifier: MIT */
/*
 * Shared mappings that are written to. Written bytes can be read again in every way, and are in the
 * file after fm_sync() and after the last close. Writes to what is not writable are refused.
 *
 * Seen to fail:
 *   test_sync: page_mark_dirty() is left out where a page is made writable.
 *   test_tail: zero_past() is left out.
 *   test_advice: FM_ADVICE_DONTNEED drops dirty pages.
 *   test_reopened: object_leave() comes before writeback_close().
 *   test_opened_beside: an open waits for a closing file while any page is dirty.
 *   test_amended: pages are read together where a writer will come.
 *   test_dirty_read_only: dirty pages are moved in whatever the mapping allows.
 */
#include "write_support.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>

#define SEED 5
#define LEN (64 * PAGE)

static fm_mm *mm;
static fm_file *file;
static const char *path;
static unsigned char *addr;

static void begin(uint64_t budget, uint64_t size)
{
	hazard_watch("a call, or an access, never ended");
	mm = support_mm(budget);
	path = support_file(size, SEED);
	file = write_open(mm, path);
	addr = write_map(file, 0, size ? size : PAGE);
}

static void end(uint64_t len)
{
	CHECK_OK(fm_unmap(mm, addr, len));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* Write everything, a part of a page, and a straddle. Sync all, sync a range, and use
 * fm_file_sync(). */
static void test_sync(void)
{
	begin(4 * MIB, LEN);
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	support_expect(mm, addr, 0, LEN, SEED + 1);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, LEN, SEED + 1);
	CHECK_EQ(support_stats(mm).dirty_pages, 0);
	CHECK_EQ(support_stats(mm).unflushed_pages, 0);
	CHECK_GE(support_stats(mm).flushes, 1);
	/* Write again, after the pages were cleaned. */
	write_pattern(mm, addr + 10 * PAGE - 50, 10 * PAGE - 50, 100, SEED + 2);
	write_pattern(mm, addr + 40 * PAGE, 40 * PAGE, PAGE, SEED + 2);
	CHECK_OK(fm_sync(mm, addr + 9 * PAGE + 7, PAGE, 0));
	write_expect_file(path, 10 * PAGE - 50, 100, SEED + 2);
	write_expect_file(path, 0, 10 * PAGE - 50, SEED + 1);
	CHECK_OK(fm_file_sync(file, 40 * PAGE, 1, 0));
	write_expect_file(path, 40 * PAGE, PAGE, SEED + 2);
	write_pattern(mm, addr, 0, LEN, SEED + 3);
	CHECK_OK(fm_file_sync(file, 0, 0, 0));
	write_expect_file(path, 0, LEN, SEED + 3);
	/* An asynchronous sync is done in the end. */
	write_pattern(mm, addr, 0, LEN, SEED + 4);
	CHECK_OK(fm_sync(mm, addr, LEN, FM_SYNC_ASYNC));
	EVENTUALLY(support_stats(mm).dirty_pages == 0 && support_stats(mm).writeback_pages == 0);
	write_expect_file(path, 0, LEN, SEED + 4);
	CHECK_EQ(fm_sync(mm, addr, 0, 0), -EINVAL);
	CHECK_EQ(fm_sync(mm, addr, LEN, 8), -EINVAL);
	CHECK_EQ(fm_sync(mm, addr, LEN + PAGE, 0), -ENOMEM);
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	end(LEN);
}

/* The test never syncs: the end of the file, or of the mm, writes the dirty pages. */
static void test_ends(void)
{
	begin(4 * MIB, LEN);
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	end(LEN);
	write_expect_file(path, 0, LEN, SEED + 1);

	begin(4 * MIB, LEN); /* neither unmapped nor closed */
	write_pattern(mm, addr, 0, LEN, SEED + 2);
	CHECK_OK(fm_mm_destroy(mm));
	write_expect_file(path, 0, LEN, SEED + 2);

	begin(4 * MIB, LEN); /* closed while still mapped */
	CHECK_OK(fm_file_close(file));
	write_pattern(mm, addr, 0, LEN, SEED + 3);
	support_expect(mm, addr, 0, LEN, SEED + 3);
	CHECK_OK(fm_sync(mm, addr, LEN / 2, 0));
	write_expect_file(path, 0, LEN / 2, SEED + 3);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	write_files_gone(mm);
	write_expect_file(path, 0, LEN, SEED + 3);
	support_mm_end(mm);
}

/* The background writes dirty pages without being asked. */
static void test_background(void)
{
	begin(2 * MIB, LEN);
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	EVENTUALLY(support_stats(mm).dirty_pages == 0 && support_stats(mm).unflushed_pages == 0);
	write_expect_file(path, 0, LEN, SEED + 1);
	end(LEN);
}

/* The file is larger than the budget: a page that is read again has the written or the file's
 * bytes. */
static void test_evicted(uint64_t budget, uint64_t size)
{
	begin(budget, size);
	write_pattern(mm, addr, 0, size, SEED + 1);
	support_expect(mm, addr, 0, size, SEED + 1);
	for (uint64_t at = 100; at + 3 * PAGE < size; at += 3 * PAGE) /* in each third page */
		write_pattern(mm, addr + at, at, 200, SEED + 2);
	unsigned char buf[PAGE];
	for (uint64_t at = 100; at + 3 * PAGE < size; at += 3 * PAGE) {
		CHECK_OK(support_read(mm, addr + at - 100, buf, PAGE));
		CHECK_EQ(support_differs(buf, at - 100, 100, SEED + 1), UINT64_MAX);
		CHECK_EQ(support_differs(buf + 100, at, 200, SEED + 2), UINT64_MAX);
		CHECK_EQ(support_differs(buf + 300, at + 200, PAGE - 300, SEED + 1), UINT64_MAX);
	}
	CHECK_GT(support_stats(mm).evictions, 0);
	CHECK_OK(fm_sync(mm, addr, size, 0));
	for (uint64_t at = 100; at + 3 * PAGE < size; at += 3 * PAGE) {
		write_expect_file(path, at, 200, SEED + 2);
		write_expect_file(path, at + 200, 2 * PAGE, SEED + 1);
	}
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	end(size);
}

/* Bytes past the end in the last page never reach the file, and are zeros once the file has
 * grown. */
static void test_tail(void)
{
	const uint64_t size = 9 * PAGE + 100;

	begin(MIB, size);
	write_pattern(mm, addr + 9 * PAGE, 9 * PAGE, PAGE, SEED + 1);
	CHECK_OK(fm_sync(mm, addr, size, 0));
	CHECK_EQ(write_file_size(path), size);
	write_expect_file(path, 9 * PAGE, 100, SEED + 1);
	write_pattern(mm, addr + 9 * PAGE, 9 * PAGE, PAGE, SEED + 2); /* dirty, then grow */
	CHECK_OK(fm_truncate(file, size + 1000));
	write_expect_zeros(mm, addr + size, PAGE - 100);
	CHECK_OK(fm_sync(mm, addr, size, 0));
	CHECK_EQ(write_file_size(path), size + 1000);
	write_expect_file(path, 9 * PAGE, 100, SEED + 2);
	write_expect_file_zeros(path, size, 1000);
	write_pattern(mm, addr + 9 * PAGE, 9 * PAGE, PAGE, SEED + 3);
	CHECK_OK(fm_truncate(file, 9 * PAGE + 10)); /* shrink, then grow again */
	CHECK_OK(fm_truncate(file, 12 * PAGE));
	CHECK_OK(fm_sync(mm, addr, size, 0));
	write_expect_file(path, 9 * PAGE, 10, SEED + 3);
	write_expect_file_zeros(path, 9 * PAGE + 10, 3 * PAGE - 10);
	write_expect_zeros(mm, addr + 9 * PAGE + 10, PAGE - 10);
	end(size);
}

static void test_resize(void)
{
	uint64_t size;

	begin(4 * MIB, 16 * PAGE);
	CHECK_OK(fm_unmap(mm, addr, 16 * PAGE));
	addr = write_map(file, 0, LEN);
	CHECK_EQ(write_to(mm, addr + 16 * PAGE, "x", 1), -ENXIO);
	CHECK_EQ(write_to(mm, addr + 63 * PAGE, "x", 1), -ENXIO);
	CHECK_OK(fm_truncate(file, LEN));
	CHECK_OK(fm_file_size(file, &size));
	CHECK_EQ(size, LEN);
	CHECK_EQ(write_file_size(path), LEN);
	write_expect_zeros(mm, addr + 16 * PAGE, LEN - 16 * PAGE);
	write_pattern(mm, addr + 8 * PAGE, 8 * PAGE, LEN - 8 * PAGE, SEED + 1);
	/* Shrink while all pages are dirty. */
	CHECK_OK(fm_truncate(file, 20 * PAGE + 7));
	CHECK_EQ(write_file_size(path), 20 * PAGE + 7);
	CHECK_EQ(write_to(mm, addr + 21 * PAGE, "x", 1), -ENXIO);
	unsigned char byte;
	CHECK_EQ(support_read(mm, addr + 30 * PAGE, &byte, 1), -ENXIO);
	write_expect_zeros(mm, addr + 20 * PAGE + 7, PAGE - 7);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	CHECK_EQ(write_file_size(path), 20 * PAGE + 7);
	write_expect_file(path, 0, 8 * PAGE, SEED);
	write_expect_file(path, 8 * PAGE, 12 * PAGE + 7, SEED + 1);
	CHECK_EQ(support_stats(mm).dirty_pages, 0);
	CHECK_OK(fm_truncate(file, 40 * PAGE));
	write_expect_zeros(mm, addr + 20 * PAGE + 7, 20 * PAGE - 7);
	CHECK_OK(fm_truncate(file, 0));
	CHECK_EQ(write_to(mm, addr, "x", 1), -ENXIO);
	CHECK_OK(fm_truncate(file, 5));
	write_expect_zeros(mm, addr, PAGE);
	CHECK_EQ(fm_truncate(file, 1ull << 40), -EFBIG);
	CHECK_EQ(write_file_size(path), 5);
	EVENTUALLY(support_stats(mm).frames_used <= 1);
	end(LEN);
}

static void test_permissions(void)
{
	struct fm_map_options wants = {.size = sizeof(wants), .flags = FM_MAP_WRITE};
	void *none = NULL;

	begin(MIB, LEN);
	fm_file *plain = support_open(mm, path, NULL);
	CHECK_EQ(fm_map(plain, 0, LEN, &wants, &none), -EACCES);
	CHECK(!none);
	CHECK_EQ(fm_truncate(plain, 5), -EACCES);
	CHECK_EQ(fm_punch(plain, 0, 5), -EACCES);
	CHECK_EQ(fm_reserve(plain, 0, 5), -EACCES);
	CHECK_OK(fm_file_sync(plain, 0, 0, 0));
	CHECK_OK(fm_file_close(plain));
	CHECK_OK(fm_unmap(mm, addr, LEN));
	addr = support_map(file, 0, LEN); /* a read-only mapping of a writable file */
	support_expect(mm, addr, 0, LEN, SEED);
	CHECK_EQ(fm_fault_in(mm, addr, PAGE, FM_WRITE), -EACCES);
	CHECK_EQ(fm_pin(mm, addr, PAGE, FM_WRITE), -EACCES);
	if (test_trap() != FM_TRAP_CALL) {
		for (unsigned page = 0; page < 64; page += 7) {
			support_expect_signal(support_store(addr + page * PAGE), SIGSEGV, EACCES, addr + page * PAGE);
			CHECK_OK(fm_advise(mm, addr, LEN, FM_ADVICE_DONTNEED)); /* evicts pages */
		}
		CHECK_GT(support_stats(mm).faults_segv, 0);
	}
	support_expect(mm, addr, 0, LEN, SEED);
	CHECK_EQ(support_stats(mm).dirty_pages, 0);
	/* With both mappings a write is allowed. */
	CHECK(write_map(file, 0, LEN) == addr);
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	support_expect(mm, addr, 0, LEN, SEED + 1);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_EQ(write_to(mm, addr, "x", 1), -EFAULT);
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	write_expect_file(path, 0, LEN, SEED + 1);
}

/* A dirty page is write-protected if the mapping is read-only, and is written back all the same. */
static void test_dirty_read_only(void)
{
	begin(16 * MIB, LEN); /* so large that the background does not write */
	write_pattern(mm, addr, 0, 32 * PAGE, SEED + 1);
	support_faults_settled(mm); /* a late fault may take out a page of the next map */
	CHECK_OK(fm_unmap(mm, addr, LEN));
	addr = support_map(file, 0, LEN);
	CHECK_GE(support_stats(mm).dirty_pages, 1);
	support_expect(mm, addr, 0, 32 * PAGE, SEED + 1);
	for (unsigned page = 0; test_trap() != FM_TRAP_CALL && page < 40; page += 3)
		support_expect_signal(support_store(addr + page * PAGE), SIGSEGV, EACCES, addr + page * PAGE);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, 32 * PAGE, SEED + 1);
	/* Write again through a writable mapping. */
	CHECK(write_map(file, 0, LEN) == addr);
	write_pattern(mm, addr, 0, 48 * PAGE, SEED + 2);
	support_expect(mm, addr, 0, 48 * PAGE, SEED + 2);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	write_expect_file(path, 0, 48 * PAGE, SEED + 2);
}

static void test_create(void)
{
	struct fm_file_options options = {.size = sizeof(options), .flags = FM_FILE_CREATE};
	const char *name = support_path();

	mm = support_mm(MIB);
	CHECK_EQ(fm_file_open(mm, name, &options, &file), -EINVAL);
	options.flags = FM_FILE_WRITE;
	CHECK_EQ(fm_file_open(mm, name, &options, &file), -ENOENT);
	options.flags = FM_FILE_WRITE | FM_FILE_CREATE;
	file = support_open(mm, name, &options);
	CHECK_EQ(write_file_size(name), 0);
	addr = write_map(file, 0, LEN);
	CHECK_EQ(write_to(mm, addr, "x", 1), -ENXIO);
	CHECK_OK(fm_truncate(file, 10 * PAGE + 1));
	write_pattern(mm, addr, 0, 10 * PAGE + 1, SEED);
	CHECK_OK(fm_file_sync(file, 0, 0, 0));
	write_expect_file(name, 0, 10 * PAGE + 1, SEED);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_OK(fm_file_close(file));
	file = support_open(mm, name, &options); /* an existing file keeps its bytes */
	addr = write_map(file, 0, LEN);
	support_expect(mm, addr, 0, 10 * PAGE + 1, SEED);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_unlinked(void)
{
	unsigned char *buf = malloc(LEN);

	begin(MIB, LEN);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && buf);
	CHECK_EQ(unlink(path), 0);
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	support_expect(mm, addr, 0, LEN, SEED + 1);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	CHECK_EQ(pread(fd, buf, LEN, 0), (ssize_t)LEN);
	CHECK_EQ(support_differs(buf, 0, LEN, SEED + 1), UINT64_MAX);
	write_pattern(mm, addr, 0, LEN, SEED + 2);
	end(LEN);
	CHECK_EQ(pread(fd, buf, LEN, 0), (ssize_t)LEN);
	CHECK_EQ(support_differs(buf, 0, LEN, SEED + 2), UINT64_MAX);
	close(fd);
	free(buf);
}

/* Pages that the kernel swapped out can be pinned and synced. Without swap nothing is tested. */
static void test_swapped(void)
{
	struct sysinfo info;
	CHECK_EQ(sysinfo(&info), 0);
	if (!info.totalswap)
		return;
	for (unsigned round = 0; round < 8; round++) {
		begin(16 * MIB, LEN);
		write_pattern(mm, addr, 0, LEN, SEED + 1);
		CHECK_EQ(madvise(addr, LEN, 21 /* MADV_PAGEOUT */), 0);
		support_sleep_ms(20);
		if (round % 2) {
			CHECK_OK(fm_pin(mm, addr, LEN, round & 2 ? FM_WRITE : 0));
			support_expect(mm, addr, 0, LEN, SEED + 1);
			CHECK_OK(fm_unpin(mm, addr, LEN));
		}
		CHECK_OK(fm_sync(mm, addr, LEN, 0));
		write_expect_file(path, 0, LEN, SEED + 1);
		CHECK_EQ(support_stats(mm).dirty_lost, 0);
		CHECK_EQ(support_stats(mm).emptied_behind, 0);
		end(LEN);
	}
}

/* Open the file again while a pinned page stays dirty, and while a private mapping has dirty pages
 * of its own. The new handle sees the written bytes, and the open returns. */
static void test_opened_beside(void)
{
	begin(4 * MIB, LEN);
	unsigned char *own = write_map_flags(file, 0, LEN, FM_MAP_WRITE | FM_MAP_PRIVATE);
	write_pattern(mm, own, 0, LEN, SEED + 2);
	write_pattern(mm, addr, 0, 8 * PAGE, SEED + 1);
	CHECK_OK(fm_pin(mm, addr, PAGE, FM_WRITE));
	fm_file *other = support_open(mm, path, NULL);
	const void *map = support_map(other, 0, LEN);
	support_expect(mm, map, 0, 8 * PAGE, SEED + 1);
	support_expect(mm, (const char *)map + 8 * PAGE, 8 * PAGE, LEN - 8 * PAGE, SEED);
	CHECK_EQ(support_stats(mm).spilled, 0);
	CHECK_OK(fm_unpin(mm, addr, PAGE));
	CHECK_OK(fm_unmap(mm, (void *)(uintptr_t)map, LEN));
	CHECK_OK(fm_file_close(other));
	CHECK_OK(fm_unmap(mm, own, LEN));
	end(LEN);
	write_expect_file(path, 0, 8 * PAGE, SEED + 1);
}

/* Open the file again right after the last close: the written bytes are seen. */
static void test_reopened(void)
{
	begin(4 * MIB, LEN);
	for (unsigned i = 1; i <= 8; i++) {
		write_pattern(mm, addr, 0, LEN, SEED + i);
		if (i % 2) { /* unmap, then close */
			CHECK_OK(fm_unmap(mm, addr, LEN));
			CHECK_OK(fm_file_close(file));
		} else { /* close, then unmap: no call waits for the write-back */
			CHECK_OK(fm_file_close(file));
			write_pattern(mm, addr + PAGE, PAGE, LEN - PAGE, SEED + i + 100);
			CHECK_OK(fm_unmap(mm, addr, LEN));
		}
		file = write_open(mm, path);
		addr = write_map(file, 0, LEN);
		support_expect(mm, addr, 0, PAGE, SEED + i);
		support_expect(mm, addr + PAGE, PAGE, LEN - PAGE, SEED + i + (i % 2 ? 0 : 100));
	}
	end(LEN);
}

static void test_coherent(void)
{
	begin(MIB, LEN);
	unsigned char *other = write_map(file, 8 * PAGE, 16 * PAGE);
	unsigned char *readable = support_map(file, 10 * PAGE, 4 * PAGE);
	write_pattern(mm, addr + 9 * PAGE, 9 * PAGE, 3 * PAGE, SEED + 1);
	support_expect(mm, other + PAGE, 9 * PAGE, 3 * PAGE, SEED + 1);
	support_expect(mm, readable, 10 * PAGE, 2 * PAGE, SEED + 1);
	write_pattern(mm, other + 2 * PAGE, 10 * PAGE, PAGE, SEED + 2);
	support_expect(mm, addr + 10 * PAGE, 10 * PAGE, PAGE, SEED + 2);
	CHECK_OK(fm_unmap(mm, other, 16 * PAGE));
	CHECK_OK(fm_unmap(mm, readable, 4 * PAGE));
	support_expect(mm, addr + 10 * PAGE, 10 * PAGE, PAGE, SEED + 2);
	end(LEN);
	write_expect_file(path, 9 * PAGE, PAGE, SEED + 1);
	write_expect_file(path, 10 * PAGE, PAGE, SEED + 2);
}

/* Unmap a part of the dirty pages: accesses there are refused, and no byte is lost. */
static void test_partial_unmap(void)
{
	begin(MIB, LEN);
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	CHECK_OK(fm_unmap(mm, addr + 16 * PAGE, 8 * PAGE));
	unsigned char byte;
	for (unsigned page = 16; page < 24; page++) {
		CHECK_EQ(write_to(mm, addr + page * PAGE, "x", 1), -EFAULT);
		EVENTUALLY(support_read(mm, addr + page * PAGE, &byte, 1) ==
			   -EFAULT); /* the page may be under write-back */
	}
	support_expect(mm, addr, 0, 16 * PAGE, SEED + 1);
	support_expect(mm, addr + 24 * PAGE, 24 * PAGE, LEN - 24 * PAGE, SEED + 1);
	CHECK(write_map(file, 16 * PAGE, 8 * PAGE) == addr + 16 * PAGE);
	support_expect(mm, addr + 16 * PAGE, 16 * PAGE, 8 * PAGE, SEED + 1);
	CHECK_OK(fm_unmap(mm, addr + 16 * PAGE, 8 * PAGE));
	CHECK_OK(fm_file_sync(file, 0, 0, 0));
	write_expect_file(path, 0, LEN, SEED + 1);
	end(LEN);
}

static int write_in_child(void *arg)
{
	*(volatile unsigned char *)arg = 1;
	return 0;
}

static int sync_in_child(void *arg)
{
	(void)arg;
	return fm_sync(mm, addr, LEN, 0) == -EOWNERDEAD && fm_truncate(file, 1) == -EOWNERDEAD &&
	       fm_punch(file, 0, 1) == -EOWNERDEAD && fm_file_sync(file, 0, 0, 0) == -EOWNERDEAD &&
	       fm_invalidate(file, 0, 0) == -EOWNERDEAD && fm_reserve(file, 0, 1) == -EOWNERDEAD ? 0 : 1;
}

static void test_fork(void)
{
	begin(MIB, LEN);
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	int status = support_child(write_in_child, addr + 3 * PAGE);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	status = support_child(sync_in_child, NULL);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	support_expect(mm, addr, 0, LEN, SEED + 1);
	end(LEN);
	write_expect_file(path, 0, LEN, SEED + 1);
}

/* Advice does not drop bytes that the file lacks. */
static void test_advice(void)
{
	begin(MIB, LEN);
	for (unsigned i = 1; i < 6; i++) {
		write_pattern(mm, addr, 0, LEN, SEED + i);
		CHECK_OK(fm_advise(mm, addr, LEN, i % 2 ? FM_ADVICE_DONTNEED : FM_ADVICE_COLD));
		support_expect(mm, addr, 0, LEN, SEED + i);
		CHECK_OK(fm_sync(mm, addr, LEN, 0));
		CHECK_OK(fm_advise(mm, addr, LEN, FM_ADVICE_DONTNEED));
		support_expect(mm, addr, 0, LEN, SEED + i);
	}
	end(LEN);
}

/* After fm_fault_in() with FM_WRITE neither a read nor a write faults. */
static void test_fault_in(void)
{
	begin(4 * MIB, LEN);
	CHECK_OK(
		fm_fault_in(mm, addr, 32 * PAGE,
			    FM_WRITE)); /* below the limit at which pages are written */
	uint64_t faults = support_faults_settled(mm);
	for (uint64_t at = 0; at < 32 * PAGE; at++)
		((volatile unsigned char *)addr)[at] = support_byte(at, SEED + 1);
	CHECK_EQ(support_faults_settled(mm), faults);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, 32 * PAGE, SEED + 1);
	write_expect_file(path, 32 * PAGE, 32 * PAGE, SEED);
	CHECK_EQ(fm_fault_in(mm, addr, LEN + PAGE, FM_WRITE), -EFAULT);
	end(LEN);
}

/* Pages that are locked in memory, which the kernel does not move. */
static void test_locked(void)
{
	begin(4 * MIB, LEN);
	CHECK_OK(fm_fault_in(mm, addr, LEN, 0));
	if (mlock(addr + 8 * PAGE, 16 * PAGE) < 0) {
		CHECK_EQ(errno, ENOMEM); /* an ordinary user may lock less, or a page is absent */
		end(LEN);
		return;
	}
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	support_expect(mm, addr, 0, LEN, SEED + 1);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, LEN, SEED + 1);
	write_pattern(mm, addr, 0, LEN, SEED + 2);
	CHECK_OK(fm_advise(mm, addr, LEN, FM_ADVICE_DONTNEED));
	support_expect(mm, addr, 0, LEN, SEED + 2);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, LEN, SEED + 2);
	for (unsigned i = 3; i < 6; i++) {
		write_pattern(mm, addr, 0, LEN, SEED + i);
		CHECK_OK(fm_sync(mm, addr, LEN, 0));
		write_expect_file(path, 0, LEN, SEED + i);
	}
	CHECK_EQ(munlock(addr + 8 * PAGE, 16 * PAGE), 0);
	support_expect(mm, addr, 0, LEN, SEED + 5);
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	end(LEN);
	write_expect_file(path, 0, LEN, SEED + 5);
}

static void test_punch(void)
{
	begin(4 * MIB, LEN);
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	CHECK_OK(fm_punch(file, 10 * PAGE, 10 * PAGE));
	CHECK_OK(fm_punch(file, 30 * PAGE + 100, 200)); /* inside one page */
	CHECK_OK(fm_punch(file, 40 * PAGE - 10, 20));   /* parts of two pages */
	CHECK_OK(fm_punch(file, 50 * PAGE - 10, 2 * PAGE + 20));
	CHECK_OK(fm_punch(file, LEN - 5, 100 * PAGE));
	CHECK_OK(fm_punch(file, LEN + 5, 5));
	CHECK_EQ(fm_punch(file, 5, 0), -EINVAL);
	for (int synced = 0; synced < 2; synced++) {
		write_expect_zeros(mm, addr + 10 * PAGE, 10 * PAGE);
		support_expect(mm, addr + 20 * PAGE, 20 * PAGE, 10 * PAGE + 100, SEED + 1);
		write_expect_zeros(mm, addr + 30 * PAGE + 100, 200);
		support_expect(mm, addr + 30 * PAGE + 300, 30 * PAGE + 300, 10 * PAGE - 310, SEED + 1);
		write_expect_zeros(mm, addr + 40 * PAGE - 10, 20);
		write_expect_zeros(mm, addr + 50 * PAGE - 10, 2 * PAGE + 20);
		support_expect(mm, addr + 52 * PAGE + 10, 52 * PAGE + 10, LEN - 52 * PAGE - 15, SEED + 1);
		write_expect_zeros(mm, addr + LEN - 5, 5);
		CHECK_OK(fm_sync(mm, addr, LEN, 0));
	}
	CHECK_EQ(write_file_size(path), LEN);
	write_expect_file_zeros(path, 10 * PAGE, 10 * PAGE);
	write_expect_file(path, 20 * PAGE, 10 * PAGE + 100, SEED + 1);
	write_expect_file_zeros(path, 30 * PAGE + 100, 200);
	write_pattern(mm, addr + 10 * PAGE, 10 * PAGE, PAGE, SEED + 2); /* write to the hole */
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 10 * PAGE, PAGE, SEED + 2);
	end(LEN);
}

/* fm_invalidate() shows what others wrote to the file, and first writes the dirty pages. */
static void test_invalidate(void)
{
	static unsigned char buf[4 * PAGE];

	begin(MIB, LEN);
	support_expect(mm, addr, 0, LEN, SEED);
	write_pattern(mm, addr + 20 * PAGE, 20 * PAGE, PAGE, SEED + 1);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	support_fill(buf, 4 * PAGE, sizeof(buf), SEED + 2);
	CHECK_EQ(pwrite(fd, buf, sizeof(buf), 4 * (off_t)PAGE), (ssize_t)sizeof(buf));
	close(fd);
	support_expect(mm, addr + 4 * PAGE, 4 * PAGE, 4 * PAGE, SEED); /* the cached bytes */
	CHECK_OK(fm_invalidate(file, 4 * PAGE, 4 * PAGE));
	support_expect(mm, addr + 4 * PAGE, 4 * PAGE, 4 * PAGE, SEED + 2);
	CHECK_OK(fm_invalidate(file, 0, 0));
	write_expect_file(path, 20 * PAGE, PAGE, SEED + 1);
	support_expect(mm, addr + 20 * PAGE, 20 * PAGE, PAGE, SEED + 1);
	support_expect(mm, addr + 4 * PAGE, 4 * PAGE, 4 * PAGE, SEED + 2);
	CHECK_OK(fm_pin(mm, addr, PAGE, 0));
	CHECK_EQ(fm_invalidate(file, 0, 0), -EBUSY);
	CHECK_OK(fm_unpin(mm, addr, PAGE));
	CHECK_OK(fm_invalidate(file, 0, 0));
	int err = fm_reserve(file, 0, 2 * LEN);
	CHECK(!err || err == -EOPNOTSUPP);
	CHECK_EQ(write_file_size(path), LEN);
	end(LEN);
}

/* Synced bytes do not depend on a page cache: this store loses bytes that were not flushed. */
static void test_durable(void)
{
	unsigned char *buf = malloc(LEN);
	size_t n;

	CHECK(buf);
	mm = support_mm(4 * MIB);
	file = write_open(mm, support_format("faulty:%s?lose=1", support_file(LEN, SEED)));
	addr = write_map(file, 0, LEN);
	write_pattern(mm, addr, 0, LEN / 2, SEED + 1);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_pattern(mm, addr + LEN / 2, LEN / 2, LEN / 2, SEED + 1);
	CHECK_OK(fm_file_control(file, "crash=1"));
	CHECK_OK(fm_file_read(file, buf, LEN, 0, &n));
	CHECK_EQ(n, LEN);
	CHECK_EQ(support_differs(buf, 0, LEN / 2, SEED + 1), UINT64_MAX);
	CHECK_EQ(support_differs(buf + LEN / 2, LEN / 2, LEN / 2, SEED), UINT64_MAX);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	free(buf);
}

/* Read each page, then write to the page: few accesses fault. Pages that are only read stay clean,
 * apart from a few pages ahead of the last write. Dirty pages are installed in the view
 * together. */
static void test_amended(void)
{
	const uint64_t pages = 1024, len = pages * PAGE, few = pages / 10, ahead = 64;
	bool alone = test_trap() == FM_TRAP_CALL || test_install() != FM_INSTALL_MOVE;
	unsigned char buf[64];

	begin(32 * MIB, len);
	/* Read all pages first, so that the speed of reads does not decide how many come in
	 * together. */
	CHECK_OK(fm_advise(mm, addr, len, FM_ADVICE_WILLNEED));
	EVENTUALLY(support_stats(mm).read_bytes >= len && !support_stats(mm).requests);
	for (uint64_t at = 0; at < len / 2; at += PAGE) {
		CHECK_OK(support_read(mm, addr + at, buf, sizeof(buf)));
		CHECK_EQ(support_differs(buf, at, sizeof(buf), SEED), UINT64_MAX);
		write_pattern(mm, addr + at, at, sizeof(buf), SEED + 1);
	}
	struct fm_stats written = support_stats(mm);
	if (!alone)
		CHECK_GE(few, written.faults);
	CHECK_GE(written.dirtied, pages / 2);
	CHECK_GE(pages / 2 + ahead, written.dirtied);
	CHECK_OK(fm_unmap(mm, addr, len));
	addr = write_map(file, 0, len);
	for (uint64_t at = 0; at < len; at += PAGE) {
		CHECK_OK(support_read(mm, addr + at, buf, sizeof(buf)));
		CHECK_EQ(support_differs(buf, at, sizeof(buf), at < len / 2 ? SEED + 1 : SEED), UINT64_MAX);
	}
	struct fm_stats read = support_stats(mm);
	if (!alone)
		CHECK_GE(2 * few, read.faults - written.faults);
	CHECK_GE(pages / 2 + ahead, read.dirtied);
	CHECK_OK(fm_sync(mm, addr, len, 0));
	for (uint64_t at = 0; at < len; at += PAGE)
		write_expect_file(path, at, sizeof(buf), at < len / 2 ? SEED + 1 : SEED);
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	end(len);
}

static void test(void)
{
	test_sync();
	test_ends();
	test_evicted(fm_budget_min(4096), MIB / 2);
	test_evicted(MIB, 2 * MIB);
	test_tail();
	test_resize();
	test_permissions();
	test_dirty_read_only();
	test_create();
	test_unlinked();
	test_reopened();
	test_opened_beside();
	test_swapped();
	test_coherent();
	test_partial_unmap();
	test_fork();
	test_advice();
	test_fault_in();
	test_locked();
	test_punch();
	test_invalidate();
	test_durable();
	test_amended();
}

int main(int argc, char **argv)
{
	hazard_watch("a call, or an access, never ended");
	if (argc > 1 && strcmp(argv[1], "background") == 0) { /* by hand: 10 seconds */
		support_start();
		test_background();
		support_end();
		return 0;
	}
	return support_run(test);
}
