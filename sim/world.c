/* SPDX-License-Identifier: MIT */
/*
 * One run: what the seed makes of the machine, the program that uses the library on it, and what that program may see.
 *
 * Owns the workload and its oracle: for each page how often it is mapped at least and at most, whatever the order in
 * which calls that overlap took effect; when a read of it failed. From these follows which results are allowed.
 * May call: all of sim; the public interface.
 */
#include "sim.h"

#define WORKERS_MAX 8
#define TRIES_MAX 3000
#define QUEUE_MAX 12
#define TOLD_NS (120 * OS_NSEC_PER_SEC) /* by when an event must have come, however slow the store */

/* What is known of one page of an object. */
struct known {
	int least, most;   /* times mapped */
	uint64_t map_step, unmap_step; /* a call of that kind was under way at this step, or is */
	uint32_t mapping, unmapping;   /* under way now */
	uint32_t pinned, pinning; /* pinning: also while fm_pin() or fm_unpin() is under way */
	uint64_t unpin_step; /* when the last was over */
	bool pins_lost; /* one that is counted has gone with a truncate or a punch: its fm_unpin() takes another's */
	bool emptied_once;
	uint64_t resized_step; /* a truncate, a punch or an invalidation of it was under way at this step, or is */
	uint32_t resizing;
};

/* A size that an object has, or had, between two steps. */
struct size {
	uint64_t bytes, from, until;
};
#define SIZES_MAX 64u
#define STILL UINT64_MAX

static struct {
	struct fm_file *file[SIM_FILES];
	struct known known[SIM_FILES][SIM_PAGES];
	uint64_t view[SIM_FILES]; /* base */
	uint32_t pages[SIM_FILES]; /* in use, those past the end too */
	uint32_t files, workers, ops;
	uint64_t deadline_ns[SIM_FILES];
	uint32_t changed[SIM_FILES];
	uint32_t frames, budget_slack;
	bool tables_few;
	bool stopping, closing[SIM_FILES];
	uint32_t calls; /* of the interface, under way */
	uint32_t weight[OP_COUNT], weights;
	uint64_t instructions, pin_ns, no_memory;
	bool keeps_pins; /* until the end of all */
	bool writes; /* most objects are open for writing, and are written to */
	bool amends; /* one is, page after page, most of which are cached */
	bool toggles; /* objects change between all and next to nothing */
	struct fm_queue *queue;
	uint32_t flying_most; /* ranges that it holds */
	struct flying {
		bool used;
		uint32_t f, first, last;
		uint64_t begun;
	} flying[QUEUE_MAX];
	struct fm_mm_options mm_options;
	bool destroy_inside;
	bool alone; /* no readahead */
	struct size size[SIM_FILES][SIZES_MAX]; /* of those open for writing */
	uint32_t sizes[SIM_FILES];
	bool resizing[SIM_FILES]; /* by some thread */
	uint32_t syncs[SIM_FILES]; /* under way */
	uint64_t sync_step[SIM_FILES]; /* when one last began or ended */
	uint64_t passed[SIM_THREADS]; /* a thread's wait (its order) during which an unmap came and went */
} world;

static uint64_t index_of(uint32_t f, uint32_t n)
{
	return sim_store[f].base + n * sim_store[f].stride;
}

static uint64_t addr_of(uint32_t f, uint32_t n)
{
	return world.view[f] + index_of(f, n) * OS_PAGE;
}

/* ------------------------------------------------------------------ the oracle */

static void begin_map(uint32_t f, uint32_t first, uint32_t last)
{
	for (uint32_t n = first; n <= last; n++) {
		struct known *k = &world.known[f][n];
		k->most++;
		k->mapping++;
		k->map_step = sim.step;
	}
}

static void end_map(uint32_t f, uint32_t first, uint32_t last, uint64_t begun)
{
	for (uint32_t n = first; n <= last; n++) {
		struct known *k = &world.known[f][n];
		k->mapping--;
		k->map_step = sim.step;
		if (!k->unmapping && k->unmap_step < begun) /* else that one may have undone this one */
			k->least++;
	}
}

static void begin_unmap(uint32_t f, uint32_t first, uint32_t last)
{
	for (uint32_t n = first; n <= last; n++) {
		struct known *k = &world.known[f][n];
		k->least -= k->least > 0;
		k->unmapping++;
		k->unmap_step = sim.step;
	}
}

static void end_unmap(uint32_t f, uint32_t first, uint32_t last, uint64_t begun)
{
	for (uint32_t n = first; n <= last; n++) {
		struct known *k = &world.known[f][n];
		k->unmapping--;
		k->unmap_step = sim.step;
		if (!k->mapping && k->map_step < begun)
			k->most -= k->most > 0;
	}
}

/* The least, or the most, that an object's size can have been since a step. */
static uint64_t size_since(uint32_t f, uint64_t step, bool most)
{
	uint64_t size = most ? 0 : UINT64_MAX;
	for (uint32_t i = 0; i < world.sizes[f]; i++)
		if (world.size[f][i].until >= step && (most ? world.size[f][i].bytes > size : world.size[f][i].bytes < size))
			size = world.size[f][i].bytes;
	return size;
}

/* The least size of an object's versions since a step: who is told of an older end has not had the store asked. */
static uint64_t size_looked_at(const struct sim_store *s, uint64_t step)
{
	uint64_t size = s->size[s->version];
	for (uint32_t v = s->version; v > 0 && s->since[v] > step; v--)
		if (s->size[v - 1] < size)
			size = s->size[v - 1];
	return size;
}

/* May an operation on a page that began at a step end with this? */
static bool allowed(uint32_t f, uint32_t n, int err, uint64_t begun, bool remembered)
{
	struct sim_store *s = &sim_store[f];
	struct known *k = &world.known[f][n];
	uint64_t byte = index_of(f, n) * OS_PAGE, smallest = UINT64_MAX;
	for (uint32_t v = 0; v <= s->version; v++)
		if (s->size[v] < smallest)
			smallest = s->size[v];
	if (s->writable)
		smallest = size_since(f, remembered ? 0 : begun, false);
	else if (world.changed[f] == FM_CHANGED_REFRESH && !s->no_version && !remembered)
		smallest = size_looked_at(s, begun);
	if (s->writable && !err && byte >= size_since(f, begun, true))
		return false;
	if (s->writable && s->write_failures && (err == -EIO || err == -ENOSPC || err == -ENOMEM)) /* of a write that has to wait */
		return true;
	switch (err) {
	case 0:
		/* what one fm_unmap() has still to take out can be read after another one of the same bytes */
		return k->most > 0 || k->unmapping || k->map_step >= begun || k->unmap_step >= begun;
	case -EFAULT:
		return remembered || k->least == 0 || k->unmap_step >= begun || k->map_step >= begun;
	case -ENXIO:
		return byte >= smallest;
	case -ETIMEDOUT:
		return world.deadline_ns[f] != 0;
	case -ESTALE:
		return s->version > 0;
	case -ECANCELED:
		return sim.dying;
	case -ENOMEM:
		if (sim_marks.no_memory > world.no_memory)
			return true;
		/* fallthrough */
	case -EIO:
	case -ENOSPC:
		return s->version > 0 || (remembered ? s->error_step[n] > 0 : s->error_step[n] >= begun);
	default:
		return false;
	}
}

static void mark_access(int err)
{
	switch (err) {
	case -EFAULT: mark(access_efault); break;
	case -EACCES: mark(access_eacces); break;
	case -ENXIO: mark(access_enxio); break;
	case -EIO: mark(access_eio); break;
	case -ETIMEDOUT: mark(access_etimedout); break;
	case -ESTALE: mark(access_estale); break;
	case -ECANCELED: mark(access_ecanceled); break;
	case -ENOTCONN: mark(access_gone); break;
	default: mark(access_other); break;
	}
}

/* ------------------------------------------------------------------ convoys that do not form */

/* A call, or a fault, that began at a step has ended. Which threads have waited for a page all the while? */
static void note_passed(uint64_t begun, bool call)
{
	for (uint32_t i = 0; i < sim.threads; i++) {
		const struct sim_thread *t = &sim.thread[i];
		if (t->state != SIM_BLOCKED || t->since_step > begun ||
		    (t->wait != WAIT_FAULT && (t->wait != WAIT_FUTEX || strcmp(t->op, "access") != 0)))
			continue;
		if (call) {
			covered(a11_writer_passes);
			world.passed[i] = t->order;
		} else if (world.passed[i] == t->order) {
			covered(a11_fault_passes);
		}
	}
}

/* ------------------------------------------------------------------ accesses */

/* The bytes change, now. By I/O into a pinned page: whether it is protected does not matter. */
static void write_sector(uint32_t f, uint32_t n, bool pinned)
{
	struct sim_store *s = &sim_store[f];
	struct view_page *page = kernel_view(addr_of(f, n));
	uint32_t sector = sim_below(SIM_TAGS);
	check_content(s, index_of(f, n), page);
	check_written_to(world.file[f], index_of(f, n));
	if (!pinned && page->protected)
		sim_fail("a protected page is written to");
	page->tag[sector] = written_new(s, n, sector);
	mark(sector_writes);
	if (pinned)
		mark(pinned_writes);
}

