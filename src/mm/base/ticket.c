/* SPDX-License-Identifier: MIT */
/*
 * Tickets: a ticket is the place in a queue of a fault that must not sleep. The thread that ends
 * the wait runs the ticket.
 */
#include "mm/base/ticket.h"

#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/ticket_list.h"
#include "os/atomic.h"
#include "os/os.h"

/* Append a ticket. The caller holds the queue lock. */
void ticket_append(struct ticket_list *queue, struct ticket *ticket)
{
	ticket->next = NULL;
	if (!queue->head) /* the tail of an empty queue is stale */
		queue->tail = &queue->head;
	atomic_set(queue->tail, ticket); /* other threads read the head without the lock */
	queue->tail = &ticket->next;
}

void ticket_queue(struct ticket_list *queue, struct ticket *ticket)
{
	os_lock(&queue->lock);
	ticket_append(queue, ticket);
	os_unlock(&queue->lock);
}

/* Return whether the ticket is worth running. Without this test, tickets that wait for a dead
 * store would take every turn from other tickets. */
static bool ticket_ready(const struct ticket *ticket)
{
	return !ticket->ready || atomic_get(&ticket->file->mm->dying) || ticket->ready(ticket);
}

static struct ticket *take_from(struct ticket_list *queue, bool throttled)
{
	if (!atomic_get(&queue->head))
		return NULL;
	os_lock(&queue->lock);
	struct ticket **at = &queue->head;
	while (*at && !(throttled ? (*at)->throttled : ticket_ready(*at)))
		at = &(*at)->next;
	struct ticket *ticket = *at;
	if (ticket) {
		if (!ticket->next)
			queue->tail = at;
		atomic_set(at, ticket->next);
	}
	os_unlock(&queue->lock);
	return ticket;
}

/* Take the oldest ticket that could continue off the queue, or return NULL. The search skips
 * tickets of a store that is stuck with its share of frames. Takes the queue lock. */
struct ticket *ticket_take(struct ticket_list *queue)
{
	return take_from(queue, false);
}

/* Take the oldest ticket that waits for room for dirty pages off the queue, whether or not
 * there is room. Takes the queue lock. */
struct ticket *ticket_take_throttled(struct ticket_list *queue)
{
	return take_from(queue, true);
}
