/* SPDX-License-Identifier: MIT */
/*
 * A process has a limit on its address space (ulimit -v) or on its data (ulimit -d). The process
 * opens 200 small files, as it could map them with mmap(). An option chooses how much address
 * space is kept free behind a file's end.
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

static void in_child(const char *path, int resource, uint64_t more)
{
	int status;
	pid_t child = fork();

	if (!child) {
		struct rlimit limit;
		CHECK_EQ(getrlimit(resource, &limit), 0);
		limit.rlim_cur = (resource == RLIMIT_AS ? address_space() : 0) + more;
		CHECK_EQ(setrlimit(resource, &limit), 0);
		open_many(path);
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
	in_child(path, RLIMIT_AS, 2048 * MIB);
	in_child(path, RLIMIT_DATA, 256 * MIB);
	return 0;
}
