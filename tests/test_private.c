/* SPDX-License-Identifier: MIT */
/*
 * Private mappings: written bytes stay in their mapping, whatever the budget is. They never reach
 * the file or another mapping.
 *
 * Seen to fail: with the bits of the scratch file left clear (test_spills), with a private mapping
 * that gets the file's own view (test_independent). With a record and readahead of its own
 * (test_recorded).
 */
#include "write_support.h"

#define SEED 51

static fm_mm *mm;
static fm_file *file;
static const char *path;

static void begin(uint64_t budget, uint64_t size, uint32_t flags)
{
	struct fm_file_options options = {.size = sizeof(options), .flags = flags};
	hazard_watch("a call, or an access, never ended");
	mm = support_mm(budget);
	path = support_file(size, SEED);
	file = support_open(mm, path, &options);
}

static void end(void)
{
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void *map_private(uint64_t offset, size_t len)
{
	return write_map_flags(file, offset, len, FM_MAP_WRITE | FM_MAP_PRIVATE);
}

/* Two private mappings and a shared mapping of a file that is not open for writing. */
static void test_independent(void)
{
	const uint64_t len = 32 * PAGE;

	begin(2 * MIB, len, 0);
	unsigned char *shared = support_map(file, 0, len), *a = map_private(0, len),
		      *b = map_private(8 * PAGE, 8 * PAGE);
	CHECK(a != shared && b != a + 8 * PAGE && b != shared + 8 * PAGE);
	support_expect(mm, a, 0, len, SEED);
	write_pattern(mm, a, 0, len, SEED + 1);
	write_pattern(mm, b, 8 * PAGE, 4 * PAGE, SEED + 2);
	support_expect(mm, shared, 0, len, SEED);
	support_expect(mm, a, 0, len, SEED + 1);
	support_expect(mm, b, 8 * PAGE, 4 * PAGE, SEED + 2);
	support_expect(mm, b + 4 * PAGE, 12 * PAGE, 4 * PAGE, SEED);
	CHECK_OK(fm_sync(mm, a, len, 0)); /* has nothing to do */
	write_expect_file(path, 0, len, SEED);
	CHECK_OK(fm_unmap(mm, a, len));
	/* The view may be gone, and the address may belong to nothing. */
	if (test_trap() != FM_TRAP_CALL)
		CHECK_NE(support_store(a).signo, 0);
	support_expect(mm, b, 8 * PAGE, 4 * PAGE, SEED + 2);
	CHECK_OK(fm_unmap(mm, b, 8 * PAGE));
	/* A private mapping without FM_MAP_WRITE allows no writing. */
	a = write_map_flags(file, 0, len, FM_MAP_PRIVATE);
	support_expect(mm, a, 0, len, SEED);
	CHECK_EQ(fm_fault_in(mm, a, PAGE, FM_WRITE), -EACCES);
	CHECK_OK(fm_unmap(mm, a, len));
	CHECK_OK(fm_unmap(mm, shared, len));
	end();
	write_expect_file(path, 0, len, SEED);
}

/* Many times the budget goes to the scratch file and comes back, also in parts of pages. */
static void test_spills(uint64_t budget, uint64_t len)
{
	begin(budget, len, 0);
	unsigned char *a = map_private(0, len), buf[PAGE];
	for (uint64_t at = 0; at < len; at += 2 * PAGE)
		write_pattern(mm, a + at + 50, at + 50, 3000, SEED + 1);
	for (int round = 0; round < 2; round++)
		for (uint64_t at = 0; at + 2 * PAGE <= len; at += 2 * PAGE) {
			CHECK_OK(support_read(mm, a + at, buf, PAGE));
			CHECK_EQ(support_differs(buf, at, 50, SEED), UINT64_MAX);
			CHECK_EQ(support_differs(buf + 50, at + 50, 3000, SEED + 1), UINT64_MAX);
			CHECK_EQ(support_differs(buf + 3050, at + 3050, PAGE - 3050, SEED), UINT64_MAX);
			support_expect(mm, a + at + PAGE, at + PAGE, PAGE, SEED);
		}
	CHECK_GT(support_stats(mm).spilled, 0);
	write_pattern(mm, a, 0, len, SEED + 3);
	support_expect(mm, a, 0, len, SEED + 3);
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	CHECK_OK(fm_unmap(mm, a, len));
	end();
	write_expect_file(path, 0, len, SEED);
}

/* Private over a file that is being written: a page shows the file's bytes of its first touch, and
 * no later bytes. */
static void test_over_shared(void)
{
	const uint64_t len = 32 * PAGE;

	begin(2 * MIB, len, FM_FILE_WRITE);
	unsigned char *shared = write_map(file, 0, len);
	/* Write before the private mapping is made, and do not sync. */
	write_pattern(mm, shared, 0, 8 * PAGE, SEED + 1);
	unsigned char *a = map_private(0, len);
	support_expect(mm, a, 0, 8 * PAGE, SEED + 1);
	write_pattern(mm, a + 16 * PAGE, 16 * PAGE, 4 * PAGE, SEED + 2);
	write_pattern(mm, shared + 16 * PAGE, 16 * PAGE, 4 * PAGE, SEED + 3);
	support_expect(mm, a + 16 * PAGE, 16 * PAGE, 4 * PAGE, SEED + 2);
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_unmap(mm, shared, len));
	/* The mapping keeps the file open. */
	support_expect(mm, a + 16 * PAGE, 16 * PAGE, 4 * PAGE, SEED + 2);
	support_expect(mm, a + 24 * PAGE, 24 * PAGE, 4 * PAGE, SEED);
	write_expect_file(path, 16 * PAGE, 4 * PAGE, SEED + 3);
	CHECK_OK(fm_unmap(mm, a, len));
	support_mm_end(mm);
	write_expect_file(path, 0, 8 * PAGE, SEED + 1);
	write_expect_file(path, 8 * PAGE, 8 * PAGE, SEED);
}

