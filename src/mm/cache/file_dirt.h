/* SPDX-License-Identifier: MIT */
/* What a file has that is dirty, or was: the part of struct fm_file that cache/ owns. */
#ifndef FM_MM_CACHE_FILE_DIRT_H
#define FM_MM_CACHE_FILE_DIRT_H

#include "mm/base/file.h"
#include "os/atomic.h"

#include <stdbool.h>
#include <stdint.h>

struct file_dirt {
	uint32_t dirty, writing, unflushed; /* pages; atomic */
	int write_error;                    /* of the last failure; atomic */
	uint32_t lost, lost_logged; /* dirty pages whose bytes were gone; of how many the log has
				       been told; atomic */
	uint64_t lost_first; /* the first page of those that the log has not been told of; atomic */
	uint32_t failing;                   /* nothing has been written since it; atomic */
	uint64_t write_ns;                  /* a page takes to be written, smoothed; atomic */
	uint32_t flush_failures;            /* atomic */
	uint64_t punch_first, punch_last;   /* pages that are being punched, or truncated; atomic;
					       none: first > last */
	uint32_t error_seq; /* failures so far; atomic */
	uint32_t wasted;    /* pages of its readahead thrown away untouched, of late; relaxed */
};

static inline bool range_is_punched(const struct fm_file *file, uint64_t index)
{
	return index >= atomic_get(&((struct fm_file *)(uintptr_t)file)->dirt->punch_first) &&
	       index <= atomic_get(&((struct fm_file *)(uintptr_t)file)->dirt->punch_last);
}

#endif
