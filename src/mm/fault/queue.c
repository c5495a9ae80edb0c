/* SPDX-License-Identifier: MIT */
/*
 * Queues of ranges that are brought in while their program does something else.
 *
 * A range is served a page at a time, by a fault that may not wait: its ticket is run when its read
 * has ended, in any thread, and puts the range on the ready list. The program's own thread takes it
 * from there in fm_completions(), installs the page, and goes on with the next. What waits on the
 * ready list holds no page: however long the program stays away, it keeps no frame from anybody. A
 * page that has come and was evicted by then counts as brought in, as if it had been touched.
 *
 * Owns struct fm_queue and its entries, all allocated when it is made. An entry belongs to the free
 * list, to the thread that drives it, to the wait queue its ticket is in, or to the ready list.
 * `lock` protects both lists; nothing is called with it held. The table of queues tells the living
 * from the dead: who is inside a call has its place's `users`.
 */
#include "mm/fault/queue.h"

#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/submit.h"
#include "mm/base/ticket.h"
#include "mm/base/view.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fault/attempt.h"
#include "mm/fault/drive.h"
#include "mm/fault/vmf.h"
#include "mm/fill/ahead.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/record.h"
#include "mm/fill/share.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "os/atomic.h"
#include "os/os.h"
#include "trap/trap.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define QUEUES_MAX 256
#define ENTRIES_MAX (1u << 20)
#define SPIN_NS 40000u

enum entry_state { ENTRY_FREE, ENTRY_DRIVEN, ENTRY_WAITS, ENTRY_READY };

struct queue_entry {
	struct ticket ticket; /* first */
	struct fault vmf;
	struct fm_queue *queue;
	struct queue_entry *next; /* lock */
	struct fm_range range;
	uint64_t at, end; /* what is still to be brought in */
	uint64_t ahead;   /* up to here reads have been begun */
	uint32_t state;   /* enum entry_state; atomic */
	bool begun; /* vmf is a fault on its way, its region pinned */
	bool came;  /* its page was whole when its wait ended */
	bool ended; /* range.error says how */
};

struct fm_queue {
	struct fm_mm *mm;
	struct os_lock lock;
	struct queue_entry *free, *ready, **ready_tail; /* lock; `ready` is also looked at without */
	uint32_t seq;       /* futex: changes when something gets ready */
	uint32_t waiters;   /* threads asleep on it, or about to; atomic */
	uint32_t woken;     /* one of them has been woken and has not looked yet; atomic */
	uint32_t closing;   /* atomic */
	int event_fd;       /* atomic; -1: nobody asked for one */
	uint32_t signalled; /* it has been written since it was cleared; atomic */
	uint32_t pushing;   /* threads that put something on the ready list; atomic */
	uint32_t entries;
	size_t len;
	struct queue_entry entry[];
};

_Static_assert(sizeof(struct queue_entry) <= 512, "filemap.h says 512 bytes a range");

static struct queue_place {
	struct fm_queue *queue; /* atomic; ENDING: its place is not to be had yet */
	struct fm_mm *mm;       /* atomic */
	uint32_t users;         /* atomic */
} places[QUEUES_MAX];

#define ENDING ((struct fm_queue *)1)

/*
 * There is something ready: tell one thread, and the event loop, unless they have been told and
 * have not looked since. `seq` changes twice: for who has looked already and counts as waiting
 * next, and for who clears `woken` between the two.
 */
static void queue_signal(struct fm_queue *queue)
{
	int fd = atomic_get(&queue->event_fd);
	atomic_add(&queue->seq, 1u);
	if (atomic_get(&queue->waiters) && !atomic_xchg(&queue->woken, 1u)) {
		atomic_add(&queue->seq, 1u);
		os_futex_wake(&queue->seq, 1, OS_FUTEX_ANY);
	}
	if (fd >= 0 && !atomic_xchg(&queue->signalled, 1u))
		os_event_signal(fd);
}

static void ready_push(struct fm_queue *queue, struct queue_entry *entry)
{
	atomic_add(&queue->pushing, 1u); /* while the entry is not ready yet, the queue can't go */
	entry->next = NULL;
	atomic_set(&entry->state, ENTRY_READY);
	os_lock(&queue->lock);
	if (!queue->ready)
		queue->ready_tail = &queue->ready;
	atomic_set(queue->ready_tail, entry);
	queue->ready_tail = &entry->next;
	os_unlock(&queue->lock);
	queue_signal(queue);
	atomic_sub(&queue->pushing, 1u);
}

