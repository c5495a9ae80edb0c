/* SPDX-License-Identifier: MIT */
/*
 * Tickets: places in a queue of a fault that may not sleep. A ticket is run by the thread that
 * ends the wait.
 */
#ifndef FM_MM_BASE_TICKET_H
#define FM_MM_BASE_TICKET_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct page;
struct wait_queue;

/* A place in a queue. `run` is called once, in whichever thread ends the wait, with no lock held.
 */
struct ticket {
	struct ticket *next;
	struct page *page; /* what it waits for; NULL: a frame */
	struct fm_file *file; /* whose share of frames it waits for, too; or NULL */
	bool throttled;       /* it waits for room for dirty pages of `file` in place of a frame */
	uint64_t until_ns;    /* ...or until then */
	void (*run)(struct ticket *ticket);
	bool (*ready)(const struct ticket *ticket); /* whether `run` is worth calling; NULL: always */
	int error; /* of the attempt that it waited for; 0 if none */
};

void ticket_append(struct wait_queue *queue, struct ticket *ticket);
void ticket_queue(struct wait_queue *queue, struct ticket *ticket);
struct ticket *ticket_take(struct wait_queue *queue);
struct ticket *ticket_take_throttled(struct wait_queue *queue);

#endif
