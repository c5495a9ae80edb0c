/* SPDX-License-Identifier: MIT */
/* Transfers move a page between a slot and a view by MOVE, and repeat as the kernel
 * asks. */
#include "mm/view/transfer.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/cache/dirty.h"
#include "mm/frames/page.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/trap.h"

#include <errno.h>

#define NOMEM_TRIES 100

/*
 * Count pages that a failed MOVE has moved without saying so. A MOVE of several pages
 * that stops at EEXIST (see move_after_exist()) reports only the pages before; one more
 * page has gone. A MOVE that stops at EBUSY may not count the pages moved in one batch
 * (Linux 6.18). The next MOVE then says EEXIST of those pages. The pages are counted
 * before the first of them is tried again or undone: that would leave the others behind.
 * Returns the bytes that have gone. The kernel has woken no waiter for these pages
 * (thread trap), so this function wakes the waiters.
 */
uint64_t move_uncounted(struct fm_mm *mm, uint64_t dst, uint64_t src, uint64_t len)
{
	uint64_t at = 0;
	while (at < len && trap_present(src + at) == 0 && trap_present(dst + at) == 1)
		at += OS_PAGE;
	if (at)
		trap_wake(mm->trap, dst, at);
	return at;
}

/*
 * Find out whether a MOVE that said EEXIST has moved the page. Beside a WRITEPROTECT of
 * the same range, MOVE says so now and then of a page that the call itself has just
 * moved (Linux 6.18: once in some 500,000). The caller holds the page lock, so no other
 * thread moves the page: moving the page back succeeds only in that case. The move back
 * can fail: the kernel has the page pinned for now, or has no memory, or an error mark
 * now stands there. Then both places tell: the page is only where it was to go. May
 * block. Returns 0 if the page is back, or has gone altogether: the caller repeats the
 * MOVE. Returns 1 if the page was moved, -EEXIST if the page was not.
 */
int move_after_exist(struct fm_mm *mm, uint64_t dst, uint64_t src)
{
	uint64_t done;
	int err = -EAGAIN;
	for (int tries = 0; (err == -EAGAIN || err == -EBUSY) && tries < BUSY_TRIES; tries++) {
		if (tries > 5)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		err = trap_move(mm->trap, src, dst, OS_PAGE, &done);
	}
	/* -ENOENT: the page was moved and has been emptied behind the library; the next MOVE
	 * tells */
	if (err == 0 || err == -ENOENT)
		return 0;
	return move_uncounted(mm, dst, src, OS_PAGE) ? 1 : -EEXIST;
}

/* Deal with an EEXIST of MOVE. Returns true if the EEXIST has been dealt with. To find
 * out, a page that leaves the view may go back into the view, where the page arrives
 * writable. */
static bool move_had_worked(struct transfer *t)
{
	if (t->leaves && t->leaves->file->writable)
		page_mark_dirty(t->leaves->file->pool, t->leaves);
	int after = move_after_exist(t->mm, t->dst + t->done, t->src + t->done);
	if (after == 1)
		t->done += OS_PAGE;
	return after >= 0;
}

static bool count_uncounted(struct transfer *t, int err)
{
	if (likely(!err || err == -EAGAIN))
		return false;
	uint64_t more = move_uncounted(t->mm, t->dst + t->done, t->src + t->done, t->len - t->done);
	t->done += more;
	return more > 0;
}

/* Decide what follows a kernel call that moved or copied part of a range. May block.
 * Returns 0 to go on, 1 to use COPY from here on, else the error. */
static int transfer_next(struct transfer *t, int err)
{
	switch (err) {
	case 0:
	case -EAGAIN: /* part of the range went, or the kernel is changing the mappings: go on */
		return 0;
	case -EEXIST:
		t->existed = true;
		t->done += OS_PAGE;
		stats_add(t->mm->stats, install_exists, 1);
		return 0;
	/* the kernel has a pin on the page, for a moment after O_DIRECT, for example */
	case -EBUSY:
		stats_add(t->mm->stats, install_busy, 1);
		if (++t->busy > BUSY_TRIES)
			return 1;
		if (t->busy > 5)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		return 0;
	case -EINVAL: /* the range is partly mlocked */
		return 1;
	case -ENOENT: /* the source has no page, or the destination is not the library's */
		return trap_is_ours(t->mm->trap, t->dst + t->done, OS_PAGE) ? err : FOREIGN;
	case -ENOMEM:
		if (++t->nomem > NOMEM_TRIES)
			return err;
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC);
		return 0;
	default:
		return err;
	}
}