static struct queue_entry *ready_pop(struct fm_queue *queue)
{
	os_lock(&queue->lock);
	struct queue_entry *entry = queue->ready;
	if (entry)
		atomic_set(&queue->ready, entry->next);
	os_unlock(&queue->lock);
	if (entry)
		atomic_set(&entry->state, ENTRY_DRIVEN);
	return entry;
}

static struct queue_entry *free_pop(struct fm_queue *queue)
{
	os_lock(&queue->lock);
	struct queue_entry *entry = queue->free;
	if (entry)
		queue->free = entry->next;
	os_unlock(&queue->lock);
	if (entry)
		atomic_set(&entry->state, ENTRY_DRIVEN);
	return entry;
}

static void free_push(struct fm_queue *queue, struct queue_entry *entry)
{
	atomic_set(&entry->state,
		   ENTRY_FREE); /* first: it may be another thread's as soon as it is on the list */
	os_lock(&queue->lock);
	entry->next = queue->free;
	queue->free = entry;
	os_unlock(&queue->lock);
}

static void entry_again(struct ticket *ticket)
{
	struct queue_entry *entry = (struct queue_entry *)ticket;
	entry->came = fault_park(&entry->vmf, ticket);
	ready_push(entry->queue, entry);
}

/* Begin the fault of the next page. */
static int entry_begin(struct queue_entry *entry)
{
	struct fm_mm *mm = entry->queue->mm;
	struct view *view = view_find(mm, entry->at);
	if (!view)
		return -EFAULT;
	fault_begin(&entry->vmf, view, entry->at, fault_flags(mm, FM_FAULT_RETRY_NOWAIT));
	entry->vmf.exact = true;
	entry->begun = true;
	entry->came = false;
	entry->ahead = ra_range(view, entry->at, entry->end, entry->ahead);
	return 0;
}

static void entry_end_fault(struct queue_entry *entry, int error)
{
	uint64_t unit = entry->vmf.file->pool->page_size;
	entry->at = (entry->at & ~(unit - 1)) + unit;
	fault_end(&entry->vmf, error);
	region_unpin(&entry->vmf.view->region);
	entry->begun = false;
}

/* The page that was waited for has come, and there is nothing more to do: it is in the view, or has
 * gone again. */
static bool has_come(struct queue_entry *entry)
{
	struct page *page = entry->came ? page_find(entry->vmf.file, entry->vmf.index) : NULL;
	bool there = page && (page_state(page) & (PG_UPTODATE | PG_INSTALLED)) ==
				     (PG_UPTODATE | PG_INSTALLED);
	if (there && unlikely(entry->vmf.file->reads->record))
		record_touch(entry->vmf.file->reads->record, page);
	if (page)
		page_unpin(entry->vmf.file->pool, page);
	covered_if(entry->came && !page, queue_gone_again);
	covered_if(there, queue_installed);
	return there || (entry->came && !page);
}

/* Bring the range in as far as it goes without waiting. True: it has ended. False: its ticket will
 * be run, or has been: it is somebody else's by now. */
static bool entry_drive(struct queue_entry *entry)
{
	while (!entry->ended) {
		int err = atomic_get(&entry->queue->closing) ? -ECANCELED : 0;
		if (!err && !entry->begun)
			err = entry_begin(entry);
		if (!err && !has_come(entry)) {
			entry->came = false;
			atomic_set(&entry->state, ENTRY_WAITS);
			err = fault_drive(&entry->vmf, &entry->ticket);
			if (err == -EAGAIN)
				return false;
			atomic_set(&entry->state, ENTRY_DRIVEN);
		}
		if (entry->begun)
			entry_end_fault(entry, err);
		entry->ended = err || entry->at >= entry->end;
		entry->range.error = err;
	}
	return true;
}

static void entry_start(struct fm_queue *queue, struct queue_entry *entry,
			const struct fm_range *range)
{
	uint64_t start = (uint64_t)(uintptr_t)range->addr;
	entry->range = *range;
	entry->range.error = 0;
	entry->at = start;
	entry->end = start + range->len;
	entry->ahead = 0;
	entry->begun = entry->came = entry->ended = false;
	if (!range->len || range->len > INT64_MAX || entry->end < start) {
		entry->range.error = -EINVAL;
		entry->ended = true;
	}
	if (entry_drive(entry))
		ready_push(queue, entry);
}

