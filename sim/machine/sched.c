/* SPDX-License-Identifier: MIT */
/*
 * The processor: coroutines, the schedulers and virtual time. os.h is implemented on top of them.
 *
 * Two schedulers exist. The random scheduler switches threads at each point with a fixed chance.
 * The PCT scheduler runs the thread with the highest priority, and changes priorities at a few
 * points (after Burckhardt et al., "A randomized scheduler with probabilistic guarantees of
 * finding bugs", 2010). If no thread can run and no timer is set, the run is a deadlock. Too many
 * steps are a livelock.
 */
#include "sim.h"

#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define REFUSABLE 12 /* threads; a later thread would begin while the workload runs */
#define STACK_BYTES (128u << 10)
#define UNFAIR_STEPS 20000u /* PCT: after so many steps the running thread gives way */
/* For each run. Without this limit, timeouts could keep all other threads from running for ever. */
#define JUMPS_MAX 300u

struct sim_run sim;
struct sim_marks sim_marks;
static char *stacks;
static uint64_t host_local[OS_THREAD_LOCAL_BYTES / 8];

/* ------------------------------------------------------------------ chance */

/* xorshift64*: small, and the same on every machine. */
uint64_t sim_random(void)
{
	uint64_t x = sim.random;
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	sim.random = x;
	return x * 0x2545f4914f6cdd1dull;
}

/* ------------------------------------------------------------------ the switch */

#if defined(__x86_64__)
void sim_switch(void **save, void *load);
__asm__(".text\n"
	".globl sim_switch\n"
	".type sim_switch, @function\n"
	"sim_switch:\n"
	"	push %rbp\n	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n	pop %rbp\n"
	"	ret\n"
	".size sim_switch, . - sim_switch\n");

static void prepare(struct sim_thread *thread, void (*entry)(void))
{
	uint64_t *sp = (uint64_t *)(thread->stack + STACK_BYTES);
	*--sp = 0;
	*--sp = (uint64_t)entry;
	for (int i = 0; i < 6; i++)
		*--sp = 0;
	thread->sp = sp;
}
#else /* each switch makes two system calls: slow but correct */
static ucontext_t contexts[SIM_THREADS + 1];
static uint32_t context_at = SIM_THREADS;

static void prepare(struct sim_thread *thread, void (*entry)(void))
{
	ucontext_t *c = &contexts[thread->id];
	getcontext(c);
	c->uc_stack.ss_sp = thread->stack;
	c->uc_stack.ss_size = STACK_BYTES;
	makecontext(c, entry, 0);
	thread->sp = c;
}

static void sim_switch(void **save, void *load)
{
	ucontext_t *from = &contexts[context_at], *to = load;
	*save = from;
	context_at = (uint32_t)(to - contexts);
	swapcontext(from, to);
}
#endif

static void *host_sp;

static void switch_to(struct sim_thread *next)
{
	struct sim_thread *from = sim.self;
	if (next == from)
		return;
	sim.self = next;
	sim.switches++;
	sim_switch(from ? &from->sp : &host_sp, next ? next->sp : host_sp);
}

/* ------------------------------------------------------------------ the next thread */

static void wake_thread(struct sim_thread *t, bool timed_out)
{
	t->state = SIM_READY;
	t->wait = WAIT_NOTHING;
	t->timed_out = timed_out;
	t->wake_at = OS_FOREVER;
	sim.ready |= 1u << t->id;
}

static void find_next_wake(void)
{
	sim.next_wake = OS_FOREVER;
	for (uint32_t i = 0; i < sim.threads; i++)
		if (sim.thread[i].state == SIM_BLOCKED && sim.thread[i].wake_at < sim.next_wake)
			sim.next_wake = sim.thread[i].wake_at;
}

static void wake_due(void)
{
	for (uint32_t i = 0; i < sim.threads; i++)
		if (sim.thread[i].state == SIM_BLOCKED && sim.thread[i].wake_at <= sim.now_ns)
			wake_thread(&sim.thread[i], true);
	find_next_wake();
}

static struct sim_thread *nth_ready(uint32_t n)
{
	uint32_t mask = sim.ready;
	while (n--)
		mask &= mask - 1;
	return &sim.thread[__builtin_ctz(mask)];
}

static struct sim_thread *highest_ready(void)
{
	struct sim_thread *best = NULL;
	for (uint32_t mask = sim.ready; mask; mask &= mask - 1) {
		struct sim_thread *t = &sim.thread[__builtin_ctz(mask)];
		if (!best || t->priority > best->priority)
			best = t;
	}
	return best;
}

