/* SPDX-License-Identifier: MIT */
/*
 * Some file systems store whole seconds (ext4 with inodes of 128 bytes): two changes within a
 * second have the same time stamp. The library takes a snapshot only when no later change can
 * have the snapshot's time stamp. Under FM_CHANGED_REFRESH, pages that were read before that
 * moment are read again after that moment.
 *
 * The test needs root for a loop device and a mount. The mount is in a mount namespace of the
 * test. Seen to fail: with stamp_young_ns() that returns 0.
 */
#define _GNU_SOURCE
#include "support.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGES 16u

static fm_mm *mm;
static const char *dir;

static void write_pages(const char *path, int byte)
{
	unsigned char buf[PAGES * PAGE];
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	memset(buf, byte, sizeof(buf));
	CHECK_EQ(pwrite(fd, buf, sizeof(buf), 0), (ssize_t)sizeof(buf));
	close(fd);
}

static time_t mtime_of(const char *path)
{
	struct stat st;

	CHECK_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_mtim.tv_nsec, 0);
	return st.st_mtim.tv_sec;
}

/* Wait for the start of a second, so that what follows happens within that second. */
static void wait_for_second(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	support_sleep_ms((unsigned)((1000000000 - now.tv_nsec) / 1000000) + 10);
}

static int read_byte(const unsigned char *addr)
{
	unsigned char byte = 0;
	int err = support_read(mm, addr, &byte, 1);

	return err ? err : byte;
}

/* Write the file in the second of the open. The snapshot must not mix old and new bytes: a later
 * read gives -ESTALE. */
static void test_snapshot(void)
{
	struct fm_file_options options = {.size = sizeof(options), .readahead_bytes = UINT32_MAX};
	char path[256];

	snprintf(path, sizeof(path), "%s/snapshot", dir);
	wait_for_second();
	write_pages(path, 'a');
	fm_file *file = support_open(mm, path, &options);
	unsigned char *addr = support_map(file, 0, PAGES * PAGE);
	CHECK_EQ(read_byte(addr), 'a');
	write_pages(path, 'b');
	CHECK_EQ(read_byte(addr + 8 * PAGE), -ESTALE);
	CHECK_EQ(read_byte(addr), 'a');
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
}

/* Pages are read while a later change could still have the same time stamp. The pages are read
 * again when no change can have that time stamp any more. */
static void test_refresh(void)
{
	struct fm_file_options options = {.size = sizeof(options), .readahead_bytes = UINT32_MAX,
					  .changed = FM_CHANGED_REFRESH};
	char path[256];
	time_t before;

	snprintf(path, sizeof(path), "%s/refresh", dir);
	for (;;) {
		wait_for_second();
		write_pages(path, 'a');
		before = mtime_of(path);
		fm_file *file = support_open(mm, path, &options);
		unsigned char *addr = support_map(file, 0, PAGES * PAGE);
		CHECK_EQ(read_byte(addr), 'a');
		write_pages(path, 'b');
		bool same = mtime_of(path) == before; /* if not, the machine was too slow */
		if (same) {
			support_sleep_ms(1100);
			CHECK_EQ(read_byte(addr + 8 * PAGE), 'b');
			CHECK_EQ(read_byte(addr), 'b');
		}
		CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
		CHECK_OK(fm_file_close(file));
		if (same)
			return;
	}
}

static void make_file_system(void)
{
	const char *image = support_path();
	char command[1024];
	int fd;

	if (geteuid() != 0)
		SKIP("only root may mount");
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		SKIP("no mount namespace: %s", strerror(errno));
	dir = support_path();
	CHECK_EQ(mkdir(dir, 0700), 0);
	fd = open(image, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, 8 * 1024 * 1024) == 0);
	close(fd);
	snprintf(command, sizeof(command),
		 "PATH=$PATH:/usr/sbin:/sbin; mkfs.ext4 -q -F -I 128 '%s' >/dev/null 2>&1 && mount "
		 "-o loop '%s' '%s' 2>/dev/null",
		 image, image, dir);
	if (system(command) != 0)
		SKIP("an ext4 with inodes of 128 bytes cannot be mounted here");
}

int main(void)
{
	make_file_system();
	support_start();
	mm = support_mm(4 * MIB);
	test_snapshot();
	test_refresh();
	support_mm_end(mm);
	support_end();
	return umount2(dir, MNT_DETACH) != 0;
}
