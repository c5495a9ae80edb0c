/* SPDX-License-Identifier: MIT */
/*
 * The thread trap: a handler thread reads fault messages and serves each fault without ever
 * blocking.
 *
 * Owns struct handler. Each waiting fault has an entry, and the number of entries has no limit.
 * With a limit, faults that wait for one dead store would keep all other faults from being
 * served. The entries belong to the handler thread. `again`, callable in any thread, only pushes
 * an entry on a stack and wakes the handler. Messages repeat: a signal interrupts the wait, and a
 * kernel access with a signal pending repeats its message without end. So each (thread, address)
 * has one entry, and a repeated message finds this entry.
 * May call: uffd.c, tell.c, registry, os, and mm through struct trap_client.
 */
#include "os/bells.h"
#include "os/fds.h"
#include "os/fds_kept.h"
#include "os/fds_numbers.h"
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/regions.h"
#include "trap/registry.h"
#include "trap/release.h"
#include "trap/uffd_abi.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define ENTRIES 256 /* entries that are allocated together */
#define BUCKETS 1024 /* buckets of entries, by thread */
#define THREADS 1024 /* threads whose last faults are remembered; a hash, so two threads may share
			a place */
#define RECENT 4
#define MESSAGES 16

struct entry {
	struct entry *next; /* free list, or the stack of entries to be driven again */
	struct entry *used_next, **used_pprev; /* links of the entry's bucket */
	struct handler *handler;
	struct view_region *region;
	struct trap_fault fault;
	uint32_t tid;
	void *state;
};

struct seen_thread {
	uint32_t tid, at;
	uint64_t latest; /* the address of the thread's last message */
	uint64_t addr[RECENT];
	uint64_t progress[TRAP_PROGRESS_BYTES / 8];
};

struct entries {
	struct entries *next;
	size_t len;
	struct entry entry[ENTRIES]; /* the entries' states lie behind the entries */
};

struct handler {
	struct trap *trap;
	struct os_thread thread;
	uint32_t stop;
	struct entry *again;    /* atomic stack */
	struct entry *free, *used[BUCKETS];
	struct entries *entries;
	uint32_t in_use; /* atomic */
	uint64_t unique;
	struct uffd_msg msg[MESSAGES]; /* messages that were read and not taken yet; a ring */
	uint32_t msg_at, msg_count;
	struct seen_thread seen[THREADS];
};

/* ------------------------------------------------------------------ entries */

static int entries_add(struct handler *handler)
{
	size_t state = (handler->trap->client->state_bytes + 63) & ~(size_t)63;
	size_t len = sizeof(struct entries) + ENTRIES * state;
	struct entries *more = os_meta_alloc(len);
	if (!more)
		return -ENOMEM;
	more->len = len;
	more->next = handler->entries;
	handler->entries = more;
	char *states = (char *)(more + 1);
	for (uint32_t i = 0; i < ENTRIES; i++) {
		more->entry[i].handler = handler;
		more->entry[i].state = states + i * state;
		more->entry[i].next = handler->free;
		handler->free = &more->entry[i];
	}
	return 0;
}

static void entries_free(struct handler *handler)
{
	while (handler->entries) {
		struct entries *entries = handler->entries;
		handler->entries = entries->next;
		os_meta_free(entries, entries->len);
	}
}

/* ------------------------------------------------------------------ serving */

static void again(void *cookie)
{
	struct entry *entry = cookie;
	struct handler *handler = entry->handler;
	struct trap *trap =
		handler->trap; /* the trap outlives the handler, which may end once the handler
				  has the entry */
	struct entry *head = atomic_get(&handler->again);
	do {
		entry->next = head;
	} while (!atomic_cas(&handler->again, &head, entry));
	os_bell_ring(&trap->bell);
}

static struct seen_thread *seen_of(struct handler *handler, uint32_t tid)
{
	struct seen_thread *seen = &handler->seen[tid % THREADS];
	if (seen->tid != tid) {
		memset(seen, 0, sizeof(*seen));
		seen->tid = tid;
	}
	return seen;
}

static void fetch_messages(struct handler *handler)
{
	bool more = true;
	while (more && handler->msg_count < MESSAGES) {
		uint32_t at = (handler->msg_at + handler->msg_count) % MESSAGES;
		uint32_t end = at < handler->msg_at ? handler->msg_at : MESSAGES; /* end of the
										     free space in
										     one piece */
		long got = os_syscall3(SYS_read, handler->trap->own_fd, &handler->msg[at],
				       (end - at) * sizeof(handler->msg[0]));
		uint32_t count = got > 0 ? (uint32_t)got / sizeof(handler->msg[0]) : 0;
		handler->msg_count += count;
		more = count == end - at;
	}
}

/* Tell whether the thread no longer waits at this address: another thread's install woke the
 * thread, and the thread has sent a later message since. An error told now would be taken for the
 * later access's. On false, messages of the thread for this address that came meanwhile are
 * dropped: the caller's answer serves them. */
