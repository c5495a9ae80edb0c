/* SPDX-License-Identifier: MIT */
/*
 * Drives a fault from the trap to filemap_fault() and back: finds the mapping, tries until the
 * fault is served, and installs the page. For a fault that may not wait, turns what the fault
 * wants into requests and tickets.
 */
#ifndef FM_MM_FAULT_DRIVE_H
#define FM_MM_FAULT_DRIVE_H

#include <stdbool.h>
#include <stdint.h>

struct fault;
struct fm_mm;
struct ticket;
struct view;

struct view *view_find(struct fm_mm *mm, uint64_t addr);
bool fault_park(struct fault *vmf, const struct ticket *ticket);
int fault_drive(struct fault *vmf, struct ticket *ticket);

#endif