/* Every call on a queue but its destruction is made between these two. NULL: it is gone, or never
 * was. */
static struct queue_place *queue_enter(struct fm_queue *queue)
{
	for (int i = 0; queue && i < QUEUES_MAX; i++) {
		if (atomic_get(&places[i].queue) != queue)
			continue;
		atomic_add(&places[i].users, 1u);
		if (atomic_get(&places[i].queue) == queue)
			return &places[i];
		atomic_sub(&places[i].users, 1u);
	}
	return NULL;
}

static void queue_leave(struct queue_place *place)
{
	atomic_sub(&place->users, 1u);
}

/* Ranges are taken as far as there is room. Signals blocked. */
int queue_begin(struct fm_queue *queue, const struct fm_range *ranges, size_t count,
		size_t *ret_begun)
{
	struct queue_place *place = queue_enter(queue);
	size_t begun = 0;
	if (!place)
		return -EOWNERDEAD;
	requests_hold(queue->mm);
	for (; begun < count; begun++) {
		struct queue_entry *entry = free_pop(queue);
		if (!entry)
			break;
		entry_start(queue, entry, &ranges[begun]);
	}
	requests_send(queue->mm);
	queue_leave(place);
	if (count && !begun)
		return -EAGAIN;
	*ret_begun = begun;
	return 0;
}

/* What has ended, and what ends by being driven on. */
static size_t queue_take(struct fm_queue *queue, struct fm_range *ranges, size_t count)
{
	size_t taken = 0;
	requests_hold(queue->mm);
	for (uint32_t i = 0; i < queue->entries && taken < count; i++) {
		struct queue_entry *entry = ready_pop(queue);
		if (!entry)
			break;
		if (!entry_drive(entry))
			continue;
		ranges[taken++] = entry->range;
		free_push(queue, entry);
	}
	requests_send(queue->mm);
	return taken;
}

/*
 * The event is cleared before the list is looked at: what comes later is told anew. In this order:
 * were `signalled` cleared first, a signal that comes between the two would be eaten, and stay the
 * last.
 */
static size_t queue_look(struct fm_queue *queue, struct fm_range *ranges, size_t count)
{
	int fd = atomic_get(&queue->event_fd);
	if (fd >= 0) {
		os_event_clear(fd);
		atomic_set(&queue->signalled, 0u);
	}
	size_t taken = queue_take(queue, ranges, count);
	if (atomic_get(&queue->ready)) /* no room for more: for another thread, or the next call */
		queue_signal(queue);
	return taken;
}

/* Where ranges end one soon after the other, the next has ended before a thread that sleeps could
 * be woken for it. True: it has. */
static bool queue_spin(struct fm_queue *queue, uint32_t seq)
{
	uint64_t begun = os_now_ns();
	while (os_now_ns() < begun + SPIN_NS) {
		if (atomic_get(&queue->seq) != seq)
			return true;
		for (int i = 0; i < 8; i++)
			os_relax();
	}
	return false;
}

static void queue_wait(struct fm_queue *queue, uint32_t seq, uint64_t until_ns)
{
	if (queue_spin(queue, seq))
		return;
	atomic_add(&queue->waiters, 1u);
	atomic_set(&queue->woken, 0u);
	os_futex_wait(&queue->seq, seq, OS_FUTEX_ANY, until_ns);
	atomic_set(&queue->woken, 0u);
	atomic_sub(&queue->waiters, 1u);
}

/* Signals are open while it waits, and only then. */
int queue_completions(struct fm_queue *queue, struct fm_range *ranges, size_t count,
		      uint64_t timeout_ns, size_t *ret_count)
{
	struct queue_place *place = queue_enter(queue);
	uint64_t until = OS_FOREVER, now = timeout_ns ? os_now_ns() : 0;
	size_t taken = 0;
	if (!place)
		return -EOWNERDEAD;
	if (timeout_ns < OS_FOREVER - now)
		until = now + timeout_ns;
	for (bool last = !timeout_ns;; last = until != OS_FOREVER && os_now_ns() >= until) {
		os_sigmask mask = os_signals_block();
		uint32_t seq = atomic_get(&queue->seq);
		taken = queue_look(queue, ranges, count);
		bool closing = atomic_get(&queue->closing);
		os_signals_restore(mask);
		if (taken || last || closing || !count)
			break;
		queue_wait(queue, seq, until);
	}
	int err = !taken && atomic_get(&queue->closing) ? -ECANCELED : 0;
	queue_leave(place);
	if (!err)
		*ret_count = taken;
	return err;
}

