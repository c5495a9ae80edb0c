/* SPDX-License-Identifier: MIT */
/* Limits on the number of dirty pages, and the pauses of a thread that writes to a page. */
#ifndef FM_MM_CACHE_DIRTY_LIMIT_H
#define FM_MM_CACHE_DIRTY_LIMIT_H

#include "mm/base/file.h"
#include "mm/cache/file_dirt.h"
#include "os/atomic.h"

#include <stdbool.h>
#include <stdint.h>

struct frame_pool;

uint32_t dirty_room(const struct fm_file *file);
bool dirty_over(const struct fm_file *file);
bool dirty_has_room(const struct fm_file *file);
bool dirty_may_go_on(const struct fm_file *const_file);
bool dirty_many(const struct frame_pool *pool);
bool dirty_few(const struct frame_pool *pool);
bool unflushed_many(const struct frame_pool *pool);
uint64_t dirty_pause_ns(const struct fm_file *file, const struct frame_pool *pool);
bool page_is_written_in_place(uint32_t state);

#endif
