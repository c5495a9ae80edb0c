/* SPDX-License-Identifier: MIT */
/* The threads of the program: the next operation, and its pages. */
#include "worlds/threads.h"

#include "worlds/access.h"
#include "worlds/batch.h"
#include "worlds/calls.h"
#include "worlds/world.h"
#include "worlds/writes.h"

/* ------------------------------------------------------------------ operations */

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
	if (world.changed[f] == 2) { /* this object never changes: a page goes bad instead */
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
	/* no call runs that must not be left */
	sim.self->may_end = op == OP_ACCESS || op == OP_STRADDLE;
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

/* Go through a file in equal steps, which the library sees as a stream. Or go page by page, and
 * write to each page after the read. */
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
		if (sim_chance(128)) /* all threads use some of the pages */
			n = sim_below(world.pages[f] < 4 ? world.pages[f] : 4);
		m = n + sim_below(4);
		m = m < world.pages[f] ? m : world.pages[f] - 1;
		uint32_t end = sim_store[f].pages - 1,
			 far = end > n && sim_chance(48) ? end : m; /* may be more than fits */
		enum op op = choose_op();
		do_op(op, f, n, op == OP_FAULT_IN || op == OP_BATCH ? far : m);
		/* as after a deferred cancellation, which mostly arrives inside a call */
		if (sim_chance(sim.opt.exit_256)) {
			mark(exit_early);
			break;
		}
	}
	if (!sim.dying && sim.mm->requests_busy)
		mark(exit_in_flight);
	return NULL;
}

void *small_worker(void *arg)
{
	sim.self->signals_open = true;
	for (const struct small_step *step = arg; step->op != OP_END; step++)
		do_op(step->op, 0, step->first, step->last);
	return NULL;
}

struct sim_thread *start_worker(uint32_t i)
{
	if (!sim.small)
		return sim_spawn("program", worker, NULL);
	return sim_spawn(sim.small->thread[i] ? sim.small->thread[i] : "program", small_worker,
			 (void *)(uintptr_t)sim.small->program[i]);
}