bool handler_is_elsewhere(struct trap *trap, uint32_t tid, uint64_t addr)
{
	struct handler *handler = trap->handler;
	struct seen_thread *seen = &handler->seen[tid % THREADS];
	uint64_t latest = seen->tid == tid ? seen->latest : addr;
	fetch_messages(handler);
	for (uint32_t i = 0; i < handler->msg_count; i++) {
		const struct uffd_msg *msg = &handler->msg[(handler->msg_at + i) % MESSAGES];
		if (msg->event == UFFD_EVENT_PAGEFAULT && msg->arg.pagefault.feat.ptid == tid)
			latest = msg->arg.pagefault.address;
	}
	for (uint32_t i = 0; latest == addr && i < handler->msg_count; i++) {
		struct uffd_msg *msg = &handler->msg[(handler->msg_at + i) % MESSAGES];
		if (msg->event == UFFD_EVENT_PAGEFAULT && msg->arg.pagefault.feat.ptid == tid)
			msg->event = 0; /* taken later, the message would take back the told
					   error */
	}
	if (latest == addr && seen->tid == tid) /* the thread asked again and still waits here,
						   even if the thread had been elsewhere in
						   between */
		seen->latest = addr;
	return latest != addr;
}

/* Deal with a fault that ended with an error. The access is repeated if its place was handed back
 * meanwhile. If no signals may be used, the program's function is called here, and the thread goes
 * on waiting until the place is handed back. */
static void end_with_error(struct trap *trap, struct entry *entry, const struct fm_error *error,
			   fm_error_fn fn, void *arg)
{
	uint64_t page = entry->fault.addr & ~(uint64_t)(OS_PAGE - 1);
	bool foreign = region_is_released(entry->region, entry->fault.addr) ||
		       (error->error == -EFAULT && !trap_is_ours(trap, page, OS_PAGE));

	if (foreign || (trap->silent && !fn)) /* no function: the mapping has just gone */
		trap_wake(trap, page, OS_PAGE);
	else if (trap->silent)
		(void)fn(arg, error);
	else if (!handler_is_elsewhere(trap, entry->tid, entry->fault.addr))
		tell_error(trap, entry->tid, entry->fault.addr, entry->fault.write, error, fn, arg);
}

static void drive(struct handler *handler, struct entry *entry)
{
	struct fm_error error;
	fm_error_fn fn = NULL;
	void *arg = NULL;
	struct seen_thread *seen = seen_of(handler, entry->tid);
	int err = handler->trap->client->fault_nowait(entry->region, &entry->fault, entry->state, again,
						      entry, seen->progress, &error, &fn, &arg);
	if (err == -EAGAIN)
		return;
	if (err)
		end_with_error(handler->trap, entry, &error, fn, arg);
	region_unpin(entry->region);
	*entry->used_pprev = entry->used_next;
	if (entry->used_next)
		entry->used_next->used_pprev = entry->used_pprev;
	entry->next = handler->free;
	handler->free = entry;
	atomic_sub(&handler->in_use, 1u);
}

static bool known(struct handler *handler, uint32_t tid, uint64_t addr)
{
	struct entry *entry = handler->used[tid % BUCKETS];
	while (entry && (entry->tid != tid || entry->fault.addr != addr))
		entry = entry->used_next;
	return entry != NULL;
}

/* Fill in fault->repeated and fault->instruction. A message carries no program counter. A thread
 * that asks again for a page served a moment ago makes no progress: its faults then count as
 * faults of one instruction. */
static void look_back(struct handler *handler, uint32_t tid, struct trap_fault *fault)
{
	struct seen_thread *seen = seen_of(handler, tid);
	uint64_t page = fault->addr & ~(uint64_t)(OS_PAGE - 1);
	bool recent = false;
	for (uint32_t i = 0; i < RECENT; i++)
		recent |= seen->addr[i] == page;
	fault->repeated = recent;
	fault->instruction = recent ? ((uint64_t)tid << 1 | 1) : (++handler->unique << 33 | 1);
	if (!recent)
		seen->addr[seen->at++ % RECENT] = page;
}

static void take_message(struct handler *handler, const struct uffd_msg *msg)
{
	uint64_t addr = msg->arg.pagefault.address;
	uint32_t tid = msg->arg.pagefault.feat.ptid;
	bool write = msg->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);

	if (msg->event != UFFD_EVENT_PAGEFAULT)
		return;
	seen_of(handler, tid)->latest = addr;
	if (known(handler, tid, addr)) {
		tell_forget(handler->trap, tid);
		return;
	}
	struct view_region *region = region_find(addr);
	if (!region && trap_in_slots(handler->trap, addr)) {
		/* A hole in a frame that is being read into: without the fill, that read would
		 * never end. */
		trap_fill(handler->trap, addr & ~(uint64_t)(OS_PAGE - 1), OS_PAGE);
		return;
	}
	if (!region) { /* the region is being unmapped, which wakes no thread: the woken thread
			  finds that nothing is there */
		trap_wake(handler->trap, addr & ~(uint64_t)(OS_PAGE - 1), OS_PAGE);
		return;
	}
	struct entry *entry = handler->free; /* read_messages() has made sure that there is a free
						entry */
	struct entry **bucket = &handler->used[tid % BUCKETS];
	handler->free = entry->next;
	atomic_add(&handler->in_use, 1u);
	tell_forget(handler->trap, tid); /* the thread did not ask for its error: this is another
					    access. A fault is never seen as neither served nor
					    told */
	entry->region = region;
	entry->fault = (struct trap_fault){.addr = addr, .write = write};
	entry->tid = tid;
	entry->used_next = *bucket;
	entry->used_pprev = bucket;
	if (entry->used_next)
		entry->used_next->used_pprev = &entry->used_next;
	*bucket = entry;
	look_back(handler, tid, &entry->fault);
	memset(entry->state, 0, handler->trap->client->state_bytes);
	drive(handler, entry);
}