static struct sim_thread *choose(void)
{
	if (sim.small)
		return explore_choose(NULL, true);
	if (sim.opt.pct)
		return highest_ready();
	return nth_ready(sim_below((uint32_t)__builtin_popcount(sim.ready)));
}

static void report_deadlock(void)
{
	for (uint32_t i = 0; i < sim.threads; i++) {
		struct sim_thread *t = &sim.thread[i];
		if (t->state == SIM_BLOCKED && !t->idle)
			event("deadlock: thread %llu waits, kind %llu, key %#llx, since event %llu", i,
			      t->wait, t->key, t->order);
	}
	sim_fail("deadlock: no thread can run, and no thread waits for a time");
}

/* The present thread cannot go on. Let time pass until a thread can run, and switch to a thread. */
static void leave(void)
{
	while (!sim.ready) {
		check_idle();
		if (sim.next_wake == OS_FOREVER)
			report_deadlock();
		if (sim.next_wake > sim.now_ns)
			sim.now_ns = sim.next_wake;
		wake_due();
	}
	switch_to(choose());
}

static void lower(struct sim_thread *t)
{
	t->priority = sim.lowest--;
}

void sim_pass_time_to(uint64_t ns)
{
	sim.now_ns = ns > sim.now_ns ? ns : sim.now_ns;
	wake_due();
}

static void pass_time(void)
{
	if (sim.jumps < JUMPS_MAX && sim.opt.jump_1024 && sim.next_wake != OS_FOREVER &&
	    sim.next_wake > sim.now_ns && sim_below(1024) < sim.opt.jump_1024 &&
	    sim.next_wake - sim.now_ns < OS_NSEC_PER_SEC) {
		mark(time_jumps);
		sim.jumps++;
		sim.jumped_ns += sim.next_wake - sim.now_ns;
		sim.now_ns = sim.next_wake;
	}
	if (sim.now_ns >= sim.next_wake)
		wake_due();
}

static void point(bool matters)
{
	struct sim_thread *self = sim.self;
	if (!self)
		return;
	if (self->signals_open)
		sim_signal_arrives(self);
	check_step();
	sim.now_ns += sim.opt.ns_per_step;
	if (++sim.step > SIM_STEPS_MAX)
		sim_fail("livelock: the run has not ended after %llu steps", (unsigned long long)sim.step);
	if (sim.small) {
		switch_to(explore_choose(self, matters));
		return;
	}
	if (sim.opt.pct) {
		for (uint32_t i = 0; i < sim.opt.changes; i++)
			if (sim.step == sim.pct_change[i])
				lower(self);
		if (sim.step % UNFAIR_STEPS ==
		    0) /* threads that wake each other must let the others run */
			lower(self);
		pass_time();
		switch_to(highest_ready());
		return;
	}
	if (sim.now_ns >= sim.next_wake)
		wake_due();
	if ((sim_random() >> 56) >= sim.opt.switch_256)
		return;
	pass_time();
	switch_to(choose());
}

void sim_point(void)
{
	point(true);
}

void sim_point_at(const void *word, bool writes)
{
	point(!sim.choosing || explore_matters(word, writes));
}

/* Let other threads run while a thread spins, since on a real machine they run in parallel. With
 * `stubborn` the spinning thread goes on alone for a while. */
void os_relax(void)
{
	struct sim_thread *self = sim.self;
	uint32_t others;
	/* the thread looks again when no other thread can go on, or when the search says so */
	if (self && sim.small) {
		sim_wait_for(WAIT_SLEEP, 0, sim.now_ns + 1);
		return;
	}
	sim_point();
	if (!self || sim.opt.stubborn)
		return;
	others = sim.ready & ~(1u << self->id);
	if (sim.opt.pct)
		lower(self);
	if (!others)
		return;
	sim.ready = others;
	struct sim_thread *next = choose();
	sim.ready |= 1u << self->id;
	switch_to(next);
}

/* ------------------------------------------------------------------ waiting */

bool sim_wait_for(enum sim_wait wait, uint64_t key, uint64_t until_ns)
{
	struct sim_thread *self = sim.self;
	assert(self && self->state == SIM_READY);
	check_step();
	if (until_ns <= sim.now_ns)
		return true;
	self->state = SIM_BLOCKED;
	self->wait = wait;
	self->key = key;
	self->wake_at = until_ns;
	self->order = ++sim.order;
	self->since_step = sim.step;
	self->timed_out = false;
	sim.ready &= ~(1u << self->id);
	if (until_ns < sim.next_wake)
		sim.next_wake = until_ns;
	leave();
	return self->timed_out;
}

