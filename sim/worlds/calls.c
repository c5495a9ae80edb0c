/* SPDX-License-Identifier: MIT */
/*
 * Calls of the public interface on mapped pages: fault in, pin, map, unmap, advise, residency.
 * Each call's result is checked.
 */
#include "worlds/calls.h"

#include "worlds/access.h"
#include "worlds/oracle.h"
#include "worlds/world.h"

#define TOLD_NS                                                                                    \
	(120 * OS_NSEC_PER_SEC) /* an event comes within that time, however slow the store */

/* ------------------------------------------------------------------ every call */

/* Begin a call of the public interface. Returns false if the mm is about to end. */
bool call_begin(const char *op)
{
	if (world.stopping)
		return false;
	world.calls++;
	sim.self->op = op;
	return true;
}

void call_end(void)
{
	check_nothing_held(sim.self->op);
	world.calls--;
}

void call_check(const char *what, uint32_t f, uint32_t first, uint32_t last, int err,
		uint64_t begun, bool remembered)
{
	event("the call ends with error %llu", -err, 0, 0, 0);
	bool good = false;
	for (uint32_t n = first; n <= last && !good; n++)
		good = oracle_allows(f, n, err, begun, remembered);
	if (sim_store[f].page_size >
	    OS_PAGE) /* one fault brings in the whole larger page */
		last = first;
	for (uint32_t n = first; !err && n <= last; n++)
		good &= oracle_allows(f, n, 0, begun, remembered);
	/* With a stride, the range has pages between the pages that the oracle knows. Such a page
	 * has an error of its own. */
	if (sim_store[f].stride > 1 && last > first)
		good |= oracle_allows(f, first, err, begun, remembered) || err == -EIO ||
			err == -ENOSPC || err == -ENOMEM;
	if (!good)
		sim_fail("%s of pages %u to %u of object %u returns %d without a reason",
			 what, first, last, f, err);
}

void do_fault_in(uint32_t f, uint32_t first, uint32_t last, bool nowait)
{
	if (sim_store[f].stride > 1)
		last = first;
	uint64_t begun = sim.step, len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE;
	if (!call_begin(nowait ? "nowait" : "fault_in"))
		return;
	event("fault_in of page %llu of object %llu, %llu bytes, nowait %llu", index_of(f, first),
	      f, len, nowait);
	int fd = -1;
	bool told = nowait && !sim.small && sim_chance(128) && fm_event_fd(sim.mm, &fd) == 0;
	uint64_t seen = told ? sim_event_signals(fd) : 0;
	unsigned flags = (nowait ? FM_NOWAIT : 0u) |
			 (sim_store[f].writable && sim_chance(64) ? FM_WRITE : 0u);
	int err = fm_fault_in(sim.mm, (void *)addr_of(f, first), len, flags);
	for (int i = 0; nowait && err == -EAGAIN && i < 12 && !world.stopping; i++) {
		mark(nowait_again);
		if (!told)
			sim_sleep(1 + sim_below((uint32_t)sim.opt.io_ns));
		else if (sim_event_wait(fd, true, seen, sim.now_ns + TOLD_NS))
			mark(nowait_told);
		else
			sim_fail("fm_fault_in() returned -EAGAIN, but no event came");
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
	call_check("fm_fault_in()", f, first, last, err, begun, nowait);
	call_end();
}

/* Return whether the page was truncated or punched since `begun`. Such a page loses its pins. */
static bool was_resized(uint32_t f, uint32_t n, uint64_t begun)
{
	const struct known *k = &world.known[f][n];
	return k->resizing || k->resized_step >= begun || k->pins_lost;
}

/* Check that fm_residency() reports a pinned page as pinned, or not at all if the page was
 * unmapped meanwhile. */
static void check_pinned_resident(uint32_t f, uint32_t n, uint64_t begun)
{
	unsigned char vec = 0;
	int err = fm_residency(sim.mm, (void *)addr_of(f, n), OS_PAGE, &vec);
	if (sim_store[f].version || world.known[f][n].emptied_once || was_resized(f, n, begun))
		return;
	if (err ? err != -ENOMEM || vec
		: vec != (FM_RESIDENT_CACHED | FM_RESIDENT_MAPPED | FM_RESIDENT_PINNED))
		sim_fail("page %llu of object %u is pinned, but fm_residency() returns %d, %#x",
			 (unsigned long long)index_of(f, n), f, err, vec);
}

/* ------------------------------------------------------------------ pins and mappings */

/* Pin a page and unpin the page later. A pinned page stays in the view, unless the object
 * changes. */
void do_pin(uint32_t f, uint32_t n)
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
			call_check("fm_pin()", f, n, n, err, begun, false);
		call_end();
		return;
	}
	mark(pin_ok);
	struct known *k = &world.known[f][n];
	k->pinned++;
	for (int i = 0; i < (world.keeps_pins ? 1 : 4); i++) {
		struct view_page *page = kernel_view(addr_of(f, n));
		if ((!page || page->poison) && sim_store[f].version == 0 && !k->emptied_once &&
		    !was_resized(f, n, begun))
			sim_fail("page %llu of object %u is pinned, but is not in the view",
				 (unsigned long long)index_of(f, n), f);
		if (page && !page->poison)
			check_content(&sim_store[f], index_of(f, n), page);
		check_pinned_resident(f, n, begun);
		if (writes && kernel_view(addr_of(f, n)) && !was_resized(f, n, begun) &&
		    !k->emptied_once && sim_chance(128))
			access_write_sector(f, n, true);
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
	if (err && sim_store[f].version == 0 && !k->emptied_once && !world.deadline_ns[f] &&
	    !was_resized(f, n, begun))
		sim_fail("fm_unpin() of page %llu of object %u: %d", (unsigned long long)index_of(f, n), f, err);
	call_end();
}

