/* SPDX-License-Identifier: MIT */
/*
 * Faults: how an instruction of a simulated program reaches the library, and how the instruction
 * is repeated. Inline trap: the thread itself calls trap_client.fault. Thread trap: the thread
 * leaves a message and sleeps until its page is there or poisoned. A handler thread calls
 * trap_client.fault_nowait as src/trap/thread.c does, and tells errors as src/trap/tell.c does.
 */
#include "sim.h"

#define REGIONS (2 * SIM_FILES)
#define ENTRIES 32
#define UNASKED_NS (200 * OS_NSEC_PER_MSEC)
#define OTHERS_NS (20 * OS_NSEC_PER_MSEC)
#define TICK_NS (10 * OS_NSEC_PER_MSEC)

struct message {
	uint32_t tid;
	uint64_t addr;
	bool write;
};

struct entry {
	bool used, ready;
	uint32_t tid;
	struct view_region *region;
	struct trap_fault fault;
	uint64_t state[64];
};

static struct trap the_trap;
static struct view_region *regions[REGIONS];
static uint64_t next_base;
static const struct trap_client *client;

static struct {
	struct os_thread thread;
	bool running, stop;
	struct message message[64];
	uint32_t head, count;
	struct entry entry[ENTRIES];
	uint64_t progress[SIM_THREADS + 1][TRAP_PROGRESS_BYTES / 8];
	uint64_t last_page[SIM_THREADS + 1], latest[SIM_THREADS + 1];
	int error[SIM_THREADS + 1]; /* the notes of src/trap/tell.c */
	uint64_t error_page[SIM_THREADS + 1], told_ns[SIM_THREADS + 1];
	uint64_t signalled[SIM_THREADS + 1]; /* the address of a pending SIGBUS */
	bool call[SIM_THREADS + 1];          /* the thread waits in a system call's access */
	bool told_call[SIM_THREADS + 1];     /* the thread was told its error in a system call */
	bool over[SIM_THREADS + 1];          /* the mark of the thread's note has gone */
	uint32_t begun, ended;               /* removals of marks */
	uint32_t writable;                   /* installs of writable pages under way */
	uint64_t unique;
} handler;

/* ------------------------------------------------------------------ regions */

struct view_region *region_find(uint64_t addr)
{
	sim_point();
	for (int i = 0; i < REGIONS; i++)
		if (regions[i] && addr - regions[i]->base < regions[i]->len) {
			regions[i]->pins++;
			return regions[i];
		}
	return NULL;
}

void region_pin(struct view_region *region)
{
	atomic_add(&region->pins, 1u);
}

void trap_region_huge(struct view_region *region)
{
	(void)region;
}

void region_unpin(struct view_region *region)
{
	uint32_t old = atomic_sub(&region->pins, 1u);
	if (!old)
		sim_fail("a pin of a region is dropped twice");
}

int trap_region_open(struct trap *trap, struct view_region *region, uint64_t len, uint64_t align,
		     bool huge, void *owner)
{
	(void)huge;
	int place = 0;
	if (kernel_refuses())
		return -ENOMEM;
	while (place < REGIONS && regions[place])
		place++;
	uint64_t base = (next_base + align - 1) & ~(align - 1);
	next_base = base + len + (1ull << 32);
	*region = (struct view_region){.base = base, .len = len, .owner = owner, .trap = trap,
				       .opened = true};
	regions[place] = region;
	return 0;
}

bool trap_region_close(struct view_region *region)
{
	check_may_block("the end of a region");
	for (int i = 0; i < REGIONS; i++)
		if (regions[i] == region)
			regions[i] = NULL;
	if (atomic_get(&region->pins))
		return false;
	kernel_region_gone(region->base, region->len);
	region->opened = false;
	return true;
}

bool trap_is_child(void)
{
	return false;
}

/* ------------------------------------------------------------------ the handler thread */

static void again(void *cookie)
{
	struct entry *entry = cookie;
	sim_point();
	if (!entry->used)
		sim_fail("a fault is run again after its end");
	entry->ready = true;
	sim_notify(WAIT_CHANNEL, (uint64_t)&handler);
}

/* Return whether a thread was told an error of this page a moment ago and has not asked yet. */
static bool page_has_young(uint64_t page)
{
	for (uint32_t i = 0; i <= SIM_THREADS; i++)
		if (handler.error[i] && handler.error_page[i] == page && !handler.over[i] &&
		    sim.now_ns < handler.told_ns[i] + OTHERS_NS)
			return true;
	return false;
}

/*
 * Return whether the address belongs to a file that is open for writing. unmark() asks what stands
 * at a mark's place before unmark() discards the place. A page that is installed in between is
 * discarded with the mark. The install notices, and has the page read again. A page of a file open
 * for writing is never installed in between.
 */
