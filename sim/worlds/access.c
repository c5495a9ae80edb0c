/* SPDX-License-Identifier: MIT */
/*
 * Accesses: one instruction of the program with its faults, as a processor makes them, and the
 * check of what the instruction finds.
 */
#include "worlds/access.h"

#include "worlds/oracle.h"
#include "worlds/world.h"

#define TRIES_MAX 3000

/* ------------------------------------------------------------------ errors */

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

/* Change the bytes of one sector now. I/O into a pinned page (`pinned`) ignores the page's
 * protection. */
void access_write_sector(uint32_t f, uint32_t n, bool pinned)
{
	struct sim_store *s = &sim_store[f];
	struct view_page *page = kernel_view(addr_of(f, n));
	uint32_t sector = sim_below(SIM_TAGS);
	check_content(s, index_of(f, n), page);
	check_written_to(world.file[f], index_of(f, n));
	if (!pinned && page->protected)
		sim_fail("a write reaches a protected page");
	page->tag[sector] = written_new(s, n, sector);
	mark(sector_writes);
	if (pinned)
		mark(pinned_writes);
}

/* Run one instruction that needs pages n to n + count - 1 at the same time. Like a processor,
 * restart the instruction after each fault. */
static void access_by(uint32_t f, uint32_t n, uint32_t count, bool write, bool call)
{
	bool writes = write && sim_store[f].writable;
	uint64_t instruction = ++world.instructions << 1 | 1, begun = sim.step, begun_ns = sim.now_ns;
	struct sim_thread *self = sim.self;
	bool faulted = false, closing = world.closing[f];
	/* If another thread's install wakes the thread, a fault can outlive its access, and answer
	 * the next access. */
	bool merged = world.mm_options.trap == FM_TRAP_THREAD;
	self->op = write ? "write" : "access";
	event("accesses page %llu of object %llu, %llu pages, write %llu", index_of(f, n), f, count,
	      write);
	for (uint32_t tries = 0, at = 0; at < count; tries++) {
		uint64_t addr = addr_of(f, n + at) + 8 * n;
		struct view_page *page = kernel_view(addr);
		int r = page && !page->poison && !write ? 1 : sim_access(addr, write, call, instruction);
		/* A store that hardly answers may let other threads' signals wake the thread many
		 * times. */
		if (tries > TRIES_MAX + (sim.now_ns - begun_ns) / OS_NSEC_PER_MSEC)
			sim_fail("an access to page %llu of object %u makes no progress",
				 (unsigned long long)index_of(f, n + at), f);
		if (r == 0) {
			if (faulted && at == 0)
				mark(access_again);
			faulted = true;
			at = 0;
			if (tries > 50)
				sim_sleep(20000); /* so many signals take at least that long */
			else
				sim_point();
			continue;
		}
		if (r < 0) {
			event("the access ends with error %llu", -r, 0, 0, 0);
			mark_access(r);
			bool gone = r == -ENOTCONN && (sim.dying || closing || world.closing[f]);
			/* A place that refuses one write for a moment refuses all writes. */
			bool refused = (r == -EACCES && write &&
					(!writes || kernel_refuses_write(addr))) ||
				       r == -EHWPOISON;
			if (!gone && !refused && !oracle_allows(f, n + at, r, begun, merged))
				sim_fail("an access to page %llu of object %u ends with %d without a reason",
					 (unsigned long long)index_of(f, n + at), f, r);
			return;
		}
		at++;
		if (at < count || (write && !writes))
			continue;
		for (uint32_t i = 0; writes && i < count; i++)
			access_write_sector(f, n + i, false);
		/* nothing has run since all pages were found */
		for (uint32_t i = 0; i < count; i++)
			check_content(&sim_store[f], index_of(f, n + i), kernel_view(addr_of(f, n + i)));
		mark(access_ok);
		if (faulted)
			oracle_note_passed(begun, false);
		if (count > 1)
			mark(access_straddles);
		/* larger pages come and go whole */
		if (faulted && sim_store[f].page_size == OS_PAGE)
			for (uint32_t i = 0; i < count; i++)
				/* a fault still under way removes a late page again */
				if (!world.known[f][n + i].pinned &&
				    !oracle_allows(f, n + i, 0, begun, false) && !sim.dying &&
				    !world.file[f]->view.region.pins &&
				    !sim_store[f].writable) /* unsaved pages stay for a while */
					sim_fail("page %llu of object %u can be read, but is not mapped",
						 (unsigned long long)index_of(f, n + i), f);
		event("the access is done", 0, 0, 0, 0);
	}
}

/* Access pages, sometimes inside a system call that is given the address. A system call that only
 * reads there may hold an object's lock, as write() does. */
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
