/* SPDX-License-Identifier: MIT */
/*
 * The thread trap: a handler reads fault messages and serves each without ever waiting.
 *
 * Owns struct handler. The entries belong to the handler thread; `again`, which may be called in any thread, only puts
 * an entry on a stack and wakes the handler. Messages repeat (a signal interrupts the wait, a kernel access with a signal
 * pending asks without end): one entry for each (thread, address), a repeated message finds it.
 * A failed access is told by poisoning its page: the thread gets SIGBUS, and our handler finds the errno here.
 * May call: uffd.c, registry, os, and mm through struct trap_client.
 */
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/registry.h"
#include "trap/uffd_abi.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define ENTRIES 1024
#define THREADS 1024 /* whose last faults are remembered; a hash, so that two may share */
#define RECENT 4
#define POISONED 2048
#define OTHERS_NS (20 * OS_NSEC_PER_MSEC)
#define POISON_NS (2 * OS_NSEC_PER_SEC) /* a thread that was told in a system call never asks what it was */

struct entry {
	struct entry *next; /* free list, or the stack of those to be driven again */
	struct entry *used_next, **used_pprev;
	struct handler *handler;
	struct view_region *region;
	struct trap_fault fault;
	uint32_t tid;
	void *state;
};

struct seen_thread {
	uint32_t tid, at;
	uint64_t addr[RECENT];
	uint64_t progress[TRAP_PROGRESS_BYTES / 8];
};

/* What one thread is to be told: several may fail at one page, each with its own attempt's errno, and none may take what
 * is another's, or find the mark of one that has been told already. */
struct poisoned {
	uint32_t tid; /* 0: free */
	uint64_t page, until_ns;
	struct fm_error error;
	fm_error_fn fn;
	void *arg;
};

struct handler {
	struct trap *trap;
	struct os_thread thread;
	int event_fd;
	uint32_t stop;
	struct entry *again;    /* atomic stack */
	struct entry *free, *used;
	uint32_t in_use;
	uint64_t unique;
	struct os_lock poison_lock;
	struct poisoned poisoned[POISONED];
	struct seen_thread seen[THREADS];
	struct entry entry[ENTRIES];
	size_t len;
};

/* ------------------------------------------------------------------ errors */

bool trap_poison_take(struct trap *trap, uint64_t addr, struct fm_error *ret_error,
		      fm_error_fn *ret_fn, void **ret_arg)
{
	struct handler *handler = trap->handler;
	uint64_t page = addr & ~(uint64_t)(OS_PAGE - 1), now = os_now_ns();
	uint32_t tid = os_gettid();
	bool found = false, others = false;

	os_lock(&handler->poison_lock);
	for (uint32_t i = 0; i < POISONED; i++) {
		struct poisoned *p = &handler->poisoned[i];
		if (!p->tid || p->page != page)
			continue;
		if (p->tid != tid) {
			others |= now < p->until_ns - POISON_NS + OTHERS_NS;
			continue;
		}
		p->tid = 0;
		if (p->until_ns < now)
			continue;
		*ret_error = p->error;
		ret_error->addr = (void *)(uintptr_t)addr;
		if (ret_error->error != -EFAULT) /* else there is none */
			ret_error->offset += addr & (OS_PAGE - 1);
		*ret_fn = p->fn;
		*ret_arg = p->arg;
		found = true;
	}
	os_unlock(&handler->poison_lock);
	/* The mark stays for others who are being told just now: without it they would ask again, and be told twice. The last
	 * takes it away, so that the next access asks anew. If good bytes have come meanwhile, they are asked for again. */
	if (!others)
		trap_discard(trap, page, OS_PAGE);
	else if (!found)
		os_sleep_until(now + OS_NSEC_PER_MSEC / 20);
	return found;
}

