/* SPDX-License-Identifier: MIT */
/*
 * Tiny worlds: a few threads at one map lock, or an address space that ends as soon as it has
 * begun. A tiny world is so short that each order of a handful of steps comes up often. The large
 * world meets such an order once in a million runs.
 */
#include "sim.h"

#define USERS_MAX 4
#define LOCK_ROUNDS 150 /* of some hundred steps each: together as long as another run */
#define AFTER_A_ROUND_NS 250000u /* the background thread's sleep after each round */

static struct {
	struct map_lock lock;
	uint32_t readers, writers; /* threads inside the lock */
} at;
static struct stats_page stats;

/* Spend some steps, now and then more than any thread spins. */
static void dawdle(void)
{
	for (uint32_t i = sim_below(sim_chance(96) ? 400 : 3); i > 0; i--)
		sim_point();
}

static void inside(bool exclusive)
{
	if (at.writers || (exclusive && at.readers))
		sim_fail(
			"the map lock is taken again while %u readers and %u writers hold the lock",
			at.readers, at.writers);
	*(exclusive ? &at.writers : &at.readers) += 1;
	dawdle();
	*(exclusive ? &at.writers : &at.readers) -= 1;
}

static void take_lock(bool exclusive)
{
	if (exclusive)
		map_lock_exclusive(&at.lock);
	else
		map_lock_shared(&at.lock);
	inside(exclusive);
	if (exclusive)
		map_unlock_exclusive(&at.lock);
	else
		map_unlock_shared(&at.lock);
}

static void *lock_user(void *arg)
{
	(void)arg;
	for (uint32_t i = 1 + sim_below(4); i > 0; i--) {
		dawdle();
		take_lock(sim_chance(96));
	}
	return NULL;
}

/* Take the lock once. A thread that comes again could wake a thread that another thread forgot.
 * The first thread is a writer, and other threads soon wait for that writer. */
static void *lock_user_once(void *arg)
{
	uint64_t n = (uint64_t)arg;
	if (n >= 2)
		dawdle();
	take_lock(n == 0 || (n > 2 && sim_chance(128)));
	return NULL;
}

static void change_priorities_within(uint32_t steps)
{
	for (uint32_t i = 0; i < sim.opt.changes; i++)
		sim.pct_change[i] = sim.step + 1 + sim_below(steps);
}

/* Run some threads at one lock. A sleeping thread that is forgotten is a deadlock: no thread comes
 * later. */
static void lock_round(void)
{
	struct sim_thread *thread[USERS_MAX];
	uint32_t users = 2 + sim_below(USERS_MAX - 1);
	bool once = sim_chance(192);
	memset(&at, 0, sizeof(at));
	at.lock.stats = &stats;
	sim.opt.stubborn = sim_chance(128);
	change_priorities_within(sim_chance(128) ? 300 : 1500);
	for (uint32_t i = 0; i < users; i++)
		thread[i] = sim_spawn("program", once ? lock_user_once : lock_user, (void *)(uint64_t)i);
	for (uint32_t i = 0; i < users; i++)
		sim_join(thread[i]);
	sim.threads = 1; /* the threads' places are free again */
}

static void *lock_world(void *arg)
{
	(void)arg;
	for (uint32_t i = 0; i < LOCK_ROUNDS; i++)
		lock_round();
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
		sim_fail("fm_mm_create() returns %d", err);
	sim.mm = mm;
	/* The background thread does one round, and is at the start of the next round when the end
	 * comes. */
	if (sim_chance(160)) {
		sim_sleep(OS_NSEC_PER_MSEC);
		background_kick(mm);
		sim_sleep(AFTER_A_ROUND_NS + sim_below(200) * sim.opt.ns_per_step);
	}
	sim.dying = true;
	err = fm_mm_destroy(mm);
	if (err)
		sim_fail("fm_mm_destroy() returns %d", err);
	if (sim.allocated)
		sim_fail("%llu bytes are not given back", (unsigned long long)sim.allocated);
	return NULL;
}

void tiny_world_run(void)
{
	mark(tiny_worlds);
	sim.opt.stubborn = sim_chance(128);
	sim.opt.meta_256 = 0;
	change_priorities_within(300);
	sim_start(sim_chance(128) ? lock_world : short_world, NULL);
}
