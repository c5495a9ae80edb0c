/* SPDX-License-Identifier: MIT */
/*
 * Tiny worlds: a few threads at one map lock; an address space that ends as soon as it has begun. So short that each
 * order of a handful of steps comes up often, where the large world meets it once in a million runs.
 * Owns the lock of such a world. May call: sched, trace; mm's map lock; the public interface.
 */
#include "sim.h"

#define USERS_MAX 4
#define AFTER_A_ROUND_NS 250000u /* for which the background thread sleeps at the end of each */

static struct {
	struct map_lock lock;
	uint32_t readers, writers; /* inside */
} at;
static struct stats_page stats;

/* Longer, now and then, than anybody spins. */
static void dawdle(void)
{
	for (uint32_t i = sim_below(sim_chance(96) ? 400 : 3); i > 0; i--)
		sim_point();
}

static void inside(bool exclusive)
{
	if (at.writers || (exclusive && at.readers))
		sim_fail("the map lock is held by %u readers and %u writers, and is taken once more", at.readers, at.writers);
	*(exclusive ? &at.writers : &at.readers) += 1;
	dawdle();
	*(exclusive ? &at.writers : &at.readers) -= 1;
}

static void *lock_user(void *arg)
{
	(void)arg;
	for (uint32_t i = 1 + sim_below(4); i > 0; i--) {
		dawdle();
		if (sim_chance(96)) {
			map_lock_exclusive(&at.lock);
			inside(true);
			map_unlock_exclusive(&at.lock);
		} else {
			map_lock_shared(&at.lock);
			inside(false);
			map_unlock_shared(&at.lock);
		}
	}
	return NULL;
}

/* Whoever sleeps and is forgotten is a deadlock: nobody comes later. */
static void *lock_world(void *arg)
{
	struct sim_thread *thread[USERS_MAX];
	uint32_t users = 2 + sim_below(USERS_MAX - 1);
	(void)arg;
	memset(&at, 0, sizeof(at));
	at.lock.stats = &stats;
	for (uint32_t i = 0; i < users; i++)
		thread[i] = sim_spawn("program", lock_user, NULL);
	for (uint32_t i = 0; i < users; i++)
		sim_join(thread[i]);
	return NULL;
}

static void *short_world(void *arg)
{
	struct fm_mm_options options = {
		.size = sizeof(options),
		.budget_bytes = 16 * OS_PAGE,
		.trap = sim_chance(96) ? FM_TRAP_THREAD : FM_TRAP_INLINE};
	struct fm_mm *mm = NULL;
	(void)arg;
	int err = fm_mm_create(&options, &mm);
	if (err)
		sim_fail("fm_mm_create(): %d", err);
	sim.mm = mm;
	if (sim_chance(160)) { /* the background thread goes round once, and is at its beginning when the end comes */
		sim_sleep(OS_NSEC_PER_MSEC);
		background_kick(mm);
		sim_sleep(AFTER_A_ROUND_NS + sim_below(200) * sim.opt.ns_per_step);
	}
	sim.dying = true;
	err = fm_mm_destroy(mm);
	if (err)
		sim_fail("fm_mm_destroy(): %d", err);
	if (sim.allocated)
		sim_fail("%llu bytes are not given back", (unsigned long long)sim.allocated);
	return NULL;
}

void tiny_world_run(void)
{
	mark(tiny_worlds);
	sim.opt.stubborn = sim_chance(128);
	sim.opt.meta_256 = 0;
	for (uint32_t i = 0; i < sim.opt.changes; i++) /* of priorities: as early as all else */
		sim.pct_change[i] = 1 + sim_below(300);
	sim_start(sim_chance(128) ? lock_world : short_world, NULL);
}