static bool may_be_written_to(uint64_t addr)
{
	bool may = false;
	for (int i = 0; i < REGIONS; i++)
		if (regions[i] && addr - regions[i]->base < regions[i]->len)
			may = ((const struct view *)regions[i]->owner)->file->writable;
	return may;
}

static void unmark(uint64_t page)
{
	handler.begun++;
	while (handler.writable) {
		sim_point();
		sim_sleep(OS_NSEC_PER_MSEC / 50);
	}
	if (trap_present(page) == 0) {
		if (kernel_unmark(page) && may_be_written_to(page))
			sim_fail("an error mark is removed together with a writable page");
	} else {
		mark(unmarked_beside);
	}
	handler.ended++;
}

void trap_writable_begin(struct trap *trap)
{
	(void)trap;
	while (handler.running) {
		sim_point();
		handler.writable++;
		sim_point();
		if (handler.begun == handler.ended)
			return;
		handler.writable--;
		sim_sleep(OS_NSEC_PER_MSEC / 50);
	}
	handler.writable++;
}

void trap_writable_end(struct trap *trap)
{
	(void)trap;
	sim_point();
	handler.writable--;
}

uint32_t trap_unmarks(struct trap *trap)
{
	(void)trap;
	return handler.ended;
}

bool trap_kept(struct trap *trap, uint32_t before, uint64_t addr, uint64_t len)
{
	(void)trap;
	bool kept = true;
	sim_point();
	while (handler.begun != before) {
		before = handler.ended;
		kept = trap_all_present(addr, len);
		sim_point();
		if (handler.begun != before)
			os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 50);
	}
	return kept;
}

static void notes_of_page_end(uint64_t page)
{
	for (uint32_t i = 0; i <= SIM_THREADS; i++)
		handler.over[i] |= handler.error_page[i] == page;
}

static void tell_forget(uint32_t tid)
{
	if (!handler.error[tid])
		return;
	handler.error[tid] = 0;
	if (page_has_young(handler.error_page[tid]))
		return;
	notes_of_page_end(handler.error_page[tid]);
	unmark(handler.error_page[tid]);
}

static void tell_sweep(void)
{
	for (uint32_t i = 0; i <= SIM_THREADS; i++) {
		if (!handler.error[i] ||
		    sim.now_ns < handler.told_ns[i] + (handler.told_call[i] ? OTHERS_NS : UNASKED_NS))
			continue;
		mark(told_unasked);
		tell_forget(i);
	}
}

static void refuse_for_a_moment(const struct view_region *region, uint64_t page)
{
	mark(region_refuses);
	kernel_protect_region(region->base, region->len, true);
	trap_wake(&the_trap, page, OS_PAGE);
	sim_sleep(200000);
	kernel_protect_region(region->base, region->len, false);
}

static bool is_elsewhere(const struct entry *entry)
{
	uint64_t latest = handler.latest[entry->tid];
	for (uint32_t i = 0; i < handler.count; i++) {
		const struct message *m = &handler.message[(handler.head + i) % 64];
		if (m->tid == entry->tid)
			latest = m->addr;
	}
	for (uint32_t i = 0; latest == entry->fault.addr && i < handler.count; i++) {
		struct message *m = &handler.message[(handler.head + i) % 64];
		if (m->tid == entry->tid)
			m->tid = 0; /* the same answer covers this message */
	}
	if (latest == entry->fault.addr)
		handler.latest[entry->tid] = latest;
	return latest != entry->fault.addr;
}

/* Refuse a write to a page that is in the view. Here nothing runs between the look at the thread
 * and the signal. In a real process the write may go through in between, before the page is
 * protected. The thread is then told the error all the same. Some threads block SIGBUS. */
static void refuse_write(const struct entry *entry)
{
	uint32_t tid = entry->tid;
	struct sim_thread *t = &sim.thread[tid - 1];
	uint64_t page = entry->fault.addr & ~(uint64_t)(OS_PAGE - 1);
	bool awake = t->state != SIM_BLOCKED || t->wait != WAIT_FAULT;
	bool blocked = sim_chance(sim.opt.spurious_256);

	if (is_elsewhere(entry)) {
		tell_forget(tid);
		return;
	}
	if (!awake && !handler.call[tid] && !blocked) {
		mark(told_by_signal);
		handler.signalled[tid] = entry->fault.addr;
		sim_interrupt(t);
		return;
	}
	tell_forget(tid);
	if (awake)
		trap_wake(&the_trap, page, OS_PAGE);
	else
		refuse_for_a_moment(entry->region, page);
}

