/* SPDX-License-Identifier: MIT */
/* This header declares how an installed page becomes writable, also if the page kept its
 * protection. */
#ifndef FM_MM_VIEW_WRITABLE_H
#define FM_MM_VIEW_WRITABLE_H

struct page;
struct view;

int page_make_writable(struct view *view, struct page *page);
void page_unprotect_again(struct view *view, struct page *page);

#endif