/* One instruction that needs pages n to n + count - 1, all at once: as a processor would, from the start again
 * after each fault. */
static void access_by(uint32_t f, uint32_t n, uint32_t count, bool write, bool call)
{
	bool writes = write && sim_store[f].writable;
	uint64_t instruction = ++world.instructions << 1 | 1, begun = sim.step, begun_ns = sim.now_ns;
	struct sim_thread *self = sim.self;
	bool faulted = false, closing = world.closing[f];
	/* A fault can outlive its access, where another's install woke the thread, and answer the next one. */
	bool merged = world.mm_options.trap == FM_TRAP_THREAD;
	self->op = write ? "write" : "access";
	event("accesses page %llu of object %llu, %llu pages, write %llu", index_of(f, n), f, count, write);
	for (uint32_t tries = 0, at = 0; at < count; tries++) {
		uint64_t addr = addr_of(f, n + at) + 8 * n;
		struct view_page *page = kernel_view(addr);
		int r = page && !page->poison && !write ? 1 : sim_access(addr, write, call, instruction);
		/* Where a store is all but dead, others' signals may wake it again and again. */
		if (tries > TRIES_MAX + (sim.now_ns - begun_ns) / OS_NSEC_PER_MSEC)
			sim_fail("an access to page %llu of object %u makes no progress",
				 (unsigned long long)index_of(f, n + at), f);
		if (r == 0) {
			if (faulted && at == 0)
				mark(access_again);
			faulted = true;
			at = 0;
			if (tries > 50)
				sim_sleep(20000); /* what so many signals take, at the least */
			else
				sim_point();
			continue;
		}
		if (r < 0) {
			event("the access ends with error %llu", -r, 0, 0, 0);
			mark_access(r);
			bool gone = r == -ENOTCONN && (sim.dying || closing || world.closing[f]);
			/* What refuses one write for a moment refuses all. */
			bool refused = (r == -EACCES && write && (!writes || kernel_refuses_write(addr))) || r == -EHWPOISON;
			if (!gone && !refused && !allowed(f, n + at, r, begun, merged))
				sim_fail("an access to page %llu of object %u ends with %d, for no reason",
					 (unsigned long long)index_of(f, n + at), f, r);
			return;
		}
		at++;
		if (at < count || (write && !writes))
			continue;
		for (uint32_t i = 0; writes && i < count; i++)
			write_sector(f, n + i, false);
		for (uint32_t i = 0; i < count; i++) /* nothing has run since they were all found */
			check_content(&sim_store[f], index_of(f, n + i), kernel_view(addr_of(f, n + i)));
		mark(access_ok);
		if (faulted)
			note_passed(begun, false);
		if (count > 1)
			mark(access_straddles);
		if (faulted && sim_store[f].page_size == OS_PAGE) /* larger pages come and go whole */
			for (uint32_t i = 0; i < count; i++)
				/* what comes into the view late is taken out again by the fault that is still in it */
				if (!world.known[f][n + i].pinned && !allowed(f, n + i, 0, begun, false) &&
				    !sim.dying && !world.file[f]->view.region.pins && !sim_store[f].writable) /* held ones stay a while */
					sim_fail("page %llu of object %u can be read, and is not mapped",
						 (unsigned long long)index_of(f, n + i), f);
		event("the access is done", 0, 0, 0, 0);
	}
}

/* Now and then it is a system call that is given the address; which may hold some object's lock if it only reads there, as
 * write() does. */
static void access_pages(uint32_t f, uint32_t n, uint32_t count, bool write)
{
	bool call = world.mm_options.trap == FM_TRAP_THREAD && !sim.small && sim_chance(48);
	struct sim_store *locked = call && !write && !sim.self->in_handler && sim_chance(128) ? &sim_store[sim_below(world.files)] : NULL;
	bool may_end = sim.self->may_end;
	if (!locked) {
		access_by(f, n, count, write, call);
		return;
	}
	mark(call_locked);
	sim.self->may_end = false;
	store_lock(locked);
	access_by(f, n, count, false, true);
	store_unlock(locked);
	sim.self->may_end = may_end;
}

/* A signal's handler touches a view, whatever its thread was doing. */
static void on_signal(void)
{
	uint32_t f = sim_below(world.files), n = sim_below(world.pages[f]);
	const char *op = sim.self->op;
	bool may_end = sim.self->may_end;
	if (!world.view[f])
		return;
	mark(signal_touches);
	sim.self->may_end = false;
	access_pages(f, n, 1, false);
	sim.self->may_end = may_end;
	sim.self->op = op;
}

/* ------------------------------------------------------------------ calls */

/* A call of the interface must not meet the mm's end. */
static bool call_begin(const char *op)
{
	if (world.stopping)
		return false;
	world.calls++;
	sim.self->op = op;
	return true;
}

static void call_end(void)
{
	check_nothing_held(sim.self->op);
	world.calls--;
}

static void check_call(const char *what, uint32_t f, uint32_t first, uint32_t last, int err, uint64_t begun,
		       bool remembered)
{
	event("the call ends with error %llu", -err, 0, 0, 0);
	bool good = false;
	for (uint32_t n = first; n <= last && !good; n++)
		good = allowed(f, n, err, begun, remembered);
	if (sim_store[f].page_size > OS_PAGE) /* pages of such a unit are faulted in by one address of it */
		last = first;
	for (uint32_t n = first; !err && n <= last; n++)
		good &= allowed(f, n, 0, begun, remembered);
	/* pages between those that the oracle knows have their own errors, as have pages that share a larger one */
	if (sim_store[f].stride > 1 && last > first)
		good |= allowed(f, first, err, begun, remembered) || err == -EIO || err == -ENOSPC || err == -ENOMEM;
	if (!good)
		sim_fail("%s of pages %u to %u of object %u: %d, for no reason", what, first, last, f, err);
}

static void do_fault_in(uint32_t f, uint32_t first, uint32_t last, bool nowait)
{
	if (sim_store[f].stride > 1)
		last = first;
	uint64_t begun = sim.step, len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE;
	if (!call_begin(nowait ? "nowait" : "fault_in"))
		return;
	event("fault_in of page %llu of object %llu, %llu bytes, nowait %llu", index_of(f, first), f, len, nowait);
	int fd = -1;
	bool told = nowait && !sim.small && sim_chance(128) && fm_event_fd(sim.mm, &fd) == 0;
	uint64_t seen = told ? sim_event_signals(fd) : 0;
	unsigned flags = (nowait ? FM_NOWAIT : 0u) | (sim_store[f].writable && sim_chance(64) ? FM_WRITE : 0u);
	int err = fm_fault_in(sim.mm, (void *)addr_of(f, first), len, flags);
	for (int i = 0; nowait && err == -EAGAIN && i < 12 && !world.stopping; i++) {
		mark(nowait_again);
		if (!told)
			sim_sleep(1 + sim_below((uint32_t)sim.opt.io_ns));
		else if (sim_event_wait(fd, true, seen, sim.now_ns + TOLD_NS))
			mark(nowait_told);
		else
			sim_fail("fm_fault_in() gave -EAGAIN, and no event came");
		seen = told ? sim_event_signals(fd) : 0;
		err = fm_fault_in(sim.mm, (void *)addr_of(f, first), len, flags);
	}
	if (nowait && err == -EAGAIN) {
		call_end();
		return;
	}
	if (nowait && !err)
		mark(nowait_ok);
	else if (nowait)
		mark(nowait_error);
	else if (err)
		mark(fault_in_error);
	else
		mark(fault_in_ok);
	covered_if(!nowait && !err && last - first >= world.frames, a14_larger_than_budget);
	check_call("fm_fault_in()", f, first, last, err, begun, nowait);
	call_end();
}

/* Pins do not hold what is truncated or punched. */
static bool was_resized(uint32_t f, uint32_t n, uint64_t begun)
{
	const struct known *k = &world.known[f][n];
	return k->resizing || k->resized_step >= begun || k->pins_lost;
}

/* What is pinned is told as such; unmapped meanwhile it is not told of at all. */
static void check_pinned_resident(uint32_t f, uint32_t n, uint64_t begun)
{
	unsigned char vec = 0;
	int err = fm_residency(sim.mm, (void *)addr_of(f, n), OS_PAGE, &vec);
	if (sim_store[f].version || world.known[f][n].emptied_once || was_resized(f, n, begun))
		return;
	if (err ? err != -ENOMEM || vec : vec != (FM_RESIDENT_CACHED | FM_RESIDENT_MAPPED | FM_RESIDENT_PINNED))
		sim_fail("page %llu of object %u is pinned, and fm_residency() says %d, %#x",
			 (unsigned long long)index_of(f, n), f, err, vec);
}

/* ------------------------------------------------------------------ the queue */

static struct flying *flying_new(uint32_t f, uint32_t first, uint32_t last)
{
	for (uint32_t i = 0; i < QUEUE_MAX; i++)
		if (!world.flying[i].used) {
			world.flying[i] = (struct flying){true, f, first, last, sim.step};
			return &world.flying[i];
		}
	return NULL;
}

