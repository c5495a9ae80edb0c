/* SPDX-License-Identifier: MIT */
/*
 * fm_map() and fm_unmap(): a mapped range shows the bytes of the file and zeros after them, and no
 * other range does.
 *
 * Seen to fail: with the tail of the last page not zeroed (test_tail), with a mapping not counted
 * (test_counts). With no segment_cut() at the end of an unmap (test_partial), with a new link count
 * taken for a change (test_unlinked). With a pin, a descriptor, a view or a struct fm_file not
 * given back. With a discard_range() that takes any region for its own (test_two_spaces).
 */
#include "inside.h"
#include "support.h"

#include <signal.h>
#include <unistd.h>

#define SEED 3

static void test_arguments(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, support_file(3 * PAGE, SEED), NULL);
	struct fm_map_options options = {.size = sizeof(options) + 1};
	void *addr = (void *)(uintptr_t)1;

	CHECK_EQ(fm_map(file, 0, 0, NULL, &addr), -EINVAL);
	CHECK_EQ(fm_map(file, 1, PAGE, NULL, &addr), -EINVAL);
	CHECK_EQ(fm_map(file, 2048, PAGE, NULL, &addr), -EINVAL);
	CHECK_EQ(fm_map(file, 0, PAGE, &options, &addr), -EINVAL);
	CHECK_EQ(fm_map(file, 0, PAGE, NULL, NULL), -EINVAL);
	CHECK_EQ(fm_map(NULL, 0, PAGE, NULL, &addr), -EINVAL);
	CHECK_EQ(fm_map(file, (uint64_t)INT64_MAX + 1, PAGE, NULL, &addr), -EOVERFLOW);
	CHECK_EQ(fm_map(file, 0, SIZE_MAX, NULL, &addr), -EOVERFLOW);
	CHECK_EQ(fm_map(file, 2048 * MIB, PAGE, NULL, &addr), -EOVERFLOW);
	CHECK_EQ(fm_map(file, UINT64_MAX - PAGE + 1, PAGE, NULL, &addr), -EOVERFLOW);
	CHECK(addr == (void *)(uintptr_t)1);
	addr = support_map(file, 0, PAGE);
	CHECK_EQ(fm_unmap(mm, addr, 0), -EINVAL);
	CHECK_EQ(fm_unmap(mm, (char *)addr + 1, PAGE), -EINVAL);
	CHECK_EQ(fm_unmap(mm, addr, SIZE_MAX), -EINVAL);
	CHECK_EQ(fm_unmap(NULL, addr, PAGE), -EINVAL);
	CHECK_EQ(support_stats(mm).mappings, 1);
	/* The length is rounded up. */
	CHECK_OK(fm_unmap(mm, addr, 1));
	CHECK_EQ(support_stats(mm).mappings, 0);
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* The mapping shows the bytes, then zeros to the end of the 4096-byte page, then raises SIGBUS. */
static void test_size(fm_mm *mm, uint64_t size, uint32_t page_size)
{
	struct fm_file_options options = {.size = sizeof(options), .page_size = page_size};
	fm_file *file = support_open(mm, support_file(size, SEED), &options);
	uint64_t shown = (size + PAGE - 1) & ~(PAGE - 1), got;
	unsigned char *addr = support_map(file, 0, shown + 2 * PAGE), zero = 1;

	CHECK_OK(fm_file_size(file, &got));
	CHECK_EQ(got, size);
	if (size)
		support_expect(mm, addr, 0, size, SEED);
	for (uint64_t at = size; at < shown; at++) {
		CHECK_OK(support_read(mm, addr + at, &zero, 1));
		CHECK_EQ(zero, 0);
	}
	CHECK_EQ(fm_fault_in(mm, addr + shown, 1, 0), -ENXIO);
	if (test_trap() != FM_TRAP_CALL) {
		support_expect_signal(support_load(addr + shown), SIGBUS, ENXIO, addr + shown);
		support_expect_signal(support_load(addr + shown + PAGE + 7), SIGBUS, ENXIO,
				      addr + shown + PAGE + 7);
	}
	CHECK_OK(fm_unmap(mm, addr, shown + 2 * PAGE));
	CHECK_OK(fm_file_close(file));
}

