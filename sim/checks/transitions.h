/* SPDX-License-Identifier: MIT */
/*
 * The legal changes of a page's state word in one step, from the diagram in src/mm/cache/index.c:
 *   X(name, sets, may set, clears, may clear, needs, forbids, pins, help)
 * A change is legal if it fits a row. The change sets all of `sets` and nothing beyond `may set`,
 * and clears likewise. The old word has all of `needs` and none of `forbids`. The number of pins
 * changes by `pins`. The runs must reach every row (cover.c).
 */
#ifndef FM_SIM_TRANSITIONS_H
#define FM_SIM_TRANSITIONS_H

#define T_REST                                                                                     \
	(PG_MARK | PG_SPEC | PG_ERROR | PG_SOFT | PG_HOT | PG_NOTIFY | PG_UNPROTECTED | PG_UPTODATE)

#define PAGE_TRANSITIONS(X)                                                                        \
	/* pins, and the lock with its waiters */                                                  \
	X(pin, 0, 0, 0, 0, 0, PG_FREE, 1, "a pin is taken")                                        \
	X(unpin, 0, 0, 0, 0, 0, PG_FREE, -1, "a pin is dropped")                                   \
	X(lock, PG_LOCKED, 0, 0, 0, 0, PG_LOCKED | PG_FREE, 0, "page_trylock()")                   \
	X(unlock, 0, 0, PG_LOCKED, PG_WAITERS | PG_TICKETS | PG_NOTIFY, 0, PG_FREE, 0,              \
	  "page_unlock()")                                                                         \
	X(sleeper, PG_WAITERS, 0, 0, 0, PG_LOCKED, 0, 0, "a thread sleeps for the lock")           \
	X(write_sleeper, PG_WAITERS, 0, 0, 0, PG_WRITEBACK, PG_LOCKED, 0,                          \
	  "a thread sleeps for the end of a write")                                                \
	X(ticket, PG_TICKETS, 0, 0, 0, PG_LOCKED, 0, 0, "a ticket waits for the lock")             \
	/* FREE to LOCKED, in the index or not */                                                  \
	X(alloc, PG_LOCKED, 0, PG_FREE, PG_DUP, PG_FREE, 0, 1, "frame_alloc(): FREE -> LOCKED")    \
	X(fill, 0, 0, PG_HOLE, 0, PG_LOCKED | PG_HOLE, PG_UPTODATE | PG_INSTALLED, 0,              \
	  "the frame gets memory")                                                                 \
	X(lost_race, PG_GONE, PG_HOLE, PG_LOCKED, 0, PG_LOCKED,                                    \
	  PG_UPTODATE | PG_INSTALLED | PG_GONE, 0, "a fresh frame that is not needed")             \
	X(hot, PG_HOT, 0, 0, 0, PG_LOCKED, PG_UPTODATE | PG_INSTALLED, 0,                          \
	  "the page was evicted not long ago")                                                     \
	/* reading */                                                                              \
	X(ahead, PG_SPEC, 0, 0, 0, PG_LOCKED, PG_UPTODATE | PG_INSTALLED, 0, "read ahead")         \
	X(marked, PG_MARK, 0, 0, 0, 0, PG_FREE, 0, "the readahead mark is set")                    \
	X(unmarked, 0, 0, PG_MARK, 0, 0, PG_FREE, 0, "a fault takes the mark and submits")         \
	X(asked, PG_NOTIFY, 0, 0, 0, PG_LOCKED, 0, 0, "a NOWAIT call asks for an event")            \
	X(told, 0, 0, PG_NOTIFY, 0, 0, PG_FREE | PG_LOCKED, 0, "the event of an error is sent")     \
	X(attempt, 0, 0, PG_ERROR, 0, PG_LOCKED | PG_ERROR, PG_UPTODATE | PG_INSTALLED, 0,         \
	  "a new attempt clears the errno")                                                        \
	X(read_ok, PG_UPTODATE, 0, 0, PG_ERROR, PG_LOCKED,                                         \
	  PG_UPTODATE | PG_INSTALLED | PG_HOLE | PG_GONE | PG_DUP, 0, "LOCKED -> UPTODATE")        \
	X(read_failed, PG_ERROR, 0, 0, PG_SPEC | PG_MARK | PG_UPTODATE, PG_LOCKED, PG_INSTALLED,   \
	  0, "LOCKED -> ERROR")                                                                    \
	X(unread, 0, 0, PG_SPEC, PG_MARK | PG_ERROR, PG_LOCKED, PG_UPTODATE | PG_INSTALLED, 0,     \
	  "an attempt ends without a read")                                                        \
	/* UPTODATE to INSTALLED */                                                                \
	X(install, PG_INSTALLED, PG_HOT | PG_DUP | PG_UNPROTECTED, 0, PG_SOFT | PG_SPEC,           \
	  PG_LOCKED | PG_UPTODATE, PG_INSTALLED | PG_HOLE | PG_GONE, 0,                            \
	  "UPTODATE -> UPTODATE|INSTALLED")                                                        \
	X(staged, PG_UPTODATE | PG_INSTALLED, PG_HOT | PG_UNPROTECTED, PG_HOLE, PG_SPEC,           \
	  PG_LOCKED | PG_HOLE, PG_UPTODATE | PG_INSTALLED | PG_GONE | PG_DUP, 0,                   \
	  "LOCKED -> UPTODATE|INSTALLED, from a staging slot")                                     \
	X(protect, 0, 0, PG_UNPROTECTED, 0, 0, PG_FREE, 0, "the view's page is protected again")   \
	X(drop_copy, 0, 0, PG_DUP, 0, PG_LOCKED | PG_INSTALLED, PG_HOLE, 0,                        \
	  "the slot's copy is dropped")                                                            \
	/* INSTALLED to SOFT, or back to UPTODATE, or emptied */                                   \
	X(take_out, 0, PG_SOFT, PG_INSTALLED, PG_UNPROTECTED | PG_DUP, PG_LOCKED | PG_INSTALLED,   \
	  0, 0, "UPTODATE|INSTALLED -> UPTODATE")                                                  \
	X(bytes_gone, 0, 0, PG_UPTODATE, 0, PG_LOCKED | PG_UPTODATE, 0, 0,                         \
	  "the bytes are gone, or of another version")                                             \
	X(emptied, 0, PG_HOLE, PG_INSTALLED, PG_UPTODATE | PG_DUP | PG_UNPROTECTED | PG_SOFT,      \
	  PG_LOCKED | PG_INSTALLED, 0, 0, "the bytes went with the view's memory")                 \
	X(soft, PG_SOFT, 0, 0, 0, PG_LOCKED, PG_INSTALLED | PG_GONE, 0,                            \
	  "the clock has taken the page out")                                                      \
	X(cooled, 0, 0, 0, PG_SOFT | PG_HOT, PG_LOCKED, PG_GONE, 0,                                \
	  "advised cold: the page counts as touched once")                                         \
	X(forget, 0, 0, PG_UPTODATE, PG_SPEC | PG_MARK | PG_SOFT, PG_LOCKED | PG_UPTODATE,         \
	  PG_INSTALLED, 0, "the object has changed")                                               \
	/* files open for writing: see src/mm/cache/dirty.c */                                     \
	X(dirty, PG_DIRTY, 0, 0, 0, PG_UPTODATE | PG_LOCKED, PG_DIRTY | PG_GONE, 0,                \
	  "the page may be written to from now on")                                                \
	X(staged_dirty, PG_DIRTY, 0, 0, 0, PG_LOCKED | PG_HOLE, PG_UPTODATE | PG_DIRTY | PG_GONE,  \
	  0, "the same, for a page not yet in the view")                                           \
	X(dirty_again, PG_DIRTY, 0, 0, 0, PG_UPTODATE, PG_DIRTY | PG_GONE | PG_FREE, 0,            \
	  "a write or a flush of the page has failed")                                             \
	X(clean, 0, 0, PG_DIRTY, 0, PG_DIRTY | PG_LOCKED, 0, 0,                                    \
	  "a write of the page begins, or the page is dropped")                                    \
	X(writing, PG_WRITEBACK, 0, 0, 0, PG_LOCKED | PG_UPTODATE | PG_DIRTY,                      \
	  PG_WRITEBACK | PG_GONE, 0, "a write of the page begins")                                 \
	X(written, 0, 0, PG_WRITEBACK, PG_WAITERS, PG_WRITEBACK, PG_GONE, 0, "a write has ended")  \
	X(writable, PG_UNPROTECTED, 0, 0, 0, PG_LOCKED | PG_INSTALLED | PG_DIRTY,                  \
	  PG_UNPROTECTED | PG_GONE, 0, "the page can be written to in the view")                   \
	/* any, locked, to GONE, to FREE */                                                        \
	X(remove, PG_GONE, 0, 0, 0, PG_LOCKED, PG_INSTALLED | PG_GONE | PG_WRITEBACK, 0,           \
	  "the page leaves the index: GONE")                                                       \
	X(free, PG_FREE, 0, PG_GONE, T_REST, PG_GONE,                                              \
	  PG_LOCKED | PG_INSTALLED | PG_WAITERS | PG_TICKETS, 0, "GONE -> FREE, by the last pin")  \
	X(fill_ahead, 0, 0, PG_HOLE, 0, PG_FREE | PG_HOLE, 0, 0,                                   \
	  "a free frame is filled in advance")                                                     \
	X(give_memory, PG_HOLE, 0, 0, 0, PG_FREE, PG_INSTALLED, 0,                                 \
	  "a free frame's memory is given back")

/* Also legal, but coverage does not require this row. The kernel has a piece of a larger page
 * pinned, so MOVE takes out only a part. Then only COPY can put the part back. */
#define PAGE_TRANSITIONS_RARE(X)                                                                   \
	X(copy_stays, PG_DUP, 0, 0, PG_UNPROTECTED, PG_LOCKED | PG_INSTALLED, 0, 0,                \
	  "a page taken out in part is put back by COPY")

#endif
