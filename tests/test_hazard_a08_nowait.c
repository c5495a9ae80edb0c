/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md A8: NOWAIT that drops the lock, or that waits. filemap_fault() itself is called for
 * each row of the truth table's right column (DESIGN.md 4): the map lock is held at return, at
 * once, and vmf->want says what is to be done. The same without ALLOW_RETRY. And
 * fm_fault_in(FM_NOWAIT) returns over a store that never answers. Seen to fail with may_drop() that
 * looks at ALLOW_RETRY alone.
 */
#include "hazard_support.h"

#define FILE_BYTES (16 * MIB)

static fm_mm *mm;
static fm_file *file;
static char *map;

/* One try, as fault_path.c does it; what it left is put. */
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
	CHECK_EQ(self()->map_held, 1); /* never dropped */
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

	/* Nothing is left of what was before: DONTNEED passes by what the background thread has
	 * locked for a moment. */
	EVENTUALLY(atomic_get(&file->reads->inflight) == 0);
	EVENTUALLY(fm_advise(mm, map, FILE_BYTES, FM_ADVICE_DONTNEED) == 0 &&
		   support_stats(mm).frames_used == 0);

	ret = try_at((uintptr_t)map, flags, &vmf); /* absent */
	CHECK_EQ(ret, FM_FAULT_RETRY | FM_FAULT_MAJOR);
	CHECK_EQ(vmf.want, WANT_READ);
	CHECK(!vmf.page);

	hazard_same(mm, file, map, 0, PAGE); /* uptodate */
	do { /* the background thread may have its lock for a moment, to drop the copy in the slot */
		ret = try_at((uintptr_t)map, flags, &vmf);
	} while (ret == FM_FAULT_RETRY && vmf.want == WANT_PAGE);
	CHECK_EQ(ret & ~(unsigned)FM_FAULT_MAJOR, FM_FAULT_LOCKED);

	EVENTUALLY(atomic_get(&file->reads->inflight) == 0); /* or it would be an earlier read's */
	CHECK_OK(fm_file_control(file, "stuck=1")); /* locked by another */
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
	if (ret != (FM_FAULT_RETRY | FM_FAULT_MAJOR)) /* or dropped by now */
		CHECK_EQ(ret, FM_FAULT_RETRY);
	CHECK_EQ(vmf.want, WANT_READ);

	ret = try_at((uintptr_t)map + FILE_BYTES, flags, &vmf); /* past the end */
	CHECK_EQ(ret, FM_FAULT_SIGBUS);
	CHECK_EQ(vmf.error, -ENXIO);
}

/* Page after page of a store that never answers, beyond what it may have under way and beyond the
 * frames. */
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
