/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md A4: endless retry. The lock is dropped for a readahead mark though nothing can be
 * read ahead, and the retry meets the same mark. The rule: drop the lock only if the state will
 * change. Seen to fail with ra_async_window() that returns true for a mark under random advice
 * and does not clear the mark.
 */
#include "hazard_support.h"

#define PAGES 1024

static void touch(fm_mm *mm, const char *at)
{
	unsigned char byte;
	CHECK_OK(support_read(mm, at, &byte, 1));
}

static void run(enum fm_advice after)
{
	fm_mm *mm = support_mm(2048 * PAGE);
	fm_file *file = support_open(mm, "memory:4M?seed=9", NULL);
	char *map = support_map(file, 0, PAGES * PAGE);

	/* Set windows and their marks everywhere. Then change the advice, or switch readahead
	 * off. */
	for (unsigned i = 0; i < PAGES; i += 61)
		touch(mm, map + i * PAGE);
	CHECK_OK(fm_advise(mm, map, PAGES * PAGE, after));
	if (after == FM_ADVICE_NORMAL)
		file->reads->ra.max_pages = 0;
	for (unsigned i = 0; i < PAGES; i++)
		touch(mm, map + i * PAGE);
	struct fm_stats stats = support_stats(mm);
	CHECK_GT(stats.ra_pages, 0);
	CHECK_LE(stats.fault_retries, 4 * stats.faults);
	hazard_same(mm, file, map, 0, PAGES * PAGE);
	CHECK_OK(fm_unmap(mm, map, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

int main(void)
{
	hazard_watch("a fault retried for ever on a readahead mark, with readahead off");
	run(FM_ADVICE_RANDOM);
	run(FM_ADVICE_NORMAL);
	run(FM_ADVICE_SEQUENTIAL);
	return 0;
}
