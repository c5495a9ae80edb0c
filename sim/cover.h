/* SPDX-License-Identifier: MIT */
/*
 * Coverage: the rows that a large enough number of runs must reach, as X(name, what the row is).
 *
 * The rows of the fault path's truth table come from src/mm/fault/table.h. Each row is counted in
 * two columns: _d, the fault may drop the map lock; _n, the fault may not. Most of the hazards and
 * exits of filemap_fault() follow from the rows of a try, its error and its flags: checks/cover.c
 * derives these. covered() of os/atomic.h counts the others, where the code stands in src, or in
 * the workload. The legal transitions of a page's state word (checks/transitions.h) are rows too.
 */
#ifndef FM_SIM_COVER_H
#define FM_SIM_COVER_H

#include "checks/transitions.h"
#include "mm/fault/table.h"

#define COVER_HAZARDS(X)                                                                       \
	X(a1_unmapped_between, "A1: unmapped between the drop and the retry")                  \
	X(a2_no_frame, "A2: out through out_retry without a frame")                            \
	X(a2_wait_failed, "A2: out through out_retry with a failed page lock")                 \
	X(a3_no_page, "A3: an error exit without a page")                                      \
	X(a4_mark_changes_nothing, "A4: a mark whose window would change nothing")             \
	X(a5_carried_over_reclaim, "A5: reclaim met a page that is carried to the next try")   \
	X(a6_error_carried, "A6: an errno carried over RETRY")                                 \
	X(a6_older_error, "A6: waited for a page that bears an older attempt's errno")         \
	X(a7_no_second_window, "A7: a retry does not find its page: no second window")         \
	X(a7_retry_no_hit, "A7: a retry finds its page: no hit")                               \
	X(a8_nowait, "A8: NOWAIT meets a locked page")                                         \
	X(a9_room, "A9: killed while waiting for room")                                        \
	X(a9_frame, "A9: killed while waiting for a frame")                                    \
	X(a9_read, "A9: killed while its read is under way")                                   \
	X(a9_keeper, "A9: killed while waiting for a pin set")                          \
	X(a10_shrunk_before_install, "A10: truncated between the look-up and the install")     \
	X(a10_asked_for_several, "A10: one question for the version, after several reads")           \
	X(a10_changed_meanwhile, "A10: the object changed while a page of it was read")        \
	X(a10_all_past_end, "A10: a page past the end by the time it was read")                \
	X(a10_ended_early, "A10: a read that ended before the end that was known")             \
	X(a11_writer_passes, "A11: an unmap came and went while a fault waited for its page")  \
	X(a11_fault_passes, "A11: and so did another fault, after it")                         \
	X(a12_clipped, "A12: a large page shown only up to the end of the file")               \
	X(a12_tail, "A12: the tail of the last page zeroed")                                   \
	X(a13_start, "A13: a window that reaches offset 0")                                    \
	X(a13_start_cut, "A13: a window cut off at offset 0")                                  \
	X(a13_end, "A13: a window cut off at the end")                                         \
	X(a13_past_end, "A13: a window past the end")                                          \
	X(a13_past_4g, "A13: a window past 2^32 pages")                                        \
	X(a13_window_moved, "A13: a mark whose window has moved elsewhere")                    \
	X(a13_cached_inside, "A13: a window with cached pages in it")                          \
	X(a13_mark_on_cached, "A13: a mark put on a cached page")                              \
	X(a14_larger_than_budget, "A14: fm_fault_in() of more than the budget holds")            \
	X(group_made_of_holes, "group: made of frames without memory")                         \
	X(group_made_of_free, "group: made of frames that became free together")               \
	X(group_freed, "group: all of it is free again")                                       \
	X(group_parted, "group: split, and some of it was free")                               \
	X(group_in, "group: all of it into the view at once")                                  \
	X(group_out, "group: all of it out of the view at once")                               \
	X(group_late, "group: the rest of it is waited for")                                   \
	X(run_behind_a_read, "run: to be written to, behind a page that was read first")            \
	X(group_cached_inside, "group: some of what it was to hold is cached")                 \
	X(stream_leapt, "a stream found again behind cached pages")                           \
	X(staged_ahead, "a page that is read ahead into a staging slot")

#define COVER_EXITS(X)                                                                             \
	X(exit_dying, "the mm is being destroyed")                                                 \
	X(exit_carried_gone, "the carried page has left the cache")                                \
	X(exit_dropped_uptodate, "uptodate, after the lock was dropped for readahead")             \
	X(exit_wait_timeout, "wait for the page lock: past the deadline")                          \
	X(exit_room_timeout, "wait for room: past the deadline")                                   \
	X(exit_frame_timeout, "wait for a frame: past the deadline")                               \
	X(exit_frame_timeout_n, "the same, of a fault with a ticket")                              \
	X(exit_throttled_error, "a write that was held back ends with an error")                   \
	X(exit_emptied_dirty,                                                                      \
	  "recorded as installed, yet it faulted, or could not be moved: dirty, and lost")         \
	X(exit_read_error, "the read brought an errno")                                            \
	X(exit_read_timeout, "the read passed its deadline")                                       \
	X(exit_read_no_room, "no room for the read after the frame was had")                       \
	X(exit_stale_d, "nothing more is read of a changed snapshot")                              \
	X(exit_stale_n, "the same, NOWAIT")                                                        \
	X(exit_unread_dropped_n, "NOWAIT: no room; the unread page is given back")                 \
	X(exit_unread_kept_n, "NOWAIT: no room; somebody else holds the unread page")              \
	X(exit_install_again, "installing found other bytes or another size: look again")          \
	X(exit_install_no_memory, "installing found no memory, for 100 ms")                        \
	X(exit_staged_unread, "read into a staging slot, and not to be put into the view")         \
	X(exit_unmapped_installed, "unmapped, this or another page, while it was installed")       \
	X(exit_unmapped_staged, "unmapped while it was read into a staging slot")                  \
	X(queue_gone_again, "queue: a page that came was evicted before it was installed")         \
	X(queue_installed, "queue: a page that was installed as it came")                          \
	X(queue_ticket_cancelled, "queue: destroyed while a range of it waits")

#define COVER_BOTH(name, help, may_drop, may_not)                                                  \
	COVER_X(name##_d, help "; may drop") COVER_X(name##_n, help "; may not")
#define COVER_PAGE(name, sets, may_set, clears, may_clear, needs, forbids, pins, help)             \
	COVER_X(page_##name, help)
#define COVER_ALL                                                                              \
	FAULT_TABLE(COVER_BOTH) COVER_HAZARDS(COVER_X) COVER_EXITS(COVER_X) PAGE_TRANSITIONS(COVER_PAGE)

#endif