/* The last page is partial, and a system call reads into the mapping. */
static void test_tail(void)
{
	const uint64_t len = 5 * PAGE + 11;

	begin(MIB, len, 0);
	unsigned char *a = map_private(0, len);
	write_expect_zeros(mm, a + len, PAGE - 11);
	write_pattern(mm, a + 5 * PAGE, 5 * PAGE, 11, SEED + 1);
	CHECK_EQ(write_to(mm, a + 6 * PAGE, "x", 1), -EFAULT);
	CHECK_OK(fm_pin(mm, a, 4 * PAGE, FM_WRITE));
	int fd = open(support_file(4 * PAGE, SEED + 7), O_RDONLY | O_CLOEXEC);
	CHECK_EQ(read(fd, a, 4 * PAGE), (ssize_t)(4 * PAGE));
	close(fd);
	CHECK_OK(fm_unpin(mm, a, 4 * PAGE));
	/* The bytes are nowhere else, so DONTNEED must keep them. */
	CHECK_OK(fm_advise(mm, a, len, FM_ADVICE_DONTNEED));
	support_expect(mm, a, 0, 4 * PAGE, SEED + 7);
	support_expect(mm, a + 5 * PAGE, 5 * PAGE, 11, SEED + 1);
	CHECK_OK(fm_unmap(mm, a, len));
	end();
	write_expect_file(path, 0, len, SEED);
}

/* Touches of a private mapping go to the record of the file, which is opened once and has one
 * record. The mapping reads no more ahead than the file. */
static void test_recorded(void)
{
	struct fm_file_options options = {.size = sizeof(options), .readahead_bytes = UINT32_MAX};
	const char *record = support_path();
	char line[256];
	unsigned ranges = 0;

	hazard_watch("a call, or an access, never ended");
	mm = support_mm(2 * MIB);
	path = support_file(64 * PAGE, SEED);
	file = support_open(mm, support_format("file:%s?record=%s", path, record), &options);
	unsigned char *a = map_private(0, 64 * PAGE), *b = map_private(0, 64 * PAGE);
	support_expect(mm, a + 3 * PAGE, 3 * PAGE, PAGE, SEED);
	support_expect(mm, a + 4 * PAGE, 4 * PAGE, PAGE, SEED);
	support_expect(mm, b + 50 * PAGE, 50 * PAGE, PAGE, SEED);
	write_pattern(mm, b + 20 * PAGE, 20 * PAGE, 10, SEED + 1);
	CHECK_EQ(support_stats(mm).ra_pages, 0);
	CHECK_OK(fm_unmap(mm, a, 64 * PAGE));
	CHECK_OK(fm_unmap(mm, b, 64 * PAGE));
	end();
	FILE *f = fopen(record, "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long long start, len;
		if (sscanf(line, "%llu %llu", &start, &len) != 2)
			continue;
		CHECK((start == 3 * PAGE && len == 2 * PAGE) ||
		      ((start == 50 * PAGE || start == 20 * PAGE) && len == PAGE));
		ranges++;
	}
	fclose(f);
	CHECK_EQ(ranges, 3);
	unlink(record);
}

static void test(void)
{
	test_recorded();
	test_independent();
	test_spills(fm_budget_min(4096), MIB / 4);
	test_spills(MIB, 2 * MIB);
	test_over_shared();
	test_tail();
}

int main(void)
{
	hazard_watch("a call, or an access, never ended");
	return support_run(test);
}
