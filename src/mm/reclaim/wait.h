/* SPDX-License-Identifier: MIT */
/* Waits for a free frame, or for room for dirty pages. */
#ifndef FM_MM_RECLAIM_WAIT_H
#define FM_MM_RECLAIM_WAIT_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct frame_pool;
struct ticket;

bool frame_to_be_had(struct frame_pool *pool);
void frame_queue_throttled(struct fm_file *file, struct ticket *ticket, uint64_t until_ns);
void frame_queue_last(struct frame_pool *pool, struct ticket *ticket);
int frame_wait(struct fm_file *file, bool killable, uint64_t until_ns);

#endif
