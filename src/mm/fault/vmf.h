/* SPDX-License-Identifier: MIT */
/* What is known of one fault, over all its tries. */
#ifndef FM_MM_FAULT_VMF_H
#define FM_MM_FAULT_VMF_H

#include "filemap.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/access.h"
#include "mm/fill/windows.h"
#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct page;
struct view;
struct vma;

enum fault_result {
	FM_FAULT_RETRY = 1u << 0,  /* ALLOW_RETRY without NOWAIT: the map lock is gone */
	FM_FAULT_MAJOR = 1u << 1,  /* the page was not in the cache */
	FM_FAULT_LOCKED = 1u << 2, /* vmf->page is uptodate, pinned and locked */
	FM_FAULT_NOPAGE = 1u << 3, /* nothing to install */
	FM_FAULT_OOM = 1u << 4,
	FM_FAULT_SIGBUS = 1u << 5, /* vmf->error says why */
};

_Static_assert((FM_FAULT_WRITE | FM_FAULT_ALLOW_RETRY | FM_FAULT_RETRY_NOWAIT |
		FM_FAULT_KILLABLE | FM_FAULT_TRIED) == 31, "fault flags must not overlap");

/* What a fault that may not block wants done for it, once its caller has dropped the map lock. */
enum fault_want {
	WANT_NOTHING,
	WANT_PAGE,  /* vmf->page is locked by somebody: be told when it is not */
	WANT_READ,  /* vmf->page (or, if NULL, vmf->index) has to be read */
	WANT_AHEAD, /* LOCKED: submit the readahead that a mark asked for */
	WANT_THROTTLE, /* a write: too much is dirty, or the page can't be written to for a moment */
	WANT_SIZE, /* past the end that is known: the store is to be asked whether the file has grown */
};

/* One fault, from the trap to its end, over all its tries. */
struct fault {
	struct access;  /* unnamed: its members are the fault's (-fms-extensions) */
	struct reading; /* what is read beside the wanted page */
	const struct vma *vma; /* map lock; do not touch once fpin is set */
	uint64_t byte;         /* the offset in the file of the touched address */
	fm_error_fn on_error;
	void *on_error_arg;
	int error;         /* carried over the retry: the errno of the attempt we waited for */
	enum fault_want want;
	bool counted_major;
	bool no_stage;     /* it is to be read into a frame of its own */
	bool exact;        /* a call says itself what is to be read: nothing beside it */
	bool repeated;     /* this very access faulted before, and was served */
	bool asked_size;   /* the store has been asked whether the file has grown */
	bool waited_for_group; /* for the rest of its page's */
	bool waited;       /* a ticket's wait is over: the attempt's errno is ours */
	bool had_error;    /* when the wait began the page had one already: an older attempt's */
	uint32_t attempt;  /* the page's attempts by then */
	struct page *stale;        /* its pin is to be put after the map lock is dropped */
	struct page *stale_locked; /* so is this one's, and its lock */
	uint32_t tries;
};

/* What the folders below know of the fault. */
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

static inline uint32_t fault_flags(const struct fm_mm *mm, uint32_t flags)
{
	return flags | FM_FAULT_KILLABLE | (mm->flags & FM_MM_HOLD_LOCK ? 0 : FM_FAULT_ALLOW_RETRY);
}

#endif
