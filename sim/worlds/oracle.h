/* SPDX-License-Identifier: MIT */
/*
 * The oracle: for each page how often it is mapped at least and at most, whatever the order in
 * which calls that overlap took effect, and which sizes an object can have had. From these
 * follows which results are allowed.
 * May call: sim.h.
 */
#ifndef FM_SIM_ORACLE_H
#define FM_SIM_ORACLE_H

#include "sim.h"

/* Calls that map or unmap pages of an object begin and end. `begun`: the step at which they began.
 */
void oracle_begin_map(uint32_t f, uint32_t first, uint32_t last);
void oracle_end_map(uint32_t f, uint32_t first, uint32_t last, uint64_t begun);
void oracle_begin_unmap(uint32_t f, uint32_t first, uint32_t last);
void oracle_end_unmap(uint32_t f, uint32_t first, uint32_t last, uint64_t begun);
/* The least, or the most, that an object's size can have been since a step. */
uint64_t oracle_size_since(uint32_t f, uint64_t step, bool most);
/* May an operation on a page that began at a step end with this errno? */
bool oracle_allows(uint32_t f, uint32_t n, int err, uint64_t begun, bool remembered);
/* A call, or a fault, that began at a step has ended: mark the threads that it has passed. */
void oracle_note_passed(uint64_t begun, bool call);

#endif