/* A range and, it may be, others beside it. */
static void do_batch(uint32_t f, uint32_t first, uint32_t last)
{
	struct fm_range range[4];
	struct flying *flying[4];
	size_t count = 0, most = 1 + sim_below(4), begun = 0;
	if (!world.queue || !call_begin("batch"))
		return;
	for (; count < most; count++) {
		last = sim_store[f].stride > 1 ? first : last;
		flying[count] = flying_new(f, first, last);
		if (!flying[count])
			break;
		event("batch: pages %llu to %llu of object %llu, range %llu", index_of(f, first), index_of(f, last), f,
		      flying[count] - world.flying);
		range[count] = (struct fm_range){.addr = (void *)addr_of(f, first), .tag = flying[count],
						 .len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE};
		f = sim_below(world.files);
		first = last = sim_below(world.pages[f]);
	}
	int err = fm_fault_in_batch(world.queue, range, count, &begun);
	if (err && err != -EAGAIN)
		sim_fail("fm_fault_in_batch(): %d", err);
	mark(batch_begun);
	if (begun < count)
		mark(batch_full);
	for (; begun < count; begun++)
		flying[begun]->used = false;
	call_end();
}

static void check_range(const struct fm_range *range)
{
	struct flying *flying = range->tag;
	if (flying < world.flying || flying >= world.flying + QUEUE_MAX || !flying->used)
		sim_fail("fm_completions() gives a range that is not under way");
	flying->used = false;
	event("batch: range %llu has ended", flying - world.flying, 0, 0, 0);
	if (range->error)
		mark(batch_error);
	else
		mark(batch_ok);
	check_call("fm_fault_in_batch()", flying->f, flying->first, flying->last, range->error, flying->begun, false);
}

/* Not a call that the mm's end waits for: it ends by that. */
static bool do_take(uint64_t timeout_ns)
{
	struct fm_range range[3];
	size_t count = 0, most = 1 + sim_below(3);
	int fd;
	if (!world.queue)
		return false;
	sim.self->op = "take";
	if (!world.stopping && sim_chance(96) && call_begin("take")) {
		uint64_t until = timeout_ns == OS_FOREVER ? OS_FOREVER : sim.now_ns + timeout_ns;
		if (fm_queue_fd(world.queue, &fd) == 0 && sim_event_wait(fd, false, 0, until))
			mark(batch_told);
		timeout_ns = 0;
		call_end();
	}
	int err = fm_completions(world.queue, range, most, timeout_ns, &count);
	check_nothing_held("fm_completions()");
	if (err) {
		mark(batch_gone);
		if ((err != -ECANCELED && err != -EOWNERDEAD) || !world.stopping)
			sim_fail("fm_completions(): %d", err);
	}
	if (count > most)
		sim_fail("fm_completions() gives more than there is room for");
	for (size_t i = 0; i < count; i++)
		check_range(&range[i]);
	return count > 0;
}

static bool some_flying(void)
{
	for (uint32_t i = 0; i < QUEUE_MAX; i++)
		if (world.flying[i].used)
			return true;
	return false;
}

static void make_queue(void)
{
	world.flying_most = 1 + sim_below(QUEUE_MAX);
	uint64_t refused = sim_marks.meta_refused;
	int err;
	while ((err = fm_queue_create(sim.mm, world.flying_most, &world.queue)) != 0) {
		if (err != -ENOMEM || sim_marks.meta_refused == refused)
			sim_fail("fm_queue_create(): %d", err);
		refused = sim_marks.meta_refused;
	}
}

/* All that is under way ends, or the queue goes with it. Nobody else uses it any more: a wake-up that were lost would leave this
 * thread asleep for ever. */
static void end_queue(void)
{
	if (!world.queue)
		return;
	for (uint32_t i = 0; !world.keeps_pins && sim_chance(160) && some_flying(); i++) {
		do_take(OS_FOREVER);
		if (i > 4000)
			sim_fail("a range was begun, and does not end");
	}
	if (some_flying())
		mark(batch_left);
	int err = fm_queue_destroy(world.queue);
	if (err)
		sim_fail("fm_queue_destroy(): %d", err);
	world.queue = NULL;
}

/* While pages are pinned they are in the view, whatever else happens, but for a change of the object. */
static void do_pin(uint32_t f, uint32_t n)
{
	uint64_t begun = sim.step;
	if (!call_begin("pin"))
		return;
	bool writes = sim_store[f].writable && sim_chance(128);
	event("pins page %llu of object %llu, to write %llu", index_of(f, n), f, writes, 0);
	if (!world.known[f][n].pinning++)
		world.known[f][n].pins_lost = false;
	int err = fm_pin(sim.mm, (void *)addr_of(f, n), OS_PAGE, writes ? FM_WRITE : 0);
	if (err) {
		mark(pin_error);
		world.known[f][n].pinning--;
		world.known[f][n].unpin_step = sim.step;
		if (err != -ENOMEM)
			check_call("fm_pin()", f, n, n, err, begun, false);
		call_end();
		return;
	}
	mark(pin_ok);
	struct known *k = &world.known[f][n];
	k->pinned++;
	for (int i = 0; i < (world.keeps_pins ? 1 : 4); i++) {
		struct view_page *page = kernel_view(addr_of(f, n));
		if ((!page || page->poison) && sim_store[f].version == 0 && !k->emptied_once && !was_resized(f, n, begun))
			sim_fail("page %llu of object %u is pinned, and not in the view",
				 (unsigned long long)index_of(f, n), f);
		if (page && !page->poison)
			check_content(&sim_store[f], index_of(f, n), page);
		check_pinned_resident(f, n, begun);
		if (writes && kernel_view(addr_of(f, n)) && !was_resized(f, n, begun) && !k->emptied_once && sim_chance(128))
			write_sector(f, n, true);
		sim_sleep(1 + sim_below((uint32_t)world.pin_ns));
	}
	if (world.keeps_pins) {
		call_end();
		return;
	}
	err = fm_unpin(sim.mm, (void *)addr_of(f, n), OS_PAGE);
	k->pinned--;
	k->pinning--;
	k->unpin_step = sim.step;
	if (err && sim_store[f].version == 0 && !k->emptied_once && !world.deadline_ns[f] && !was_resized(f, n, begun))
		sim_fail("fm_unpin() of page %llu of object %u: %d", (unsigned long long)index_of(f, n), f, err);
	call_end();
}

static void do_map(uint32_t f, uint32_t first, uint32_t last)
{
	uint64_t begun = sim.step;
	void *addr = NULL;
	if (world.closing[f] || !call_begin("map"))
		return;
	event("maps pages %llu to %llu of object %llu", first, last, f, 0);
	begin_map(f, first, last);
	uint64_t len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE;
	uint64_t refused = sim_marks.meta_refused;
	struct fm_map_options options = {.size = sizeof(options), .flags = sim_store[f].writable ? FM_MAP_WRITE : 0};
	int err;
	while ((err = fm_map(world.file[f], index_of(f, first) * OS_PAGE, len, &options, &addr)) == -ENOMEM &&
	       sim_marks.meta_refused > refused) {
		mark(map_refused);
		refused = sim_marks.meta_refused;
	}
	if (err || (uint64_t)addr != addr_of(f, first))
		sim_fail("fm_map(): %d, address %p", err, addr);
	end_map(f, first, last, begun);
	call_end();
}

/* A failure that is none, to try out how failures are told: an unmap ends while somebody is in an access. */
static void look_for_planted(void)
{
	for (uint32_t i = 0; sim_planted && i < sim.threads; i++)
		if (sim.thread[i].state == SIM_BLOCKED && !strcmp(sim.thread[i].op, "access"))
			sim_fail("planted: thread %u is in an access while an unmap ends", i);
}

static void do_unmap(uint32_t f, uint32_t first, uint32_t last)
{
	uint64_t begun = sim.step;
	if (!call_begin("unmap"))
		return;
	event("unmaps pages %llu to %llu of object %llu", first, last, f, 0);
	begin_unmap(f, first, last);
	uint64_t len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE;
	int err = fm_unmap(sim.mm, (void *)addr_of(f, first), len);
	if (err)
		sim_fail("fm_unmap(): %d", err);
	look_for_planted();
	end_unmap(f, first, last, begun);
	note_passed(begun, true);
	call_end();
}

static void do_advise(uint32_t f, uint32_t first, uint32_t last, enum fm_advice advice)
{
	if (!call_begin("advise"))
		return;
	event("advises %llu for pages %llu to %llu of object %llu", advice, first, last, f);
	uint64_t len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE;
	int err = fm_advise(sim.mm, (void *)addr_of(f, first), len, advice);
	if (err && err != -ENOMEM)
		sim_fail("fm_advise(): %d", err);
	call_end();
}

static void do_residency(uint32_t f, uint32_t first, uint32_t last)
{
	unsigned char vec[64];
	if (!call_begin("residency"))
		return;
	event("asks for pages %llu to %llu of object %llu", first, last, f, 0);
	uint64_t count = index_of(f, last) - index_of(f, first) + 1;
	count = count < sizeof(vec) ? count : sizeof(vec);
	int err = fm_residency(sim.mm, (void *)addr_of(f, first), count * OS_PAGE, vec);
	if (err && err != -ENOMEM)
		sim_fail("fm_residency(): %d", err);
	for (uint64_t i = 0; i < count; i++)
		if (vec[i] && !(vec[i] & FM_RESIDENT_CACHED))
			sim_fail("fm_residency(): %#x", vec[i]);
	call_end();
}

