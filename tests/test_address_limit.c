/* SPDX-License-Identifier: MIT */
/*
 * A process has a limit on its address space (ulimit -v) or on its data (ulimit -d). The process
 * opens hundreds of small files, as it could map them with mmap(). An option chooses how much
 * address space is kept free behind a file's end. If a file is larger than the limit, the process
 * can map parts of the file: the address space is reserved where a part is mapped.
 */
#include "write_support.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES 200u

static uint64_t address_space(void)
{
	unsigned long long pages = 0;
	FILE *statm = fopen("/proc/self/statm", "re");
	CHECK(statm && fscanf(statm, "%llu", &pages) == 1);
	fclose(statm);
	return pages * PAGE;
}

static void open_many(const char *path)
{
	fm_mm *mm = support_mm(16 * MIB);
	for (unsigned i = 0; i < FILES; i++) {

		fm_file *file = support_open(mm, i % 2 ? path : "memory:64K", NULL);
		unsigned char *addr = support_map(file, 0, PAGE);
		CHECK_OK(fm_fault_in(mm, addr, PAGE, 0));
	}
	CHECK_OK(fm_mm_destroy(mm));
	_exit(0);
}

#define HUGE_BYTES (16ull << 30)
#define PIECE_BYTES (6 * MIB)

/* What test_huge() writes at an offset of the large file. */
static uint64_t word_at(uint64_t offset)
{
	return offset * 0x9e3779b97f4a7c15ull + 1;
}

static volatile uint64_t *word(void *map, uint64_t at)
{
	return (volatile uint64_t *)((char *)map + at);
}

static void write_piece(fm_mm *mm, void *map, uint64_t offset, uint64_t len)
{
	CHECK_OK(fm_fault_in(mm, map, PAGE, FM_WRITE));
	for (uint64_t at = 0; at < len; at += PAGE)
		*word(map, at) = word_at(offset + at);
}

static void expect_piece(void *map, uint64_t offset, uint64_t len)
{
	for (uint64_t at = 0; at < len; at += PAGE)
		if (*word(map, at) != word_at(offset + at))
			CHECK_FAIL("at %#llx: %#llx", (unsigned long long)(offset + at),
				   (unsigned long long)*word(map, at));
}

static void *map_at(fm_file *file, uint64_t offset, uint64_t len, uint32_t flags)
{
	struct fm_map_options options = {.size = sizeof(options), .flags = flags};
	void *addr;
	CHECK_OK(fm_map(file, offset, len, &options, &addr));
	return addr;
}

/* Pieces with gaps between them, and then all that lies between, so that the last mapping goes
 * over parts that were reserved one by one. One piece begins and ends within such parts. */
static void huge_file(fm_mm *mm, const char *path)
{
	const uint64_t near_end = HUGE_BYTES - PIECE_BYTES, middle = 7 * (HUGE_BYTES / 16) + 3 * PAGE;
	struct fm_file_options options = {.size = sizeof(options), .flags = FM_FILE_WRITE};
	fm_file *file = support_open(mm, path, &options);
	uint64_t before = address_space();
	void *first = map_at(file, 0, PIECE_BYTES, FM_MAP_WRITE);
	void *third = map_at(file, 2 * PIECE_BYTES, PIECE_BYTES, FM_MAP_WRITE);
	void *late = map_at(file, middle, PIECE_BYTES, FM_MAP_WRITE);
	struct rlimit limit;
	void *addr;

	CHECK_EQ(getrlimit(RLIMIT_AS, &limit), 0);
	bool limited = limit.rlim_cur != RLIM_INFINITY;
	CHECK_EQ((char *)third - (char *)first, 2 * PIECE_BYTES);
	CHECK_EQ((char *)late - (char *)first, middle);
	CHECK_LE(address_space() - before, 192 * MIB);
	write_piece(mm, first, 0, PIECE_BYTES);
	write_piece(mm, third, 2 * PIECE_BYTES, PIECE_BYTES);
	write_piece(mm, late, middle, PIECE_BYTES);
	CHECK_EQ((char *)map_at(file, 0, 3 * PIECE_BYTES, FM_MAP_WRITE) - (char *)first, 0);
	write_piece(mm, (char *)first + PIECE_BYTES, PIECE_BYTES, PIECE_BYTES);
	CHECK_OK(fm_sync(mm, first, 3 * PIECE_BYTES, 0));
	expect_piece(first, 0, 3 * PIECE_BYTES);
	expect_piece(late, middle, PIECE_BYTES);
	if (limited)
		CHECK_EQ(fm_map(file, 0, HUGE_BYTES, NULL, &addr), -ENOMEM);
	/* Past the end, and a file that grows. */
	CHECK_OK(fm_truncate(file, HUGE_BYTES + PAGE));
	void *grown = map_at(file, near_end, PIECE_BYTES + PAGE, FM_MAP_WRITE);
	write_piece(mm, grown, near_end, PIECE_BYTES + PAGE);
	expect_piece(grown, near_end, PIECE_BYTES + PAGE);
	CHECK_OK(fm_truncate(file, HUGE_BYTES));
	CHECK_OK(fm_unmap(mm, late, PIECE_BYTES));
	CHECK_OK(fm_file_close(file)); /* the other mappings keep the file */
	expect_piece(third, 2 * PIECE_BYTES, PIECE_BYTES);
	CHECK_OK(fm_unmap(mm, first, 3 * PIECE_BYTES));
	CHECK_OK(fm_unmap(mm, first, 3 * PIECE_BYTES));
	CHECK_OK(fm_unmap(mm, grown, PIECE_BYTES + PAGE));
}

