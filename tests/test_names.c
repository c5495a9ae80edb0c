/* SPDX-License-Identifier: MIT */
/*
 * Names of files: a plain path is a name, byte for byte, even while the file is created. Only after
 * a scheme are parameters recognised. The test creates each name, writes, closes, and finds the
 * file again under the same name.
 *
 * Seen to fail with the code before this test. There "x%41.db" opened "xA.db", and
 * "q?record=other.txt" replaced other.txt.
 */
#include "write_support.h"

#include <dirent.h>
#include <sys/mman.h>

#define SEED 9

static fm_mm *mm;

static unsigned files_here(void)
{
	DIR *dir = opendir(".");
	unsigned count = 0;

	CHECK(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
	closedir(dir);
	return count;
}

/* Create, write and find the file that `uri` names. The file must be `name`, the only file in the
 * folder. */
static void one_name(const char *uri, const char *name)
{
	struct fm_file_options options = {.size = sizeof(options),
					  .flags = FM_FILE_WRITE | FM_FILE_CREATE};
	fm_file *file = support_open(mm, uri, &options);
	unsigned char byte = 'n';
	uint64_t size = 0;

	if (access(name, F_OK) || files_here() != 1)
		CHECK_FAIL("'%s' did not create exactly '%s'", uri, name);
	CHECK_OK(fm_truncate(file, PAGE));
	void *addr = write_map(file, 0, PAGE);
	CHECK_OK(write_to(mm, addr, &byte, 1));
	CHECK_OK(fm_sync(mm, addr, PAGE, 0));
	CHECK_OK(fm_unmap(mm, addr, PAGE));
	CHECK_OK(fm_file_close(file));
	CHECK_EQ(write_file_size(name), PAGE);
	file = support_open(mm, uri, NULL);
	CHECK_OK(fm_file_size(file, &size));
	CHECK_EQ(size, PAGE);
	CHECK_OK(fm_file_close(file));
	CHECK_EQ(files_here(), 1);
	CHECK_EQ(unlink(name), 0);
}

static void test_names(void)
{
	static const char *const plain[] = {
		"100%.db",
		"a?b.db",
		"c&d.db",
		"log:1",
		"x%41.db",
		"with space.db",
		"new\nline.db",
		"q?record=other.txt",
		"a=b",
		"nosuch:x.y",
		":",
		"%",
		"?",
		"FILE:x",
		"./memory:1M",
		"file",
	};

	mm = support_mm(4 * MIB);
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		one_name(plain[i], plain[i]);
	one_name("file:x%41.db", "xA.db");
	one_name("file:x%2541.db", "x%41.db");
	one_name("file:a%3Fb?deadline=2s", "a?b");
	one_name("file:memory:1M", "memory:1M");
	one_name("faulty:log:1", "log:1");
	one_name("faulty:log%3A1?delay=1us", "log:1");
	support_mm_end(mm);
}

/* ---- files by descriptor */

static int open_fd(int fd, uint32_t flags, fm_file **ret_file)
{
	struct fm_file_options options = {.size = sizeof(options), .flags = flags};
	return fm_file_open_fd(mm, fd, &options, ret_file);
}

/* Write by the library to the file of `fd`, and read the byte back by `other`. `close_it` closes
 * `fd` after the file is opened. */
static void write_by(int fd, int other, bool close_it)
{
	fm_file *file;
	unsigned char byte = 'd', got = 0;

	CHECK_OK(open_fd(fd, FM_FILE_WRITE, &file));
	if (close_it)
		close(fd);
	void *addr = write_map(file, 0, PAGE);
	CHECK_OK(write_to(mm, addr, &byte, 1));
	CHECK_OK(fm_sync(mm, addr, PAGE, 0));
	CHECK_OK(fm_unmap(mm, addr, PAGE));
	CHECK_OK(fm_file_close(file));
	CHECK_EQ(pread(other, &got, 1, 0), 1);
	CHECK_EQ(got, 'd');
}

static void refused_fd(int fd, uint32_t flags, int error)
{
	fm_file *file;
	CHECK_EQ(open_fd(fd, flags, &file), error);
}

static void test_unnamed(void)
{
	int memory = memfd_create("a?b%41", MFD_CLOEXEC | MFD_ALLOW_SEALING),
	    unnamed = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	int gone = open("gone", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK(memory >= 0 && gone >= 0 && !unlink("gone"));
	CHECK(!ftruncate(memory, PAGE) && !ftruncate(gone, PAGE));
	write_by(memory, memory, false);
	write_by(dup(gone), gone, true);
	if (unnamed >= 0) {
		CHECK(!ftruncate(unnamed, PAGE));
		write_by(dup(unnamed), unnamed, true);
		close(unnamed);
	}
	CHECK(!fcntl(memory, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	refused_fd(memory, FM_FILE_WRITE, -EPERM);
	refused_fd(memory, FM_FILE_CREATE | FM_FILE_WRITE, -EINVAL);
	close(memory);
	close(gone);
	CHECK_EQ(files_here(), 0);
}

/* The program's descriptor keeps its offset and its flags. The handle may do no more than the
 * descriptor may. */
static void test_descriptors(void)
{
	int fd = open("file", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600), reads, writes, path;
	fm_file *file, *again;
	struct stat st;

	CHECK(fd >= 0 && !ftruncate(fd, 2 * PAGE) && lseek(fd, 77, SEEK_SET) == 77);
	int flags = fcntl(fd, F_GETFL);
	/* The write goes to its offset, not to the end of the file. */
	write_by(fd, fd, false);
	CHECK(!fstat(fd, &st) && st.st_size == 2 * PAGE);
	CHECK_EQ(fcntl(fd, F_GETFL), flags);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 77);
	reads = open("file", O_RDONLY | O_CLOEXEC);
	writes = open("file", O_WRONLY | O_CLOEXEC);
	path = open("file", O_PATH | O_CLOEXEC);
	refused_fd(reads, FM_FILE_WRITE, -EACCES);
	refused_fd(writes, 0, -EACCES);
	refused_fd(path, 0, -EBADF);
	refused_fd(-1, 0, -EBADF);
	refused_fd(12345, 0, -EBADF);
	/* A file opened by descriptor and by name has one cache. */
	CHECK_OK(open_fd(reads, 0, &file));
	again = write_open(mm, "file");
	CHECK_EQ(support_stats(mm).files, 1);
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_file_close(again));
	int direct = open("file", O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (direct >= 0) {
		CHECK_OK(open_fd(direct, 0, &file));
		CHECK(fcntl(direct, F_GETFL) & O_DIRECT);
		CHECK_OK(fm_file_close(file));
		close(direct);
	}
	close(reads);
	close(writes);
	close(path);
	close(fd);
	CHECK(!unlink("file"));
}

int main(void)
{
	const char *dir = support_path();

	CHECK(!mkdir(dir, 0700) && !chdir(dir));
	hazard_watch("a call, or an access, never ended");
	test_names();
	mm = support_mm(4 * MIB);
	test_unnamed();
	test_descriptors();
	support_mm_end(mm);
	CHECK(!chdir("/") && !rmdir(dir));
	return 0;
}