void do_map(uint32_t f, uint32_t first, uint32_t last)
{
	uint64_t begun = sim.step;
	void *addr = NULL;
	if (world.closing[f] || !call_begin("map"))
		return;
	event("maps pages %llu to %llu of object %llu", first, last, f, 0);
	oracle_begin_map(f, first, last);
	uint64_t len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE;
	uint64_t refused = sim_marks.meta_refused;
	struct fm_map_options options = {.size = sizeof(options),
					 .flags = sim_store[f].writable ? FM_MAP_WRITE : 0};
	int err;
	while ((err = fm_map(world.file[f], index_of(f, first) * OS_PAGE, len, &options, &addr)) ==
		       -ENOMEM &&
	       sim_marks.meta_refused > refused) {
		mark(map_refused);
		refused = sim_marks.meta_refused;
	}
	if (err || (uint64_t)addr != addr_of(f, first))
		sim_fail("fm_map() returns %d, address %p", err, addr);
	oracle_end_map(f, first, last, begun);
	call_end();
}

/* A harmless event that counts as a failure, to try the report of failures: an unmap ends while a
 * thread makes an access. */
static void look_for_planted(void)
{
	for (uint32_t i = 0; sim_planted && i < sim.threads; i++)
		if (sim.thread[i].state == SIM_BLOCKED && !strcmp(sim.thread[i].op, "access"))
			sim_fail("planted: thread %u is in an access while an unmap ends", i);
}

void do_unmap(uint32_t f, uint32_t first, uint32_t last)
{
	uint64_t begun = sim.step;
	if (!call_begin("unmap"))
		return;
	event("unmaps pages %llu to %llu of object %llu", first, last, f, 0);
	oracle_begin_unmap(f, first, last);
	uint64_t len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE;
	int err = fm_unmap(sim.mm, (void *)addr_of(f, first), len);
	if (err)
		sim_fail("fm_unmap() returns %d", err);
	look_for_planted();
	oracle_end_unmap(f, first, last, begun);
	oracle_note_passed(begun, true);
	call_end();
}

void do_advise(uint32_t f, uint32_t first, uint32_t last, enum fm_advice advice)
{
	if (!call_begin("advise"))
		return;
	event("advises %llu for pages %llu to %llu of object %llu", advice, first, last, f);
	uint64_t len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE;
	int err = fm_advise(sim.mm, (void *)addr_of(f, first), len, advice);
	if (err && err != -ENOMEM)
		sim_fail("fm_advise() returns %d", err);
	call_end();
}

void do_residency(uint32_t f, uint32_t first, uint32_t last)
{
	unsigned char vec[64];
	if (!call_begin("residency"))
		return;
	event("asks for pages %llu to %llu of object %llu", first, last, f, 0);
	uint64_t count = index_of(f, last) - index_of(f, first) + 1;
	count = count < sizeof(vec) ? count : sizeof(vec);
	int err = fm_residency(sim.mm, (void *)addr_of(f, first), count * OS_PAGE, vec);
	if (err && err != -ENOMEM)
		sim_fail("fm_residency() returns %d", err);
	for (uint64_t i = 0; i < count; i++)
		if (vec[i] && !(vec[i] & FM_RESIDENT_CACHED))
			sim_fail("fm_residency(): %#x", vec[i]);
	call_end();
}
