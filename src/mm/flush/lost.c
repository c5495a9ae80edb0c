/* SPDX-License-Identifier: MIT */
/* Log messages about dirty pages that the program has thrown away. */
#include "mm/flush/lost.h"

#include "filemap.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/refs.h"
#include "mm/base/report.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/flush/request.h"
#include "mm/frames/frame_pool.h"
#include "os/atomic.h"
#include "os/os.h"

/* Write one line to the log for all pages lost since the last such line. No lock held. */
void file_tell_lost(struct fm_file *file)
{
	uint32_t lost = atomic_get(&file->dirt->lost),
		 before = atomic_xchg(&file->dirt->lost_logged, lost);
	if (lost == before)
		return;
	uint64_t first = atomic_xchg(&file->dirt->lost_first, UINT64_MAX);
	mm_log(file->mm, FM_LOG_ERROR,
	       "%s: %u dirty pages from offset %llu on are lost: the program has mapped other "
	       "memory over the pages (mmap with MAP_FIXED), or has unmapped or discarded the "
	       "pages (munmap, MADV_DONTNEED); use fm_unmap()",
	       file->uri, lost - before, (unsigned long long)(first << file->pool->shift));
}

/* Find a file with lost pages that the log does not mention yet. Returns the file with a reference,
 * or NULL if there is no such file. */
static struct fm_file *next_lost(struct fm_mm *mm)
{
	struct fm_file *file;
	os_lock(&mm->files_lock);
	for (file = mm->files; file; file = file->next)
		if (atomic_get(&file->dirt->lost) != atomic_get(&file->dirt->lost_logged) && file_try_get(file))
			break;
	os_unlock(&mm->files_lock);
	return file;
}

void writeback_tell_lost(struct writeback *wb)
{
	struct fm_mm *mm = wb->mm;
	struct fm_file *file;
	if (atomic_xchg(&wb->mm->writer_bell.merged, 0u))
		mm_log(mm, FM_LOG_WARNING,
		       "the program allowed the kernel to merge equal pages (PR_SET_MEMORY_MERGE) "
		       "after files were mapped for writing: the mappings opt out of merging, and "
		       "all cached pages of these files are written once; call prctl() before "
		       "fm_mm_create()");
	while ((file = next_lost(mm)) != NULL) {
		file_tell_lost(file);
		file_put(file);
	}
}
