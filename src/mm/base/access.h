/* SPDX-License-Identifier: MIT */
/* An access that a fault serves, as the folders below fault/ know it. */
#ifndef FM_MM_BASE_ACCESS_H
#define FM_MM_BASE_ACCESS_H

#include "mm/base/file.h"
#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;
struct page;
struct view;

enum fault_flags {
	FM_FAULT_WRITE = 1u << 0,        /* the access was a write */
	FM_FAULT_ALLOW_RETRY = 1u << 1,  /* the map lock may be dropped */
	FM_FAULT_RETRY_NOWAIT = 1u << 2, /* ...but not to wait: RETRY with a ticket */
	FM_FAULT_KILLABLE = 1u << 3,     /* waits end when the mm is destroyed */
	FM_FAULT_TRIED = 1u << 4,        /* not the first try */
};

/* struct fault begins with these members. The members from `flags` to `mapped_end` are copied from
 * the mapping and stay valid after the map lock is dropped. */
struct access {
	struct fm_mm *mm;
	struct fm_file *file; /* pinned by the view for the whole fault */
	struct view *view;    /* pinned by the trap */
	struct page *page;    /* carried over the retry, with its pin, which belongs to the fault */
	uint64_t addr, index; /* the touched address, and its page in the file */
	uint32_t flags;       /* enum fault_flags */
	uint32_t advice;
	uint32_t unmap_seq;   /* the view's, when the mapping was found */
	bool keep, writable;
	bool paced;           /* a write: it has been held back once for what is dirty */
	uint64_t low, high;   /* the mapping's first and last page that it has whole */
	uint64_t mapped_end;  /* the end of what the mapping shows, also in part */
	uint64_t run_first, run_last; /* out: the pages that were installed with it */
	uint64_t started_ns;
};

/* From the fault's beginning: it may wait many times, and the store be dead all the while. */
static inline uint64_t access_deadline(const struct access *access)
{
	return access->file->deadline_ns ? access->started_ns + access->file->deadline_ns : OS_FOREVER;
}

#endif
