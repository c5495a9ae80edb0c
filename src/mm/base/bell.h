/* SPDX-License-Identifier: MIT */
/*
 * Bells: futex words on which the library's threads sleep. A caller that has work for a thread
 * rings the thread's bell. Only the woken thread knows what the work is.
 */
#ifndef FM_MM_BASE_BELL_H
#define FM_MM_BASE_BELL_H

#include "mm/base/mm.h"

#include <stdbool.h>
#include <stdint.h>

void background_kick(struct fm_mm *mm);
void background_note(struct fm_mm *mm);
void closer_kick(struct fm_mm *mm);
void writeback_kick(struct fm_mm *mm);
void writeback_note(struct fm_mm *mm);
void writeback_urge(struct fm_mm *mm);
uint32_t replay_requests_most(const struct fm_mm *mm);
void replay_kick(struct fm_mm *mm);
void replay_room(struct fm_mm *mm);

static inline bool replays_under_way(const struct fm_mm *mm)
{
	return __atomic_load_n(&mm->replaying, __ATOMIC_RELAXED) != 0;
}

#endif
