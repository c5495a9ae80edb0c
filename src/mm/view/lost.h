/* SPDX-License-Identifier: MIT */
/*
 * Lost pages: the program has emptied, replaced or unmapped the part of the view where a
 * page's bytes were.
 */
#ifndef FM_MM_VIEW_LOST_H
#define FM_MM_VIEW_LOST_H

#include <errno.h>
#include <stdbool.h>

struct fm_mm;
struct frame_pool;
struct page;
struct view;

void dirty_emptied(struct frame_pool *pool, struct page *page);
void page_emptied(struct fm_mm *mm, struct frame_pool *pool, struct page *page);
void page_in_pieces(struct view *view, struct page *page, bool foreign);
bool page_is_foreign(const struct view *view, const struct page *page);
void page_gone_foreign(struct view *view, struct page *page);
void page_gone_behind(struct view *view, struct page *page);
bool page_hole_stays(struct frame_pool *pool, struct page *page);
bool page_is_there(const struct view *view, const struct page *page);
bool page_really_there(struct view *view, struct page *page);

#endif
