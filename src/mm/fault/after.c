/* SPDX-License-Identifier: MIT */
/* The work that is left after a fault has installed a page. */
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

/*
 * Take pages that the fault has installed out of the view again if no mapping covers them any
 * more. A page of a writable file is also taken out if its mapping now only allows reading.
 */
static void take_out_unmapped(struct fault *vmf)
{
	uint32_t shift = vmf->file->pool->shift;
	for (uint64_t i = vmf->run_first; i <= vmf->run_last; i++) {
		uint64_t addr = i == vmf->index ? vmf->addr : vmf->view->region.base + (i << shift);
		if (!mapping_allows(vmf->mm, addr, vmf->file->writable && vmf->writable))
			file_take_out(vmf->file, i, i);
	}
	if (vmf->file->writable) { /* a page that is being written now must be swept out later */
		atomic_set(&vmf->file->writes->swept_seq, vmf->unmap_seq);
		writeback_note(vmf->mm);
	}
}

/*
 * Take the pages vmf->run_* out of the view again if a range was unmapped since the fault looked
 * at its mapping. Called after the pages are installed and their page locks put.
 */
void fault_after_install(struct fault *vmf)
{
	if (likely(atomic_get(&vmf->view->unmap_seq) == vmf->unmap_seq))
		return;
	covered(exit_unmapped_installed);
	take_out_unmapped(vmf);
}