/* Tell an error as src/trap/tell.c does. */
static void tell_error(struct entry *entry, int err)
{
	uint64_t page = entry->fault.addr & ~(uint64_t)(OS_PAGE - 1);
	handler.error[entry->tid] = err;
	handler.error_page[entry->tid] = page;
	handler.told_ns[entry->tid] = sim.now_ns;
	handler.told_call[entry->tid] = handler.call[entry->tid];
	handler.over[entry->tid] = false;
	sim_point();
	int poisoned = kernel_poison(page);
	bool there = poisoned && trap_present(page);
	if (there && entry->fault.write) {
		refuse_write(entry);
	} else if (poisoned) {
		if (there)
			tell_forget(entry->tid);
		trap_wake(&the_trap, page, OS_PAGE);
	}
}

static void drive(struct entry *entry)
{
	struct fm_error error = {.error = 0};
	fm_error_fn fn = NULL;
	void *arg = NULL;
	entry->ready = false;
	int err = client->fault_nowait(entry->region, &entry->fault, entry->state, again, entry,
				       handler.progress[entry->tid], &error, &fn, &arg);
	check_nothing_held("the handler");
	if (err == -EAGAIN)
		return;
	event("handler: the fault of thread %llu at %#llx ends with %llu", entry->tid - 1,
	      entry->fault.addr, -err, 0);
	if (err && !is_elsewhere(entry))
		tell_error(entry, err);
	region_unpin(entry->region);
	entry->used = false;
}

static void take_message(const struct message *m)
{
	struct entry *entry = NULL;
	if (!m->tid)
		return;
	tell_forget(m->tid);
	handler.latest[m->tid] = m->addr;
	for (int i = 0; i < ENTRIES; i++)
		if (handler.entry[i].used && handler.entry[i].tid == m->tid &&
		    handler.entry[i].fault.addr == m->addr)
			return; /* the fault is known: messages repeat */
	for (int i = 0; i < ENTRIES && !entry; i++)
		if (!handler.entry[i].used)
			entry = &handler.entry[i];
	if (!entry)
		sim_fail("there are more faults at once than threads");
	struct view_region *region = region_find(m->addr);
	if (!region) {
		trap_wake(&the_trap, m->addr & ~(uint64_t)(OS_PAGE - 1), OS_PAGE);
		return;
	}
	uint64_t page = m->addr & ~(uint64_t)(OS_PAGE - 1);
	bool recent = handler.last_page[m->tid] == page;
	handler.last_page[m->tid] = page;
	memset(entry, 0, sizeof(*entry));
	entry->used = true;
	entry->tid = m->tid;
	entry->region = region;
	entry->fault = (struct trap_fault){.addr = m->addr, .write = m->write, .repeated = recent,
					   .instruction = recent ? (uint64_t)m->tid << 1 | 1
								 : ++handler.unique << 33 | 1};
	drive(entry);
}

static bool some_told(void)
{
	for (uint32_t i = 0; i <= SIM_THREADS; i++)
		if (handler.error[i])
			return true;
	return false;
}

static bool some_inside(void)
{
	for (int i = 0; i < ENTRIES; i++)
		if (handler.entry[i].used)
			return true;
	return false;
}

static bool some_ready(void)
{
	for (int i = 0; i < ENTRIES; i++)
		if (handler.entry[i].used && handler.entry[i].ready)
			return true;
	return false;
}

static void *handler_main(void *arg)
{
	(void)arg;
	while (!handler.stop) {
		bool worked = false;
		for (int i = 0; i < ENTRIES; i++)
			if (handler.entry[i].used && handler.entry[i].ready) {
				drive(&handler.entry[i]);
				worked = true;
			}
		if (handler.count) {
			struct message m = handler.message[handler.head++ % 64];
			handler.count--;
			take_message(&m);
			worked = true;
		}
		tell_sweep();
		if (!worked && !handler.count && !some_ready() && !handler.stop)
			sim_wait_for(WAIT_CHANNEL, (uint64_t)&handler, some_told() ? sim.now_ns + TICK_NS : OS_FOREVER);
	}
	return NULL;
}

/* ------------------------------------------------------------------ the trap */

int trap_create(const struct trap_options *options, struct trap **ret_trap)
{
	assert(options->client->state_bytes <= sizeof(handler.entry[0].state));
	memset(&handler, 0, sizeof(handler));
	memset(regions, 0, sizeof(regions));
	next_base = 0x200000000000ull;
	the_trap = (struct trap){.kind = options->kind,
				 .move = options->want_move && !options->no_move};
	client = options->client;
	if (options->kind == FM_TRAP_THREAD) {
		int err = os_thread_start(&handler.thread, "fm-trap", handler_main, NULL);
		if (err)
			return err;
		handler.running = true;
	}
	*ret_trap = &the_trap;
	return 0;
}

void trap_stop(struct trap *trap)
{
	(void)trap;
	if (!handler.running)
		return;
	handler.stop = true;
	sim_notify(WAIT_CHANNEL, (uint64_t)&handler);
	os_thread_join(&handler.thread);
	handler.running = false;
	for (int i = 0; i < ENTRIES; i++)
		if (handler.entry[i].used)
			sim_fail("the trap is stopped with a fault in it");
}

