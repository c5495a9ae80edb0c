/* SPDX-License-Identifier: MIT */
/*
 * Staging slots: memory that a single page is read into before the page goes into the view.
 * Places: empty slots for a page that is out of the view for a moment.
 */
#include "mm/frames/staging.h"

#include "mm/frames/frame_pool.h"
#include "os/atomic.h"

/* Take a staging slot, into which a page is read that goes into the view by a copy. Never blocks.
 * Returns NULL if there is no slot. Unless `last` is set, which is for faults, an eighth of the
 * slots is left. */
char *stage_take(struct frame_pool *pool, bool last)
{
	uint64_t before = atomic_get(&pool->stages_free);
	uint32_t leave = last ? 0 : pool->stages / 8;
	do {
		if ((uint32_t)__builtin_popcountll(before) <= leave)
			return NULL;
	} while (!atomic_cas(&pool->stages_free, &before, before & (before - 1)));
	return pool->slots + ((size_t)(pool->frames + (uint32_t)__builtin_ctzll(before)) << pool->shift);
}

void stage_put(struct frame_pool *pool, const char *stage)
{
	uint64_t place = ((uint64_t)(stage - pool->slots) >> pool->shift) - pool->frames,
		 before = atomic_get(&pool->stages_free);
	while (!atomic_cas(&pool->stages_free, &before, before | 1ull << place))
		;
}

/* Take an empty slot, for a page that is out of the view for a moment while its own slot has
 * memory. Never blocks. Returns NULL if there is no empty slot just now. */
char *place_take(struct frame_pool *pool)
{
	uint64_t before = atomic_get(&pool->spare_slots_free);
	do {
		if (!before)
			return NULL;
	} while (!atomic_cas(&pool->spare_slots_free, &before, before & (before - 1)));
	return pool->slots +
	       ((size_t)(pool->frames + pool->stages + (uint32_t)__builtin_ctzll(before))
		<< pool->shift);
}

void place_put(struct frame_pool *pool, const char *place)
{
	uint64_t bit = ((uint64_t)(place - pool->slots) >> pool->shift) - pool->frames - pool->stages;
	atomic_or(&pool->spare_slots_free, 1ull << bit);
}
