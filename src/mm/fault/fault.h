/* SPDX-License-Identifier: MIT */
/* filemap_fault() and its helpers: one try of one fault. */
#ifndef FM_MM_FAULT_FAULT_H
#define FM_MM_FAULT_FAULT_H

#include "filemap.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/fill/windows.h"
#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct page;
struct view;
struct vma;

enum fault_flags {
	FM_FAULT_WRITE = 1u << 0,        /* the access was a write */
	FM_FAULT_ALLOW_RETRY = 1u << 1,  /* the map lock may be dropped */
	FM_FAULT_RETRY_NOWAIT = 1u << 2, /* ...but not to wait: RETRY with a ticket */
	FM_FAULT_KILLABLE = 1u << 3,     /* waits end when the mm is destroyed */
	FM_FAULT_TRIED = 1u << 4,        /* not the first try */
};

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
	struct fm_mm *mm;
	struct fm_file *file; /* pinned by the view for the whole fault */
	struct view *view;    /* pinned by the trap */
	const struct vma *vma; /* map lock; do not touch once fpin is set */
	uint64_t addr, index, byte; /* byte: the offset in the file, of the touched address */
	uint32_t flags;
	uint32_t advice; /* copied from the vma: needed after the drop, as are these: */
	bool keep, writable;
	fm_error_fn on_error;
	void *on_error_arg;
	struct page *page; /* carried over the retry, with its pin, which belongs to the fault */
	int error;         /* carried over the retry: the errno of the attempt we waited for */
	enum fault_want want;
	uint64_t low, high;  /* the mapping's first and last page that it has whole; copied from the vma */
	uint64_t mapped_end; /* the end of what the mapping shows, also in part */
	uint64_t run_first, run_last; /* the pages that were installed with it */
	struct ra_window ra; /* readahead to submit */
	uint32_t more;       /* pages to be read with the wanted one, in one read */
	uint32_t unmap_seq;        /* the view's, when vma was found */
	bool counted_major;
	bool no_stage;     /* it is to be read into a frame of its own */
	bool exact;        /* a call says itself what is to be read: nothing beside it */
	bool repeated;     /* this very access faulted before, and was served */
	bool paced;        /* a write: it has been held back once for what is dirty */
	bool asked_size;   /* the store has been asked whether the file has grown */
	bool waited_for_group; /* for the rest of its page's */
	bool waited;       /* a ticket's wait is over: the attempt's errno is ours */
	bool had_error;    /* when the wait began the page had one already: an older attempt's */
	uint32_t attempt;  /* the page's attempts by then */
	struct page *stale;        /* its pin is to be put after the map lock is dropped */
	struct page *stale_locked; /* so is this one's, and its lock */
	uint32_t tries;
	uint64_t started_ns;
};

/* From the fault's beginning: it may wait many times, and the store be dead all the while. */
static inline uint64_t fault_deadline(const struct fault *vmf)
{
	return vmf->file->deadline_ns ? vmf->started_ns + vmf->file->deadline_ns : OS_FOREVER;
}

/* fault_path.c: what traps and calls go through */
static inline uint32_t fault_flags(const struct fm_mm *mm, uint32_t flags)
{
	return flags | FM_FAULT_KILLABLE | (mm->flags & FM_MM_HOLD_LOCK ? 0 : FM_FAULT_ALLOW_RETRY);
}

/* fault.c */
unsigned filemap_fault(struct fault *vmf);

#endif
