/* SPDX-License-Identifier: MIT */
/* Making a pool and its metadata, and taking the pool down. */
#include "mm/frames/make.h"

#include "filemap.h"
#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/group.h"
#include "mm/frames/lists.h"
#include "mm/frames/memory.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "os/os.h"
#include "trap/trap.h"

#include <errno.h>

#ifdef FM_SIM
#define PLACES 2u
#else
#define PLACES 32u
#endif

#define HUGE_UNIT (2u << 20)

static size_t align_up(size_t value, size_t align)
{
	return (value + align - 1) & ~(align - 1);
}

/* Return the number of staging slots for a pool, and charge the budget for the slots. The slots
 * take no more than a few percent of the budget. */
static uint32_t stages_for(struct fm_mm *mm, uint32_t page_size, uint32_t frames)
{
	uint32_t count = frames / POOL_STAGE_SHARE < POOL_STAGES_MAX ? frames / POOL_STAGE_SHARE
								     : POOL_STAGES_MAX;
	if (page_size > OS_PAGE || mm->install != FM_INSTALL_MOVE ||
	    frames < MM_FRAMES_MIN + count || !count ||
	    !mm_try_charge(mm, (uint64_t)count * page_size))
		return 0;
	return count;
}

/* Fill the staging slots, which then keep their memory. If the system has no memory, the pool
 * works without staging slots. */
static void stages_fill(struct frame_pool *pool)
{
	uint64_t start = (uint64_t)pool->slots + ((uint64_t)pool->frames << pool->shift);
	uint64_t len = (uint64_t)pool->stages << pool->shift;

	if (pool->registered && trap_fill(pool->mm->trap, start, len) < 0) {
		trap_discard(pool->mm->trap, start, len);
		mm_uncharge(pool->mm, len);
		pool->stages_charged = 0;
		return;
	}
	pool->stages_free = ~0ull >> (64 - pool->stages);
}

static int pool_alloc_meta(struct frame_pool *pool)
{
	uint32_t ghosts = 16;
	uint32_t buckets = (pool->frames / 16 * 5 / BUCKET_LINE + 2) *
			   BUCKET_LINE; /* a chain has three pages if all frames are in use */
	while (ghosts < pool->frames / 2)
		ghosts *= 2;
	size_t pages_len = align_up(pool->frames * sizeof(struct page), 64);
	size_t buckets_len = align_up(buckets * sizeof(struct bucket), 64);
	size_t words = (pool->frames + 63) / 64;
	pool->meta_len = pages_len + buckets_len + align_up(ghosts * sizeof(*pool->ghosts), 64) +
			 (5 * words + (pool->frames / GROUP_PAGES + 63) / 64) * sizeof(uint64_t) +
			 pool->frames / GROUP_PAGES * sizeof(*pool->group_free);
	pool->meta = os_meta_alloc(pool->meta_len);
	if (!pool->meta)
		return -ENOMEM;
	pool->pages = pool->meta;
	pool->buckets = (struct bucket *)((char *)pool->meta + pages_len);
	pool->bucket_lines = buckets / BUCKET_LINE;
	for (uint32_t i = 0; i < buckets; i++)
		pool->buckets[i].head = NONE;
	char *rest = (char *)pool->buckets + buckets_len;
	pool->ghosts = (uint16_t *)rest;
	pool->ghost_mask = ghosts - 1;
	uint64_t *bits = (uint64_t *)(rest + align_up(ghosts * sizeof(*pool->ghosts), 64));
	pool->dirty_bits = bits;
	pool->aged_bits = bits + words;
	pool->writing_bits = bits + 2 * words;
	pool->unflushed_bits = bits + 3 * words;
	pool->flushing_bits = bits + 4 * words;
	pool->whole_bits = bits + 5 * words;
	pool->group_free = (uint16_t *)(pool->whole_bits + (pool->frames / GROUP_PAGES + 63) / 64);
	return 0;
}

int pool_create(struct fm_mm *mm, uint32_t page_size, struct frame_pool **ret_pool)
{
	struct frame_pool *pool = os_meta_alloc(sizeof(*pool));
	void *slots = NULL;
	int err;

	if (!pool)
		return -ENOMEM;
	pool->mm = mm;
	pool->page_size = page_size;
	pool->shift = (uint32_t)__builtin_ctz(page_size);
	pool->frames = (uint32_t)(mm->budget_bytes >> pool->shift);
	pool->free_high = pool->frames / 16 < 2 ? 2 : pool->frames / 16;
	if (pool->free_high > (16u << 20) >> pool->shift && pool->free_high > 16)
		pool->free_high = (16u << 20) >> pool->shift > 16 ? (16u << 20) >> pool->shift : 16;
	pool->free_low = pool->free_high / 2;
	for (int i = 0; i < LIST_COUNT; i++)
		pool->queue[i] = (struct page_queue){NONE, NONE, 0};
	pool->stages = pool->stages_charged = stages_for(mm, page_size, pool->frames);
	pool->frames -= pool->stages;
	err = pool->frames < MM_FRAMES_MIN ? -ENOSPC : pool_alloc_meta(pool);
	if (err)
		goto fail;
	if (page_size == OS_PAGE && mm->install == FM_INSTALL_MOVE) {
		pool->spare_slots = PLACES;
		pool->spare_slots_free = ~0ull >> (64 - PLACES);
	}
	pool->slots_len = (size_t)(pool->frames + pool->stages + pool->spare_slots) << pool->shift;
	pool->groups = groups_for(pool);
	err = trap_slots_open(mm->trap, pool->slots_len, pool->groups ? TRAP_TOGETHER : page_size,
			      page_size == HUGE_UNIT, &slots, &pool->registered);
	if (err)
		goto fail;
	pool->slots = slots;
	if (pool->stages)
		stages_fill(pool);
	pool->grows = page_size == HUGE_UNIT && pool->registered;
	for (uint32_t i = 0; i < pool->frames; i++) {
		pool->pages[i].hash_next = NONE;
		pool->pages[i].state = PG_FREE | PG_HOLE;
		if (!pool->grows)
			queue_append(pool, &pool->pages[i], LIST_HOLES);
	}
	if (pool->grows && !pool_grow(pool, GROW_PIECE)) {
		err = -ENOMEM;
		goto fail;
	}
	*ret_pool = pool;
	return 0;
fail:
	pool_drop(pool);
	return err;
}

/* Destroy a pool that no page was ever read into, and uncharge the budget for its memory. */
void pool_drop(struct frame_pool *pool)
{
	mm_uncharge(pool->mm, (uint64_t)(pool->filled + pool->stages_charged) << pool->shift);
	pool_destroy(pool);
}

void pool_destroy(struct frame_pool *pool)
{
	if (!pool)
		return;
	if (pool->slots)
		trap_slots_close(pool->mm->trap, pool->slots, pool->slots_len);
	os_meta_free(pool->meta, pool->meta_len);
	os_meta_free(pool, sizeof(*pool));
}
