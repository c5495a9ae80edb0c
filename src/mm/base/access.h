/* SPDX-License-Identifier: MIT */
/* The access that a fault serves, as the folders below fault/ see the access. */
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
	FM_FAULT_RETRY_NOWAIT = 1u << 2, /* the fault must not wait: RETRY with a ticket */
	FM_FAULT_KILLABLE = 1u << 3,     /* waits end when the mm is destroyed */
	FM_FAULT_TRIED = 1u << 4,        /* the access has been tried before */
};

/* struct fault begins with these members. `advice`, `advised_keep`, `writable`, `low`, `high` and
 * `mapped_end` are copied from the mapping, so that they stay valid after the map lock is
 * dropped. */
struct access {
	struct fm_mm *mm;
	struct fm_file *file; /* pinned by the view for the whole fault */
	struct view *view;    /* pinned by the trap */
	struct page *page;    /* kept over a retry; the fault owns a pin on the page */
	uint64_t addr, index; /* the touched address, and the page's index in the file */
	uint32_t flags;       /* enum fault_flags */
	uint32_t advice;
	uint32_t unmap_seq;   /* the view's unmap_seq when the mapping was found */
	bool advised_keep, writable;
	bool paced;           /* the write has already been delayed once because of dirty pages */
	uint64_t low, high;   /* first and last page that lie wholly in the mapping */
	uint64_t mapped_end;  /* end of the mapped bytes; the last page may be mapped in part */
	uint64_t run_first, run_last; /* out: the pages installed together with the page */
	uint64_t started_ns;
};

/* Return the time at which the access gives up. The deadline counts from the fault's beginning:
 * the fault may wait many times while the store stays dead. */
static inline uint64_t access_deadline(const struct access *access)
{
	return access->file->deadline_ns ? access->started_ns + access->file->deadline_ns : OS_FOREVER;
}

#endif