static void test_sizes(void)
{
	static const uint64_t sizes[] = {0, 1, PAGE - 1, PAGE, PAGE + 1, 64 * KIB - 1, 64 * KIB + 1,
					 200 * KIB + 17};
	fm_mm *mm = support_mm(4 * MIB);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		test_size(mm, sizes[i], 4096);
		test_size(mm, sizes[i], 64 * KIB);
	}
	support_mm_end(mm);
	mm = support_mm(fm_budget_min(2 * MIB));
	test_size(mm, 1, 2 * MIB);
	test_size(mm, 2 * MIB + 4095, 2 * MIB);
	test_size(mm, 4 * MIB, 2 * MIB);
	support_mm_end(mm);
}

/* Read the tail into a frame that held bytes of another page. The kernel's direct read would clear
 * the tail, so the read is not direct. */
static void test_tail(void)
{
	fm_mm *mm = support_mm(fm_budget_min(PAGE));
	fm_file *full = support_open(mm, support_file(64 * PAGE, SEED), NULL);
	unsigned char *addr = support_map(full, 0, 64 * PAGE), byte;

	support_expect(mm, addr, 0, 64 * PAGE, SEED);
	for (unsigned size = 1; size < PAGE; size = size * 3 + 1) {
		const char *uri = support_format("file:%s?direct=0", support_file(PAGE + size, SEED));
		fm_file *file = support_open(mm, uri, NULL);
		unsigned char *tail = support_map(file, PAGE, PAGE);
		support_expect(mm, tail, PAGE, size, SEED);
		for (unsigned at = size; at < PAGE; at += 7) {
			CHECK_OK(support_read(mm, tail + at, &byte, 1));
			CHECK_EQ(byte, 0);
		}
		CHECK_OK(fm_unmap(mm, tail, PAGE));
		CHECK_OK(fm_file_close(file));
	}
	CHECK_OK(fm_unmap(mm, addr, 64 * PAGE));
	CHECK_OK(fm_file_close(full));
	support_mm_end(mm);
}

static void test_offsets(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, support_file(40 * PAGE + 100, SEED), NULL);

	for (uint64_t page = 0; page <= 40; page += 5) {
		unsigned char *addr = support_map(file, page * PAGE, 2 * PAGE);
		uint64_t left = 40 * PAGE + 100 - page * PAGE;
		support_expect(mm, addr, page * PAGE, left < 2 * PAGE ? left : 2 * PAGE, SEED);
		CHECK_OK(fm_unmap(mm, addr, 2 * PAGE));
	}
	/* A mapping wholly past the end is allowed, as in mmap(). */
	unsigned char *addr = support_map(file, 100 * PAGE, 3 * PAGE + 5);
	CHECK_EQ(fm_fault_in(mm, addr, 3 * PAGE, 0), -ENXIO);
	CHECK_OK(fm_unmap(mm, addr, 3 * PAGE + 5));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* Read offsets past 4 GiB in a sparse file: the written bytes, and zeros elsewhere. */
