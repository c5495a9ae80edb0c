/* SPDX-License-Identifier: MIT */
/*
 * The truth table of the fault path: a row for each situation that a try may meet, and the only
 * answer that the try may then give. Column "may drop" holds for a fault with ALLOW_RETRY and
 * without RETRY_NOWAIT, column "may not" for every other fault.
 *
 *   LOCKED   The map lock is held. The page is pinned, locked and uptodate.
 *   DROPPED  RETRY. The map lock was dropped, and what blocks was done without the lock.
 *   TICKET   RETRY. The map lock is held. vmf->want names what the caller must do without the lock.
 *   SIGBUS   The map lock is held. vmf->error is the errno.
 *   OOM      The map lock is held. There is no memory.
 *   SEGV     The map lock is held. The caller finds this before filemap_fault() is called.
 *
 * ROW(name) of exit.h stands where a row begins. A try may meet several rows; the last row decides.
 */
#ifndef FM_MM_FAULT_TABLE_H
#define FM_MM_FAULT_TABLE_H

/* clang-format off */
#define FAULT_TABLE(X)                                                                            \
	/* row         the try met                                              may drop  may not */ \
	X(no_mapping,  "no mapping here (any more)",                            SEGV,     SEGV)      \
	X(read_only,   "write to a read-only mapping",                          SEGV,     SEGV)      \
	X(read_failed, "a read that failed: told by the next try",              SIGBUS,   SIGBUS)    \
	X(deadline,    "a wait that passed the deadline: told by the next try", SIGBUS,   SIGBUS)    \
	X(no_memory,   "no memory for the page: told by the next try",          OOM,      OOM)       \
	X(past_end,    "beyond the end of the file",                            SIGBUS,   SIGBUS)    \
	X(size_asked,  "beyond the end that is known: the store is asked",      DROPPED,  TICKET)    \
	X(absent,      "the page is not cached",                                DROPPED,  TICKET)    \
	X(no_request,  "no request is free, or the store has its share",        DROPPED,  TICKET)    \
	X(no_frame,    "no frame is free",                                      DROPPED,  TICKET)    \
	X(mark,        "the page carries the readahead mark",                   DROPPED,  LOCKED)    \
	X(locked,      "the page is locked by another thread",                  DROPPED,  TICKET)    \
	X(killed,      "the mm is destroyed while the fault waits",             DROPPED,  TICKET)    \
	X(truncated,   "the page left the cache while the fault waited",        DROPPED,  TICKET)    \
	X(unread,      "the page is cached and was not read",                   DROPPED,  TICKET)    \
	X(throttled,   "a write that must wait: too much is dirty, or a write", DROPPED,  TICKET)    \
	X(uptodate,    "the page is uptodate and its lock was free",            LOCKED,   LOCKED)    \
	X(write_clean, "a write to a clean page: made dirty",                   LOCKED,   LOCKED)    \
	X(write_again, "a write to a dirty page: protected, or not in the view", LOCKED,  LOCKED)    \
	X(emptied,     "the page is in the view by the record, yet it faulted", DROPPED,  DROPPED)
/* clang-format on */

#define FAULT_ROW(name, met, may_drop, may_not) ROW_##name,
enum fault_row { FAULT_TABLE(FAULT_ROW) ROWS };
#undef FAULT_ROW

#endif