/* ------------------------------------------------------------------ threads */

static enum op choose_op(void)
{
	uint32_t at = sim_below(world.weights);
	enum op op = 0;
	while (at >= world.weight[op])
		at -= world.weight[op++];
	return op;
}

static void change_object(uint32_t f)
{
	struct sim_store *s = &sim_store[f];
	uint64_t size = s->size[s->version], unit = (uint64_t)s->stride * OS_PAGE;
	if (world.changed[f] == 2) { /* this run never changes objects: the page goes bad instead */
		s->bad[sim_below(s->pages)] ^= true;
		return;
	}
	if (world.toggles)
		size = size > OS_PAGE ? OS_PAGE : s->size[0];
	else if (sim_chance(100) && size > s->base * OS_PAGE + 2 * unit)
		size -= unit * (1 + sim_below(2));
	else if (sim_chance(60))
		size += unit;
	if (size == s->size[s->version] || sim_chance(64)) {
		uint32_t n = sim_below(s->pages), most = s->pages - n < 4 ? s->pages - n : 4;
		store_punch(s, n, 1 + sim_below(most));
		return;
	}
	store_change(s, size);
}

static void do_empty(uint32_t f, uint32_t n)
{
	for (uint32_t p = 0; p < world.pages[f]; p++) /* a larger page goes whole */
		if (addr_of(f, p) / sim_store[f].page_size == addr_of(f, n) / sim_store[f].page_size)
			world.known[f][p].emptied_once = true;
	if (sim_store[f].writable && kernel_view(addr_of(f, n)))
		written_lost(&sim_store[f], n);
	kernel_empty(addr_of(f, n));
}

/* ------------------------------------------------------------------ files that are written to */

/* What was written before it began is durable when it has ended well. */
static void do_sync(uint32_t f, uint32_t n, uint32_t m)
{
	struct sim_store *s = &sim_store[f];
	uint32_t need[SIM_PAGES][SIM_TAGS], failures = s->failures_known, told = s->told;
	uint64_t begun = sim.step;
	bool async = sim_chance(48), by_file = sim_chance(128), whole = by_file && sim_chance(128);
	if (!call_begin("sync"))
		return;
	if (whole) {
		n = 0;
		m = world.pages[f] - 1;
	}
	if (s->writable)
		written_need(s, n, m, need);
	uint64_t offset = index_of(f, n) * OS_PAGE, len = (index_of(f, m) - index_of(f, n) + 1) * OS_PAGE;
	bool alone = !world.syncs[f]++ && world.sync_step[f] < begun;
	event("syncs pages %llu to %llu of object %llu, asynchronously %llu", n, m, f, async);
	unsigned flags = async ? FM_SYNC_ASYNC : 0;
	int err = by_file ? fm_file_sync(world.file[f], offset, whole ? 0 : len, flags) : fm_sync(sim.mm, (void *)addr_of(f, n), len, flags);
	event("the sync ends with error %llu", -err, 0, 0, 0);
	alone &= --world.syncs[f] == 0 && world.sync_step[f] < begun;
	world.sync_step[f] = sim.step;
	if (err)
		mark(sync_error);
	else if (async)
		mark(sync_async);
	else
		mark(sync_ok);
	if (err) /* -ENOMEM may be the store's */
		s->told = s->write_failures;
	if (!err && !async && s->writable)
		written_acknowledged(s, n, m, need, size_since(f, begun, false));
	if (!err && !async && s->writable && alone && failures > told && !sim.dying)
		sim_fail("a write of object %u has failed, and fm_sync() does not tell", f);
	bool gap = err == -ENOMEM && !by_file;
	bool late = (err == -ETIMEDOUT && world.deadline_ns[f]) || (err == -ECANCELED && sim.dying);
	if (err && !gap && !late && !s->write_failures && !(err == -EIO && sim.emptied))
		sim_fail("fm_sync(): %d, and nothing has failed", err);
	call_end();
}

static bool resize_begin(uint32_t f, const char *op)
{
	if (!sim_store[f].writable || world.resizing[f] || !call_begin(op))
		return false;
	world.resizing[f] = true;
	return true;
}

static void resize_end(uint32_t f)
{
	world.resizing[f] = false;
	call_end();
}

/* Pages that a call has in its hands lose their pins, or their places in the view. */
static void resize_pages(uint32_t f, uint32_t n, uint32_t m, int change)
{
	for (; n <= m && n < world.pages[f]; n++) {
		world.known[f][n].resizing += (uint32_t)change;
		world.known[f][n].resized_step = sim.step;
		world.known[f][n].pins_lost |= world.known[f][n].pinning > 0;
	}
}

static void size_may_be(uint32_t f, uint64_t bytes)
{
	if (world.sizes[f] == SIZES_MAX)
		sim_fail("the simulator knows no more sizes");
	world.size[f][world.sizes[f]++] = (struct size){bytes, sim.step, STILL};
}

static void size_is(uint32_t f, uint64_t bytes)
{
	for (uint32_t i = 0; i < world.sizes[f]; i++)
		if (world.size[f][i].bytes != bytes && world.size[f][i].until == STILL)
			world.size[f][i].until = sim.step;
}

static void do_truncate(uint32_t f)
{
	struct sim_store *s = &sim_store[f];
	if (world.sizes[f] == SIZES_MAX || !resize_begin(f, "truncate"))
		return;
	uint64_t first = s->base * SIM_TAGS, before = s->size[0], most = world.pages[f] * SIM_TAGS;
	uint64_t size = (first + sim_below((uint32_t)most + 1)) * SIM_SECTOR;
	if (sim_chance(128))
		size &= ~(uint64_t)(OS_PAGE - 1);
	uint64_t least = size < before ? size : before;
	/* Of what becomes longer the rest of its last page is zeros from then on. */
	uint64_t from = least / SIM_SECTOR - first, to = size < before ? most : (from + SIM_TAGS - 1) / SIM_TAGS * SIM_TAGS;
	event("truncates object %llu from %llu to %llu bytes", f, before, size, 0);
	size_may_be(f, size);
	resize_pages(f, (uint32_t)(from / SIM_TAGS), world.pages[f], 1);
	if (size != before)
		written_zeroing(s, from, to);
	uint64_t begun = sim.step;
	int err = fm_truncate(world.file[f], size);
	event("the truncate ends with error %llu", -err, 0, 0, 0);
	if (size != before)
		written_zeroed(s, from, to, !err);
	resize_pages(f, (uint32_t)(from / SIM_TAGS), world.pages[f], -1);
	size_is(f, err ? before : size);
	/* Of a page that is pinned, or by COPY could not be written first, what is past the end stays as it was, until it grows. */
	bool busy = sim.opt.busy_256 || sim.opt.held_256 || sim.opt.famine_256;
	bool unwritten = busy || (world.mm_options.install == FM_INSTALL_COPY && (s->write_failures || world.deadline_ns[f] || sim.emptied));
	const struct known *k = &world.known[f][from / SIM_TAGS];
	if (!err && size != before)
		s->ragged = size < before && (unwritten || k->pinning || k->unpin_step >= begun) ? (uint32_t)(from / SIM_TAGS) + 1 : 0;
	if (s->size[0] != (err ? before : size))
		sim_fail("fm_truncate() of object %u to %llu bytes: %d, and it has %llu", f, (unsigned long long)size, err,
			 (unsigned long long)s->size[0]);
	if (err && err != -EBUSY && !sim.opt.error_256 && !sim.opt.famine_256 && !s->write_failures && !sim.emptied && !world.deadline_ns[f])
		sim_fail("fm_truncate(): %d, and nothing has failed", err);
	if (err)
		mark(resize_error);
	else if (size < before)
		mark(shrunk);
	else
		mark(grown);
	resize_end(f);
}

static void do_punch(uint32_t f, uint32_t n, uint32_t m)
{
	struct sim_store *s = &sim_store[f];
	if (s->stride > 1)
		m = n;
	if (!resize_begin(f, "punch"))
		return;
	uint64_t from = n * SIM_TAGS + sim_below(SIM_TAGS), to = m * SIM_TAGS + 1 + sim_below(SIM_TAGS);
	if (sim_chance(128)) {
		from = n * SIM_TAGS;
		to = (m + 1) * SIM_TAGS;
	}
	if (from >= to)
		to = from + 1;
	uint64_t first = s->base * SIM_TAGS, end = s->size[0] / SIM_SECTOR;
	uint64_t stop = first + to >= end ? end > first ? end - first : 0 : to; /* past the end it does nothing */
	/* ...but where it goes to the end the last page goes whole */
	uint64_t over = first + to >= end ? (stop + SIM_TAGS - 1) / SIM_TAGS * SIM_TAGS : stop;
	if (from >= stop)
		over = from;
	event("punches sectors %llu to %llu of object %llu", from, to, f, 0);
	resize_pages(f, n, m, 1);
	written_zeroing(s, from, over);
	int err = fm_punch(world.file[f], (first + from) * SIM_SECTOR, (to - from) * SIM_SECTOR);
	event("the punch ends with error %llu", -err, 0, 0, 0);
	written_zeroed(s, from, over, !err);
	resize_pages(f, n, m, -1);
	if (err && err != -EBUSY && !sim.opt.error_256 && !sim.opt.famine_256 && !world.deadline_ns[f] && !s->any_error_step && !s->write_failures &&
	    !sim.emptied)
		sim_fail("fm_punch(): %d, and nothing has failed", err);
	if (err)
		mark(resize_error);
	else
		mark(punched);
	resize_end(f);
}

