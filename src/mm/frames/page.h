/* SPDX-License-Identifier: MIT */
/* A page's state word, and the functions that change only the state word. */
#ifndef FM_MM_FRAMES_PAGE_H
#define FM_MM_FRAMES_PAGE_H

#include "mm/base/common.h"
#include "mm/frames/page_list.h"
#include "os/atomic.h"

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct frame_pool;

/* A page's state word: flags in the low bits, pins above. Every change is one
 * compare-and-swap. */
enum page_flags {
	PG_LOCKED = 1u << 0,
	PG_WAITERS = 1u << 1,      /* a thread sleeps on the word */
	PG_TICKETS = 1u << 2,      /* a ticket is queued for the page */
	PG_UPTODATE = 1u << 3,     /* the bytes are the store's */
	PG_INSTALLED = 1u << 4,    /* the bytes appear in the view */
	PG_DUP = 1u << 5,          /* installed by COPY, and the slot still has memory, too */
	PG_MARK = 1u << 6,         /* readahead mark: a touch of the page starts the next window */
	PG_SPEC = 1u << 7,         /* read ahead, and not touched yet */
	PG_ERROR = 1u << 8,        /* the last read attempt failed: page.error */
	PG_GONE = 1u << 9,         /* out of the index: the page belongs to no file */
	PG_HOLE = 1u << 10,        /* the slot has no memory */
	PG_FREE = 1u << 11,        /* the frame is free, or about to be: cannot be pinned */
	PG_UNPROTECTED = 1u << 12, /* installed by MOVE: still to be protected; in a file open for
				      writing: the program may write to the page */
	PG_SOFT = 1u << 13,        /* taken out of the view by the clock, still cached */
	PG_HOT = 1u << 14,         /* touched again: the page belongs on ACTIVE */
	PG_NOTIFY =
		1u
		<< 15, /* a call with FM_NOWAIT asked for the page and has not learnt the result */
	PG_DIRTY = 1u << 16,     /* bytes are newer than the store's: see cache/dirty.c */
	PG_WRITEBACK = 1u << 17, /* a write is under way: its source memory stays unchanged */
};

#define PG_FLAGS 0x3ffffu
#define PG_PIN 0x40000u
#define PG_PINS(state) ((state) >> 18)
#define PG_PINS_MAX 0x3f00u

/* The descriptor of a frame. A page's identity (file, index) is written before the page can be
 * found. The identity does not change while the page is pinned or locked. 48 bytes for 4096:
 * 1.2 %. */
struct page {
	uint32_t state;     /* atomic */
	uint32_t hash_next; /* bucket lock */
	struct fm_file *file;
	uint64_t index;
	uint32_t lru_next, lru_prev; /* pool lock */
	uint32_t io_attempt;         /* read attempts begun; changed under the page lock */
	int16_t error;               /* errno of the last attempt; valid with PG_ERROR */
	uint16_t user_pins;          /* fm_pin() count; page lock, except in page_glance() */
	uint16_t request;            /* index + 1 of the read_request under way; request lock */
	uint16_t shown;              /* installed 4096-byte pieces; page lock, except in page_glance() */
	uint8_t list;                /* enum page_list; pool lock */
	bool uncounted;              /* installed, and not in the range's count; page-table lock */
	bool noted;                  /* the first touch is in the file's record; relaxed */
	bool advised_keep;           /* the clock must skip the page once: FM_ADVICE_KEEP; page lock */
};

_Static_assert(sizeof(struct page) <= 48, "frame descriptors must stay under 1.2 % of 4 KiB");

static inline uint32_t page_state(const struct page *page)
{
	return atomic_get(&((struct page *)(uintptr_t)page)->state);
}

/* Return whether another thread has a pin, beside the caller's pin. */
static inline bool page_is_shared(const struct page *page)
{
	return PG_PINS(page_state(page)) > 1;
}

static inline bool page_is(const struct page *page, uint32_t flag)
{
	return (page_state(page) & flag) != 0;
}

/* Return the errno of the read attempt that ended last, according to `state`. Returns 0 if that
 * attempt did not fail, or if the next attempt is under way. */
static inline int page_error(const struct page *page, uint32_t state)
{
	return (state & PG_ERROR) && !(state & (PG_UPTODATE | PG_LOCKED)) ? page_word(page, error) : 0;
}

void page_set(struct page *page, uint32_t set, uint32_t clear);
bool page_try_pin(struct page *page);
void page_pin(struct page *page);
bool page_trylock(struct page *page);

#endif
