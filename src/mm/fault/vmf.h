/* SPDX-License-Identifier: MIT */
/* The state of one fault, kept over all its tries. */
#ifndef FM_MM_FAULT_VMF_H
#define FM_MM_FAULT_VMF_H

#include "filemap.h"
#include "mm/base/access.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/fault/table.h"
#include "mm/fill/windows.h"
#include "os/os.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct page;
struct view;
struct vma;

enum fault_result {
	FM_FAULT_RETRY = 1u << 0,  /* with ALLOW_RETRY and without NOWAIT: the map lock is dropped */
	FM_FAULT_MAJOR = 1u << 1,  /* the page was not in the cache */
	FM_FAULT_LOCKED = 1u << 2, /* vmf->page is uptodate, pinned and locked */
	FM_FAULT_OOM = 1u << 4,
	FM_FAULT_SIGBUS = 1u << 5, /* vmf->error holds the errno */
};

_Static_assert((FM_FAULT_WRITE | FM_FAULT_ALLOW_RETRY | FM_FAULT_RETRY_NOWAIT |
		FM_FAULT_KILLABLE | FM_FAULT_TRIED) == 31, "fault flags must not overlap");

/* What a fault that may not block wants its caller to do after the caller drops the map lock. */
enum fault_want {
	WANT_NOTHING,
	WANT_PAGE,  /* another thread has locked vmf->page: wait for the unlock */
	WANT_READ,  /* vmf->page (or, if NULL, vmf->index) has to be read */
	WANT_AHEAD, /* with LOCKED: submit the readahead that a mark asked for */
	WANT_THROTTLE, /* a write: too much is dirty, or the page is not writable for a moment */
	WANT_SIZE, /* past the known end: ask the store whether the file has grown */
};

/* One fault from the trap to its end, over all its tries. */
struct fault {
	struct access;  /* unnamed: its members become the fault's (-fms-extensions) */
	struct reading; /* the pages to read beside the wanted page */
	const struct vma *vma; /* protected by the map lock; must not be used once fpin is set */
	uint64_t byte;         /* file offset of the touched address */
	fm_error_fn on_error;
	void *on_error_arg;
	int error;         /* kept over the retry: errno of the attempt the fault waited for */
	enum fault_want want;
	bool counted_major;
	bool no_stage;     /* read the page into a frame, not into a staging slot */
	bool exact;        /* a call names the pages to read: no readahead */
	bool repeated;     /* the same access faulted before and was served */
	bool asked_size;   /* the store was asked whether the file has grown */
	bool waited_for_group; /* for the rest of the page's group */
	bool waited;       /* a ticket waited: the attempt's errno is the fault's */
	bool had_error;    /* the page had an older attempt's error when the wait began */
	uint32_t attempt;  /* the page's attempt count when the wait began */
	struct page *stale;        /* page to unpin after the map lock is dropped */
	struct page *stale_locked; /* page to unlock and unpin after the map lock is dropped */
	uint32_t tries;
#ifdef FM_DEBUG
	uint32_t rows : 26;    /* rows of the truth table that this try has met, a bit each */
	uint32_t last_row : 6; /* enum fault_row */
#endif
};

_Static_assert(ROWS <= 26, "a bit of vmf->rows for each row");
/* The casts below lean on these two. */
_Static_assert(offsetof(struct fault, mm) == offsetof(struct access, mm), "struct access is first");
_Static_assert(offsetof(struct reading, ra) == 0, "struct reading begins with the window");

/* Return the part of the fault that the lower folders work with. */
static inline struct access *fault_access(struct fault *vmf)
{
	return (struct access *)vmf;
}

static inline struct reading *fault_reading(struct fault *vmf)
{
	return (struct reading *)((char *)vmf + offsetof(struct fault, ra));
}

static inline uint64_t fault_deadline(const struct fault *vmf)
{
	return access_deadline((const struct access *)vmf);
}

/* Tell whether the fault may drop the map lock: the column of the truth table. */
static inline bool fault_may_drop(const struct fault *vmf)
{
	return (vmf->flags & (FM_FAULT_ALLOW_RETRY | FM_FAULT_RETRY_NOWAIT)) ==
	       FM_FAULT_ALLOW_RETRY;
}

static inline uint32_t fault_flags(const struct fm_mm *mm, uint32_t flags)
{
	return flags | FM_FAULT_KILLABLE | (mm->flags & FM_MM_HOLD_LOCK ? 0 : FM_FAULT_ALLOW_RETRY);
}

#endif