static void do_invalidate(uint32_t f, uint32_t n, uint32_t m)
{
	struct sim_store *s = &sim_store[f];
	uint64_t offset = index_of(f, n) * OS_PAGE, len = (index_of(f, m) - index_of(f, n) + 1) * OS_PAGE;
	/* Tried so often, a larger page that the kernel has pinned in part is at last left in part in the view: its next fault reads it
	 * again. */
	if (s->page_size > OS_PAGE || !call_begin("invalidate"))
		return;
	event("invalidates pages %llu to %llu of object %llu", n, m, f, 0);
	s->dropping++;
	int err = fm_invalidate(world.file[f], offset, sim_chance(32) ? 0 : len);
	s->dropping--;
	event("the invalidation ends with error %llu", -err, 0, 0, 0);
	if (err && err != -EBUSY && !s->write_failures && !(err == -EIO && sim.emptied) && !(err == -ETIMEDOUT && world.deadline_ns[f]) && !(err == -ECANCELED && sim.dying))
		sim_fail("fm_invalidate(): %d, and nothing has failed", err);
	if (err)
		mark(invalidate_error);
	else
		mark(invalidated);
	call_end();
}

static void do_reclaim(uint32_t f)
{
	if (!call_begin("reclaim"))
		return;
	event("reclaims two frames", 0, 0, 0, 0);
	os_sigmask mask = os_signals_block(); /* as in a call */
	reclaim(world.file[f]->pool, 2, false);
	os_signals_restore(mask);
	call_end();
}

static void do_op(enum op op, uint32_t f, uint32_t n, uint32_t m)
{
	bool neighbours = sim_store[f].stride == 1;
	sim.self->op_step = sim.step;
	sim.self->may_end = op == OP_ACCESS || op == OP_STRADDLE; /* no call that must not be left */
	switch (op) {
	case OP_ACCESS: access_pages(f, n, 1, false); break;
	case OP_STRADDLE: access_pages(f, n, neighbours ? m - n + 1 : 1, false); break;
	case OP_WRITE: access_pages(f, n, 1, true); break;
	case OP_FAULT_IN: do_fault_in(f, n, m, false); break;
	case OP_NOWAIT: do_fault_in(f, n, m, true); break;
	case OP_PIN: do_pin(f, n); break;
	case OP_MAP: do_map(f, n, m); break;
	case OP_UNMAP: do_unmap(f, n, m); break;
	case OP_ADVISE:
		if (sim_chance(64)) {
			do_residency(f, n, m);
			break;
		}
		do_advise(f, n, m, (enum fm_advice)sim_below(FM_ADVICE_COLD + 1));
		break;
	case OP_WILLNEED: do_advise(f, n, m, FM_ADVICE_WILLNEED); break;
	case OP_DONTNEED: do_advise(f, n, m, FM_ADVICE_DONTNEED); break;
	case OP_RECLAIM: do_reclaim(f); break;
	case OP_CHANGE: change_object(f); break;
	case OP_EMPTY: do_empty(f, n); break;
	case OP_SYNC: do_sync(f, n, m); break;
	case OP_TRUNCATE: do_truncate(f); break;
	case OP_PUNCH: do_punch(f, n, m); break;
	case OP_INVALIDATE: do_invalidate(f, n, m); break;
	case OP_BATCH: do_batch(f, n, m); break;
	case OP_TAKE: do_take(1 + sim_below(2000000)); break;
	default: sim_sleep(1 + sim_below(1000000)); break;
	}
	sim.self->op = "";
	sim.self->may_end = false;
	sim_point();
}

/* In equal steps through a file, which becomes a stream; or page after page, and what was read is written to. */
static void walk(uint32_t f, uint32_t n)
{
	bool amends = world.weight[OP_WRITE] && sim_chance(world.amends ? 240 : 128);
	uint32_t step = amends ? 1 : 1 + sim_below(3), left = 6 + sim_below(8);

	if (!amends && sim_chance(128)) /* backwards, which ends below 0 */
		step = -step;
	for (; left-- && n < world.pages[f]; n += step) {
		do_op(OP_ACCESS, f, n, n);
		if (amends)
			do_op(OP_WRITE, f, n, n);
	}
}

static void *worker(void *arg)
{
	(void)arg;
	sim.self->signals_open = true;
	for (uint32_t i = 0; i < world.ops; i++) {
		uint32_t f = sim_below(world.files), n = sim_below(world.pages[f]), m;
		if (sim_chance(world.amends ? 128 : 20))
			walk(f, world.amends ? n / 4 : n);
		if (sim_chance(128)) /* some pages are everybody's */
			n = sim_below(world.pages[f] < 4 ? world.pages[f] : 4);
		m = n + sim_below(4);
		m = m < world.pages[f] ? m : world.pages[f] - 1;
		uint32_t end = sim_store[f].pages - 1, far = end > n && sim_chance(48) ? end : m; /* more than fits, it may be */
		enum op op = choose_op();
		do_op(op, f, n, op == OP_FAULT_IN || op == OP_BATCH ? far : m);
		if (sim_chance(sim.opt.exit_256)) { /* cancelled while it was in the library, most often */
			mark(exit_early);
			break;
		}
	}
	if (!sim.dying && sim.mm->requests_busy)
		mark(exit_in_flight);
	return NULL;
}

static void *small_worker(void *arg)
{
	sim.self->signals_open = true;
	for (const struct small_step *step = arg; step->op != OP_END; step++)
		do_op(step->op, 0, step->first, step->last);
	return NULL;
}

static struct sim_thread *start_worker(uint32_t i)
{
	if (!sim.small)
		return sim_spawn("program", worker, NULL);
	return sim_spawn(sim.small->thread[i] ? sim.small->thread[i] : "program", small_worker,
			 (void *)(uintptr_t)sim.small->program[i]);
}

/* ------------------------------------------------------------------ the end */

static bool is_left(uint32_t f, uint32_t n, uint64_t addr)
{
	const struct known *k = &world.known[f][n];
	return addr_of(f, n) == addr && k->most == 0 && sim_store[f].page_size == OS_PAGE && !kernel_view(addr)->poison &&
	       !k->emptied_once && !check_is_held(world.file[f], index_of(f, n));
}

/* All is quiet: what is in a view is mapped. What had to stay there until it was written and flushed, or is being read into it by
 * way of a staging slot, goes soon after. */
static void check_views_mapped(void)
{
	for (uint32_t tries = 0;; tries++) {
		uint32_t left = 0, left_f = 0, left_n = 0;
		for (uint32_t i = 0; kernel_view_addr(i); i++)
			for (uint32_t f = 0; f < world.files; f++)
				for (uint32_t n = 0; n < world.pages[f]; n++)
					if (is_left(f, n, kernel_view_addr(i))) {
						left++;
						left_f = f;
						left_n = n;
					}
		if (!left)
			return;
		if ((!sim_store[left_f].writable && !sim.mm->requests_busy) || tries == 2000)
			sim_fail("page %llu of object %u is in the view, and not mapped", (unsigned long long)index_of(left_f, left_n), left_f);
		sim_sleep(100 * OS_NSEC_PER_MSEC);
	}
}

/* Segments of the table that lie in a view; nobody else is there to change it. */
static bool some_mapped(uint32_t f)
{
	for (uint32_t i = 0; i < sim.mm->segment_count; i++)
		if (sim.mm->segments[sim.mm->places[i]].view == &world.file[f]->view)
			return true;
	return false;
}

static void need_written(uint32_t need[][SIM_PAGES][SIM_TAGS])
{
	for (uint32_t f = 0; f < world.files; f++)
		if (sim_store[f].writable)
			written_need(&sim_store[f], 0, world.pages[f] - 1, need[f]);
}

/* As exit() does it, in a process whose threads are all still there, also where files are just being closed. All that was
 * written is in the stores then, unless a store fails, or is slower than the end waits for. */
static void process_ends(uint32_t need[][SIM_PAGES][SIM_TAGS])
{
	uint64_t begun = sim.now_ns;

	mark(process_ends);
	event("ends the process", 0, 0, 0, 0);
	api_process_ends(false);
	bool failed = sim.now_ns - begun >= 10 * OS_NSEC_PER_SEC;
	for (uint32_t f = 0; f < world.files; f++)
		failed |= sim_store[f].write_failures > 0;
	for (uint32_t f = 0; f < world.files && !failed; f++)
		if (sim_store[f].writable)
			written_check_stored(&sim_store[f], need[f], sim_store[f].size[0]);
}

