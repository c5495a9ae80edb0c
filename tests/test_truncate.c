/* SPDX-License-Identifier: MIT */
/*
 * A file has one size for every reader. While fm_truncate() shortens the file, the remaining bytes
 * read as before. A read past the new end fails as past the end, not with an I/O error. A private
 * mapping follows the file, and bytes written past the new end are lost.
 *
 * Seen to fail: with the size set after the store has become shorter (test_beside_reads), and with
 * private mappings left unchanged (test_private).
 */
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEED 3
#define BIG (128 * MIB)
#define SMALL 300001u

static const struct fm_file_options writing = {.size = sizeof(writing), .flags = FM_FILE_WRITE,
					       .readahead_bytes = UINT32_MAX};
static fm_mm *mm;

static int read_byte(const unsigned char *addr)
{
	unsigned char byte = 0;
	int err = support_read(mm, addr, &byte, 1);

	return err ? err : byte;
}

/* ------------------------------------------------------------------ truncation beside readers */

static const unsigned char *base;
static atomic_bool stop;
static atomic_uint begun;

static void drop(uint64_t offset)
{
	CHECK_OK(fm_advise(mm, (void *)(uintptr_t)(base + offset / PAGE * PAGE), PAGE,
			   FM_ADVICE_DONTNEED));
}

static void *reader(void *arg)
{
	while (!stop) {
		drop(SMALL - 1);
		CHECK_EQ(read_byte(base + SMALL - 1), support_byte(SMALL - 1, SEED));
		drop(8 * MIB);
		int past = read_byte(base + 8 * MIB);
		CHECK(past == -ENXIO || past == 'x');
		begun++;
	}
	return arg;
}

/* Make a file so long that the kernel needs some time to free the file's pages. */
static void make_file(const char *path)
{
	static unsigned char buf[MIB];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	memset(buf, 'x', sizeof(buf));
	for (uint64_t at = 0; at < BIG; at += sizeof(buf))
		CHECK_EQ(pwrite(fd, buf, sizeof(buf), (off_t)at), (ssize_t)sizeof(buf));
	support_fill(buf, 0, sizeof(buf), SEED);
	CHECK_EQ(pwrite(fd, buf, sizeof(buf), 0), (ssize_t)sizeof(buf));
	close(fd);
}

/* Choose a path in memory if there is such a folder. Freeing the file's pages then takes some
 * milliseconds, and nothing waits for a disk. */
static const char *long_file(void)
{
	static char path[64];
	struct stat st;

	if (stat("/dev/shm", &st) || access("/dev/shm", W_OK))
		return support_path();
	snprintf(path, sizeof(path), "/dev/shm/filemap-test_truncate-%d", getpid());
	return path;
}

static void test_beside_reads(void)
{
	const char *path = long_file();

	for (int round = 0; round < 3; round++) {
		pthread_t thread;
		make_file(path);
		fm_file *file = support_open(mm, path, &writing);
		unlink(path);
		base = support_map(file, 0, 16 * MIB);
		stop = false;
		begun = 0;
		CHECK_EQ(pthread_create(&thread, NULL, reader, NULL), 0);
		EVENTUALLY(begun > 3);
		CHECK_OK(fm_truncate(file, SMALL));
		stop = true;
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_EQ(read_byte(base + 8 * MIB), -ENXIO);
		CHECK_EQ(read_byte(base + SMALL - 1), support_byte(SMALL - 1, SEED));
		CHECK_EQ(read_byte(base + SMALL), 0);
		CHECK_OK(fm_unmap(mm, (void *)(uintptr_t)base, 16 * MIB));
		CHECK_OK(fm_file_close(file));
	}
}

/* ------------------------------------------------------------------ private mappings */

static void *map_private(fm_file *file, size_t len)
{
	struct fm_map_options options = {.size = sizeof(options), .flags = FM_MAP_PRIVATE | FM_MAP_WRITE};
	void *addr;

	CHECK_OK(fm_map(file, 0, len, &options, &addr));
	return addr;
}

static void write_byte(unsigned char *addr, unsigned char byte)
{
	CHECK_OK(fm_pin(mm, addr, 1, FM_WRITE));
	*addr = byte;
	CHECK_OK(fm_unpin(mm, addr, 1));
}

static void test_private(void)
{
	fm_file *file = support_open(mm, support_file(MIB, SEED), &writing);
	unsigned char *own = map_private(file, 2 * MIB);

	support_expect(mm, own, 0, MIB, SEED);
	write_byte(own + 10, 7);               /* stays */
	write_byte(own + 500 * KIB, 8);        /* is lost */
	CHECK_OK(fm_truncate(file, SMALL));
	CHECK_EQ(read_byte(own + 10), 7);
	CHECK_EQ(read_byte(own + SMALL - 1), support_byte(SMALL - 1, SEED));
	CHECK_EQ(read_byte(own + SMALL), 0);
	CHECK_EQ(read_byte(own + SMALL / PAGE * PAGE + PAGE - 1), 0);
	CHECK_EQ(read_byte(own + 400 * KIB), -ENXIO);
	CHECK_EQ(read_byte(own + 500 * KIB), -ENXIO);
	/* The file grows again: the new bytes are zeros, even where bytes were written before. */
	CHECK_OK(fm_truncate(file, MIB + MIB / 2));
	CHECK_EQ(read_byte(own + 10), 7);
	CHECK_EQ(read_byte(own + SMALL), 0);
	CHECK_EQ(read_byte(own + 400 * KIB), 0);
	CHECK_EQ(read_byte(own + 500 * KIB), 0);
	CHECK_EQ(read_byte(own + MIB + 5), 0);
	CHECK_EQ(read_byte(own + MIB + MIB / 2), -ENXIO);
	write_byte(own + MIB + 5, 9);
	CHECK_EQ(read_byte(own + MIB + 5), 9);
	CHECK_OK(fm_unmap(mm, own, 2 * MIB));
	CHECK_OK(fm_file_close(file));
}

/* Bytes past the new end are lost from the scratch file too. */
static void test_private_scratch(void)
{
	const uint64_t size = 8 * MIB; /* larger than the budget */
	fm_file *file = support_open(mm, support_file(size, SEED), &writing);
	unsigned char *own = map_private(file, size);

	for (uint64_t at = 0; at < size; at += PAGE)
		write_byte(own + at, 7);
	CHECK_GT(support_stats(mm).spilled, 0);
	CHECK_OK(fm_truncate(file, SMALL));
	CHECK_OK(fm_truncate(file, size));
	for (uint64_t at = 0; at < size; at += PAGE) {
		int byte = read_byte(own + at);
		CHECK_EQ(byte, at < SMALL ? 7 : 0);
	}
	CHECK_OK(fm_unmap(mm, own, size));
	CHECK_OK(fm_file_close(file));
}

static void test(void)
{
	mm = support_mm(4 * MIB);
	test_beside_reads();
	test_private();
	test_private_scratch();
	support_mm_end(mm);
}

int main(void)
{
	return support_run(test);
}
