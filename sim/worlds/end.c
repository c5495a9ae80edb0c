/* SPDX-License-Identifier: MIT */
/*
 * The end of a run: all mappings and files are closed, and the stores must have all written bytes.
 */
#include "worlds/end.h"

#include "worlds/access.h"
#include "worlds/calls.h"
#include "worlds/world.h"

static bool is_left(uint32_t f, uint32_t n, uint64_t addr)
{
	const struct known *k = &world.known[f][n];
	return addr_of(f, n) == addr && k->most == 0 && sim_store[f].page_size == OS_PAGE &&
	       !kernel_view(addr)->poison && !k->emptied_once &&
	       !check_is_held(world.file[f], index_of(f, n));
}

/* Check, when all is quiet, that every page in a view is mapped. Some pages leave the view a
 * little later: pages that are still to be written and flushed, and pages that are read into the
 * view through a staging slot. */
void end_check_views(void)
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
			sim_fail("page %llu of object %u is in the view, but is not mapped",
				 (unsigned long long)index_of(left_f, left_n), left_f);
		sim_sleep(100 * OS_NSEC_PER_MSEC);
	}
}

/* Return whether a segment of the table lies in the view. No other thread changes the table now. */
static bool some_mapped(uint32_t f)
{
	for (uint32_t i = 0; i < sim.mm->segment_count; i++)
		if (sim.mm->segments[sim.mm->segment_slots[i]].view == &world.file[f]->view)
			return true;
	return false;
}

void end_need_written(uint32_t need[][SIM_PAGES][SIM_TAGS])
{
	for (uint32_t f = 0; f < world.files; f++)
		if (sim_store[f].writable)
			written_need(&sim_store[f], 0, world.pages[f] - 1, need[f]);
}

/* End the process as exit() does. All threads still exist, and files may be about to close. The
 * stores then have all written bytes, unless a store fails or is slower than the end waits. */
void end_process_ends(uint32_t need[][SIM_PAGES][SIM_TAGS])
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

void end_give_all_back(uint32_t need[][SIM_PAGES][SIM_TAGS], bool ends)
{
	bool written[SIM_FILES] = {0};
	for (uint32_t f = 0; f < world.files;
	     f++) { /* the handle goes first; the last mapping takes the written pages along */
		written[f] = ends && sim_store[f].writable && !sim_store[f].write_failures;
		if (written[f]) {
			do_map(f, 0, world.pages[f] - 1);
			fm_file_close(world.file[f]);
		}
		for (uint32_t n = 0; written[f] && n < world.pages[f]; n++) {
			access_pages(f, n, 1, true);
			/* the handler still works on the fault */
			while (atomic_get(&world.file[f]->view.region.pins))
				sim_sleep(10000);
		}
	}
	if (ends)
		end_need_written(need);
	for (uint32_t f = 0; f < world.files; f++) {
		uint64_t len = (index_of(f, world.pages[f] - 1) - index_of(f, 0) + 1) * OS_PAGE;
		world.closing[f] = true;
		for (int i = 0; some_mapped(f); i++) { /* each call undoes one fm_map() */
			if (i > 2 + WORKERS_MAX * 10)
				sim_fail("object %u is unmapped as often as it was mapped, but is still mapped", f);
			fm_unmap(sim.mm, (void *)addr_of(f, 0), len);
		}
		if (!written[f])
			fm_file_close(world.file[f]);
	}
	if (ends)
		end_process_ends(need);
	for (int i = 0; atomic_get(&sim.mm->file_count); i++) {
		if (i > 40000) /* failed writes are tried again, seconds apart */
			sim_fail("a file without a mapping, a handle and a read is not released");
		sim_sleep(5 * OS_NSEC_PER_MSEC);
	}
	do /* wait until the background thread has nothing to do */
		sim_sleep(OS_NSEC_PER_MSEC);
	while (atomic_get(&sim.mm->background_state) != BACKGROUND_SLEEPS);
	check_balance();
}