static void give_all_back(uint32_t need[][SIM_PAGES][SIM_TAGS], bool ends)
{
	bool written[SIM_FILES] = {0};
	for (uint32_t f = 0; f < world.files; f++) { /* the handle goes first, and what is written then goes with the last mapping */
		written[f] = ends && sim_store[f].writable && !sim_store[f].write_failures;
		if (written[f]) {
			do_map(f, 0, world.pages[f] - 1);
			fm_file_close(world.file[f]);
		}
		for (uint32_t n = 0; written[f] && n < world.pages[f]; n++) {
			access_pages(f, n, 1, true);
			while (atomic_get(&world.file[f]->view.region.pins)) /* the handler is not done yet */
				sim_sleep(10000);
		}
	}
	if (ends)
		need_written(need);
	for (uint32_t f = 0; f < world.files; f++) {
		uint64_t len = (index_of(f, world.pages[f] - 1) - index_of(f, 0) + 1) * OS_PAGE;
		world.closing[f] = true;
		for (int i = 0; some_mapped(f); i++) { /* each takes one fm_map() back */
			if (i > 2 + WORKERS_MAX * 10)
				sim_fail("object %u is unmapped as often as it was mapped, and is mapped", f);
			fm_unmap(sim.mm, (void *)addr_of(f, 0), len);
		}
		if (!written[f])
			fm_file_close(world.file[f]);
	}
	if (ends)
		process_ends(need);
	for (int i = 0; atomic_get(&sim.mm->file_count); i++) {
		if (i > 40000) /* what can't be written is tried again, some times, seconds apart */
			sim_fail("a file has no mapping, no handle and no read, and does not go");
		sim_sleep(5 * OS_NSEC_PER_MSEC);
	}
	do /* the background thread must have nothing in hand */
		sim_sleep(OS_NSEC_PER_MSEC);
	while (atomic_get(&sim.mm->background_state) != BACKGROUND_SLEEPS);
	check_balance();
}

static uint64_t choose_readahead(void)
{
	uint64_t bytes = sim_chance(64) ? UINT32_MAX : sim_chance(128) ? 16 << 10 : 0;
	return sim_without(readahead) || world.alone ? UINT32_MAX : bytes;
}

static void open_file(uint32_t f)
{
	char uri[] = {(char)('0' + f), 0};
	struct fm_file_options options = {
		.size = sizeof(options),
		.page_size = sim_store[f].page_size,
		.readahead_bytes = sim.small ? sim.small->readahead_bytes : choose_readahead(),
		.deadline_ns = world.deadline_ns[f],
		.flags = sim_store[f].writable ? FM_FILE_WRITE : 0,
		.changed = world.changed[f] == FM_CHANGED_REFRESH ? FM_CHANGED_REFRESH : FM_CHANGED_ERROR};
	uint64_t refused = sim_marks.meta_refused, before = sim.allocated;
	int err;
	while ((err = fm_file_open(sim.mm, uri, &options, &world.file[f])) != 0) {
		if ((err != -ENOMEM && err != -EAGAIN) || sim_marks.meta_refused == refused)
			sim_fail("fm_file_open(): %d", err);
		if (sim.allocated > before + sim.mm->pool[0]->meta_len && !sim.mm->pool[1] && !sim.mm->wb)
			sim_fail("fm_file_open() fails and keeps %llu bytes", (unsigned long long)(sim.allocated - before));
		mark(open_refused);
		refused = sim_marks.meta_refused;
	}
	if (sim_chance(128)) /* as if streams had come before */
		world.file[f]->reads->huge = HUGE_YES;
	world.view[f] = world.file[f]->view.region.base;
	if (sim_store[f].writable)
		world.size[f][world.sizes[f]++] = (struct size){sim_store[f].size[0], 0, STILL};
}

/* What fails for want of memory leaves nothing behind. */
static int create(struct fm_mm **ret_mm)
{
	uint64_t refused = sim_marks.meta_refused;
	int err;
	while ((err = fm_mm_create(&world.mm_options, ret_mm)) != 0) {
		if ((err != -ENOMEM && err != -EAGAIN) || sim_marks.meta_refused == refused)
			sim_fail("fm_mm_create(): %d", err);
		if (sim.allocated)
			sim_fail("fm_mm_create() fails and keeps %llu bytes", (unsigned long long)sim.allocated);
		mark(create_refused);
		refused = sim_marks.meta_refused;
	}
	return 0;
}

/* The account of page tables is as small as it can be, so that it is full as if they were made much faster than they are
 * given back. Nothing is installed yet. */
static void make_tables_few(struct fm_mm *mm)
{
	uint64_t range = 0;
	mm->pt->entries = 0;
	for (uint32_t f = 0; f < world.files; f++)
		for (uint32_t n = 0; n < world.pages[f]; n++)
			if (addr_of(f, n) >> 21 != range) {
				range = addr_of(f, n) >> 21;
				mm->pt->entries++;
			}
	pt_init(mm);
}

static void *main_thread(void *arg)
{
	static uint32_t need[SIM_FILES][SIM_PAGES][SIM_TAGS];
	struct sim_thread *thread[WORKERS_MAX];
	struct fm_mm *mm = NULL;
	bool was_closed = false;
	(void)arg;
	sim.self->signals_open = true;
	int err = create(&mm);
	sim.mm = mm;
	sim.self->signals_open = !world.tables_few; /* a handler could have something installed before they are made few */
	for (uint32_t f = 0; f < world.files; f++) {
		open_file(f);
		do_map(f, 0, world.pages[f] - 1);
	}
	if (world.tables_few)
		make_tables_few(mm);
	sim.self->signals_open = true;
	for (uint32_t n = 0; world.keeps_pins && n < SIM_FILES * 4; n++)
		do_pin(n % SIM_FILES, n / SIM_FILES < sim_store[n % SIM_FILES].pages ? n / SIM_FILES : 0);
	if (sim.small && sim.small->before)
		small_worker((void *)(uintptr_t)sim.small->before);
	if (world.keeps_pins) /* its handler could wait for frames as long as others may, until it destroys the mm */
		sim.self->signals_open = false;
	if (!sim.small)
		make_queue();
	for (uint32_t i = 0; i < world.workers; i++)
		thread[i] = start_worker(i);
	sim.choosing = sim.small != NULL;
	if (world.destroy_inside) {
		sim_sleep(1 + sim_below((uint32_t)sim.opt.io_ns * 8));
		world.stopping = true;
		while (world.calls)
			sim_sleep(10000);
		sim.dying = true;
		mark(destroy_inside);
	} else {
		for (uint32_t i = 0; i < world.workers; i++)
			sim_join(thread[i]);
		sim.choosing = false;
		end_queue();
		sim.self->signals_open = false; /* from here on it is to be quiet */
		for (uint32_t f = 0; f < world.files; f++)
			while (atomic_get(&world.file[f]->view.region.pins)) /* the handler is not done yet */
				sim_sleep(10000);
		if (!world.keeps_pins)
			check_views_mapped();
		for (int i = 0; !sim.small && i < 50 && (mm->requests_busy || mm->background_state != BACKGROUND_SLEEPS); i++)
			sim_sleep(OS_NSEC_PER_MSEC);
		if (!mm->requests_busy && mm->background_state == BACKGROUND_SLEEPS)
			check_quiet();
		if (!world.keeps_pins && (sim.small || sim_chance(192))) /* else it is destroyed with all its mappings and handles */
			was_closed = true;
		bool ends = !sim.small && sim_chance(128);
		need_written(need);
		if (was_closed)
			give_all_back(need, ends);
		else if (ends)
			process_ends(need);
		sim.dying = true;
	}
	event("destroys the address space", 0, 0, 0, 0);
	for (uint32_t f = 0; f < world.files; f++)
		if (sim_store[f].writable && !was_closed)
			written_need(&sim_store[f], 0, world.pages[f] - 1, need[f]);
	uint64_t begun = sim.now_ns;
	err = fm_mm_destroy(mm);
	bool failed = sim.now_ns - begun >= 10 * OS_NSEC_PER_SEC; /* it waits no longer for a slow store; see filemap.h */
	for (uint32_t f = 0; f < world.files; f++)
		failed |= sim_store[f].write_failures > 0;
	if (err && (err != -EIO || !(failed || sim.emptied))) /* what the program itself has emptied is lost, and told */
		sim_fail("fm_mm_destroy(): %d", err);
	if (err)
		mark(destroy_lost);
	for (uint32_t f = 0; f < world.files; f++)
		if (sim_store[f].writable && !err && !(was_closed && failed))
			written_check_stored(&sim_store[f], need[f], sim_store[f].size[0]);
	for (uint32_t i = 0; i < world.workers; i++)
		sim_join(thread[i]);
	for (uint32_t i = 0; i < 10000 && sim.allocated; i++) { /* a thread waits for a write that was slower than the end */
		mark(destroy_left_behind);
		sim_sleep(10 * OS_NSEC_PER_MSEC);
	}
	if (sim_events_open())
		sim_fail("events are left open");
	if (sim.allocated)
		sim_fail("%llu bytes are not given back", (unsigned long long)sim.allocated);
	for (uint32_t f = 0; f < world.files; f++)
		if (sim_store[f].open)
			sim_fail("object %u is left open", f);
	return NULL;
}

