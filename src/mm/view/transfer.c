/* SPDX-License-Identifier: MIT */
/* MOVE between a slot and a view, with the repeats that the kernel asks for. */
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
 * A MOVE of several pages that stopped at EEXIST (see move_after_exist()) says only how many went
 * before, and one more has gone; one that stopped at EBUSY may not count what it had moved in one
 * batch (Linux 6.18), of which the next MOVE says EEXIST. They are counted before anything is tried
 * with the first of them, or undone: that would leave the others behind. Returns the bytes that
 * have gone. The kernel has called nobody for them (thread trap).
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
 * MOVE said EEXIST. Beside a WRITEPROTECT of the same range it says so now and then of a page that
 * it has just moved itself (Linux 6.18: once in some 500,000). Page lock held, so nobody else moves
 * it: moving it back succeeds only then. Where it can't be moved back (the kernel has it pinned for
 * now, or has no memory; or meanwhile an error's mark stands there), both places tell: a page only
 * where it was to go. 0: it is back, or has gone altogether: repeat; 1: it was moved; -EEXIST: it
 * was not.
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
	if (err == 0 || err == -ENOENT) /* moved, and emptied behind us since: the repeated MOVE tells */
		return 0;
	return move_uncounted(mm, dst, src, OS_PAGE) ? 1 : -EEXIST;
}

/* True: MOVE's EEXIST has been dealt with. A page that leaves the view may go back there for that,
 * where it arrives writable. */
static bool move_had_worked(struct transfer *t)
{
	if (t->leaves && t->leaves->file->writable)
		page_dirty(t->leaves->file->pool, t->leaves);
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

/* What to do after a kernel call that moved or copied part of a range. 0: go on; 1: use COPY from
 * here on; else the error. */
static int transfer_next(struct transfer *t, int err)
{
	switch (err) {
	case 0:
	case -EAGAIN: /* part of it went, or the kernel is changing the mappings: go on */
		return 0;
	case -EEXIST:
		t->existed = true;
		t->done += OS_PAGE;
		stats_add(t->mm->stats, install_exists, 1);
		return 0;
	case -EBUSY: /* the kernel has a pin on it, for a moment after O_DIRECT for one */
		stats_add(t->mm->stats, install_busy, 1);
		if (++t->busy > BUSY_TRIES)
			return 1;
		if (t->busy > 5)
			os_sleep_until(os_now_ns() + BUSY_PAUSE_NS);
		return 0;
	case -EINVAL: /* a range that is partly mlocked */
		return 1;
	case -ENOENT: /* nothing where it comes from; or nobody's place where it is to go */
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

/* What has been moved of a page goes back before the whole is copied: a slot has all bytes of its
 * page, or none. */
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
		if (err == -EFAULT && !move) /* a hole in the slot: what was moved before has been
						emptied behind us */
			err = -ENOENT;
		if (unlikely(move && count_uncounted(t, err)))
			continue;
		if (err == -EEXIST && move && move_had_worked(t))
			continue;
		/* The mark of an error may stand there (thread trap): COPY puts the page in its
		 * place, where MOVE does not. Not to undo a taking-out, whose holes would be
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

/* A taking-out that got stuck is undone; pieces that nobody has are left out. Else some stay where
 * they are. */
int transfer_back(struct transfer *t)
{
	int err;
	t->back = true;
	while ((err = transfer_in(t, true)) == -ENOENT)
		t->done += OS_PAGE;
	return err;
}

/* Back to the slot, all of it; used for eviction and to roll an install back. With `missing` the
 * slot has holes. */
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
		/* Nothing there, or the mark of an error. Not filled here: zeros must not get into
		 * the view should this be rolled back. */
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

/* One page from here to there, its lock held: 0, or what keeps it where it is. -EAGAIN and -EBUSY
 * have been tried for a while. */
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
