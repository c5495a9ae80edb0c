/* SPDX-License-Identifier: MIT */
/*
 * Helpers for the tests of writing: writes through a mapping under every trap, and comparisons of
 * files by plain reads.
 */
#ifndef FM_TESTS_WRITE_SUPPORT_H
#define FM_TESTS_WRITE_SUPPORT_H

#include "hazard_support.h"

#include <fcntl.h>
#include <sys/stat.h>

static const struct fm_file_options write_options = {.size = sizeof(write_options),
						     .flags = FM_FILE_WRITE};

static inline fm_file *write_open(fm_mm *mm, const char *uri)
{
	return support_open(mm, uri, &write_options);
}

static inline void *write_map_flags(fm_file *file, uint64_t offset, size_t len, uint32_t flags)
{
	struct fm_map_options options = {.size = sizeof(options), .flags = flags};
	void *addr = NULL;
	CHECK_OK(fm_map(file, offset, len, &options, &addr));
	CHECK(addr);
	return addr;
}

static inline void *write_map(fm_file *file, uint64_t offset, size_t len)
{
	return write_map_flags(file, offset, len, FM_MAP_WRITE);
}

struct write_copy {
	unsigned char *to;
	const unsigned char *from;
	size_t len;
};

static inline void write_copy_body(void *arg)
{
	const struct write_copy *copy = arg;
	for (size_t i = 0; i < copy->len; i++)
		((volatile unsigned char *)copy->to)[i] = copy->from[i];
}

/* Returns 0 or a negative errno. Under the call trap each page is pinned for the write. */
static inline int write_to(fm_mm *mm, void *addr, const void *buf, size_t len)
{
	if (test_trap() != FM_TRAP_CALL) {
		struct write_copy copy = {addr, buf, len};
		return fm_guard(write_copy_body, &copy, NULL);
	}
	for (size_t at = 0; at < len;) {
		unsigned char *to = (unsigned char *)addr + at;
		size_t step = PAGE - ((uintptr_t)to & (PAGE - 1));
		step = step < len - at ? step : len - at;
		int err = fm_pin(mm, to, step, FM_WRITE);
		if (err)
			return err;
		memcpy(to, (const unsigned char *)buf + at, step);
		CHECK_OK(fm_unpin(mm, to, step));
		at += step;
	}
	return 0;
}

/* Write the bytes that a file of this seed has at `offset`. */
#define write_pattern(mm, addr, offset, len, seed)                                                 \
	write_pattern_at(__LINE__, mm, addr, offset, len, seed)
static inline void write_pattern_at(int line, fm_mm *mm, void *addr, uint64_t offset, size_t len,
				    unsigned seed)
{
	unsigned char *buf = malloc(len);
	CHECK(buf);
	support_fill(buf, offset, len, seed);
	int err = write_to(mm, addr, buf, len);
	if (err)
		CHECK_FAIL("line %d: writing at offset %llu: %s", line, (unsigned long long)offset,
			   strerror(-err));
	free(buf);
}

/* Check the file's bytes by a plain read. */
#define write_expect_file(path, offset, len, seed)                                                 \
	write_expect_file_at(__LINE__, path, offset, len, seed)
static inline void write_expect_file_at(int line, const char *path, uint64_t offset, size_t len,
					unsigned seed)
{
	unsigned char *buf = malloc(len);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(buf && fd >= 0);
	ssize_t n = pread(fd, buf, len, (off_t)offset);
	if (n != (ssize_t)len)
		CHECK_FAIL("line %d: the file has %zd bytes at %llu, not %zu", line, n,
			   (unsigned long long)offset, len);
	uint64_t at = support_differs(buf, offset, len, seed);
	if (at != UINT64_MAX)
		CHECK_FAIL("line %d: the file, offset %llu: %02x, not %02x", line, (unsigned long long)at,
			   buf[at - offset], support_byte(at, seed));
	close(fd);
	free(buf);
}

static inline bool write_is_zero(const unsigned char *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (buf[i])
			return false;
	return true;
}

#define write_expect_file_zeros(path, offset, len)                                                 \
	write_expect_file_zeros_at(__LINE__, path, offset, len)
static inline void write_expect_file_zeros_at(int line, const char *path, uint64_t offset,
					      size_t len)
{
	unsigned char *buf = malloc(len);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(buf && fd >= 0);
	if (pread(fd, buf, len, (off_t)offset) != (ssize_t)len || !write_is_zero(buf, len))
		CHECK_FAIL("line %d: the file's %zu bytes at %llu are not zeros", line, len,
			   (unsigned long long)offset);
	close(fd);
	free(buf);
}

#define write_expect_zeros(mm, addr, len) write_expect_zeros_at(__LINE__, mm, addr, len)
static inline void write_expect_zeros_at(int line, fm_mm *mm, const void *addr, size_t len)
{
	unsigned char *buf = malloc(len);
	CHECK(buf);
	int err = support_read(mm, addr, buf, len);
	if (err || !write_is_zero(buf, len))
		CHECK_FAIL("line %d: %zu bytes are not zeros (%s)", line, len, strerror(-err));
	free(buf);
}

static inline uint64_t write_file_size(const char *path)
{
	struct stat st;
	CHECK_EQ(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static inline void write_files_gone(fm_mm *mm)
{
	EVENTUALLY(support_stats(mm).files == 0);
}

#endif
