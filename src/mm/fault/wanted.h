/* SPDX-License-Identifier: MIT */
/*
 * Serves what a fault wants that may not wait. Submits requests and queues tickets, after the map
 * lock is dropped.
 */
#ifndef FM_MM_FAULT_WANTED_H
#define FM_MM_FAULT_WANTED_H

#include <stdbool.h>

struct fault;
struct fm_file;
struct ticket;

void fault_wait_under_lock(struct fault *vmf);
void fault_submit_window(struct fault *vmf);
bool fault_submit_wanted(struct fault *vmf, struct ticket *ticket);
void frame_ask(struct fm_file *file);
void frame_queue_ticket(struct fm_file *file, struct ticket *ticket);

#endif
