/* SPDX-License-Identifier: MIT */
/*
 * One run, from its seed to its end. The seed chooses the machine and the program. The main thread
 * opens the files, starts the threads, and ends all.
 */
#include "worlds/world.h"

#include "worlds/access.h"
#include "worlds/batch.h"
#include "worlds/calls.h"
#include "worlds/choices.h"
#include "worlds/end.h"
#include "worlds/threads.h"

struct world world;

/* ------------------------------------------------------------------ the main thread */

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
			sim_fail("fm_file_open() returns %d", err);
		if (sim.allocated > before + sim.mm->pool[0]->meta_len && !sim.mm->pool[1] && !sim.mm->wb)
			sim_fail("fm_file_open() fails, but keeps %llu bytes",
				 (unsigned long long)(sim.allocated - before));
		mark(open_refused);
		refused = sim_marks.meta_refused;
	}
	if (sim_chance(128)) /* as if streams had come before */
		world.file[f]->reads->huge = HUGE_YES;
	world.view[f] = world.file[f]->view.region.base;
	if (sim_store[f].writable)
		world.size[f][world.sizes[f]++] = (struct size){sim_store[f].size[0], 0, STILL};
}

/* Create the mm. A creation that fails for lack of memory must leave nothing behind. */
static int create(struct fm_mm **ret_mm)
{
	uint64_t refused = sim_marks.meta_refused;
	int err;
	while ((err = fm_mm_create(&world.mm_options, ret_mm)) != 0) {
		if ((err != -ENOMEM && err != -EAGAIN) || sim_marks.meta_refused == refused)
			sim_fail("fm_mm_create() returns %d", err);
		if (sim.allocated)
			sim_fail("fm_mm_create() fails, but keeps %llu bytes", (unsigned long long)sim.allocated);
		mark(create_refused);
		refused = sim_marks.meta_refused;
	}
	return 0;
}

/* Make the account of page tables as small as it can be. The account is then full, as if tables
 * were made much faster than they are released. No page is installed yet. */
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
	sim.self->signals_open = !world.tables_few; /* no handler may install a page yet */
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
	/* This thread's handler could wait for a frame until this thread destroys the mm. */
	if (world.keeps_pins)
		sim.self->signals_open = false;
	if (!sim.small)
		batch_make_queue();
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
		batch_end_queue();
		sim.self->signals_open = false; /* all must be quiet now */
		for (uint32_t f = 0; f < world.files; f++)
			/* the handler still works */
			while (atomic_get(&world.file[f]->view.region.pins))
				sim_sleep(10000);
		if (!world.keeps_pins)
			end_check_views();
		for (int i = 0; !sim.small && i < 50 &&
				(mm->requests_busy || mm->background_state != BACKGROUND_SLEEPS);
		     i++)
			sim_sleep(OS_NSEC_PER_MSEC);
		if (!mm->requests_busy && mm->background_state == BACKGROUND_SLEEPS)
			check_quiet();
		if (!world.keeps_pins &&
		    (sim.small ||
		     sim_chance(192))) /* otherwise fm_mm_destroy() ends all mappings */
			was_closed = true;
		bool ends = !sim.small && sim_chance(128);
		end_need_written(need);
		if (was_closed)
			end_give_all_back(need, ends);
		else if (ends)
			end_process_ends(need);
		sim.dying = true;
	}
	event("destroys the address space", 0, 0, 0, 0);
	for (uint32_t f = 0; f < world.files; f++)
		if (sim_store[f].writable && !was_closed)
			written_need(&sim_store[f], 0, world.pages[f] - 1, need[f]);
	uint64_t begun = sim.now_ns;
	err = fm_mm_destroy(mm);
	bool failed = sim.now_ns - begun >=
		      10 * OS_NSEC_PER_SEC; /* the longest wait for a slow store; see filemap.h */
	for (uint32_t f = 0; f < world.files; f++)
		failed |= sim_store[f].write_failures > 0;
	if (err &&
	    (err != -EIO ||
	     !(failed || sim.emptied))) /* bytes that the program emptied are lost */
		sim_fail("fm_mm_destroy() returns %d", err);
	if (err)
		mark(destroy_lost);
	for (uint32_t f = 0; f < world.files; f++)
		if (sim_store[f].writable && !err && !(was_closed && failed))
			written_check_stored(&sim_store[f], need[f], sim_store[f].size[0]);
	for (uint32_t i = 0; i < world.workers; i++)
		sim_join(thread[i]);
	for (uint32_t i = 0; i < 10000 && sim.allocated;
	     i++) { /* a thread waits for a write that is slower than the end */
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

/* ------------------------------------------------------------------ the run */

/* Mix a seed, so that neighbouring seeds have nothing in common. */
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
	sim.on_signal = access_on_signal;
	world.no_memory = sim_marks.no_memory;
	sim_start(main_thread, NULL);
}

/* Run a small world without chance: one object, a fixed program, requests that take a fixed
 * time. */
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
