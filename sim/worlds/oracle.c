/* SPDX-License-Identifier: MIT */
/*
 * The oracle knows how often each page is mapped, at least and at most. Calls that overlap may
 * take effect in any order. The oracle also knows the sizes that an object may have had. Both tell
 * which results are allowed.
 */
#include "worlds/oracle.h"

#include "worlds/world.h"

/* ------------------------------------------------------------------ the oracle */

void oracle_begin_map(uint32_t f, uint32_t first, uint32_t last)
{
	for (uint32_t n = first; n <= last; n++) {
		struct known *k = &world.known[f][n];
		k->most++;
		k->mapping++;
		k->map_step = sim.step;
	}
}

void oracle_end_map(uint32_t f, uint32_t first, uint32_t last, uint64_t begun)
{
	for (uint32_t n = first; n <= last; n++) {
		struct known *k = &world.known[f][n];
		k->mapping--;
		k->map_step = sim.step;
		/* otherwise the unmap may undo the map */
		if (!k->unmapping && k->unmap_step < begun)
			k->least++;
	}
}

void oracle_begin_unmap(uint32_t f, uint32_t first, uint32_t last)
{
	for (uint32_t n = first; n <= last; n++) {
		struct known *k = &world.known[f][n];
		k->least -= k->least > 0;
		k->unmapping++;
		k->unmap_step = sim.step;
	}
}

void oracle_end_unmap(uint32_t f, uint32_t first, uint32_t last, uint64_t begun)
{
	for (uint32_t n = first; n <= last; n++) {
		struct known *k = &world.known[f][n];
		k->unmapping--;
		k->unmap_step = sim.step;
		if (!k->mapping && k->map_step < begun)
			k->most -= k->most > 0;
	}
}

/* Return the least, or the most, size that an object may have had since a step. */
uint64_t oracle_size_since(uint32_t f, uint64_t step, bool most)
{
	uint64_t size = most ? 0 : UINT64_MAX;
	for (uint32_t i = 0; i < world.sizes[f]; i++)
		if (world.size[f][i].until >= step &&
		    (most ? world.size[f][i].bytes > size : world.size[f][i].bytes < size))
			size = world.size[f][i].bytes;
	return size;
}

/* Return the least size of an object's versions since a step. A result that fits only an older
 * size shows that the library has not asked the store. */
static uint64_t size_looked_at(const struct sim_store *s, uint64_t step)
{
	uint64_t size = s->size[s->version];
	for (uint32_t v = s->version; v > 0 && s->since[v] > step; v--)
		if (s->size[v - 1] < size)
			size = s->size[v - 1];
	return size;
}

/* Return whether an operation on a page, begun at step `begun`, may end with this errno. */
bool oracle_allows(uint32_t f, uint32_t n, int err, uint64_t begun, bool remembered)
{
	struct sim_store *s = &sim_store[f];
	struct known *k = &world.known[f][n];
	uint64_t byte = index_of(f, n) * OS_PAGE, smallest = UINT64_MAX;
	for (uint32_t v = 0; v <= s->version; v++)
		if (s->size[v] < smallest)
			smallest = s->size[v];
	if (s->writable)
		smallest = oracle_size_since(f, remembered ? 0 : begun, false);
	else if (world.changed[f] == FM_CHANGED_REFRESH && !s->no_version && !remembered)
		smallest = size_looked_at(s, begun);
	if (s->writable && !err && byte >= oracle_size_since(f, begun, true))
		return false;
	if (s->writable && s->write_failures &&
	    (err == -EIO || err == -ENOSPC || err == -ENOMEM)) /* an error of a failed write */
		return true;
	switch (err) {
	case 0:
		/* One fm_unmap() may still have to take out the page when another fm_unmap() of
		 * the page ends. The page can be read until then. */
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

/* ------------------------------------------------------------------ no convoys */

/* A call or a fault, begun at step `begun`, has ended. Mark the threads that have waited for a
 * page all the time. */
void oracle_note_passed(uint64_t begun, bool call)
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