static void test_far(void)
{
	const char *path = support_path();
	uint64_t far = 5ull << 30;
	unsigned char bytes[2 * PAGE], got[2 * PAGE] = {1};
	FILE *out = fopen(path, "wx");

	CHECK(out);
	support_fill(bytes, far, sizeof(bytes), SEED);
	CHECK_EQ(fseeko(out, (off_t)far, SEEK_SET), 0);
	CHECK_EQ(fwrite(bytes, 1, sizeof(bytes), out), sizeof(bytes));
	CHECK_EQ(fclose(out), 0);
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, path, NULL);
	unsigned char *addr = support_map(file, far - 2 * PAGE, 4 * PAGE);
	support_expect(mm, addr + 2 * PAGE, far, 2 * PAGE, SEED);
	CHECK_OK(support_read(mm, addr, got, 2 * PAGE));
	for (size_t i = 0; i < 2 * PAGE; i++)
		CHECK_EQ(got[i], 0);
	CHECK_OK(fm_unmap(mm, addr, 4 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	unlink(path);
}

static bool is_mapped(fm_mm *mm, const void *addr)
{
	int err = fm_fault_in(mm, addr, 1, 0);
	CHECK(!err || err == -EFAULT);
	return !err;
}

/* Unmapped pages, even cached ones, give SIGSEGV with the exact address. */
static void expect_unmapped(fm_mm *mm, unsigned char *addr)
{
	CHECK(!is_mapped(mm, addr));
	if (test_trap() != FM_TRAP_CALL)
		support_expect_signal(support_load(addr + 9), SIGSEGV, EFAULT, addr + 9);
}

static void test_counts(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, support_file(20 * PAGE, SEED), NULL);
	unsigned char *addr = support_map(file, 0, 10 * PAGE);

	CHECK(support_map(file, 0, 10 * PAGE) == addr);
	CHECK_EQ(support_stats(mm).mappings, 1);
	CHECK(support_map(file, 5 * PAGE, 10 * PAGE) == addr + 5 * PAGE);
	support_expect(mm, addr, 0, 15 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, 10 * PAGE));
	support_expect(mm, addr, 0, 15 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, 10 * PAGE));
	expect_unmapped(mm, addr);
	expect_unmapped(mm, addr + 4 * PAGE);
	support_expect(mm, addr + 5 * PAGE, 5 * PAGE, 10 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr + 5 * PAGE, 10 * PAGE));
	for (int i = 0; i < 15; i++)
		expect_unmapped(mm, addr + i * PAGE);
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_partial(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, support_file(20 * PAGE, SEED), NULL);
	unsigned char *addr = support_map(file, 0, 20 * PAGE);

	support_expect(mm, addr, 0, 20 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, 2 * PAGE));		     /* head */
	CHECK_OK(fm_unmap(mm, addr + 8 * PAGE, 3 * PAGE));   /* middle */
	CHECK_OK(fm_unmap(mm, addr + 19 * PAGE, PAGE));	     /* tail */
	CHECK_EQ(support_stats(mm).mappings, 2);
	for (int i = 0; i < 20; i++) {
		bool gone = i < 2 || (i >= 8 && i < 11) || i == 19;
		if (gone)
			expect_unmapped(mm, addr + i * PAGE);
		else
			support_expect(mm, addr + i * PAGE, i * PAGE, PAGE, SEED);
	}
	/* Map into the holes again, partly over what is mapped. */
	CHECK(support_map(file, 7 * PAGE, 5 * PAGE) == addr + 7 * PAGE);
	support_expect(mm, addr + 2 * PAGE, 2 * PAGE, 17 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr + 7 * PAGE, 5 * PAGE));
	CHECK(is_mapped(mm, addr + 7 * PAGE));
	CHECK(!is_mapped(mm, addr + 8 * PAGE));
	CHECK(is_mapped(mm, addr + 11 * PAGE));
	/* Unmap a range with holes, then a range with nothing in it. */
	CHECK_OK(fm_unmap(mm, addr, 20 * PAGE));
	CHECK_OK(fm_unmap(mm, addr, 20 * PAGE));
	for (int i = 0; i < 20; i++)
		expect_unmapped(mm, addr + i * PAGE);
	CHECK_EQ(support_stats(mm).mappings, 0);
	/* Map the range again after all. */
	CHECK(support_map(file, 0, 20 * PAGE) == addr);
	support_expect(mm, addr, 0, 20 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, 20 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_file_gone(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	const char *path = support_file(10 * PAGE, SEED);
	fm_file *file = support_open(mm, path, NULL);
	unsigned char *addr = support_map(file, 0, 10 * PAGE);

	/* Close the file before the mapping is first used. */
	CHECK_OK(fm_file_close(file));
	support_expect(mm, addr, 0, 5 * PAGE, SEED);
	CHECK_EQ(support_stats(mm).files, 1);
	CHECK_OK(fm_unmap(mm, addr, 10 * PAGE));
	EVENTUALLY(support_stats(mm).files == 0);

	file = support_open(mm, path, NULL);
	addr = support_map(file, 0, 10 * PAGE);
	CHECK_EQ(unlink(path), 0);
	CHECK_OK(fm_unmap(mm, addr, 10 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* The file is unlinked while it is mapped: the bytes stay. The new ctime is no change of the
 * bytes. */
static void test_unlinked(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	const char *path = support_file(10 * PAGE, SEED);
	struct fm_file_options options = {.size = sizeof(options), .readahead_bytes = UINT32_MAX};
	fm_file *file = support_open(mm, path, &options);
	unsigned char *addr = support_map(file, 0, 10 * PAGE);

	support_expect(mm, addr, 0, PAGE, SEED);
	CHECK_EQ(unlink(path), 0);
	support_expect(mm, addr, 0, 10 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, 10 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

#define MANY 10000
static void test_many(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, "memory:1G", NULL);
	unsigned char *first = support_map(file, 0, PAGE), got[8], want[8];
	size_t len;

	/* Each mapping has a gap behind it. */
	for (unsigned i = 1; i < MANY; i++)
		CHECK(support_map(file, i * 2 * PAGE, PAGE) == first + i * 2 * PAGE);
	CHECK_EQ(support_stats(mm).mappings, MANY);
	for (unsigned i = 0; i < MANY; i += 97) {
		CHECK_OK(support_read(mm, first + i * 2 * PAGE, got, 8));
		CHECK_OK(fm_file_read(file, want, 8, i * 2 * PAGE, &len));
		CHECK_EQ(memcmp(got, want, 8), 0);
		CHECK(!is_mapped(mm, first + i * 2 * PAGE + PAGE));
	}
	for (unsigned i = 0; i < MANY; i += 2)
		CHECK_OK(fm_unmap(mm, first + i * 2 * PAGE, PAGE));
	CHECK_EQ(support_stats(mm).mappings, MANY / 2);
	CHECK(!is_mapped(mm, first + 4 * PAGE));
	CHECK(is_mapped(mm, first + 6 * PAGE));
	CHECK_OK(fm_unmap(mm, first, MANY * 2 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_two_files(void)
{
	fm_mm *mm = support_mm(4 * MIB), *other = support_mm(4 * MIB);
	fm_file *a = support_open(mm, support_file(4 * PAGE, 1), NULL);
	fm_file *b = support_open(mm, support_file(4 * PAGE, 2), NULL);
	fm_file *c = support_open(other, support_file(4 * PAGE, 3), NULL);
	void *in_a = support_map(a, 0, 4 * PAGE), *in_b = support_map(b, 0, 4 * PAGE);
	void *in_c = support_map(c, 0, 4 * PAGE);

	support_expect(mm, in_a, 0, 4 * PAGE, 1);
	support_expect(mm, in_b, 0, 4 * PAGE, 2);
	support_expect(other, in_c, 0, 4 * PAGE, 3);
	CHECK_EQ(fm_fault_in(mm, in_c, PAGE, 0), -EFAULT); /* a mapping of `other` */
	CHECK_OK(fm_unmap(mm, in_c, 4 * PAGE));		   /* not a mapping of this mm */
	support_expect(other, in_c, 0, 4 * PAGE, 3);
	CHECK_OK(fm_unmap(mm, in_a, 4 * PAGE));
	CHECK_OK(fm_unmap(mm, in_b, 4 * PAGE));
	CHECK_OK(fm_unmap(other, in_c, 4 * PAGE));
	CHECK_OK(fm_file_close(a));
	CHECK_OK(fm_file_close(b));
	CHECK_OK(fm_file_close(c));
	support_mm_end(mm);
	support_mm_end(other);
}

/* A view of `first` comes to lie where a view of `second` was. pt_release_empty() of `second` must
 * discard its own page tables only. */
static void test_two_spaces(void)
{
	fm_mm *first = support_mm(8 * MIB), *second = support_mm(8 * MIB);
	fm_file *file = support_open(second, "memory:64M", NULL);
	unsigned char *addr = support_map(file, 0, 64 * MIB), byte;

	for (uint64_t at = 0; at < 64 * MIB; at += MIB)
		CHECK_OK(support_read(second, addr + at, &byte, 1));
	CHECK_OK(fm_unmap(second, addr, 64 * MIB));
	CHECK_OK(fm_file_close(file));
	EVENTUALLY(support_stats(second).views == 0 && support_stats(second).frames_used == 0);
	file = support_open(first, support_file(16 * PAGE, SEED), NULL);
	const unsigned char *other = support_map(file, 0, 16 * PAGE);
	support_expect(first, other, 0, 16 * PAGE, SEED);
	uint64_t installed = support_stats(first).pages_installed;
	pt_release_empty(second, UINT32_MAX);
	for (unsigned page = 0; page < 16 && installed == 16; page++)
		CHECK_EQ(trap_present((uintptr_t)other + page * PAGE), 1);
	support_expect(first, other, 0, 16 * PAGE, SEED);
	CHECK_EQ(support_stats(first).emptied_behind, 0);
	CHECK_OK(fm_unmap(first, (void *)(uintptr_t)other, 16 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(first);
	support_mm_end(second);
}

static void test(void)
{
	test_arguments();
	test_sizes();
	test_tail();
	test_offsets();
	test_far();
	test_counts();
	test_partial();
	test_file_gone();
	test_unlinked();
	test_many();
	test_two_files();
	test_two_spaces();
}

int main(void)
{
	return support_run(test);
}
