/* SPDX-License-Identifier: MIT */
/* What is left to do when a page has been installed. */
#include "mm/fault/after.h"

#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/view.h"
#include "mm/fault/vmf.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/request.h"
#include "mm/frames/frame_pool.h"
#include "mm/map/segments.h"
#include "mm/view/range.h"
#include "os/atomic.h"

/* What the fault has installed and nothing maps any more, or only for reading, where it may have
 * come to be written to. */
static void take_out_unmapped(struct fault *vmf)
{
	uint32_t shift = vmf->file->pool->shift;
	for (uint64_t i = vmf->run_first; i <= vmf->run_last; i++) {
		uint64_t addr = i == vmf->index ? vmf->addr : vmf->view->region.base + (i << shift);
		if (!mm_range_allows(vmf->mm, addr, vmf->file->writable && vmf->writable))
			file_take_out(vmf->file, i, i);
	}
	if (vmf->file->writable) { /* what is being written just then has to be swept out later */
		atomic_set(&vmf->file->writes->swept_seq, vmf->unmap_seq);
		writeback_note(vmf->mm);
	}
}

/* vmf->run_* has been installed, and its locks put. Unmapped since we looked: what came too late is
 * taken out again. */
void fault_after_install(struct fault *vmf)
{
	if (likely(atomic_get(&vmf->view->unmap_seq) == vmf->unmap_seq))
		return;
	covered(exit_unmapped_installed);
	take_out_unmapped(vmf);
}