void trap_drain(struct trap *trap)
{
	(void)trap;
	check_may_block("the drain of the trap");
	for (int i = 0; (some_told() || some_inside()) && i < 4000; i++)
		sim_sleep(OS_NSEC_PER_MSEC / 4);
}

void trap_destroy(struct trap *trap)
{
	trap_stop(trap);
}

bool trap_serves_calls(const struct trap *trap)
{
	return trap->kind == FM_TRAP_THREAD;
}

bool trap_has_move(const struct trap *trap)
{
	return trap->move;
}

const char *trap_kind_name(enum fm_trap kind)
{
	static const char *const names[] = {"default", "inline", "thread", "call"};
	return names[kind];
}

bool trap_sigbus(int signo, siginfo_t *info, void *ucontext)
{
	(void)signo;
	(void)info;
	(void)ucontext;
	return false;
}

/* ------------------------------------------------------------------ the processor's side */

static int fault_inline(struct view_region *region, uint64_t addr, bool write, uint64_t instruction)
{
	struct trap_fault fault = {.addr = addr, .write = write, .instruction = instruction};
	struct fm_error error = {.error = 0};
	fm_error_fn fn = NULL;
	void *arg = NULL;
	int err = client->fault(region, &fault, &error, &fn, &arg);
	check_nothing_held("a fault");
	if (err && error.error != err)
		sim_fail("a fault ends with %d, but reports %d", err, error.error);
	region_unpin(region);
	return err;
}

/* Act as the kernel: leave a message and sleep. A signal may end the sleep; then the message is
 * sent again. */
static void fault_message(uint64_t addr, bool write, bool call)
{
	uint32_t tid = os_gettid();
	handler.call[tid] = call;
	handler.message[(handler.head + handler.count++) % 64] = (struct message){tid, addr, write};
	sim_notify(WAIT_CHANNEL, (uint64_t)&handler);
	uint64_t until = sim_chance(sim.opt.spurious_256 | sim.opt.signal_1024)
				 ? sim.now_ns + 1 + sim_below(100000)
				 : OS_FOREVER;
	if (sim_wait_for(WAIT_FAULT, addr & ~(uint64_t)(OS_PAGE - 1), until))
		mark(message_repeated);
}

/* Handle SIGBUS as trap_poison_take() does. */
static int take_poison(uint64_t addr)
{
	uint32_t tid = os_gettid();
	uint64_t at = addr & ~(uint64_t)(OS_PAGE - 1);
	int own = handler.error[tid], err = 0;
	if (handler.error_page[tid] == at && !handler.told_call[tid] && !handler.over[tid])
		err = own;
	handler.error[tid] = 0;
	bool others = page_has_young(at);
	handler.error[tid] = err ? 0 : own;
	if (!others)
		notes_of_page_end(at);
	if (!others)
		unmark(at);
	else if (!err)
		sim_sleep(OS_NSEC_PER_MSEC / 20);
	return err;
}

/* Deliver the library's pending signal, if any, before the thread's next instruction. */
static int take_signal(void)
{
	uint64_t addr = handler.signalled[os_gettid()];
	handler.signalled[os_gettid()] = 0;
	if (!addr)
		return 0;
	os_sigmask mask = os_signals_block();
	int err = take_poison(addr);
	os_signals_restore(mask);
	return err;
}

static bool is_region(uint64_t addr)
{
	for (int i = 0; i < REGIONS; i++)
		if (regions[i] && addr - regions[i]->base < regions[i]->len)
			return true;
	return false;
}

static int meet_mark(uint64_t addr, bool write, bool call)
{
	if (call) {
		mark(call_refused);
		return -EHWPOISON;
	}
	os_sigmask mask = os_signals_block();
	int err = take_poison(addr);
	os_signals_restore(mask);
	return err == -EACCES && !write ? 0 : err;
}

int sim_access(uint64_t addr, bool write, bool call, uint64_t instruction)
{
	struct view_page *page = kernel_view(addr);
	if (write && kernel_refuses_write(addr)) {
		if (call)
			mark(call_refused);
		return call ? -EHWPOISON : -EACCES;
	}
	if (page && page->poison)
		return meet_mark(addr, write, call);
	if (page && (!write || !page->protected))
		return 1;
	if (the_trap.kind == FM_TRAP_THREAD && handler.running && is_region(addr)) {
		fault_message(addr, write, call);
		return call ? 0 : take_signal();
	}
	os_sigmask mask = os_signals_block(); /* SIGBUS's handler runs with signals blocked */
	struct view_region *region = region_find(addr);
	int err = region ? fault_inline(region, addr, write, instruction)
			 : -ENOTCONN; /* no region: the program's own handler gets the signal */
	os_signals_restore(mask);
	return err;
}