static void drive_again(struct handler *handler)
{
	struct entry *entry = atomic_xchg(&handler->again, NULL), *oldest = NULL;
	while (entry) { /* the stack has the youngest entry first */
		struct entry *next = entry->next;
		entry->next = oldest;
		oldest = entry;
		entry = next;
	}
	while (oldest) {
		struct entry *next = oldest->next;
		drive(handler, oldest);
		oldest = next;
	}
}

/* Make sure that there is a free entry: more entries are made if all are in use. Returns false if
 * the system has no memory for more now; then entries that become free must do. */
static bool has_entry(struct handler *handler)
{
	return handler->free || !entries_add(handler);
}

static void read_messages(struct handler *handler)
{
	fetch_messages(handler);
	for (uint32_t most = MESSAGES; most && handler->msg_count && has_entry(handler); most--) {
		struct uffd_msg msg = handler->msg[handler->msg_at];
		handler->msg_at = (handler->msg_at + 1) % MESSAGES;
		handler->msg_count--;
		take_message(handler, &msg);
	}
}

/* Tell whether messages can still be read. If the library has no table of its own, the program
 * may have closed the userfaultfd, or have put another file at its number. Then all accesses are
 * refused, and the end of the userfaultfd wakes the waiting threads. */
static bool still_served(struct trap *trap)
{
	if (os_fds_own() || os_fd_is(trap->own_fd, &trap->id))
		return true;
	registry_close_all(trap);
	os_fd_keep_end(&trap->kept);
	return false;
}

static void *handler_main(void *arg)
{
	struct handler *handler = arg;
	bool served = true;
	while (!atomic_get(&handler->stop)) {
		struct pollfd fds[2] = {{.fd = handler->trap->bell.fd, .events = POLLIN},
					{.fd = handler->trap->own_fd, .events = POLLIN}};
		struct timespec tick = {.tv_nsec = (tell_pending(handler->trap) ? 10 : 100) * 1000 * 1000};
		uint64_t drop;
		bool full = !has_entry(handler);
		served = served && still_served(handler->trap);
		int count = served && !full ? 2 : 1;
		if (!handler->msg_count || full || !served) /* otherwise there are messages to
							       take */
			os_syscall5(SYS_ppoll, fds, count, &tick, NULL, 8);
		/* The program has closed the bell, or put another file there: look from time to time. */
		if (fds[0].revents && !os_bell_is_there(&handler->trap->bell))
			os_sleep_until(os_now_ns() + 10 * OS_NSEC_PER_MSEC);
		else if (fds[0].revents & POLLIN)
			os_syscall3(SYS_read, handler->trap->bell.fd, &drop, sizeof(drop));
		drive_again(handler);
		if (served)
			read_messages(handler);
		tell_sweep(handler->trap);
	}
	return NULL;
}

/* ------------------------------------------------------------------ start and stop */

int handler_start(struct trap *trap)
{
	struct handler *handler = os_meta_alloc(sizeof(*handler));
	if (!handler)
		return -ENOMEM;
	handler->trap = trap;
	int err = os_bell_open(&trap->bell, EFD_NONBLOCK);
	if (!err)
		err = telling_open(trap);
	if (!err)
		err = entries_add(handler);
	if (!err)
		err = os_thread_start(&handler->thread, "fm-trap", handler_main, handler);
	if (err) {
		telling_close(trap);
		entries_free(handler);
		os_meta_free(handler, sizeof(*handler));
		return err;
	}
	trap->handler = handler;
	return 0;
}

/* Tell whether faults are in progress, or a thread was told an error and has not asked yet. */
bool handler_is_busy(struct trap *trap)
{
	return atomic_get(&trap->handler->in_use) || tell_pending(trap);
}

void handler_stop(struct trap *trap)
{
	struct handler *handler = trap->handler;
	if (!handler)
		return;
	atomic_set(&handler->stop, 1u);
	os_bell_ring(&trap->bell);
	os_thread_join(&handler->thread);
	trap->handler = NULL;
	entries_free(handler);
	os_meta_free(handler, sizeof(*handler));
}