/* ------------------------------------------------------------------ the seed's choices */

static uint32_t sometimes(uint32_t of_256, uint32_t value)
{
	return sim_chance(of_256) ? value : 0;
}

static void limit_machine(struct sim_options *o)
{
	o->pct &= !sim_without(pct);
	o->jump_1024 = sim_without(jump) ? 0 : o->jump_1024;
	o->spurious_256 = sim_without(spurious) ? 0 : o->spurious_256;
	o->stall_256 = sim_without(stall) ? 0 : o->stall_256;
	o->busy_256 = sim_without(busy) ? 0 : o->busy_256;
	o->held_256 = sim_without(held) ? 0 : o->held_256;
	o->part_256 = sim_without(part) ? 0 : o->part_256;
	o->lie_256 = sim_without(lie) ? 0 : o->lie_256;
	o->error_256 = sim_without(error) ? 0 : o->error_256;
	o->short_256 = sim_without(short) ? 0 : o->short_256;
	o->slow_256 = sim_without(slow) ? 0 : o->slow_256;
	o->late_256 = sim_without(late) ? 0 : o->late_256;
	o->signal_1024 = sim_without(signals) ? 0 : o->signal_1024;
	o->exit_256 = sim_without(exits) ? 0 : o->exit_256;
	o->famine_256 = sim_without(famine) ? 0 : o->famine_256;
	o->meta_256 = sim_without(refusals) ? 0 : o->meta_256;
}

static void choose_machine(void)
{
	struct sim_options *o = &sim.opt;
	static const uint32_t switches[] = {2, 16, 64, 128, 256};
	*o = (struct sim_options){
		.pct = sim_chance(96),
		.switch_256 = switches[sim_below(5)],
		.stubborn = sim_chance(48),
		.changes = 1 + sim_below(6),
		.ns_per_step = 1 + sim_below(4) * sim_below(100),
		.jump_1024 = sometimes(100, 1 + sim_below(64)),
		.spurious_256 = sometimes(100, 1 + sim_below(48)),
		.stall_256 = sometimes(100, 1 + sim_below(64)),
		.busy_256 = sometimes(64, 1 + sim_below(160)),
		.held_256 = sometimes(40, 1 + sim_below(32)),
		.part_256 = sometimes(100, 1 + sim_below(100)),
		.lie_256 = sometimes(64, 1 + sim_below(80)),
		.error_256 = sometimes(100, 1 + sim_below(100)),
		.short_256 = sometimes(64, 1 + sim_below(100)),
		.slow_256 = sometimes(64, 1 + sim_below(64)),
		.late_256 = sometimes(128, 1 + sim_below(255)),
		.io_ns = 1000ull << sim_below(14),
		.meta_256 = sometimes(40, 1 + sim_below(100)),
		.famine_256 = sometimes(32, 1 + sim_below(8)),
		.signal_1024 = sometimes(64, 1 + sim_below(40)),
		.cancel_256 = sometimes(128, 1 + sim_below(200)),
		.exit_256 = sometimes(40, 1 + sim_below(100)),
	};
	limit_machine(o);
	for (uint32_t i = 0; i < o->changes; i++)
		sim.pct_change[i] = 1 + sim_below(sim_chance(128) ? 2000 : 20000);
	if (o->pct)
		mark(pct_runs);
}

static void choose_file(uint32_t f, bool large)
{
	struct sim_store *s = &sim_store[f];
	memset(s, 0, sizeof(*s));
	s->id = f;
	s->page_size = large ? 16 << 10 : OS_PAGE;
	s->pages = sim_limited(1 + sim_below(sim_chance(128) ? 6 : SIM_PAGES - 6), sim_limits.pages);
	s->stride = sim_chance(40) && !sim_without(strides) ? 512 : 1;
	s->base = sim_chance(24) && !sim_without(far) ? (1ull << 33) : 0;
	s->inline_reads = sim_chance(100) && !sim_without(inline_reads);
	s->no_version = sim_chance(32) && !sim_without(no_version);
	s->size[0] = (s->base + (s->pages - 1) * s->stride + 1) * OS_PAGE - sim_below(SIM_TAGS) * SIM_SECTOR;
	if (sim_chance(40) && !sim_without(bad))
		s->bad[sim_below(s->pages)] = true;
	s->writable = !large && s->stride == 1 && sim_chance(world.writes ? 224 : 64) && !sim_without(writable);
	world.pages[f] = s->pages + 2;
	world.deadline_ns[f] = sim_chance(64) && !sim_without(deadline) ? (1 + sim_below(50)) * OS_NSEC_PER_MSEC : 0;
	world.changed[f] = sim_chance(64) && !sim_without(refresh) ? FM_CHANGED_REFRESH : sim_chance(64) ? FM_CHANGED_ERROR : 2;
	if (s->writable) /* whose changes are its own */
		world.changed[f] = 2;
}

static void limit_program(void)
{
	static const enum sim_without kinds[OP_COUNT] = {
		[OP_STRADDLE] = WITHOUT_straddle, [OP_WRITE] = WITHOUT_write, [OP_FAULT_IN] = WITHOUT_fault_in,
		[OP_NOWAIT] = WITHOUT_nowait, [OP_PIN] = WITHOUT_pin, [OP_MAP] = WITHOUT_map,
		[OP_UNMAP] = WITHOUT_unmap, [OP_ADVISE] = WITHOUT_advise, [OP_CHANGE] = WITHOUT_change,
		[OP_EMPTY] = WITHOUT_empty, [OP_SLEEP] = WITHOUT_sleep, [OP_BATCH] = WITHOUT_batch, [OP_TAKE] = WITHOUT_take,
		[OP_SYNC] = WITHOUT_sync, [OP_TRUNCATE] = WITHOUT_truncate, [OP_PUNCH] = WITHOUT_punch,
		[OP_INVALIDATE] = WITHOUT_invalidate};
	for (uint32_t i = OP_ACCESS + 1; i < OP_COUNT; i++)
		if (sim_limits.without >> kinds[i] & 1)
			world.weight[i] = 0;
	world.workers = sim_limited(world.workers, sim_limits.workers);
	world.ops = sim_limited(world.ops, sim_limits.ops);
}

/* What by chance alone comes together too seldom. */

/* One object shrinks and grows under many faults in a few pages of it. */
static void choose_changes(void)
{
	struct sim_store *s = &sim_store[0];
	memset(world.weight, 0, sizeof(world.weight));
	world.weight[OP_ACCESS] = 6;
	world.weight[OP_CHANGE] = 3;
	world.weight[OP_ADVISE] = 1;
	world.files = 1;
	world.workers = WORKERS_MAX;
	world.ops *= 2;
	world.toggles = sim_chance(192);
	sim.opt.pct |= sim_chance(128);
	world.changed[0] = FM_CHANGED_REFRESH;
	world.deadline_ns[0] = 0;
	s->writable = false;
	s->no_version = false;
	s->pages = 2 + sim_below(6);
	s->base = 0;
	s->stride = 1;
	s->size[0] = s->pages * OS_PAGE;
	world.pages[0] = s->pages + 2;
	sim.opt.io_ns = 1000ull << sim_below(8);
	sim.opt.slow_256 = sim.opt.error_256 = 0;
}

/* One object that nothing is wrong with becomes shorter and longer while many read it: no read may fail but past its end. */
static void choose_truncates(void)
{
	struct sim_store *s = &sim_store[0];
	memset(world.weight, 0, sizeof(world.weight));
	world.weight[OP_ACCESS] = 6;
	world.weight[OP_TRUNCATE] = 3;
	world.weight[OP_ADVISE] = 3;
	world.ops *= 3;
	world.alone = true;
	world.files = 1;
	world.workers = WORKERS_MAX;
	world.changed[0] = 2;
	world.deadline_ns[0] = 0;
	memset(s->bad, 0, sizeof(s->bad));
	s->writable = true;
	s->pages = 2 + sim_below(6);
	s->base = 0;
	s->stride = 1;
	s->size[0] = s->pages * OS_PAGE;
	world.pages[0] = s->pages + 2;
	sim.opt.io_ns = 1000ull << sim_below(8);
	sim.opt.slow_256 = sim.opt.error_256 = 0;
}

/* All frames are under way to slow stores, or held. */
static void choose_hunger(void)
{
	world.frames = world.frames < 64 ? 16 : world.frames;
	world.files = SIM_FILES;
	world.workers = WORKERS_MAX;
	world.weight[OP_PIN] += 4;
	world.weight[OP_STRADDLE] += 8;
	world.keeps_pins = sim_chance(192);
	world.destroy_inside = sim_chance(128);
	if (world.destroy_inside) { /* which waits for calls, but not for faults */
		memset(world.weight, 0, sizeof(world.weight));
		world.weight[OP_ACCESS] = world.weight[OP_STRADDLE] = 1;
		world.mm_options.trap = FM_TRAP_INLINE;
		sim.opt.io_ns = 1000ull << (8 + sim_below(6));
	}
	world.pin_ns = 10 * OS_NSEC_PER_MSEC;
	sim.opt.slow_256 = 128;
	sim.opt.stall_256 = sometimes(128, 128);
	world.mm_options.install = sim_chance(128) ? FM_INSTALL_COPY : FM_INSTALL_MOVE;
	for (uint32_t f = 0; f < world.files; f++)
		world.deadline_ns[f] = world.destroy_inside ? 0 : (1 + sim_below(40)) * OS_NSEC_PER_MSEC;
}

