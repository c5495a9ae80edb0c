/* SPDX-License-Identifier: MIT */
/* Waits for the rest of a group of pages, so that the whole group is installed at once. */
#include "mm/fault/group_wait.h"

#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/cache/lock.h"
#include "mm/fault/vmf.h"
#include "mm/fill/abandon.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/page.h"
#include "mm/view/run.h"
#include "os/atomic.h"
#include "os/os.h"

#define GROUP_PATIENCE_NS (20 * OS_NSEC_PER_MSEC)

/*
 * Find a page that is still being read in the group of `page`. The group must be whole, and all
 * its pages must be in memory or on their way. Returns the page, pinned. Returns NULL if no page
 * is being read, or if the pages cannot be installed together.
 */
static struct page *group_unread(struct fault *vmf, struct page *page)
{
	struct fm_file *file = vmf->file;
	struct frame_pool *pool = file->pool;

	if (likely(!pool->groups) || !group_is_whole(pool, page) || page_is(page, PG_INSTALLED) ||
	    file->writable)
		return NULL;
	struct page *first = group_first(pool, page), *late = NULL;
	uint64_t index = page->index - (uint64_t)(page - first);
	if (index % GROUP_PAGES || index < vmf->low || index + GROUP_PAGES > vmf->high)
		return NULL;
	bool all = true;
	for (uint32_t i = GROUP_PAGES; all && i-- > 0;) {
		uint32_t state = atomic_get(&first[i].state);
		if (!late && (state & (PG_LOCKED | PG_UPTODATE)) == PG_LOCKED && page_try_pin(first + i))
			late = first + i;
		all = run_is_of(first + i, file, index + i);
	}
	if (late && !all) {
		page_unpin(pool, late);
		late = NULL;
	}
	return late;
}

static uint64_t patience_until(const struct fault *vmf)
{
	uint64_t until = os_now_ns() + GROUP_PATIENCE_NS, deadline = fault_deadline(vmf);
	return until < deadline ? until : deadline;
}

/*
 * Wait a moment for the rest of a group whose pages have almost all come. Then one change of a
 * page table installs the whole group. Called with the page locked and pinned. Returns true if
 * the page lock has been put: the caller must look at the page again.
 */
bool group_wait(struct fault *vmf, struct page *page)
{
	uint64_t until = 0;

	if (vmf->waited_for_group || vmf->flags & (FM_FAULT_RETRY_NOWAIT | FM_FAULT_WRITE) ||
	    vmf->exact || vmf->advice == FM_ADVICE_RANDOM)
		return false;
	for (struct page *late; (late = group_unread(vmf, page)) != NULL;) {
		if (!vmf->waited_for_group)
			page_unlock(vmf->file->pool, page);
		vmf->waited_for_group = true;
		covered(group_late);
		if (!until)
			until = patience_until(vmf);
		read_wanted(vmf->file, late);
		int err = page_wait(vmf->mm, late, vmf->flags & FM_FAULT_KILLABLE, until);
		page_unpin(vmf->file->pool, late);
		if (err)
			break;
	}
	return vmf->waited_for_group;
}
