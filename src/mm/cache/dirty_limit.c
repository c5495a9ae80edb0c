/* SPDX-License-Identifier: MIT */
/* How much may be dirty, and how long a writer is held back. */
#include "mm/cache/dirty_limit.h"

#include "mm/base/file.h"
#include "mm/cache/file_dirt.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "os/atomic.h"
#include "os/os.h"

#define PAUSE_LEAST_NS 20000u
#define ROOM_MOST 64u /* pages */
#define PAUSE_MOST_NS (50 * OS_NSEC_PER_MSEC)

/* What is pinned for writing is dirty as long as it is, and nobody's fault. */
static uint32_t dirty_limit(const struct frame_pool *pool)
{
	uint32_t most = pool->frames / 4;
	return (most < 2 ? 2 : most) + atomic_get(&((struct frame_pool *)(uintptr_t)pool)->user_pinned);
}

/* With what waits for a flush: then who reads has the other half. */
static uint32_t held_limit(const struct frame_pool *pool)
{
	uint32_t most = pool->frames / 4;
	return dirty_limit(pool) + (most < 2 ? 2 : most);
}

static uint32_t dirty_now(const struct frame_pool *pool)
{
	struct frame_pool *p = (struct frame_pool *)(uintptr_t)pool;
	return atomic_get(&p->dirty) + atomic_get(&p->writing);
}

/* From here on writers are slowed down. */
static uint32_t dirty_free(const struct frame_pool *pool)
{
	uint32_t limit = dirty_limit(pool);
	return limit - limit / 4;
}

/*
 * `more` pages of a file may become dirty beside those that are. One whose store is dead, or
 * refuses everything, comes to have as many as it may, and keeps them: so it leaves some room for
 * others, who may use it while they themselves have a few.
 */
static bool room_for(const struct fm_file *const_file, uint32_t more)
{
	struct fm_file *file = (struct fm_file *)(uintptr_t)const_file;
	struct frame_pool *pool = file->pool;
	uint32_t limit = dirty_limit(pool), most = held_limit(pool), spare = limit / 4 < 2 ? 2 : limit / 4;
	uint32_t few = spare < 4 ? 2 : (spare + 1) / 2; /* one instruction may write to two pages */
	uint32_t now = dirty_now(pool) + more, held = now + atomic_get(&pool->unflushed);
	uint32_t own_now = atomic_get(&file->dirt->dirty) + atomic_get(&file->dirt->writing) + more,
		 own_held = own_now + atomic_get(&file->dirt->unflushed);

	if (held > most || own_held > most - spare)
		return false;
	return now <= limit ||
	       (now <= limit + spare &&
		own_now <= few + atomic_get(&pool->user_pinned)); /* what is pinned stays dirty */
}

/* How many pages of a file may become dirty before its writers are slowed down. */
uint32_t dirty_room(const struct fm_file *file)
{
	uint32_t now = dirty_now(file->pool), free = dirty_free(file->pool),
		 room = now < free ? free - now : 0;
	while (room && !room_for(file, room))
		room /= 2;
	return room;
}

/* No more of a file may become dirty for now. */
bool dirty_over(const struct fm_file *file)
{
	return !room_for(file, 1);
}

/* Who has been held back goes on when there is room for some: with one page's for each, it would
 * sleep and wake for every page. */
bool dirty_has_room(const struct fm_file *file)
{
	uint32_t limit = dirty_limit(file->pool), some = limit / 16 < ROOM_MOST ? limit / 16 : ROOM_MOST;
	return room_for(file, 1 + some);
}

/* A write that had been held back, of this file, is worth another try. It is also where nothing of
 * the file is on its way: no end of a write would tell. */
bool dirty_may_go_on(const struct fm_file *const_file)
{
	struct fm_file *file = (struct fm_file *)(uintptr_t)const_file;
	bool idle = !atomic_get(&file->dirt->dirty) && !atomic_get(&file->dirt->writing);
	return atomic_get(&file->dirt->failing) || dirty_has_room(file) || (idle && !dirty_over(file));
}

/* The background begins to write without waiting for pages to grow old, and goes on until there are
 * few. */
bool dirty_many(const struct frame_pool *pool)
{
	return atomic_get(&((struct frame_pool *)(uintptr_t)pool)->dirty) > dirty_limit(pool) / 2;
}

bool dirty_few(const struct frame_pool *pool)
{
	uint32_t limit = dirty_limit(pool);
	return atomic_get(&((struct frame_pool *)(uintptr_t)pool)->dirty) <= limit / 2 - limit / 8;
}

bool unflushed_many(const struct frame_pool *pool)
{
	return atomic_get(&((struct frame_pool *)(uintptr_t)pool)->unflushed) > dirty_limit(pool) / 2;
}

/* From three quarters of the limit on, each page that becomes dirty costs the more time the nearer
 * the limit is: writers slow down to what the store takes, instead of going and stopping. */
uint64_t dirty_pause_ns(const struct fm_file *file, const struct frame_pool *pool)
{
	uint64_t now = dirty_now(pool), limit = dirty_limit(pool), free = dirty_free(pool);
	if (now <= free || limit < 64)
		return 0;
	uint64_t pause = 2 * atomic_get(&((struct fm_file *)(uintptr_t)file)->dirt->write_ns) *
			 (now - free) / (limit - free);
	if (pause < PAUSE_LEAST_NS)
		return 0;
	return pause < PAUSE_MOST_NS ? pause : PAUSE_MOST_NS;
}

/* Written from where it is, in the view: it may not be changed until that has ended. */
bool page_is_written_in_place(uint32_t state)
{
	return (state & (PG_WRITEBACK | PG_INSTALLED)) == (PG_WRITEBACK | PG_INSTALLED) &&
	       !(state & (PG_DUP | PG_UNPROTECTED));
}
