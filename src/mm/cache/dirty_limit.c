/* SPDX-License-Identifier: MIT */
/* Limits on the number of dirty pages, and the pauses of a thread that writes to a page. */
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

/* Return how many pages may be dirty or being written: a quarter of the frames, at least two,
 * plus the pinned pages. A page pinned for writing stays dirty as long as the pin lasts, and no
 * writer is to blame. */
static uint32_t dirty_limit(const struct frame_pool *pool)
{
	uint32_t most = pool->frames / 4;
	return (most < 2 ? 2 : most) + atomic_get(&((struct frame_pool *)(uintptr_t)pool)->user_pinned);
}

/* Return how many pages may be dirty, being written, or waiting for a flush. Readers then have
 * the other half of the frames. */
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

/* Return the number of dirty pages above which writers are slowed down. */
static uint32_t dirty_free(const struct frame_pool *pool)
{
	uint32_t limit = dirty_limit(pool);
	return limit - limit / 4;
}

/*
 * Return whether `more` pages of a file may become dirty in addition to the pages that are dirty.
 * A file whose store is dead, or refuses every write, reaches the file's limit and keeps its
 * dirty pages. So each file leaves some room for other files. A file may use that room while the
 * file itself has only a few dirty pages.
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
		own_now <= few + atomic_get(&pool->user_pinned)); /* pinned pages stay dirty */
}

/* Return how many pages of a file may become dirty before the file's writers are slowed down. */
uint32_t dirty_room(const struct fm_file *file)
{
	uint32_t now = dirty_now(file->pool), free = dirty_free(file->pool),
		 room = now < free ? free - now : 0;
	while (room && !room_for(file, room))
		room /= 2;
	return room;
}

/* Return whether no further page of a file may become dirty for now. */
bool dirty_over(const struct fm_file *file)
{
	return !room_for(file, 1);
}

/* Return whether a writer that was held back may go on: whether there is room for several pages.
 * With room for a single page, the writer would sleep and wake for every page. */
bool dirty_has_room(const struct fm_file *file)
{
	uint32_t limit = dirty_limit(file->pool), some = limit / 16 < ROOM_MOST ? limit / 16 : ROOM_MOST;
	return room_for(file, 1 + some);
}

/* Return whether a write to this file that was held back is worth another try. A file with no
 * page dirty or being written is also worth a try, because no end of a write would wake the
 * writer. */
bool dirty_may_go_on(const struct fm_file *const_file)
{
	struct fm_file *file = (struct fm_file *)(uintptr_t)const_file;
	bool idle = !atomic_get(&file->dirt->dirty) && !atomic_get(&file->dirt->writing);
	return atomic_get(&file->dirt->failing) || dirty_has_room(file) || (idle && !dirty_over(file));
}

/* Return whether the pool has so many dirty pages that the writer thread writes pages before the
 * pages grow old. The writer thread then goes on until dirty_few(). */
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

/* Return how long a writer must pause for a page that becomes dirty. Pauses begin at three
 * quarters of the limit, and are longer the nearer the limit is. So writers slow down to the
 * speed of the store, instead of alternately running and stopping. */
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

/* Return whether the page is being written from the view itself. Such a page must not be changed
 * until the write has ended. */
bool page_is_written_in_place(uint32_t state)
{
	return (state & (PG_WRITEBACK | PG_INSTALLED)) == (PG_WRITEBACK | PG_INSTALLED) &&
	       !(state & (PG_DUP | PG_UNPROTECTED));
}
