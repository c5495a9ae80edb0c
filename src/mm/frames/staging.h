/* SPDX-License-Identifier: MIT */
/*
 * Staging slots: memory that a single page is read into before the page goes into the view.
 * Places: empty slots for a page that is out of the view for a moment.
 */
#ifndef FM_MM_FRAMES_STAGING_H
#define FM_MM_FRAMES_STAGING_H

#include <stdbool.h>

struct frame_pool;

char *stage_take(struct frame_pool *pool, bool last);
void stage_put(struct frame_pool *pool, const char *stage);
char *place_take(struct frame_pool *pool);
void place_put(struct frame_pool *pool, const char *place);

#endif
