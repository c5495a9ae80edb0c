/* SPDX-License-Identifier: MIT */
/*
 * Tickets: places in a queue of a fault that may not sleep. A ticket is run by the thread that
 * ends the wait.
 */
#include "mm/base/ticket.h"

#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/wait_queue.h"
#include "os/atomic.h"
#include "os/os.h"

/* Queue lock held. */
void ticket_append(struct wait_queue *queue, struct ticket *ticket)
{
	ticket->next = NULL;
	if (!queue->head) /* the tail of an empty queue is not kept */
		queue->tail = &queue->head;
	atomic_set(queue->tail, ticket); /* whether the queue is empty is asked without its lock */
	queue->tail = &ticket->next;
}

void ticket_queue(struct wait_queue *queue, struct ticket *ticket)
{
	os_lock(&queue->lock);
	ticket_append(queue, ticket);
	os_unlock(&queue->lock);
}

/* Whether it is worth running. Else those of a store that is dead would take each turn from others.
 */
static bool ticket_ready(const struct ticket *ticket)
{
	return !ticket->ready || atomic_get(&ticket->file->mm->dying) || ticket->ready(ticket);
}

static struct ticket *take_from(struct wait_queue *queue, bool throttled)
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

/* The oldest that could go on, or NULL: those of a store that is stuck with its share are passed
 * by. */
struct ticket *ticket_take(struct wait_queue *queue)
{
	return take_from(queue, false);
}

/* The oldest that waits for room for dirty pages, whether or not there is some. */
struct ticket *ticket_take_throttled(struct wait_queue *queue)
{
	return take_from(queue, true);
}
