/* SPDX-License-Identifier: MIT */
/*
 * Bells: words on which the threads of the library sleep. Whoever has work for a thread rings
 * its bell; only the thread itself knows the work.
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

/* There is something to do that can wait for PROTECT_DELAY_NS. */
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

/* There is something for its next pass: it is woken once. */
void writeback_note(struct fm_mm *mm)
{
	struct writer_bell *bell = &mm->writer_bell;
	if (atomic_get(&mm->wb) && !atomic_get(&bell->noted) && !atomic_xchg(&bell->noted, 1u))
		writeback_kick(mm);
}

/* Somebody waits for what is dirty, or written and not flushed. */
void writeback_urge(struct fm_mm *mm)
{
	if (atomic_get(&mm->wb) && !atomic_xchg(&mm->writer_bell.urgent, 1u))
		writeback_kick(mm);
}

/* Under way at once: three eighths of the requests, however many files, and an eighth of the
 * frames. */
uint32_t replay_requests_most(const struct fm_mm *mm)
{
	return mm->request_count * 3 / 8;
}

void replay_kick(struct fm_mm *mm)
{
	atomic_add(&mm->replay_seq, 1u);
	os_futex_wake(&mm->replay_seq, 1, OS_FUTEX_ANY);
}

/* A read has ended; some hot set may go on. Not at each one: a few together are one wake-up. */
void replay_room(struct fm_mm *mm)
{
	if (atomic_get(&mm->requests_busy) <= replay_requests_most(mm) / 2)
		replay_kick(mm);
}