/* Move back the part of a page that has been moved, before the whole page is copied. A
 * slot has all bytes of its page, or none. Returns false if the part cannot go back. */
static bool take_back(struct transfer *t)
{
	struct transfer back = {.mm = t->mm, .dst = t->src, .src = t->dst, .len = t->done};
	if (transfer_out(&back) < 0)
		return false;
	t->done = 0;
	return true;
}

int transfer_in(struct transfer *t, bool move)
{
	while (t->done < t->len) {
		uint64_t done = 0;
		int err = move ? trap_move(t->mm->trap, t->dst + t->done, t->src + t->done,
					   t->len - t->done, &done)
			       : trap_copy(t->mm->trap, t->dst + t->done, t->src + t->done,
					   t->len - t->done, &done);
		t->done += done;
		if (done && !move)
			t->copied = true;
		/* The slot has a hole: the bytes that were moved before have been emptied behind the
		 * library. */
		if (err == -EFAULT && !move)
			err = -ENOENT;
		if (unlikely(move && count_uncounted(t, err)))
			continue;
		if (err == -EEXIST && move && move_had_worked(t))
			continue;
		/* An error mark may stand there (thread trap): COPY replaces the mark by the page, but
		 * MOVE does not. COPY is not used to undo a taking-out, because the holes would be
		 * copied. */
		if (err == -EEXIST && move && !t->back)
			err = 1;
		else
			err = transfer_next(t, err);
		if (err == 1 && move && take_back(t))
			move = false;
		else if (err)
			return err == 1 ? -EBUSY : err;
	}
	return 0;
}

/* Undo a taking-out that got stuck. Pieces whose bytes are nowhere are left out. If the
 * function fails, some pieces stay where they are. */
int transfer_back(struct transfer *t)
{
	int err;
	t->back = true;
	while ((err = transfer_in(t, true)) == -ENOENT)
		t->done += OS_PAGE;
	return err;
}

/* Move all of a page back to its slot, for an eviction or to roll an install back. If
 * `missing` is set at return, the slot has holes. */
int transfer_out(struct transfer *t)
{
	while (t->done < t->len) {
		uint64_t done = 0;
		int err = trap_move(t->mm->trap, t->dst + t->done, t->src + t->done,
				    t->len - t->done, &done);
		t->done += done;
		if (unlikely(count_uncounted(t, err)))
			continue;
		if (err == -EEXIST && move_had_worked(t))
			continue;
		/* The view has no page there, or an error mark. The hole is not filled here: if this
		 * transfer is rolled back, zeros must not get into the view. */
		if (err == -ENOENT || err == -EFAULT) {
			t->missing = true;
			t->done += OS_PAGE;
			continue;
		}
		if (err && err != -EAGAIN)
			return err;
	}
	return 0;
}

/* Move one page from `src` to `dst`. The caller holds the page lock. May block. Returns
 * 0, or the error that keeps the page where it is. The function repeats after -EAGAIN
 * and -EBUSY for a while. */
int move_page(struct fm_mm *mm, uint64_t dst, uint64_t src)
{
	uint64_t done;
	int err = -EAGAIN;

	for (int tries = 0;
	     (err == -EAGAIN || err == -EBUSY || err == -ENOMEM) && tries < BUSY_TRIES; tries++) {
		if (tries > 5)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		err = trap_move(mm->trap, dst, src, OS_PAGE, &done);
		if (err == -EEXIST) {
			int after = move_after_exist(mm, dst, src);
			err = after == 1 ? 0 : after == 0 ? -EAGAIN : after;
		}
	}
	return err;
}