/* A thread waits for one page at a time: what it was told before is over. */
static void poison_note(struct handler *handler, uint32_t tid, uint64_t page,
			const struct fm_error *error, fm_error_fn fn, void *arg)
{
	uint64_t now = os_now_ns();
	struct poisoned *free = NULL, *own = NULL;

	os_lock(&handler->poison_lock);
	for (uint32_t i = 0; i < POISONED && !own; i++) {
		struct poisoned *p = &handler->poisoned[i];
		if (p->tid == tid)
			own = p;
		else if (!free && (!p->tid || p->until_ns < now))
			free = p;
	}
	if (!own) /* more than there are entries: never NULL in practice, and the access would just be repeated */
		own = free;
	if (own) {
		*own = (struct poisoned){.tid = tid, .page = page, .until_ns = now + POISON_NS,
					 .error = *error, .fn = fn, .arg = arg};
		if (error->offset)
			own->error.offset &= ~(uint64_t)(OS_PAGE - 1);
	}
	os_unlock(&handler->poison_lock);
}

/* Somebody was told an error and has not asked for it yet. */
bool handler_has_told(struct trap *trap)
{
	struct handler *handler = trap->handler;
	uint64_t now = os_now_ns();
	bool some = false;
	os_lock(&handler->poison_lock);
	for (uint32_t i = 0; i < POISONED && !some; i++)
		some = handler->poisoned[i].tid && handler->poisoned[i].until_ns >= now;
	os_unlock(&handler->poison_lock);
	return some;
}

/* Kernels without poison (before 6.6): signal the thread itself. */
static void signal_thread(const struct entry *entry, const struct fm_error *error)
{
	siginfo_t info;
	memset(&info, 0, sizeof(info));
	info.si_signo = error->signo;
	info.si_errno = -error->error;
	info.si_code = error->signo == SIGBUS           ? BUS_ADRERR
		       : error->error == -EACCES ? SEGV_ACCERR
						 : SEGV_MAPERR;
	info.si_addr = error->addr;
	os_syscall4(SYS_rt_tgsigqueueinfo, os_syscall1(SYS_getpid, 0), entry->tid, error->signo, &info);
}

/* A write to a page that is there: the page makes way for the mark, and is read again by its next reader. Signalling the
 * thread instead would not end a system call that writes there, which then repeats its message without end. */
static int poison_over(struct handler *handler, uint64_t page)
{
	trap_discard(handler->trap, page, OS_PAGE);
	return uffd_poison(handler->trap, page, OS_PAGE);
}

static void fail(struct handler *handler, const struct entry *entry, const struct fm_error *error,
		 fm_error_fn fn, void *arg)
{
	uint64_t page = entry->fault.addr & ~(uint64_t)(OS_PAGE - 1);
	poison_note(handler, entry->tid, page, error, fn, arg);
	int err = uffd_poison(handler->trap, page, OS_PAGE);
	if (err == -EEXIST && error->error == -EACCES)
		err = poison_over(handler, page);
	if (err == -EEXIST) /* somebody was faster: the access is repeated, and tells */
		trap_wake(handler->trap, page, OS_PAGE);
	else if (err)
		signal_thread(entry, error);
}

/* ------------------------------------------------------------------ serving */

static void again(void *cookie)
{
	struct entry *entry = cookie;
	struct handler *handler = entry->handler;
	int fd = handler->event_fd;
	struct entry *head = atomic_get(&handler->again);
	do {
		entry->next = head;
	} while (!atomic_cas(&handler->again, &head, entry));
	uint64_t one = 1;
	os_syscall3(SYS_write, fd, &one, sizeof(one));
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
		fail(handler, entry, &error, fn, arg);
	region_unpin(entry->region);
	*entry->used_pprev = entry->used_next;
	if (entry->used_next)
		entry->used_next->used_pprev = entry->used_pprev;
	entry->next = handler->free;
	handler->free = entry;
	handler->in_use--;
}

static bool known(struct handler *handler, uint32_t tid, uint64_t addr)
{
	struct entry *entry = handler->used;
	while (entry && (entry->tid != tid || entry->fault.addr != addr))
		entry = entry->used_next;
	return entry != NULL;
}

