/* SPDX-License-Identifier: MIT */
/*
 * Queues of ranges that are brought in while the program does something else.
 *
 * A range is served a page at a time, by a fault that may not wait. The fault's ticket is run in
 * any thread when the read has ended, and puts the range on the ready list. The program's own
 * thread takes the range from the list in fm_completions(), installs the page, and goes on with
 * the next page. A range on the ready list holds no page. So a program that stays away for long
 * keeps no frame from other users. A page that has come and was evicted by then counts as brought
 * in, as if the page had been touched.
 *
 * Owns struct fm_queue and its entries, all allocated when the queue is created. An entry belongs
 * to the free list, the thread that drives the entry, the wait queue of the entry's ticket, or
 * the ready list. `lock` protects both lists; nothing is called with `lock` held. The table of
 * queues tells which queues exist: a thread inside a call is counted in `users` of the queue's
 * place.
 */
#include "mm/fault/batch.h"

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
	uint64_t at, end; /* the addresses still to be brought in */
	struct ra_reach reach;
	uint32_t state;   /* enum entry_state; atomic */
	bool begun; /* vmf is a fault under way, its region pinned */
	bool came;  /* the page was whole when the ticket's wait ended */
	bool ended; /* range.error holds the result */
};

struct fm_queue {
	struct fm_mm *mm;
	struct os_lock lock;
	struct queue_entry *free, *ready, **ready_tail; /* lock; `ready` is also read without lock */
	uint32_t seq;       /* futex: changes when an entry gets ready */
	uint32_t waiters;   /* threads asleep on `seq`, or about to sleep; atomic */
	uint32_t woken;     /* a waiter has been woken and has not looked yet; atomic */
	uint32_t closing;   /* atomic */
	int event_fd;       /* atomic; -1: the program asked for no descriptor */
	uint32_t signalled; /* event_fd was written since the last clear; atomic */
	uint32_t pushing;   /* threads that put an entry on the ready list; atomic */
	uint32_t entries;
	size_t len;
	struct queue_entry entry[];
};

_Static_assert(sizeof(struct queue_entry) <= 512, "filemap.h says 512 bytes a range");

static struct queue_place {
	struct fm_queue *queue; /* atomic; ENDING: the place is not free yet */
	struct fm_mm *mm;       /* atomic */
	uint32_t users;         /* atomic */
} live_queues[QUEUES_MAX];

#define ENDING ((struct fm_queue *)1)

/*
 * Tell one thread, and the event loop, that an entry is ready. A thread or loop that has been
 * told and has not looked since is not told again. `seq` changes twice. The first change is for a
 * thread that has looked already and counts as waiting next. The second change is for a thread
 * that clears `woken` between the two changes.
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
	atomic_add(&queue->pushing, 1u); /* the queue can't end before the entry is ready */
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
		   ENTRY_FREE); /* first: once on the list, the entry may be another thread's */
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

/* Begin the fault of the range's next page. Returns 0, or -EFAULT if the mm has no view there. */
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
	ra_range(view, entry->at, entry->end, &entry->reach);
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

/*
 * Tell whether the page that the entry waited for has come and needs no more work. Such a page is
 * in the view, or has been evicted again.
 */
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

/*
 * Bring the range in as far as possible without waiting. Returns true if the range has ended.
 * Returns false if the ticket will be run or has been run: the entry may belong to another thread
 * by now.
 */
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
	entry->reach = (struct ra_reach){0};
	entry->begun = entry->came = entry->ended = false;
	if (!range->len || range->len > INT64_MAX || entry->end < start) {
		entry->range.error = -EINVAL;
		entry->ended = true;
	}
	if (entry_drive(entry))
		ready_push(queue, entry);
}

/*
 * Enter a call on a queue. Every call except queue_destroy() runs between queue_enter() and
 * queue_leave(). Returns NULL if the queue is gone or never existed.
 */
static struct queue_place *queue_enter(struct fm_queue *queue)
{
	for (int i = 0; queue && i < QUEUES_MAX; i++) {
		if (atomic_get(&live_queues[i].queue) != queue)
			continue;
		atomic_add(&live_queues[i].users, 1u);
		if (atomic_get(&live_queues[i].queue) == queue)
			return &live_queues[i];
		atomic_sub(&live_queues[i].users, 1u);
	}
	return NULL;
}

static void queue_leave(struct queue_place *place)
{
	atomic_sub(&place->users, 1u);
}

/*
 * Begin as many of the ranges as there is room for. Called with signals blocked. Returns 0,
 * -EOWNERDEAD if there is no such queue, or -EAGAIN if no range could begin.
 */
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

/*
 * Take the ranges that have ended. Drives the ready ranges on, and takes each range that then
 * ends. Returns the number of ranges taken.
 */
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
 * Clear the event and take the ranges that have ended. The event is cleared before the list is
 * read, so that a later entry signals again. The event is cleared before `signalled`. In the
 * other order, a signal between the two would be lost, and no further signal would come.
 */
static size_t queue_look(struct fm_queue *queue, struct fm_range *ranges, size_t count)
{
	int fd = atomic_get(&queue->event_fd);
	if (fd >= 0) {
		os_event_clear(fd);
		atomic_set(&queue->signalled, 0u);
	}
	size_t taken = queue_take(queue, ranges, count);
	if (atomic_get(&queue->ready)) /* `ranges` is full: signal another thread, or the next call */
		queue_signal(queue);
	return taken;
}

/*
 * Spin for a moment until an entry is ready. When ranges end in quick succession, the next range
 * ends before a sleeping thread could be woken. Returns true if `seq` has changed.
 */
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

/*
 * Take the ranges that have ended, or wait for a range until the timeout. Blocks. Signals are
 * unblocked during the wait, and only then. Returns 0, -EOWNERDEAD if there is no such queue, or
 * -ECANCELED if the queue is closing.
 */
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
		if (!err) /* entries that got ready before the descriptor existed */
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
		if (atomic_cas(&live_queues[i].queue, &none, ENDING)) {
			atomic_set(&live_queues[i].mm, mm);
			atomic_set(&live_queues[i].queue, queue);
			*ret_queue = queue;
			return 0;
		}
	}
	os_meta_free(queue, len);
	return -EMFILE;
}

/*
 * End the ranges that have not ended. Called when no thread is inside a call on the queue. A
 * ticket that is no longer in its wait queue is being run. Returns true if all ranges have ended.
 */
static bool entries_end(struct fm_queue *queue)
{
	bool all = true;
	struct queue_entry *ready;
	while ((ready = ready_pop(queue))) {
		if (!entry_drive(ready)) /* the queue is closing, so the range ends */
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
		if (atomic_get(&live_queues[i].queue) == queue && queue_end_at(&live_queues[i], queue))
			return 0;
	return -EOWNERDEAD;
}

/* End the queues that the program has not destroyed. Called when the mm is destroyed. */
void queues_end(struct fm_mm *mm)
{
	for (int i = 0; i < QUEUES_MAX; i++) {
		struct fm_queue *queue = atomic_get(&live_queues[i].queue);
		if (queue && atomic_get(&live_queues[i].mm) == mm)
			queue_end_at(&live_queues[i], queue);
	}
}

/* Forget all queues, in a forked child: the queues belong to the parent. */
void queues_forget(void)
{
	memset(live_queues, 0, sizeof(live_queues));
}
