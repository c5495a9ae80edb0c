/* SPDX-License-Identifier: MIT */
/*
 * A change of a file is a new size or a new modification time. What changes only the inode is no
 * change, and a reader goes on. A write is a change, whatever happened to the inode before. Under
 * FM_CHANGED_REFRESH the library follows a file that grows. fm_file_refresh() follows the file,
 * too, and ends -ESTALE.
 *
 * Seen to fail: with ctime counted as a change (test_metadata); with a store that is not asked
 * past the known end (test_growth).
 */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SEED 5
#define PAGES 64u

static const struct fm_file_options snapshot = {.size = sizeof(snapshot),
						.readahead_bytes = UINT32_MAX};
static fm_mm *mm;
static const char *path, *other;

static int touch(const unsigned char *addr)
{
	unsigned char byte;
	return support_read(mm, addr, &byte, 1);
}

/* ------------------------------------------------------------------ no change */

static void nothing(void)
{
}

static void do_chmod(void)
{
	CHECK_EQ(chmod(path, 0640), 0);
}

static void do_chown(void)
{
	if (geteuid() == 0)
		CHECK_EQ(chown(path, 1, 1), 0);
}

static void do_rename(void)
{
	CHECK_EQ(rename(path, other), 0);
}

static void do_link(void)
{
	CHECK_EQ(link(path, other), 0);
}

static void do_link_and_unlink(void)
{
	do_link();
	CHECK_EQ(unlink(other), 0);
}

static void do_unlink(void)
{
	CHECK_EQ(unlink(path), 0);
}

static void do_replace(void)
{
	int fd = open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	close(fd);
	CHECK_EQ(rename(other, path), 0);
}

static void do_xattr(void)
{
	if (setxattr(path, "user.note", "x", 1, 0))
		CHECK(errno == EOPNOTSUPP || errno == ENOTSUP);
}

