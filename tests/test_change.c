/* SPDX-License-Identifier: MIT */
/*
 * What counts as a change of a file: its size and its modification time. What touches the inode alone is none: a reader
 * goes on. A write is one, whatever has happened to the inode before.
 * Seen to fail: with ctime counted as a change (test_metadata).
 */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SEED 5
#define PAGES 64u

static const struct fm_file_options snapshot = {.size = sizeof(snapshot), .readahead_bytes = UINT32_MAX};
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
	static void (*const act[])(void) = {nothing, do_chmod, do_chown, do_rename, do_link, do_link_and_unlink,
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
		support_sleep_ms(12); /* beyond a tick of the kernel's clock: ctime is another one */
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
		act[i](); /* at once: no change is missed that comes within a tick of the open */
		CHECK_EQ(touch(addr + 40 * PAGE), -ESTALE);
		CHECK_EQ(touch(addr + 20 * PAGE), -ESTALE);
		support_expect(mm, addr, 0, 8 * PAGE, SEED);
		CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
		CHECK_OK(fm_file_close(file));
	}
}

static void test(void)
{
	mm = support_mm(4 * MIB);
	test_metadata(FM_CHANGED_ERROR);
	test_metadata(FM_CHANGED_REFRESH);
	test_changes();
	support_mm_end(mm);
}

int main(void)
{
	return support_run(test);
}
