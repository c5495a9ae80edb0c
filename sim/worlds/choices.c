/* SPDX-License-Identifier: MIT */
/* The seed's choices for the machine and for the program, made before the run begins. */
#include "worlds/choices.h"

#include "worlds/world.h"

/* ------------------------------------------------------------------ readahead */

uint64_t choose_readahead(void)
{
	uint64_t bytes = sim_chance(64) ? UINT32_MAX : sim_chance(128) ? 16 << 10 : 0;
	return sim_without(readahead) || world.alone ? UINT32_MAX : bytes;
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

void choose_machine(void)
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
	s->size[0] = (s->base + (s->pages - 1) * s->stride + 1) * OS_PAGE -
		     sim_below(SIM_TAGS) * SIM_SECTOR;
	if (sim_chance(40) && !sim_without(bad))
		s->bad[sim_below(s->pages)] = true;
	s->writable = !large && s->stride == 1 && sim_chance(world.writes ? 224 : 64) &&
		      !sim_without(writable);
	world.pages[f] = s->pages + 2;
	world.deadline_ns[f] = sim_chance(64) && !sim_without(deadline)
				       ? (1 + sim_below(50)) * OS_NSEC_PER_MSEC
				       : 0;
	world.changed[f] = sim_chance(64) && !sim_without(refresh) ? FM_CHANGED_REFRESH
			   : sim_chance(64)                        ? FM_CHANGED_ERROR
								   : 2;
	if (s->writable) /* only the program changes the object */
		world.changed[f] = 2;
}

static void limit_program(void)
{
	static const enum sim_without kinds[OP_COUNT] = {[OP_STRADDLE] = WITHOUT_straddle,
							 [OP_WRITE] = WITHOUT_write,
							 [OP_FAULT_IN] = WITHOUT_fault_in,
							 [OP_NOWAIT] = WITHOUT_nowait,
							 [OP_PIN] = WITHOUT_pin,
							 [OP_MAP] = WITHOUT_map,
							 [OP_UNMAP] = WITHOUT_unmap,
							 [OP_ADVISE] = WITHOUT_advise,
							 [OP_CHANGE] = WITHOUT_change,
							 [OP_EMPTY] = WITHOUT_empty,
							 [OP_SLEEP] = WITHOUT_sleep,
							 [OP_BATCH] = WITHOUT_batch,
							 [OP_TAKE] = WITHOUT_take,
							 [OP_SYNC] = WITHOUT_sync,
							 [OP_TRUNCATE] = WITHOUT_truncate,
							 [OP_PUNCH] = WITHOUT_punch,
							 [OP_INVALIDATE] = WITHOUT_invalidate};
	for (uint32_t i = OP_ACCESS + 1; i < OP_COUNT; i++)
		if (sim_limits.without >> kinds[i] & 1)
			world.weight[i] = 0;
	world.workers = sim_limited(world.workers, sim_limits.workers);
	world.ops = sim_limited(world.ops, sim_limits.ops);
}

/* The functions below make combinations that come up too seldom by chance. */

/* One object shrinks and grows under many faults in a few pages. */
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

/* One object without failures gets shorter and longer while many threads read the object. No read
 * may fail, except past the end. */
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

/* All frames wait for slow stores, or are pinned. */
static void choose_hunger(void)
{
	world.frames = world.frames < 64 ? 16 : world.frames;
	world.files = SIM_FILES;
	world.workers = WORKERS_MAX;
	world.weight[OP_PIN] += 4;
	world.weight[OP_STRADDLE] += 8;
	world.keeps_pins = sim_chance(192);
	world.destroy_inside = sim_chance(128);
	if (world.destroy_inside) { /* destroy waits for calls, but not for faults */
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

/* Reads miss their deadlines while other threads want the same pages. */
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

/* Many writes to few pages, with little memory: the numbers of dirty pages, of pages being written
 * and of unflushed pages reach their limits. */
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
	if (world.amends ||
	    sim_chance(96)) { /* otherwise few reads finish, and no write begins */
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
	else if (n < 28 && sim_store[0].page_size == OS_PAGE && !sim_without(writable) &&
		 !sim_without(truncate))
		choose_truncates();
}

void choose_program(void)
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
	/* swarm testing: each run has only some operations */
	for (uint32_t i = 0; i < OP_COUNT; i++)
		world.weight[i] = sim_chance(128) ? 1 + sim_below(4) : 0;
	world.weight[OP_ACCESS] += 4;
	if (sim_chance(24)) { /* a fight for the map lock */
		memset(world.weight, 0, sizeof(world.weight));
		world.weight[OP_MAP] = world.weight[OP_UNMAP] = world.weight[OP_ADVISE] = 2;
		world.weight[OP_ACCESS] = 1;
		world.ops *= 3;
	} else if (sim_chance(40)) { /* a short run: the end meets the beginning */
		world.ops = 1;
		world.workers = 2;
	}
	sim.hold = sim_chance(10) && !sim_without(hold);
	if (sim.hold)
		mark(hold_mode);
	for (uint32_t f = 0; sim.hold && f < SIM_FILES; f++) /* FM_MM_HOLD_LOCK is for reads */
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
