/* SPDX-License-Identifier: MIT */
/* The queue of the program (fm_queue): ranges that begin together and end one by one. */
#include "worlds/batch.h"

#include "worlds/calls.h"
#include "worlds/world.h"

static struct flying *flying_new(uint32_t f, uint32_t first, uint32_t last)
{
	for (uint32_t i = 0; i < QUEUE_MAX; i++)
		if (!world.flying[i].used) {
			world.flying[i] = (struct flying){true, f, first, last, sim.step};
			return &world.flying[i];
		}
	return NULL;
}

/* Begin a range, and perhaps some other ranges. */
void do_batch(uint32_t f, uint32_t first, uint32_t last)
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
		event("batch: pages %llu to %llu of object %llu, range %llu", index_of(f, first),
		      index_of(f, last), f, flying[count] - world.flying);
		range[count] = (struct fm_range){.addr = (void *)addr_of(f, first), .tag = flying[count],
						 .len = (index_of(f, last) - index_of(f, first) + 1) * OS_PAGE};
		f = sim_below(world.files);
		first = last = sim_below(world.pages[f]);
	}
	int err = fm_fault_in_batch(world.queue, range, count, &begun);
	if (err && err != -EAGAIN)
		sim_fail("fm_fault_in_batch() returns %d", err);
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
		sim_fail("fm_completions() returns a range that is not under way");
	flying->used = false;
	event("batch: range %llu has ended", flying - world.flying, 0, 0, 0);
	if (range->error)
		mark(batch_error);
	else
		mark(batch_ok);
	call_check("fm_fault_in_batch()", flying->f, flying->first, flying->last, range->error,
		   flying->begun, false);
}

/* Take ended ranges. The end of the mm does not wait for fm_completions(): the end of the mm ends
 * the call. */
bool do_take(uint64_t timeout_ns)
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
			sim_fail("fm_completions() returns %d", err);
	}
	if (count > most)
		sim_fail("fm_completions() returns more ranges than there is room for");
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

void batch_make_queue(void)
{
	world.flying_most = 1 + sim_below(QUEUE_MAX);
	uint64_t refused = sim_marks.meta_refused;
	int err;
	while ((err = fm_queue_create(sim.mm, world.flying_most, &world.queue)) != 0) {
		if (err != -ENOMEM || sim_marks.meta_refused == refused)
			sim_fail("fm_queue_create() returns %d", err);
		refused = sim_marks.meta_refused;
	}
}

/* Wait until all ranges have ended, or destroy the queue with ranges in the queue. No other thread
 * uses the queue any more, so a lost wake-up would leave this thread asleep for ever. */
void batch_end_queue(void)
{
	if (!world.queue)
		return;
	for (uint32_t i = 0; !world.keeps_pins && sim_chance(160) && some_flying(); i++) {
		do_take(OS_FOREVER);
		if (i > 4000)
			sim_fail("a range has begun, but does not end");
	}
	if (some_flying())
		mark(batch_left);
	int err = fm_queue_destroy(world.queue);
	if (err)
		sim_fail("fm_queue_destroy() returns %d", err);
	world.queue = NULL;
}
