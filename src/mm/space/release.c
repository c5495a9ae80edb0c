/* SPDX-License-Identifier: MIT */
/*
 * A range of addresses is handed back to the program, which has put a mapping of its own there.
 *
 * The order decides. The range is marked first, so that a fault which finds no mapping any more
 * knows that its access is to be repeated. Then the mappings go, and no new fault can install a
 * page. Then the threads that wait in the kernel for a page of the range are woken: each repeats
 * its access, in the program's mapping. Faults under way have the view pinned, so the call waits
 * until no pin is left. Last, each page that was installed in the range is taken off the account.
 * A thread that was taking such a page out of the view holds the page lock meanwhile.
 * May call: all of mm, trap.
 */
#include "mm/space/release.h"

#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/view.h"
#include "mm/frames/frame_pool.h"
#include "mm/map/map_lock.h"
#include "mm/map/segments.h"
#include "mm/view/range.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/release.h"
#include "trap/trap.h"

#include <errno.h>

#define POLL_NS (50 * 1000ull)

/* Find the view of the range, and test that the range has all mappings of that view. The map lock
 * is held exclusively. Returns NULL if the range does not. */
static struct view *view_of_range(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	uint32_t at = segment_after(mm, start);
	struct view *view;

	if (at == mm->segment_count)
		return NULL;
	view = mm->segments[mm->segment_slots[at]].view;
	for (uint32_t i = 0; i < mm->segment_count; i++) {
		const struct vma *vma = &mm->segments[mm->segment_slots[i]];
		bool inside = vma->start >= start && vma->end <= end;
		bool overlaps = vma->start < end && vma->end > start;
		if (vma->view == view ? !inside : overlaps)
			return NULL;
	}
	if (start < view->region.base || end > view->region.base + view->region.len ||
	    atomic_get(&view->region.released_end))
		return NULL;
	return view;
}

/* Remove all mappings of the range. The map lock is held exclusively. Returns the number of file
 * references that the caller gets. */
static uint32_t forget_mappings(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	uint32_t at = segment_after(mm, start), count = 0;

	while (at < mm->segment_count && mm->starts[at] < end) {
		segment_delete(mm, at);
		count++;
	}
	return count;
}

/* Wait until no thread is inside the view. All its mappings have gone, so no thread stays. */
static void wait_for_faults(struct fm_mm *mm, struct view *view, uint64_t start, uint64_t end)
{
	while (atomic_get(&view->region.pins)) {
		os_sleep_until(os_now_ns() + POLL_NS);
		trap_wake(mm->trap, start, end - start);
	}
}

/*
 * Hand a range back. The range has all mappings of its view, and the program has put memory of its
 * own there. Blocks until the faults in the range have ended. Returns 0, -EINVAL, or -EBUSY if the
 * range is still the library's.
 */
int mm_release_range(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	struct view *view;
	uint32_t refs = 0;

	if (trap_is_ours(mm->trap, start, OS_PAGE) || trap_is_ours(mm->trap, end - OS_PAGE, OS_PAGE))
		return -EBUSY;
	os_populate_stack();
	map_lock_exclusive(mm->map);
	view = view_of_range(mm, start, end);
	if (view && view->file->writable)
		view = NULL;
	if (view) {
		region_release(&view->region, start, end);
		file_get(view->file);
		refs = 1 + forget_mappings(mm, start, end);
		atomic_add(&view->unmap_seq, 1u);
	}
	map_unlock_exclusive(mm->map);
	if (!view)
		return -EINVAL;
	trap_wake(mm->trap, start, end - start);
	wait_for_faults(mm, view, start, end);
	uint32_t shift = view->file->pool->shift;
	file_take_out(view->file, (start - view->region.base) >> shift,
		      (end - 1 - view->region.base) >> shift);
	while (refs--)
		file_put(view->file);
	stats_add(mm->stats, unmaps, 1);
	return 0;
}