static void do_atime(void)
{
	struct timespec times[2] = {{1, 0}, {0, UTIME_OMIT}};
	CHECK_EQ(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void test_metadata(uint32_t policy)
{
	static void (*const act[])(void) = {
		nothing,   do_chmod,   do_chown, do_rename, do_link, do_link_and_unlink,
		do_unlink, do_replace, do_xattr, do_atime};
	struct fm_file_options options = snapshot;

	options.changed = policy;
	for (unsigned i = 0; i < sizeof(act) / sizeof(act[0]); i++) {
		path = support_file(PAGES * PAGE, SEED);
		other = support_path();
		fm_file *file = support_open(mm, path, &options);
		unsigned char *addr = support_map(file, 0, PAGES * PAGE);
		uint64_t changed = support_stats(mm).files_changed;

		support_expect(mm, addr, 0, 8 * PAGE, SEED);
		support_sleep_ms(12); /* longer than a kernel clock tick, so ctime changes */
		act[i]();
		support_expect(mm, addr, 0, PAGES * PAGE, SEED);
		if (support_stats(mm).files_changed != changed)
			CHECK_FAIL("act %u counts as a change", i);
		CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
		CHECK_OK(fm_file_close(file));
	}
}

/* ------------------------------------------------------------------ a change */

static void overwrite(const char *name, uint64_t page, unsigned seed)
{
	unsigned char buf[PAGE];
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	support_fill(buf, page * PAGE, sizeof(buf), seed);
	CHECK_EQ(pwrite(fd, buf, sizeof(buf), (off_t)(page * PAGE)), (ssize_t)sizeof(buf));
	close(fd);
}

static void do_touch(void)
{
	CHECK_EQ(utimensat(AT_FDCWD, path, NULL, 0), 0);
}

static void do_write(void)
{
	overwrite(path, 40, SEED + 1);
}

static void do_link_and_write(void)
{
	do_link();
	overwrite(other, 40, SEED + 1);
}

static void do_chmod_and_append(void)
{
	do_chmod();
	overwrite(path, PAGES, SEED);
}

static void test_changes(void)
{
	static void (*const act[])(void) = {do_touch, do_write, do_link_and_write, do_chmod_and_append};

	for (unsigned i = 0; i < sizeof(act) / sizeof(act[0]); i++) {
		path = support_file(PAGES * PAGE, SEED);
		other = support_path();
		fm_file *file = support_open(mm, path, &snapshot);
		unsigned char *addr = support_map(file, 0, PAGES * PAGE);

		support_expect(mm, addr, 0, 8 * PAGE, SEED);
		act[i](); /* at once: a change within a tick of the open must be seen */
		CHECK_EQ(touch(addr + 40 * PAGE), -ESTALE);
		CHECK_EQ(touch(addr + 20 * PAGE), -ESTALE);
		support_expect(mm, addr, 0, 8 * PAGE, SEED);
		CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
		CHECK_OK(fm_file_close(file));
	}
}

/* ------------------------------------------------------------------ growth */

static void append(uint64_t at, uint64_t len)
{
	unsigned char buf[8 * PAGE];
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0 && len <= sizeof(buf));
	support_fill(buf, at, len, SEED);
	CHECK_EQ(pwrite(fd, buf, len, (off_t)at), (ssize_t)len);
	close(fd);
}

static uint64_t size_of(fm_file *file)
{
	uint64_t size;
	CHECK_OK(fm_file_size(file, &size));
	return size;
}

static int try_pin(const unsigned char *addr)
{
	int err = fm_pin(mm, addr, 1, 0);
	if (!err)
		CHECK_OK(fm_unpin(mm, addr, 1));
	return err;
}

/* Try until the read of the page has ended. */
static int try_nowait(const unsigned char *addr)
{
	int err;
	while ((err = fm_fault_in(mm, addr, 1, FM_NOWAIT)) == -EAGAIN)
		support_sleep_ms(1);
	return err;
}

/* A tail reader maps more than the file has, and touches what is appended. */
static void test_growth(uint32_t page_size)
{
	struct fm_file_options options = snapshot;
	uint64_t size = 4 * PAGE + 100;

	options.changed = FM_CHANGED_REFRESH;
	options.page_size = page_size;
	path = support_file(size, SEED);
	fm_file *file = support_open(mm, path, &options);
	unsigned char *addr = support_map(file, 0, PAGES * PAGE);
	support_expect(mm, addr, 0, size, SEED);
	CHECK_EQ(touch(addr + 6 * PAGE), -ENXIO);
	for (unsigned round = 0; round < 6; round++) {
		append(size, 3 * PAGE);
		size += 3 * PAGE;
		const unsigned char *last = addr + (size - 1) / PAGE * PAGE;
		int err = round % 3 == 0 ? touch(last) : round % 3 == 1 ? try_pin(last) : try_nowait(last);
		CHECK_EQ(err, 0);
		CHECK_EQ(size_of(file), size);
		support_expect(mm, addr, 0, size, SEED); /* also the page of the former end */
		CHECK_EQ(touch(last + PAGE), -ENXIO);
	}
	/* The new bytes are in the last page, which is in the view. Only fm_file_refresh() finds
	 * them. */
	append(size, 50);
	bool changed = false;
	CHECK_OK(fm_file_refresh(file, &changed));
	CHECK(changed);
	size += 50;
	CHECK_EQ(size_of(file), size);
	support_expect(mm, addr, 0, size, SEED);
	CHECK_OK(fm_file_refresh(file, &changed));
	CHECK(!changed);
	/* fm_invalidate() looks at the file, too. */
	append(size, 2 * PAGE);
	size += 2 * PAGE;
	CHECK_OK(fm_invalidate(file, 0, 0));
	CHECK_EQ(size_of(file), size);
	support_expect(mm, addr, 0, size, SEED);
	/* The file becomes shorter. */
	CHECK_EQ(truncate(path, 2 * PAGE + 7), 0);
	CHECK_OK(fm_file_refresh(file, NULL));
	CHECK_EQ(size_of(file), 2 * PAGE + 7);
	CHECK_EQ(touch(addr + 3 * PAGE), -ENXIO);
	support_expect(mm, addr, 0, 2 * PAGE + 7, SEED);
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
}

/* A private mapping follows the file's size, also if a touch of the private mapping finds the new
 * size. */
static void test_private_growth(void)
{
	struct fm_file_options options = snapshot;
	struct fm_map_options private = {.size = sizeof(private), .flags = FM_MAP_PRIVATE};
	void *addr;

	options.changed = FM_CHANGED_REFRESH;
	path = support_file(2 * PAGE, SEED);
	fm_file *file = support_open(mm, path, &options);
	CHECK_OK(fm_map(file, 0, 8 * PAGE, &private, &addr));
	CHECK_EQ(touch((unsigned char *)addr + 2 * PAGE), -ENXIO);
	append(2 * PAGE, 2 * PAGE);
	support_expect(mm, addr, 0, 4 * PAGE, SEED);
	CHECK_EQ(size_of(file), 4 * PAGE);
	CHECK_OK(fm_unmap(mm, addr, 8 * PAGE));
	CHECK_OK(fm_file_close(file));
}

/* After -ESTALE and fm_file_refresh() the same mappings show the file's present bytes. */
static void test_new_snapshot(void)
{
	path = support_file(PAGES * PAGE, SEED);
	fm_file *file = support_open(mm, path, &snapshot);
	unsigned char *addr = support_map(file, 0, 2 * PAGES * PAGE);

	support_expect(mm, addr, 0, 8 * PAGE, SEED);
	for (unsigned page = 0; page < PAGES; page++)
		overwrite(path, page, SEED + 1);
	CHECK_EQ(touch(addr + 40 * PAGE), -ESTALE);
	append(PAGES * PAGE, PAGE);
	CHECK_EQ(touch(addr + PAGES * PAGE), -ENXIO); /* the snapshot ends there */
	bool changed = false;
	CHECK_OK(fm_file_refresh(file, &changed));
	CHECK(changed);
	support_expect(mm, addr, 0, PAGES * PAGE, SEED + 1);
	support_expect(mm, addr + PAGES * PAGE, PAGES * PAGE, PAGE, SEED);
	CHECK_OK(fm_file_refresh(file, &changed));
	CHECK(!changed);
	overwrite(path, 3, SEED);
	CHECK_OK(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_DONTNEED));
	CHECK_EQ(touch(addr), -ESTALE);
	CHECK_OK(fm_unmap(mm, addr, 2 * PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
}

/* A file is open for writing. Another descriptor of the program makes the file longer and
 * shorter. */
static void test_own_descriptor(void)
{
	struct fm_file_options options = snapshot;
	struct fm_map_options writing = {.size = sizeof(writing), .flags = FM_MAP_WRITE};
	uint64_t size = 4 * PAGE + 100;
	void *map;
	bool changed = true;

	options.flags = FM_FILE_WRITE;
	path = support_file(size, SEED);
	fm_file *file = support_open(mm, path, &options);
	CHECK_OK(fm_map(file, 0, PAGES * PAGE, &writing, &map));
	unsigned char *addr = map;
	support_expect(mm, addr, 0, size, SEED);
	CHECK_OK(fm_pin(mm, addr + 4 * PAGE, 1, FM_WRITE));
	addr[4 * PAGE] = 77; /* in the last page */
	CHECK_OK(fm_unpin(mm, addr + 4 * PAGE, 1));
	append(size, 2 * PAGE);
	size += 2 * PAGE;
	CHECK_OK(fm_file_refresh(file, &changed));
	CHECK(changed);
	CHECK_EQ(size_of(file), size);
	support_expect(mm, addr, 0, 4 * PAGE, SEED);
	support_expect(mm, addr + 4 * PAGE + 1, 4 * PAGE + 1, size - 4 * PAGE - 1, SEED);
	unsigned char byte;
	CHECK_OK(support_read(mm, addr + 4 * PAGE, &byte, 1));
	CHECK_EQ(byte, 77);
	CHECK_EQ(truncate(path, 2 * PAGE + 5), 0);
	CHECK_OK(fm_file_refresh(file, NULL));
	CHECK_EQ(size_of(file), 2 * PAGE + 5);
	CHECK_EQ(touch(addr + 4 * PAGE), -ENXIO);
	support_expect(mm, addr, 0, 2 * PAGE + 5, SEED);
	CHECK_OK(support_read(mm, addr + 2 * PAGE + 5, &byte, 1));
	CHECK_EQ(byte, 0);
	CHECK_OK(fm_file_sync(file, 0, 0, 0));
	CHECK_OK(fm_file_refresh(file, &changed));
	CHECK(!changed);
	CHECK_OK(fm_unmap(mm, map, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
}

static void test(void)
{
	mm = support_mm(4 * MIB);
	test_growth(0);
	test_growth(4 * PAGE);
	test_private_growth();
	test_new_snapshot();
	test_own_descriptor();
	test_metadata(FM_CHANGED_ERROR);
	test_metadata(FM_CHANGED_REFRESH);
	test_changes();
	support_mm_end(mm);
}

int main(void)
{
	return support_run(test);
}