void sim_notify(enum sim_wait wait, uint64_t key)
{
	for (uint32_t i = 0; i < sim.threads; i++) {
		struct sim_thread *t = &sim.thread[i];
		if (t->state == SIM_BLOCKED && t->wait == wait && t->key == key)
			wake_thread(t, false);
	}
}

void sim_interrupt(struct sim_thread *t)
{
	if (t->state == SIM_BLOCKED)
		wake_thread(t, false);
}

void sim_sleep(uint64_t ns)
{
	sim_point();
	sim_wait_for(WAIT_SLEEP, 0, sim.now_ns + (ns ? ns : 1));
}

/* ------------------------------------------------------------------ threads */

static void thread_entry(void)
{
	struct sim_thread *self = sim.self;
	self->fn(self->arg);
	sim_thread_exit();
}

noreturn void sim_thread_exit(void)
{
	struct sim_thread *self = sim.self;
	check_step();
	check_nothing_held("the end of a thread");
	self->state = SIM_DONE;
	sim.ready &= ~(1u << self->id);
	sim_notify(WAIT_JOIN, self->id);
	if (self->id == 0)
		switch_to(NULL);
	leave();
	__builtin_unreachable();
}

struct sim_thread *sim_spawn(const char *name, os_thread_fn fn, void *arg)
{
	if (sim.threads == SIM_THREADS)
		sim_fail("there are too many threads");
	struct sim_thread *t = &sim.thread[sim.threads];
	*t = (struct sim_thread){.id = sim.threads, .name = name, .fn = fn, .arg = arg,
				 .state = SIM_READY, .wake_at = OS_FOREVER, .op = "",
				 .stack = stacks + (size_t)sim.threads * STACK_BYTES,
				 .priority = 1000000u + sim_below(1000000)};
	sim.threads++;
	prepare(t, thread_entry);
	sim.ready |= 1u << t->id;
	return t;
}

void sim_join(struct sim_thread *t)
{
	while (t->state != SIM_DONE)
		sim_wait_for(WAIT_JOIN, t->id, OS_FOREVER);
}

void sim_start(os_thread_fn main_fn, void *arg)
{
	if (!stacks) {
		size_t len = (size_t)STACK_BYTES * SIM_THREADS;
		stacks = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert(stacks != MAP_FAILED);
		/* The lowest page of each stack guards the stack below. */
		for (size_t at = 0; at < len; at += STACK_BYTES)
			mprotect(stacks + at, OS_PAGE, PROT_NONE);
	}
	sim.next_wake = OS_FOREVER;
	sim.lowest = 999999;
	switch_to(sim_spawn("main", main_fn, arg));
	for (uint32_t i = 0; i < sim.threads; i++)
		if (sim.thread[i].state != SIM_DONE)
			sim_fail("thread %s has not ended", sim.thread[i].name);
}

int os_thread_start(struct os_thread *thread, const char *name, os_thread_fn fn, void *arg)
{
	if (sim.threads < REFUSABLE && kernel_refuses())
		return -EAGAIN;
	struct sim_thread *t = sim_spawn(name, fn, arg);
	t->idle = true;
	thread->handle = t->id;
	thread->started = true;
	return 0;
}

void os_thread_join(struct os_thread *thread)
{
	if (thread->started)
		sim_join(&sim.thread[thread->handle]);
	thread->started = false;
}

void os_thread_detach(struct os_thread *thread)
{
	thread->started = false;
}

uint32_t os_gettid(void)
{
	return sim.self ? sim.self->id + 1 : 99;
}

void *os_thread_local(void)
{
	return sim.self ? sim.self->local : host_local;
}

/* ------------------------------------------------------------------ time, futex, locks */

uint64_t os_now_ns(void)
{
	check_clock();
	return sim.now_ns;
}

void os_sleep_until(uint64_t when_ns)
{
	check_may_block("a sleep");
	sim_point();
	sim_wait_for(WAIT_SLEEP, 0, when_ns);
}