static void huge_file_reading(fm_mm *mm, const char *path)
{
	const uint64_t middle = 7 * (HUGE_BYTES / 16) + 3 * PAGE;
	fm_file *file = support_open(mm, path, NULL);
	void *map = map_at(file, 0, 3 * PIECE_BYTES, 0);

	expect_piece(map, 0, 3 * PIECE_BYTES);
	void *private = map_at(file, middle, PIECE_BYTES, FM_MAP_PRIVATE | FM_MAP_WRITE);
	expect_piece(private, middle, PIECE_BYTES);
	*word(private, 0) = 7;
	expect_piece(map_at(file, middle, PIECE_BYTES, 0), middle, PIECE_BYTES);
	CHECK_EQ(*word(private, 0), 7);
	pid_t child = fork();
	if (!child) /* a touch is a signal, and not a zero */
		_exit((int)*(volatile char *)map);
	int status;
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	CHECK_OK(fm_file_close(file));
}

static void huge_file_once(fm_mm *mm, const char *path)
{
	fm_file *file = support_open(mm, path, NULL);
	void *map = map_at(file, HUGE_BYTES / 2, 2 * PIECE_BYTES, 0);

	CHECK_EQ(*word(map, PAGE), 0);
	CHECK_OK(fm_unmap(mm, map, 2 * PIECE_BYTES));
	CHECK_OK(fm_file_close(file));
}

static void test_huge(const char *path)
{
	fm_mm *mm = support_mm(8 * MIB);
	uint64_t before = address_space();

	huge_file(mm, path);
	for (unsigned i = 0; i < 20; i++)
		huge_file_once(mm, path);
	/* A file's parts are given back with the file: 12 MiB each time. */
	CHECK_LE(address_space(), before + 160 * MIB);
	huge_file_reading(mm, path);
	CHECK_OK(fm_mm_destroy(mm));
	_exit(0);
}

static void in_child(void (*fn)(const char *path), const char *path, int resource, uint64_t more)
{
	int status;
	pid_t child = fork();

	if (!child) {
		struct rlimit limit;
		CHECK_EQ(getrlimit(resource, &limit), 0);
		limit.rlim_cur = (resource == RLIMIT_AS ? address_space() : 0) + more;
		CHECK_EQ(setrlimit(resource, &limit), 0);
		fn(path);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	if (status)
		CHECK_FAIL("with a limit of %llu MiB on resource %d: status %#x",
			   (unsigned long long)(more / MIB), resource, status);
}

static void reserve_is_chosen(const char *path)
{
	struct fm_file_options options = {
		.size = sizeof(options), .flags = FM_FILE_WRITE, .reserve_bytes = 256 * KIB};
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, path, &options);
	void *addr;

	CHECK_EQ(fm_map(file, 0, 64 * KIB + 256 * KIB + 1, NULL, &addr), -EOVERFLOW);
	CHECK_EQ(fm_truncate(file, 64 * KIB + 256 * KIB + 1), -EFBIG);
	CHECK_OK(fm_truncate(file, 64 * KIB + 256 * KIB));
	CHECK_OK(fm_map(file, 0, 64 * KIB + 256 * KIB, NULL, &addr));
	CHECK_OK(fm_unmap(mm, addr, 64 * KIB + 256 * KIB));
	CHECK_OK(fm_truncate(file, 64 * KIB));
	CHECK_OK(fm_file_close(file));
	options.reserve_bytes = UINT64_MAX;
	CHECK_EQ(fm_file_open(mm, path, &options, &file), -EOVERFLOW);
	CHECK_OK(fm_mm_destroy(mm));
}

int main(void)
{
	const char *path = support_path();
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && ftruncate(fd, 64 * KIB) == 0);
	close(fd);
	reserve_is_chosen(path);
	if (SUPPORT_SANITIZED) /* sanitizers reserve terabytes */
		return 0;
	in_child(open_many, path, RLIMIT_AS, 2048 * MIB);
	in_child(open_many, path, RLIMIT_DATA, 256 * MIB);
	CHECK_EQ(truncate(path, HUGE_BYTES), 0);
	in_child(test_huge, path, RLIMIT_AS, 4096 * MIB);
	in_child(test_huge, path, RLIMIT_DATA, 1024 * MIB);
	unlink(path);
	return 0;
}
