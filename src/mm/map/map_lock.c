/* SPDX-License-Identifier: MIT */
/*
 * The map lock: a reader-writer lock on futexes, phase-fair, instrumented.
 *
 * This file owns struct map_lock. In a phase-fair lock a reader waits for at most one writer. A
 * writer waits for the readers and the writers that came before it. So neither starves (after
 * Brandenburg and Anderson, "Spin-based reader-writer synchronization for multiprocessor
 * real-time systems", 2010).
 *   rin   readers that have arrived, in units of READER; low bits: writer present, writer's phase
 *   rout  readers that have left, in units of READER
 *   win   writers that have arrived; wout: writers that have left
 * The only system call between lock and unlock is the wake-up that the unlock makes. Reading
 * the clock is a system call if the machine's clock source has no vDSO (hpet, acpi_pm, xen). So
 * a thread reads the clock before the test that finds the lock acquired, and again after the
 * release. The recorded hold time is longer by that much, never shorter.
 */
#include "mm/map/map_lock.h"

#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "mm/base/self.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"

#include <limits.h>
#include <stdlib.h>

#define READER 0x100u
#define WRITER_PRESENT 2u
#define WRITER_PHASE 1u
#define WRITER_BITS (WRITER_PRESENT | WRITER_PHASE)
#define SPINS 100
#define WAKE_READERS 1u
#define WAKE_WRITERS 2u

/* Record that the thread has acquired the lock. `now_ns` is the time just before the thread found
 * that the thread has the lock. */
static void lock_taken(struct map_lock *lock, uint64_t asked_ns, uint64_t now_ns, bool contended,
		       bool exclusive)
{
	struct thread_local_area *t = self();
	mm_assert(!t->map_held); /* rank 1 is taken first, and once */
	t->map_held = 1;
	t->map_exclusive = exclusive;
	t->map_since_ns = now_ns;
	stats_record(&lock->stats->lock_wait_ns, contended ? now_ns - asked_ns : 0);
	if (contended)
		stats_add(lock->stats, lock_contended, 1);
	if (exclusive)
		stats_add(lock->stats, lock_exclusive, 1);
	else
		stats_add(lock->stats, lock_shared, 1);
}

/* Record that the thread is about to release the lock. */
static void lock_given(struct map_lock *lock)
{
	struct thread_local_area *t = self();
	mm_assert(t->map_held);
	(void)lock;
	watched(map_lock, lock);
	t->map_held = 0;
}

/* Record the hold time after the release. The lock and its statistics outlive this function:
 * the mm waits for every call inside. */
static void record_hold(struct map_lock *lock, bool exclusive)
{
	uint64_t held_ns = os_now_ns() - self()->map_since_ns;
	stats_record(exclusive ? &lock->stats->lock_hold_exclusive_ns
			       : &lock->stats->lock_hold_shared_ns,
		     held_ns);
}

void map_lock_shared(struct map_lock *lock)
{
	uint64_t asked_ns = os_now_ns(), now_ns = asked_ns;
	uint32_t writer = atomic_add(&lock->rin, READER) & WRITER_BITS;
	for (int spin = 0; writer; spin++) {
		now_ns = os_now_ns();
		uint32_t now = atomic_get(&lock->rin);
		if ((now & WRITER_BITS) != writer)
			break;
		if (spin < SPINS)
			os_relax();
		else
			os_futex_wait(&lock->rin, now, WAKE_READERS, OS_FOREVER);
	}
	lock_taken(lock, asked_ns, now_ns, writer != 0, false);
}

void map_unlock_shared(struct map_lock *lock)
{
	lock_given(lock);
	atomic_add(&lock->rout, READER);
	if (atomic_get(&lock->rin) & WRITER_PRESENT)
		os_futex_wake(&lock->rout, 1, WAKE_WRITERS);
	record_hold(lock, false);
}

/* Wait until the word has the value. Sets *now_ns to the time just before the last test. Returns
 * true if the caller had to wait. */
static bool wait_until(uint32_t *word, uint32_t value, uint64_t *now_ns)
{
	for (int spin = 0;; spin++) {
		uint32_t now = atomic_get(word);
		if (now == value)
			return spin > 0;
		if (spin < SPINS)
			os_relax();
		else
			os_futex_wait(word, now, WAKE_WRITERS, OS_FOREVER);
		*now_ns = os_now_ns();
	}
}

void map_lock_exclusive(struct map_lock *lock)
{
	uint64_t asked_ns = os_now_ns(), now_ns = asked_ns;
	uint32_t ticket = atomic_add(&lock->win, 1u);
	bool contended = wait_until(&lock->wout, ticket, &now_ns);
	uint32_t before = atomic_add(&lock->rin, WRITER_PRESENT | (ticket & WRITER_PHASE));
	contended |= wait_until(&lock->rout, before & ~(READER - 1), &now_ns);
	lock_taken(lock, asked_ns, now_ns, contended, true);
}

void map_unlock_exclusive(struct map_lock *lock)
{
	lock_given(lock);
	/* Read `rout` before the readers are let in: a reader that comes and goes at once must not
	 * be counted in place of a reader that sleeps. */
	uint32_t left = atomic_get(&lock->rout);
	uint32_t came = atomic_and(&lock->rin, ~(READER - 1)) & ~(READER - 1);
	if (came != left)
		os_futex_wake(&lock->rin, INT_MAX, WAKE_READERS);
	uint32_t went = atomic_add(&lock->wout, 1u) + 1;
	if (atomic_get(&lock->win) != went)
		os_futex_wake(&lock->wout, INT_MAX, WAKE_WRITERS);
	record_hold(lock, true);
}

void might_block(struct fm_mm *mm)
{
	if (likely(!self()->map_held))
		return;
	stats_add(mm->stats, lock_held_over_block, 1);
#ifdef FM_DEBUG
	if (!(mm->flags & FM_MM_HOLD_LOCK))
		abort();
#endif
}