/* No program counter comes with a message. A thread that asks for a page it was given a moment ago makes no progress:
 * its faults then count as one instruction's. */
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

	if (msg->event != UFFD_EVENT_PAGEFAULT || known(handler, tid, addr))
		return;
	struct view_region *region = region_find(addr);
	if (!region && trap_in_slots(handler->trap, addr)) {
		/* A hole in a frame that is being read into: else that read would never end. */
		trap_fill(handler->trap, addr & ~(uint64_t)(OS_PAGE - 1), OS_PAGE);
		return;
	}
	if (!region) /* being unmapped: the thread finds that out by itself */
		return;
	struct entry *entry = handler->free;
	handler->free = entry->next;
	handler->in_use++;
	entry->region = region;
	entry->fault = (struct trap_fault){.addr = addr, .write = write};
	entry->tid = tid;
	entry->used_next = handler->used;
	entry->used_pprev = &handler->used;
	if (entry->used_next)
		entry->used_next->used_pprev = &entry->used_next;
	handler->used = entry;
	look_back(handler, tid, &entry->fault);
	memset(entry->state, 0, handler->trap->client->state_bytes);
	drive(handler, entry);
}

static void drive_again(struct handler *handler)
{
	struct entry *entry = atomic_xchg(&handler->again, NULL), *oldest = NULL;
	while (entry) { /* the stack has the youngest first */
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

static void read_messages(struct handler *handler)
{
	struct uffd_msg msg[16];
	uint32_t most = ENTRIES - handler->in_use;
	if (!most)
		return;
	long got = os_syscall3(SYS_read, handler->trap->fd, msg, (most < 16 ? most : 16) * sizeof(msg[0]));
	for (long i = 0; i < got / (long)sizeof(msg[0]); i++)
		take_message(handler, &msg[i]);
}

static void *handler_main(void *arg)
{
	struct handler *handler = arg;
	while (!atomic_get(&handler->stop)) {
		struct pollfd fds[2] = {{.fd = handler->event_fd, .events = POLLIN},
					{.fd = handler->trap->fd, .events = POLLIN}};
		struct timespec tick = {.tv_nsec = 100 * 1000 * 1000};
		uint64_t drop;
		int count = handler->in_use < ENTRIES ? 2 : 1;
		os_syscall5(SYS_ppoll, fds, count, &tick, NULL, 8);
		if (fds[0].revents & POLLIN)
			os_syscall3(SYS_read, handler->event_fd, &drop, sizeof(drop));
		drive_again(handler);
		read_messages(handler);
	}
	return NULL;
}

/* ------------------------------------------------------------------ start and stop */

int handler_start(struct trap *trap)
{
	size_t state = (trap->client->state_bytes + 63) & ~(size_t)63;
	size_t len = sizeof(struct handler) + ENTRIES * state;
	struct handler *handler = os_meta_alloc(len);
	if (!handler)
		return -ENOMEM;
	handler->trap = trap;
	handler->len = len;
	char *states = (char *)(handler + 1);
	for (uint32_t i = 0; i < ENTRIES; i++) {
		handler->entry[i].handler = handler;
		handler->entry[i].state = states + i * state;
		handler->entry[i].next = handler->free;
		handler->free = &handler->entry[i];
	}
	handler->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int err = handler->event_fd < 0 ? -errno
					: os_thread_start(&handler->thread, "fm-trap", handler_main, handler);
	if (err) {
		if (handler->event_fd >= 0)
			close(handler->event_fd);
		os_meta_free(handler, len);
		return err;
	}
	trap->handler = handler;
	return 0;
}

void handler_stop(struct trap *trap)
{
	struct handler *handler = trap->handler;
	uint64_t one = 1;
	if (!handler)
		return;
	atomic_set(&handler->stop, 1u);
	os_syscall3(SYS_write, handler->event_fd, &one, sizeof(one));
	os_thread_join(&handler->thread);
	trap->handler = NULL;
	close(handler->event_fd);
	os_meta_free(handler, handler->len);
}
