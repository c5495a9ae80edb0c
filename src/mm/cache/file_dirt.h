/* SPDX-License-Identifier: MIT */
/* A file's counts of dirty and lost pages: the part of struct fm_file that cache/ owns. */
#ifndef FM_MM_CACHE_FILE_DIRT_H
#define FM_MM_CACHE_FILE_DIRT_H

#include "mm/base/file.h"
#include "os/atomic.h"

#include <stdbool.h>
#include <stdint.h>

struct file_dirt {
	uint32_t dirty, writing, unflushed; /* pages; atomic */
	int write_error;                    /* errno of the last failure, negative; atomic */
	uint32_t lost, lost_logged; /* dirty pages whose bytes are gone; the number of lost pages
				       that the log has reported; atomic */
	uint64_t lost_first; /* the first lost page that the log has not reported; atomic */
	uint32_t failing;                   /* no write succeeded since a failure; atomic */
	uint64_t write_ns;                  /* the time to write a page, smoothed; atomic */
	uint32_t flush_failures;            /* failed flushes so far; atomic */
	uint64_t punch_first, punch_last;   /* pages that are being punched or truncated; atomic;
					       none: first > last */
	uint32_t error_seq; /* failures so far; atomic */
	uint32_t wasted;    /* readahead pages recently dropped without a touch; relaxed */
};

static inline bool range_is_punched(const struct fm_file *file, uint64_t index)
{
	return index >= atomic_get(&((struct fm_file *)(uintptr_t)file)->dirt->punch_first) &&
	       index <= atomic_get(&((struct fm_file *)(uintptr_t)file)->dirt->punch_last);
}

#endif
