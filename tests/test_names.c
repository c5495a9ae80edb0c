/* SPDX-License-Identifier: MIT */
/*
 * Names of files: a plain path is a name, byte for byte, also while the file is created, and parameters are found only behind a
 * scheme. Each name is created, written to, closed and found again under the same name.
 * Seen to fail: on the commit before, where "x%41.db" opened "xA.db" and "q?record=other.txt" replaced other.txt.
 */
#include "write_support.h"

#include <dirent.h>

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

/* Create, write and find the file that `uri` names; it must be `name`, and the folder's only one. */
static void one_name(const char *uri, const char *name)
{
	struct fm_file_options options = {.size = sizeof(options), .flags = FM_FILE_WRITE | FM_FILE_CREATE};
	fm_file *file = support_open(mm, uri, &options);
	unsigned char byte = 'n';
	uint64_t size = 0;

	if (access(name, F_OK) || files_here() != 1)
		CHECK_FAIL("'%s' did not create '%s', or more than that", uri, name);
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
		"100%.db", "a?b.db",     "c&d.db",     "log:1",  "x%41.db", "with space.db", "new\nline.db", "q?record=other.txt",
		"a=b",     "nosuch:x.y", ":", "%", "?",       "FILE:x",        "./memory:1M",  "file",
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

int main(void)
{
	const char *dir = support_path();

	CHECK(!mkdir(dir, 0700) && !chdir(dir));
	hazard_watch("a call, or an access, never ended");
	test_names();
	CHECK(!chdir("/") && !rmdir(dir));
	return 0;
}
