/* SPDX-License-Identifier: MIT */
/*
 * The kernel merges equal pages of a program that asks for this (PR_SET_MEMORY_MERGE; HAZARDS.md
 * E6). A merged page loses its write protection, so later writes cause no fault. The program asks
 * before it maps a file for writing, or after. No write that fm_sync() has acknowledged may be
 * lost.
 *
 * The test needs root and a kernel with KSM, and switches KSM on while it runs.
 */
#include "write_support.h"

#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif
#define PAGES 512u
#define KNOBS 3u

static const char *const knob[KNOBS] = {"sleep_millisecs", "pages_to_scan", "run"};
static const char *path;
static long before[KNOBS] = {-1, -1, -1};

static long ksm(const char *name, long value)
{
	char name_of[96];
	long now = -1;

	snprintf(name_of, sizeof(name_of), "/sys/kernel/mm/ksm/%s", name);
	FILE *file = fopen(name_of, value < 0 ? "re" : "we");
	if (!file)
		return -1;
	if (value < 0 && fscanf(file, "%ld", &now) != 1)
		now = -1;
	if (value >= 0)
		now = fprintf(file, "%ld\n", value) > 0 ? value : -1;
	if (fclose(file))
		now = -1;
	return now;
}

static void put_back(void)
{
	for (unsigned i = KNOBS; i-- > 0;)
		if (before[i] >= 0)
			ksm(knob[i], before[i]);
}

static bool switch_on(void)
{
	static const long wanted[KNOBS] = {10, 5000, 1};
	/* The lock keeps out a run of this test with another setting, which restores the values
	 * that it has found. */
	int lock = open("/sys/kernel/mm/ksm/run", O_RDONLY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX))
		return false;
	for (unsigned i = 0; i < KNOBS; i++)
		before[i] = ksm(knob[i], -1);
	for (unsigned i = 0; i < KNOBS; i++)
		if (ksm(knob[i], wanted[i]) < 0)
			return false;
	return true;
}

/* Wait until the kernel has scanned all mergeable memory `count` times. The kernel merges pages
 * that were the same in two scans. */
static void wait_for_scans(long count)
{
	long until = ksm("full_scans", -1) + count;
	EVENTUALLY(ksm("full_scans", -1) >= until);
}

static void write_what_is_equal(bool asks_first)
{
	char bytes[PAGE];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	memset(bytes, 'a', sizeof(bytes));
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_EQ(write(fd, bytes, PAGE), (ssize_t)PAGE);
	if (asks_first)
		CHECK_EQ(prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0), 0);
	fm_mm *mm = support_mm(16 * MIB);
	fm_file *file = write_open(mm, path);
	char *addr = write_map(file, 0, PAGES * PAGE);
	CHECK_OK(fm_fault_in(mm, addr, PAGES * PAGE, 0));
	CHECK_EQ(prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0), 0);
	wait_for_scans(4);
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_OK(write_to(mm, addr + i * PAGE + 8, "W", 1));
	CHECK_OK(fm_sync(mm, addr, PAGES * PAGE, 0));
	for (unsigned i = 0; i < PAGES; i++) {
		CHECK_EQ(pread(fd, bytes, 1, (off_t)(i * PAGE) + 8), 1);
		if (bytes[0] != 'W')
			CHECK_FAIL("the write to page %u is not in the file (allowed %s)", i,
				   asks_first ? "before" : "after");
	}
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_mm_destroy(mm));
	close(fd);
	CHECK_EQ(prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0), 0);
}

int main(void)
{
	if (SUPPORT_SANITIZED) {
		printf("skipped: sanitized memory is merged too, which takes minutes; the plain "
		       "build runs this\n");
		return 77;
	}
	path = support_path();
	if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) || prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) ||
	    !switch_on()) {
		fprintf(stderr, "skipped: same-page merging cannot be switched on here (root, and "
				"Linux 6.4 with CONFIG_KSM)\n");
		return 77;
	}
	int status;
	/* Run in a child, so that put_back() runs in any case. */
	pid_t child = fork();
	if (!child) {
		write_what_is_equal(false);
		write_what_is_equal(true);
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	put_back();
	return status ? 1 : 0;
}
