/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md A8: NOWAIT drops the lock, or waits. The test calls filemap_fault() itself, for rows
 * of the truth table's column in which the map lock may not be dropped (see sim/cover.h). At
 * return the map lock must still be held, and vmf->want must tell what is to be done. The same
 * holds without ALLOW_RETRY. fm_fault_in(FM_NOWAIT) must return though the store never answers.
 * Seen to fail with may_drop() that looks at ALLOW_RETRY alone.
 */
#include "hazard_support.h"

#define FILE_BYTES (16 * MIB)

static fm_mm *mm;
static fm_file *file;
static char *map;

/* Make one try, as fault_try() in src/mm/fault/drive.c does, and put what the try left. */
static unsigned try_at(uint64_t addr, uint32_t flags, struct fault *ret_vmf)
{
	struct fault vmf;
	os_sigmask mask = os_signals_block();

	fault_begin(&vmf, &file->view, addr, flags | FM_FAULT_KILLABLE);
	map_lock_shared(mm->map);
	vmf.vma = mm_find_vma(mm, addr);
	CHECK(vmf.vma);
	vmf.advice = vmf.vma->advice;
	unsigned ret = filemap_fault(&vmf);
	CHECK_EQ(self()->map_held, 1); /* the lock was never dropped */
	map_unlock_shared(mm->map);
	*ret_vmf = vmf;
	if (ret & FM_FAULT_LOCKED)
		page_unlock(file->pool, vmf.page);
	fault_end(&vmf, vmf.error);
	os_signals_restore(mask);
	return ret;
}

static void table(uint32_t flags)
{
	struct hazard_access stuck;
	struct fault vmf;
	unsigned ret;

	/* Start with nothing cached. DONTNEED skips a page that the background thread has locked
	 * for a moment. */
	EVENTUALLY(atomic_get(&file->reads->inflight) == 0);
	EVENTUALLY(fm_advise(mm, map, FILE_BYTES, FM_ADVICE_DONTNEED) == 0 &&
		   support_stats(mm).frames_used == 0);

	ret = try_at((uintptr_t)map, flags, &vmf); /* absent */
	CHECK_EQ(ret, FM_FAULT_RETRY | FM_FAULT_MAJOR);
	CHECK_EQ(vmf.want, WANT_READ);
	CHECK(!vmf.page);

	hazard_same(mm, file, map, 0, PAGE); /* uptodate */
	do { /* the background thread may hold the page lock, to drop the copy in the slot */
		ret = try_at((uintptr_t)map, flags, &vmf);
	} while (ret == FM_FAULT_RETRY && vmf.want == WANT_PAGE);
	CHECK_EQ(ret & ~(unsigned)FM_FAULT_MAJOR, FM_FAULT_LOCKED);

	EVENTUALLY(atomic_get(&file->reads->inflight) == 0); /* no earlier read may count below */
	CHECK_OK(fm_file_control(file, "stuck=1")); /* locked by another thread */
	hazard_begin(&stuck, mm, map + 64 * PAGE);
	EVENTUALLY(atomic_get(&file->reads->inflight) > 0);
	ret = try_at((uintptr_t)map + 64 * PAGE, flags, &vmf);
	CHECK_EQ(ret, FM_FAULT_RETRY);
	CHECK_EQ(vmf.want, WANT_PAGE);
	CHECK_OK(fm_file_control(file, "error-every=1"));
	CHECK_OK(fm_file_control(file, "stuck=0"));
	CHECK_EQ(hazard_end(&stuck), -EIO);
	CHECK_OK(fm_file_control(file, "error-every=0"));

	ret = try_at((uintptr_t)map + 64 * PAGE, flags, &vmf); /* present, not uptodate */
	if (ret != (FM_FAULT_RETRY | FM_FAULT_MAJOR)) /* the page may be dropped by now */
		CHECK_EQ(ret, FM_FAULT_RETRY);
	CHECK_EQ(vmf.want, WANT_READ);

	ret = try_at((uintptr_t)map + FILE_BYTES, flags, &vmf); /* past the end */
	CHECK_EQ(ret, FM_FAULT_SIGBUS);
	CHECK_EQ(vmf.error, -ENXIO);
}

/* Ask for page after page of a store that never answers: for more pages than the store may have
 * requests, and for more pages than there are frames. */
static void test_calls(void)
{
	CHECK_OK(fm_file_control(file, "stuck=1"));
	for (unsigned i = 0; i < 128; i++)
		CHECK_EQ(fm_fault_in(mm, map + (256 + i) * PAGE, PAGE, FM_NOWAIT), -EAGAIN);
	CHECK_EQ(fm_fault_in(mm, map + 256 * PAGE, 128 * PAGE, FM_NOWAIT), -EAGAIN);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	for (unsigned i = 0; i < 128; i++)
		EVENTUALLY(fm_fault_in(mm, map + (256 + i) * PAGE, PAGE, FM_NOWAIT) == 0);
}

int main(void)
{
	const struct fm_file_options no_readahead = {.size = sizeof(no_readahead),
						     .readahead_bytes = UINT32_MAX};
	hazard_watch("a fault that must not wait waited");
	mm = support_mm(64 * PAGE);
	file = support_open(mm, "faulty:memory:16M?seed=3", &no_readahead);
	map = support_map(file, 0, FILE_BYTES + PAGE);
	table(FM_FAULT_ALLOW_RETRY | FM_FAULT_RETRY_NOWAIT);
	table(FM_FAULT_RETRY_NOWAIT);
	table(0);
	test_calls();
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES + PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	return 0;
}
