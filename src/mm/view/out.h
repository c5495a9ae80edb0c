/* SPDX-License-Identifier: MIT */
/* This header declares how a single page is taken out of its view. */
#ifndef FM_MM_VIEW_OUT_H
#define FM_MM_VIEW_OUT_H

#include <stdbool.h>

struct page;
struct view;

void page_forget(struct view *view, struct page *page);
void page_discard(struct view *view, struct page *page);
int page_take_out(struct view *view, struct page *page, bool may_block);
int page_copy_out(struct view *view, struct page *page);

#endif
