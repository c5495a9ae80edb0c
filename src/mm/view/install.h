/* SPDX-License-Identifier: MIT */
/* Installs: a page's bytes appear in its view. */
#ifndef FM_MM_VIEW_INSTALL_H
#define FM_MM_VIEW_INSTALL_H

#include <stdbool.h>
#include <stdint.h>

struct access;
struct page;
struct view;

enum installed_by {
	BY_MOVE,
	BY_COPY,  /* the page's slot keeps its memory, too */
	/* from a staging slot: the page had no bytes before, and its slot has no memory */
	BY_STAGE,
	BY_STAGE_WRITABLE,
};

void pages_installed(struct view *view, struct page *first, uint32_t count, uint64_t bytes,
		     enum installed_by by);
int page_install(struct access *access, struct page *page);
int page_install_from(struct view *view, struct page *page, const char *stage, bool write);

#endif
