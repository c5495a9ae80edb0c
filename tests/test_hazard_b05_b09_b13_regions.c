/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md B: the address space that the library takes, as the kernel shows the ranges in
 * /proc/self/smaps.
 *
 * B5   A huge page stays whole through installs and evictions.
 * B9   Views and frames of 4 KiB pages are NOHUGEPAGE. Otherwise the kernel would collapse pages
 *      behind the library.
 * B11  Frames are registered for MISSING only. With WP a read into a swapped-out frame gets EFAULT.
 * B12  mlockall(MCL_FUTURE) fills neither a view nor the frames.
 * B13  A view of 1 TiB can be reserved.
 * B15  fork() copies neither views nor frames, and core dumps leave both out.
 *
 * Seen to fail: B5 with huge pages moved in halves. B9 without MADV_NOHUGEPAGE. B11 with slots
 * registered for WP too. B12 with a reserve() that maps with access at once, and without munlock().
 * B13 without MAP_NORESERVE. B15 without MADV_DONTFORK.
 */
#include "hazard_support.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

struct area {
	uint64_t start, end, rss, locked, huge;
	char flags[256];
};

/* Return the kernel's mapping that contains addr. */
static struct area area_of(const void *addr)
{
	char line[1024];
	struct area area = {0};
	bool here = false;
	FILE *smaps = fopen("/proc/self/smaps", "re");
	CHECK(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long long start, end, kib;
		char perms[8];
		if (sscanf(line, "%llx-%llx %7s", &start, &end, perms) == 3) {
			if (here)
				break;
			here = (uintptr_t)addr >= start && (uintptr_t)addr < end;
			area.start = start;
			area.end = end;
		} else if (here && sscanf(line, "Rss: %llu", &kib) == 1) {
			area.rss = kib * KIB;
		} else if (here && sscanf(line, "Locked: %llu", &kib) == 1) {
			area.locked = kib * KIB;
		} else if (here && sscanf(line, "AnonHugePages: %llu", &kib) == 1) {
			area.huge = kib * KIB;
		} else if (here && strncmp(line, "VmFlags:", 8) == 0) {
			snprintf(area.flags, sizeof(area.flags), "%.255s", line + 8);
		}
	}
	fclose(smaps);
	CHECK(here);
	return area;
}

static bool has(const struct area *area, const char *flag)
{
	return strstr(area->flags, support_format(" %s ", flag)) != NULL;
}

static void test_flags(void)
{
	fm_mm *mm = support_mm(256 * PAGE);
	fm_file *file = support_open(mm, "memory:4M", NULL);
	char *map = support_map(file, 0, 4 * MIB);

	hazard_same(mm, file, map, 0, 4 * MIB);
	struct area view = area_of(map), slots = area_of(file->pool->slots);
	CHECK(has(&view, "nh") && has(&slots, "nh")); /* no huge pages */
	CHECK(has(&view, "dc") && has(&slots, "dc")); /* not copied by fork() */
	CHECK(has(&view, "dd") && has(&slots, "dd")); /* not dumped */
	CHECK(has(&view, "um"));
	CHECK_EQ(has(&slots, "um"), mm->install == FM_INSTALL_MOVE);
	CHECK(!has(&slots, "uw"));
	CHECK_LE(view.rss + slots.rss, 256 * PAGE + 64 * PAGE);
	CHECK_OK(fm_unmap(mm, map, 4 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* Return how often a fault of any process wanted a huge page and the kernel had none. */
static uint64_t huge_pages_refused(void)
{
	unsigned long long count = 0;
	char line[128];
	FILE *stat = fopen("/proc/vmstat", "re");
	while (stat && fgets(line, sizeof(line), stat))
		if (sscanf(line, "thp_fault_fallback %llu", &count) == 1)
			break;
	if (stat)
		fclose(stat);
	return count;
}

static void test_b05(void)
{
	uint64_t refused = huge_pages_refused();
	const struct fm_file_options huge = {.size = sizeof(huge), .page_size = 2 << 20,
					     .readahead_bytes = UINT32_MAX};
	fm_mm *mm = support_mm(fm_budget_min(2 << 20) + MIB);
	fm_file *file = support_open(mm, "memory:128M", &huge);
	char *map = support_map(file, 0, 128 * MIB);
	unsigned char byte;

	CHECK_OK(support_read(mm, map, &byte, 1));
	struct area slots = area_of(file->pool->slots);
	if (mm->install != FM_INSTALL_MOVE || !slots.huge) {
		printf("B5: %s: not tried\n", mm->install != FM_INSTALL_MOVE ? "only MOVE keeps huge pages"
								: "no huge page is available");
		goto out;
	}
	for (int round = 0; round < 3; round++)
		for (uint64_t at = 0; at < 128 * MIB; at += 2 * MIB)
			CHECK_OK(support_read(mm, map + at + 12345, &byte, 1));
	CHECK_GT(support_stats(mm).evictions, 64);
	if (huge_pages_refused() != refused) {
		printf("B5: not enough huge pages are available: not tried\n");
		goto out;
	}
	struct area view = area_of(map);
	slots = area_of(file->pool->slots);
	CHECK_EQ(view.huge, view.rss);
	CHECK_EQ(slots.huge, slots.rss);
out:
	CHECK_OK(fm_unmap(mm, map, 128 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_b13(void)
{
	const uint64_t size = 1ull << 40;
	fm_mm *mm = support_mm(256 * PAGE);
	fm_file *file = support_open(mm, "memory:1T?seed=2", NULL);
	char *map = support_map(file, 0, size);

	for (uint64_t at = 0; at < size; at += size / 64)
		hazard_same(mm, file, map + at, at, PAGE);
	hazard_same(mm, file, map + size - PAGE, size - PAGE, PAGE);
	CHECK_OK(fm_unmap(mm, map, size));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* Run in a child, because the memory stays locked until the process ends. */
static int locked_child(void *arg)
{
	(void)arg;
	struct rlimit locked;
	hazard_watch("mlockall(MCL_FUTURE) with a large view did not end");
	/* Under MCL_FUTURE the kernel refuses an ordinary user any mapping beyond this limit, even
	 * a mapping without access. */
	bool limited = geteuid() != 0 && getrlimit(RLIMIT_MEMLOCK, &locked) == 0 &&
		       locked.rlim_cur != RLIM_INFINITY;
	if (limited || mlockall(MCL_FUTURE) < 0) {
		printf("B12: mlockall: %s: not tried\n", limited ? "RLIMIT_MEMLOCK" : strerror(errno));
		fflush(stdout);
		return 0;
	}
	fm_mm *mm = support_mm(256 * PAGE);
	/* The view reserves as much address space again behind the end of the file. */
	fm_file *file = support_open(mm, "memory:1G?seed=2", NULL);
	char *map = support_map(file, 0, 1024 * MIB);
	CHECK_LE(area_of(map).rss, MIB);
	CHECK_LE(area_of(file->pool->slots).rss, MIB);
	for (uint64_t at = 0; at < 1024 * MIB; at += 16 * MIB)
		hazard_same(mm, file, map + at, at, 8 * PAGE);
	CHECK_LE(area_of(map).rss, 2 * MIB);
	CHECK_OK(fm_unmap(mm, map, 1024 * MIB));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	return 0;
}

int main(void)
{
	/* Fork first: no thread of the library may hold the lock of malloc() at the fork. */
	CHECK_EQ(support_child(locked_child, NULL), 0);
	hazard_watch("making a region of the library did not end");
	test_flags();
	test_b05();
	test_b13();
	return 0;
}
