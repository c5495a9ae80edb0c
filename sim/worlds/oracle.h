/* SPDX-License-Identifier: MIT */
/*
 * The oracle knows how often each page is mapped, at least and at most. Calls that overlap may
 * take effect in any order. The oracle also knows the sizes that an object may have had. Both tell
 * which results are allowed.
 */
#ifndef FM_SIM_ORACLE_H
#define FM_SIM_ORACLE_H

#include "sim.h"

/* A call that maps or unmaps pages of an object begins or ends. `begun`: the step at which the
 * call began. */
void oracle_begin_map(uint32_t f, uint32_t first, uint32_t last);
void oracle_end_map(uint32_t f, uint32_t first, uint32_t last, uint64_t begun);
void oracle_begin_unmap(uint32_t f, uint32_t first, uint32_t last);
void oracle_end_unmap(uint32_t f, uint32_t first, uint32_t last, uint64_t begun);
/* Return the least, or the most, size that an object may have had since a step. */
uint64_t oracle_size_since(uint32_t f, uint64_t step, bool most);
/* Return whether an operation on a page, begun at step `begun`, may end with this errno. */
bool oracle_allows(uint32_t f, uint32_t n, int err, uint64_t begun, bool remembered);
/* A call or a fault, begun at step `begun`, has ended. Mark the threads that waited all the
 * time. */
void oracle_note_passed(uint64_t begun, bool call);

#endif
