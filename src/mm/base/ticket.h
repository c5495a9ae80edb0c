/* SPDX-License-Identifier: MIT */
/*
 * Tickets: a ticket is the place in a queue of a fault that must not sleep. The thread that ends
 * the wait runs the ticket.
 */
#ifndef FM_MM_BASE_TICKET_H
#define FM_MM_BASE_TICKET_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct page;
struct ticket_list;

/* A place in a queue. The thread that ends the wait calls `run` once, with no lock held. */
struct ticket {
	struct ticket *next;
	struct page *page; /* the page that the ticket waits for; NULL: a frame */
	struct fm_file *file; /* the ticket also waits for this file's share of frames; or NULL */
	bool throttled;       /* waits for room for dirty pages of `file`, not for a frame */
	uint64_t until_ns;    /* end of the wait for room */
	void (*run)(struct ticket *ticket);
	bool (*ready)(const struct ticket *ticket); /* whether `run` is worth calling; NULL: always */
	int error; /* errno of the attempt that the ticket waited for; 0 if none */
};

void ticket_append(struct ticket_list *queue, struct ticket *ticket);
void ticket_queue(struct ticket_list *queue, struct ticket *ticket);
struct ticket *ticket_take(struct ticket_list *queue);
struct ticket *ticket_take_throttled(struct ticket_list *queue);

#endif
