/* SPDX-License-Identifier: MIT */
/*
 * Bells: futex words on which the library's threads sleep. A caller that has work for a thread
 * rings the thread's bell. Only the woken thread knows what the work is.
 */
#include "mm/base/bell.h"

#include "mm/base/mm.h"
#include "os/atomic.h"
#include "os/os.h"

void background_kick(struct fm_mm *mm)
{
	atomic_add(&mm->background_seq, 1u);
	if (atomic_get(&mm->background_state) != BACKGROUND_RUNS)
		os_futex_wake(&mm->background_seq, 1, OS_FUTEX_ANY);
}

/* Tell the background thread about work that can wait for PROTECT_DELAY_NS. */
void background_note(struct fm_mm *mm)
{
	if (atomic_get(&mm->background_state) == BACKGROUND_SLEEPS)
		background_kick(mm);
}

void closer_kick(struct fm_mm *mm)
{
	atomic_add(&mm->closer_seq, 1u);
	os_futex_wake(&mm->closer_seq, 1, OS_FUTEX_ANY);
}

void writeback_kick(struct fm_mm *mm)
{
	if (!atomic_get(&mm->wb))
		return;
	atomic_add(&mm->writer_bell.seq, 1u);
	os_futex_wake(&mm->writer_bell.seq, 1, OS_FUTEX_ANY);
}

/* Tell the write-back thread that its next pass has work. Only the first call wakes the
 * thread. */
void writeback_note(struct fm_mm *mm)
{
	struct writer_bell *bell = &mm->writer_bell;
	if (atomic_get(&mm->wb) && !atomic_get(&bell->noted) && !atomic_xchg(&bell->noted, 1u))
		writeback_kick(mm);
}

/* Tell the write-back thread that a thread waits for dirty pages, or for written pages that have
 * not been flushed. */
void writeback_urge(struct fm_mm *mm)
{
	if (atomic_get(&mm->wb) && !atomic_xchg(&mm->writer_bell.urgent, 1u))
		writeback_kick(mm);
}

/* Return how many requests replays may have under way at once. All files together may use three
 * eighths of the requests. A file may use an eighth of the frames. */
uint32_t replay_requests_most(const struct fm_mm *mm)
{
	return mm->request_count * 3 / 8;
}

void replay_kick(struct fm_mm *mm)
{
	atomic_add(&mm->replay_seq, 1u);
	os_futex_wake(&mm->replay_seq, 1, OS_FUTEX_ANY);
}

/* Tell the replay thread that a read has ended, so a replay of a hot set may continue. Not every
 * read wakes the thread: a few reads together cause one wake-up. */
void replay_room(struct fm_mm *mm)
{
	if (atomic_get(&mm->requests_busy) <= replay_requests_most(mm) / 2)
		replay_kick(mm);
}
