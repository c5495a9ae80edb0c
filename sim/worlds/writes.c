/* SPDX-License-Identifier: MIT */
/*
 * Calls on files open for writing: sync, truncate, punch, invalidate. Also the sizes that an
 * object may have.
 */
#include "worlds/writes.h"

#include "worlds/calls.h"
#include "worlds/oracle.h"
#include "worlds/world.h"

/* Sync a range. Bytes written before a successful sync began are durable when the sync has
 * ended. */
void do_sync(uint32_t f, uint32_t n, uint32_t m)
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
	int err = by_file ? fm_file_sync(world.file[f], offset, whole ? 0 : len, flags)
			  : fm_sync(sim.mm, (void *)addr_of(f, n), len, flags);
	event("the sync ends with error %llu", -err, 0, 0, 0);
	alone &= --world.syncs[f] == 0 && world.sync_step[f] < begun;
	world.sync_step[f] = sim.step;
	if (err)
		mark(sync_error);
	else if (async)
		mark(sync_async);
	else
		mark(sync_ok);
	if (err) /* also after -ENOMEM, which may come from the store */
		s->told = s->write_failures;
	if (!err && !async && s->writable)
		written_acknowledged(s, n, m, need, oracle_size_since(f, begun, false));
	if (!err && !async && s->writable && alone && failures > told && !sim.dying)
		sim_fail("a write of object %u has failed, but fm_sync() does not report the error", f);
	bool gap = err == -ENOMEM && !by_file;
	bool late = (err == -ETIMEDOUT && world.deadline_ns[f]) || (err == -ECANCELED && sim.dying);
	if (err && !gap && !late && !s->write_failures && !(err == -EIO && sim.emptied))
		sim_fail("fm_sync() returns %d, but nothing has failed", err);
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

/* Note that a call begins (change 1) or ends (change -1) on these pages. The pages may lose their
 * pins, or leave the view. */
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
		sim_fail("there are more sizes than the simulator has room for");
	world.size[f][world.sizes[f]++] = (struct size){bytes, sim.step, STILL};
}

static void size_is(uint32_t f, uint64_t bytes)
{
	for (uint32_t i = 0; i < world.sizes[f]; i++)
		if (world.size[f][i].bytes != bytes && world.size[f][i].until == STILL)
			world.size[f][i].until = sim.step;
}

void do_truncate(uint32_t f)
{
	struct sim_store *s = &sim_store[f];
	if (world.sizes[f] == SIZES_MAX || !resize_begin(f, "truncate"))
		return;
	uint64_t first = s->base * SIM_TAGS, before = s->size[0], most = world.pages[f] * SIM_TAGS;
	uint64_t size = (first + sim_below((uint32_t)most + 1)) * SIM_SECTOR;
	if (sim_chance(128))
		size &= ~(uint64_t)(OS_PAGE - 1);
	uint64_t least = size < before ? size : before;
	/* If the object gets longer, the rest of its last page is zeros from then on. */
	uint64_t from = least / SIM_SECTOR - first,
		 to = size < before ? most : (from + SIM_TAGS - 1) / SIM_TAGS * SIM_TAGS;
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
	/* A shrink may leave old bytes past the end in the last page: if the page is pinned or
	 * busy, or could not be written first under COPY. The bytes stay until the object grows. */
	bool busy = sim.opt.busy_256 || sim.opt.held_256 || sim.opt.famine_256;
	bool unwritten = busy || (world.mm_options.install == FM_INSTALL_COPY &&
				  (s->write_failures || world.deadline_ns[f] || sim.emptied));
	const struct known *k = &world.known[f][from / SIM_TAGS];
	if (!err && size != before)
		s->ragged = size < before && (unwritten || k->pinning || k->unpin_step >= begun)
				    ? (uint32_t)(from / SIM_TAGS) + 1
				    : 0;
	if (s->size[0] != (err ? before : size))
		sim_fail("fm_truncate() of object %u to %llu bytes returns %d, but the object has %llu", f,
			 (unsigned long long)size, err, (unsigned long long)s->size[0]);
	if (err && err != -EBUSY && !sim.opt.error_256 && !sim.opt.famine_256 &&
	    !s->write_failures && !sim.emptied && !world.deadline_ns[f])
		sim_fail("fm_truncate() returns %d, but nothing has failed", err);
	if (err)
		mark(resize_error);
	else if (size < before)
		mark(shrunk);
	else
		mark(grown);
	resize_end(f);
}

void do_punch(uint32_t f, uint32_t n, uint32_t m)
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
	uint64_t stop = first + to >= end ? end > first ? end - first : 0
					  : to; /* past the end a punch does nothing */
	/* A punch up to the end removes the whole last page. */
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
	if (err && err != -EBUSY && !sim.opt.error_256 && !sim.opt.famine_256 &&
	    !world.deadline_ns[f] && !s->any_error_step && !s->write_failures && !sim.emptied)
		sim_fail("fm_punch() returns %d, but nothing has failed", err);
	if (err)
		mark(resize_error);
	else
		mark(punched);
	resize_end(f);
}

void do_invalidate(uint32_t f, uint32_t n, uint32_t m)
{
	struct sim_store *s = &sim_store[f];
	uint64_t offset = index_of(f, n) * OS_PAGE, len = (index_of(f, m) - index_of(f, n) + 1) * OS_PAGE;
	/* Invalidate no larger pages. The kernel may have a part of a larger page pinned. After
	 * enough tries that part is left in the view, and the next fault reads the page again. */
	if (s->page_size > OS_PAGE || !call_begin("invalidate"))
		return;
	event("invalidates pages %llu to %llu of object %llu", n, m, f, 0);
	s->dropping++;
	int err = fm_invalidate(world.file[f], offset, sim_chance(32) ? 0 : len);
	s->dropping--;
	event("the invalidation ends with error %llu", -err, 0, 0, 0);
	if (err && err != -EBUSY && !s->write_failures && !(err == -EIO && sim.emptied) &&
	    !(err == -ETIMEDOUT && world.deadline_ns[f]) && !(err == -ECANCELED && sim.dying))
		sim_fail("fm_invalidate() returns %d, but nothing has failed", err);
	if (err)
		mark(invalidate_error);
	else
		mark(invalidated);
	call_end();
}
