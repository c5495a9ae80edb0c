/* SPDX-License-Identifier: MIT */
/*
 * Bells: words on which the threads of the library sleep. Whoever has work for a thread rings
 * its bell; only the thread itself knows the work.
 */
#ifndef FM_MM_BASE_BELL_H
#define FM_MM_BASE_BELL_H

#include <stdint.h>

struct fm_mm;

void background_kick(struct fm_mm *mm);
void background_note(struct fm_mm *mm);
void closer_kick(struct fm_mm *mm);
void writeback_kick(struct fm_mm *mm);
void writeback_note(struct fm_mm *mm);
void writeback_urge(struct fm_mm *mm);
uint32_t replay_requests_most(const struct fm_mm *mm);
void replay_kick(struct fm_mm *mm);
void replay_room(struct fm_mm *mm);

#endif