static void tell_wait(const uint32_t *word)
{
	uint64_t at = (uint64_t)word;
	for (uint32_t p = 0; sim.mm && p < MM_POOLS_MAX && sim.mm->pool[p]; p++) {
		const struct frame_pool *pool = sim.mm->pool[p];
		if (at - (uint64_t)pool->pages < pool->frames * sizeof(struct page)) {
			event("waits for the lock of frame %llu",
			      (at - (uint64_t)pool->pages) / sizeof(struct page), 0, 0, 0);
			return;
		}
	}
	if (sim.mm && at - (uint64_t)sim.mm->map < sizeof(*sim.mm->map))
		event("waits for the map lock", 0, 0, 0, 0);
}

int os_futex_wait(uint32_t *word, uint32_t value, uint32_t bits, uint64_t until_ns)
{
	check_futex_wait(word);
	sim_point_at(word, true);
	if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != value)
		return 0;
	if (sim_chance(sim.opt.spurious_256)) {
		mark(futex_spurious);
		return 0;
	}
	mark(futex_blocked);
	sim.self->bits = bits;
	sim.self->futex_value = value;
	tell_wait(word);
	if (!sim_wait_for(WAIT_FUTEX, (uint64_t)word, until_ns))
		return 0;
	mark(futex_timeout);
	return -ETIMEDOUT;
}

/* Wake in the order of arrival, as the kernel does. */
void os_futex_wake(uint32_t *word, int count, uint32_t bits)
{
	sim_point_at(word, true);
	while (count-- > 0) {
		struct sim_thread *first = NULL;
		for (uint32_t i = 0; i < sim.threads; i++) {
			struct sim_thread *t = &sim.thread[i];
			if (t->state == SIM_BLOCKED && t->wait == WAIT_FUTEX &&
			    t->key == (uint64_t)word && (t->bits & bits) &&
			    (!first || t->order < first->order))
				first = t;
		}
		if (!first)
			return;
		event("wakes thread %llu", first->id, 0, 0, 0);
		wake_thread(first, false);
	}
}

bool os_trylock(struct os_lock *lock)
{
	sim_point_at(lock, true);
	if (lock->word)
		return false;
	lock->word = 1;
	check_lock_taken("a small lock");
	if (sim.self)
		sim.self->small_locks++;
	return true;
}

/* A thread may take the I/O queue's lock inside another small lock. In the simulator that lock is
 * no os_lock. */
void os_lock(struct os_lock *lock)
{
	if (sim.self && sim.self->small_locks)
		sim_fail("a small lock is taken with another small lock held");
	if (sim.self && self()->map_held && !sim.hold)
		sim_fail("a small lock, which may block, is taken under the map lock");
	while (!os_trylock(lock)) {
		mark(small_lock_blocked);
		sim_wait_for(WAIT_SMALL_LOCK, (uint64_t)lock, OS_FOREVER);
	}
}

void os_unlock(struct os_lock *lock)
{
	sim_point_at(lock, true);
	if (lock->word != 1)
		sim_fail("a small lock is given back that is not held");
	lock->word = 0;
	if (sim.self) {
		sim.self->small_locks--;
		sim_notify(WAIT_SMALL_LOCK, (uint64_t)lock);
	}
}

/* ------------------------------------------------------------------ the rest of os.h */

void os_populate_self(void)
{
}

void os_populate_stack(void)
{
}

uint64_t os_stamp_ns(void)
{
	return sim.now_ns;
}

/* ------------------------------------------------------------------ keeper processes: none here */

int os_keeper_start(struct os_keeper *keeper, void (*fn)(void *arg), void *arg, int also_fd)
{
	(void)also_fd;
	(void)keeper;
	(void)fn;
	(void)arg;
	return -EOPNOTSUPP;
}

void os_keeper_stop(struct os_keeper *keeper)
{
	(void)keeper;
}

void os_keeper_free(struct os_keeper *keeper)
{
	(void)keeper;
}

int os_keeper_take(struct os_keeper *keeper, int fd, const struct stat *st, uint32_t *ret_place)
{
	(void)keeper;
	(void)fd;
	(void)st;
	(void)ret_place;
	return -EOPNOTSUPP;
}

void os_keeper_forget(struct os_keeper *keeper, uint32_t place)
{
	(void)keeper;
	(void)place;
}

bool os_keeper_swapped(const struct os_keeper *keeper, uint64_t addr)
{
	(void)keeper;
	(void)addr;
	return false;
}

int os_keepers_wait(const struct stat *st, bool any, uint64_t until_ns, struct os_kept_end *ret_end)
{
	(void)st;
	(void)any;
	(void)until_ns;
	*ret_end = (struct os_kept_end){0};
	return 0;
}