int queue_fd(struct fm_queue *queue, int *ret_fd)
{
	struct queue_place *place = queue_enter(queue);
	int err = 0, none = -1;
	if (!place)
		return -EOWNERDEAD;
	int fd = atomic_get(&queue->event_fd);
	if (fd < 0) {
		fd = os_event_open();
		if (fd < 0) {
			err = fd;
		} else if (!atomic_cas(&queue->event_fd, &none, fd)) { /* another thread was faster */
			os_event_close(fd);
			fd = none;
		}
		if (!err) /* what got ready before there was anything to tell it by */
			queue_signal(queue);
	}
	queue_leave(place);
	if (!err)
		*ret_fd = os_event_fd(fd);
	return err;
}

int queue_create(struct fm_mm *mm, uint32_t entries, struct fm_queue **ret_queue)
{
	if (!entries || entries > ENTRIES_MAX)
		return -EINVAL;
	size_t len = sizeof(struct fm_queue) + entries * sizeof(struct queue_entry);
	struct fm_queue *queue = os_meta_alloc(len);
	if (!queue)
		return -ENOMEM;
	queue->mm = mm;
	queue->event_fd = -1;
	queue->entries = entries;
	queue->len = len;
	for (uint32_t i = entries; i-- > 0;) {
		queue->entry[i].queue = queue;
		queue->entry[i].ticket.run = entry_again;
		queue->entry[i].next = queue->free;
		queue->free = &queue->entry[i];
	}
	for (int i = 0; i < QUEUES_MAX; i++) {
		struct fm_queue *none = NULL;
		if (atomic_cas(&places[i].queue, &none, ENDING)) {
			atomic_set(&places[i].mm, mm);
			atomic_set(&places[i].queue, queue);
			*ret_queue = queue;
			return 0;
		}
	}
	os_meta_free(queue, len);
	return -EMFILE;
}

/* Nobody is inside a call. End what has not ended; true: all has. A ticket that is not in its queue
 * any more is being run. */
static bool entries_end(struct fm_queue *queue)
{
	bool all = true;
	struct queue_entry *ready;
	while ((ready = ready_pop(queue))) {
		if (!entry_drive(ready)) /* closing: it ends */
			mm_assert(false);
		free_push(queue, ready);
	}
	for (uint32_t i = 0; i < queue->entries; i++) {
		struct queue_entry *entry = &queue->entry[i];
		uint32_t state = atomic_get(&entry->state);
		if (state == ENTRY_WAITS && ticket_cancel(queue->mm, entry->vmf.file->pool, &entry->ticket)) {
			covered(queue_ticket_cancelled);
			entry_end_fault(entry, -ECANCELED);
			free_push(queue, entry);
		} else if (state != ENTRY_FREE) {
			all = false;
		}
	}
	return all;
}

static void queue_end(struct queue_place *place, struct fm_queue *queue)
{
	atomic_set(&queue->closing, 1u);
	for (;;) {
		atomic_add(&queue->seq, 1u);
		os_futex_wake(&queue->seq, INT_MAX, OS_FUTEX_ANY);
		if (!atomic_get(&place->users) && entries_end(queue) && !atomic_get(&queue->pushing))
			break;
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 20);
	}
	if (queue->event_fd >= 0)
		os_event_close(queue->event_fd);
	os_meta_free(queue, queue->len);
}

static bool queue_end_at(struct queue_place *place, struct fm_queue *queue)
{
	struct fm_queue *here = queue;
	if (!atomic_cas(&place->queue, &here, ENDING))
		return false;
	queue_end(place, queue);
	atomic_set(&place->mm, NULL);
	atomic_set(&place->queue, NULL);
	return true;
}

int queue_destroy(struct fm_queue *queue)
{
	for (int i = 0; queue && i < QUEUES_MAX; i++)
		if (atomic_get(&places[i].queue) == queue && queue_end_at(&places[i], queue))
			return 0;
	return -EOWNERDEAD;
}

/* The mm goes, and with it what the program has left. */
void queues_end(struct fm_mm *mm)
{
	for (int i = 0; i < QUEUES_MAX; i++) {
		struct fm_queue *queue = atomic_get(&places[i].queue);
		if (queue && atomic_get(&places[i].mm) == mm)
			queue_end_at(&places[i], queue);
	}
}

/* In a forked child: they are all its parent's. */
void queues_forget(void)
{
	memset(places, 0, sizeof(places));
}
