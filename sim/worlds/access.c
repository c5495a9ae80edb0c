/* SPDX-License-Identifier: MIT */
/*
 * Accesses: one instruction of the program and its faults, as a processor makes them, and what
 * it may find.
 * May call: all of sim; the public interface.
 */
#include "worlds/access.h"

#include "worlds/oracle.h"
#include "worlds/world.h"

#define TRIES_MAX 3000

/* ------------------------------------------------------------------ the oracle */

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

/* ------------------------------------------------------------------ accesses */

/* The bytes change, now. By I/O into a pinned page: whether it is protected does not matter. */
void access_write_sector(uint32_t f, uint32_t n, bool pinned)
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

/* One instruction that needs pages n to n + count - 1, all at once: as a processor would, from the
 * start again after each fault. */
static void access_by(uint32_t f, uint32_t n, uint32_t count, bool write, bool call)
{
	bool writes = write && sim_store[f].writable;
	uint64_t instruction = ++world.instructions << 1 | 1, begun = sim.step, begun_ns = sim.now_ns;
	struct sim_thread *self = sim.self;
	bool faulted = false, closing = world.closing[f];
	/* A fault can outlive its access, where another's install woke the thread, and answer the
	 * next one. */
	bool merged = world.mm_options.trap == FM_TRAP_THREAD;
	self->op = write ? "write" : "access";
	event("accesses page %llu of object %llu, %llu pages, write %llu", index_of(f, n), f, count,
	      write);
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
			bool refused = (r == -EACCES && write &&
					(!writes || kernel_refuses_write(addr))) ||
				       r == -EHWPOISON;
			if (!gone && !refused && !oracle_allows(f, n + at, r, begun, merged))
				sim_fail("an access to page %llu of object %u ends with %d, for no reason",
					 (unsigned long long)index_of(f, n + at), f, r);
			return;
		}
		at++;
		if (at < count || (write && !writes))
			continue;
		for (uint32_t i = 0; writes && i < count; i++)
			access_write_sector(f, n + i, false);
		for (uint32_t i = 0; i < count; i++) /* nothing has run since they were all found */
			check_content(&sim_store[f], index_of(f, n + i), kernel_view(addr_of(f, n + i)));
		mark(access_ok);
		if (faulted)
			oracle_note_passed(begun, false);
		if (count > 1)
			mark(access_straddles);
		if (faulted && sim_store[f].page_size == OS_PAGE) /* larger pages come and go whole */
			for (uint32_t i = 0; i < count; i++)
				/* what comes into the view late is taken out again by the fault that is still in it */
				if (!world.known[f][n + i].pinned &&
				    !oracle_allows(f, n + i, 0, begun, false) && !sim.dying &&
				    !world.file[f]->view.region.pins &&
				    !sim_store[f].writable) /* held ones stay a while */
					sim_fail("page %llu of object %u can be read, and is not mapped",
						 (unsigned long long)index_of(f, n + i), f);
		event("the access is done", 0, 0, 0, 0);
	}
}

/* Now and then it is a system call that is given the address; which may hold some object's lock if
 * it only reads there, as write() does. */
void access_pages(uint32_t f, uint32_t n, uint32_t count, bool write)
{
	bool call = world.mm_options.trap == FM_TRAP_THREAD && !sim.small && sim_chance(48);
	struct sim_store *locked = call && !write && !sim.self->in_handler && sim_chance(128)
					   ? &sim_store[sim_below(world.files)]
					   : NULL;
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
void access_on_signal(void)
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