/* Reads pass their deadlines while others come for the same pages. */
static void choose_deadlines(void)
{
	memset(world.weight, 0, sizeof(world.weight));
	world.weight[OP_ACCESS] = 6;
	world.weight[OP_SLEEP] = 2;
	world.weight[OP_NOWAIT] = 4;
	world.weight[OP_BATCH] = world.weight[OP_TAKE] = 2;
	world.weight[OP_ADVISE] = 1;
	world.files = 1;
	world.workers = WORKERS_MAX;
	world.deadline_ns[0] = OS_NSEC_PER_MSEC / 2;
	sim_store[0].pages = 1 + sim_below(3);
	world.pages[0] = sim_store[0].pages + 2;
	sim.opt.slow_256 = 160;
	sim.opt.io_ns = 1000ull << sim_below(10);
	sim.opt.late_256 = 128;
}

/* Marks of errors come and go beside installs. */
static void choose_marks(void)
{
	struct sim_store *s = &sim_store[0];
	memset(world.weight, 0, sizeof(world.weight));
	world.weight[OP_ACCESS] = 6;
	world.weight[OP_MAP] = world.weight[OP_UNMAP] = world.weight[OP_ADVISE] = world.weight[OP_PIN] = 1;
	world.files = 1;
	world.workers = WORKERS_MAX;
	world.mm_options.trap = FM_TRAP_THREAD;
	world.mm_options.install = FM_INSTALL_MOVE;
	world.deadline_ns[0] = 0;
	s->pages = 3 + sim_below(4);
	s->base = 0;
	s->stride = 1;
	s->size[0] = s->pages * OS_PAGE;
	world.pages[0] = s->pages;
	sim.opt.io_ns = 1000ull << sim_below(6);
	sim.opt.slow_256 = 0;
	sim.opt.error_256 = 32 + sim_below(96);
	sim.opt.stall_256 = sometimes(128, 64);
}

/* Many writes to few pages, in little memory: what is dirty, being written and unflushed meets its limits. */
static void choose_writes(void)
{
	world.weight[OP_WRITE] += 8;
	world.weight[OP_SYNC] += 1 + sim_below(3);
	world.frames = sim_chance(160) ? 16 : 16 + sim_below(33);
	if (sim_chance(96)) {
		memset(world.weight, 0, sizeof(world.weight));
		world.weight[OP_WRITE] = 6;
		world.weight[OP_ACCESS] = 2;
		world.weight[OP_SYNC] = 2;
		world.weight[OP_TRUNCATE] = sim_chance(128);
		world.weight[OP_PUNCH] = sim_chance(128);
		world.weight[OP_INVALIDATE] = sim_chance(128);
		world.weight[OP_PIN] = sim_chance(128);
		world.ops = 6 + sim_below(12);
	}
	if (world.amends) {
		struct sim_store *s = &sim_store[0];
		s->pages = sim_limited(24 + sim_below(SIM_PAGES - 30), sim_limits.pages);
		s->stride = 1;
		s->size[0] = (s->base + s->pages) * OS_PAGE;
		s->writable = true;
		world.changed[0] = 2;
		world.pages[0] = s->pages + 2;
		world.files = 1;
		world.frames = 64;
		world.ops = 2 + sim_below(4);
		world.workers = 2;
	}
	if (world.amends || sim_chance(96)) { /* else few reads get through for the first write to be made */
		sim.opt.slow_256 = 0;
		sim.opt.io_ns = 1000ull << sim_below(8);
	}
}

static void choose_fashion(void)
{
	uint32_t n = sim_below(48);
	if (world.writes)
		choose_writes();
	else if (n < 12)
		choose_changes();
	else if (n < 17)
		choose_hunger();
	else if (n < 20)
		choose_deadlines();
	else if (n < 22 && sim_store[0].page_size == OS_PAGE)
		choose_marks();
	else if (n < 28 && sim_store[0].page_size == OS_PAGE && !sim_without(writable) && !sim_without(truncate))
		choose_truncates();
}

static void choose_program(void)
{
	bool large = sim_chance(24) && !sim_without(large);
	world.pin_ns = 100000;
	world.writes = !large && sim_chance(96) && !sim_without(writable);
	world.amends = world.writes && sim_chance(24);
	world.files = sim_limited(1 + sim_below(SIM_FILES), sim_limits.files);
	world.workers = 2 + sim_below(WORKERS_MAX - 1);
	world.ops = 2 + sim_below(8);
	world.frames = large ? 64 + sim_below(16) : 16 + sim_below(17);
	world.destroy_inside = sim_chance(64) && !sim_without(destroy);
	world.tables_few = sim_chance(48);
	for (uint32_t f = 0; f < SIM_FILES; f++)
		choose_file(f, large && f == 0);
	for (uint32_t i = 0; i < OP_COUNT; i++) /* swarm: each run has only some of them */
		world.weight[i] = sim_chance(128) ? 1 + sim_below(4) : 0;
	world.weight[OP_ACCESS] += 4;
	if (sim_chance(24)) { /* a fight for the map lock */
		memset(world.weight, 0, sizeof(world.weight));
		world.weight[OP_MAP] = world.weight[OP_UNMAP] = world.weight[OP_ADVISE] = 2;
		world.weight[OP_ACCESS] = 1;
		world.ops *= 3;
	} else if (sim_chance(40)) { /* soon over: the end meets the beginning */
		world.ops = 1;
		world.workers = 2;
	}
	sim.hold = sim_chance(10) && !sim_without(hold);
	if (sim.hold)
		mark(hold_mode);
	for (uint32_t f = 0; sim.hold && f < SIM_FILES; f++) /* the experiment is about reads */
		sim_store[f].writable = false;
	world.mm_options = (struct fm_mm_options){
		.size = sizeof(world.mm_options),
		.trap = sim_chance(96) && !sim_without(thread_trap) ? FM_TRAP_THREAD : FM_TRAP_INLINE,
		.install = sim_chance(64) && !sim_without(copy) ? FM_INSTALL_COPY : FM_INSTALL_MOVE,
		.flags = sim.hold ? FM_MM_HOLD_LOCK : 0};
	if (!sim_without(fashion))
		choose_fashion();
	limit_program();
	world.mm_options.budget_bytes = (uint64_t)world.frames * OS_PAGE;
	world.weights = 0;
	for (uint32_t i = 0; i < OP_COUNT; i++)
		world.weights += world.weight[i];
}

/* Neighbouring seeds have nothing in common. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return (x ^ x >> 31) | 1;
}

static void reset(void)
{
	memset(&sim, 0, sizeof(sim));
	memset(&world, 0, sizeof(world));
	sim.now_ns = 1000000;
	sim_trace_reset();
	sim_events_reset();
	check_reset();
	kernel_reset();
	io_reset();
	written_reset();
}

void world_run(uint64_t seed)
{
	reset();
	sim.seed = seed;
	sim.random = mix(seed);
	choose_machine();
	if (sim_chance(16)) {
		tiny_world_run();
		return;
	}
	choose_program();
	sim.on_signal = on_signal;
	world.no_memory = sim_marks.no_memory;
	sim_start(main_thread, NULL);
}

/* Nothing is left to chance: one object, a fixed program, requests that take a fixed time. */
void world_run_small(const struct small_world *small, bool hold)
{
	struct sim_store *s = &sim_store[0];
	reset();
	sim.small = small;
	sim.hold = hold;
	sim.opt = (struct sim_options){.busy_256 = small->busy_256, .spurious_256 = small->spurious_256,
				       .error_256 = small->error_256, .io_ns = small->io_ns,
				       .throttle_ns = small->throttle_ns};
	memset(s, 0, sizeof(*s));
	s->page_size = OS_PAGE;
	s->pages = small->pages;
	s->stride = 1;
	s->inline_reads = small->inline_reads;
	s->size[0] = (uint64_t)s->pages * OS_PAGE;
	world.pages[0] = s->pages;
	world.changed[0] = FM_CHANGED_REFRESH;
	world.files = 1;
	world.frames = small->scenario ? 4 * MM_FRAMES_MIN : MM_FRAMES_MIN;
	world.destroy_inside = small->destroy;
	while (world.workers < SMALL_THREADS && small->program[world.workers])
		world.workers++;
	world.mm_options = (struct fm_mm_options){
		.size = sizeof(world.mm_options),
		.budget_bytes = (uint64_t)world.frames * OS_PAGE,
		.trap = small->thread_trap ? FM_TRAP_THREAD : FM_TRAP_INLINE,
		.install = small->copy ? FM_INSTALL_COPY : FM_INSTALL_MOVE,
		.flags = hold ? FM_MM_HOLD_LOCK : 0};
	sim_start(main_thread, NULL);
}
