/* SPDX-License-Identifier: MIT */
/*
 * The account of page tables counts the installed pages in each 2 MiB of a view, so that
 * empty page tables can be given back to the kernel.
 */
#ifndef FM_MM_VIEW_PAGE_TABLES_H
#define FM_MM_VIEW_PAGE_TABLES_H

#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;
struct page;

/* The table counts the installed pages in each 2 MiB of view, so that empty page tables
 * can be given back. Some pages are uncounted at addresses that the kernel does not give
 * by itself, or for a budget beyond a TiB. The table costs 0.1 % of the frames: 8 bytes
 * for two frames. */
#define PT_KEYS (1ull << 27)
#define PT_END ((1u << 27) - 1) /* marks the end of a chain */

struct pt_range {
	uint64_t key : 27, count : 10, next : 27;
};

_Static_assert(sizeof(struct pt_range) == 8, "two of them for each frame at worst");

struct pt_table {
	struct os_lock lock;
	uint32_t mask, free_head, entries, used, empty;
	uint32_t uncounted; /* pages installed without a range, because the table was full */
	uint32_t *heads;
	struct pt_range *range;
	uint32_t scan; /* index at which the search for empty ranges continues */
	uint64_t releasing;   /* key of the range that is being given back; 0: none */
	uint32_t release_seq; /* futex; a release that ends increments this number */
};

int pt_init(struct fm_mm *mm);
bool pt_get(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr, bool may_wait);
void pt_put(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr);
void pt_release_empty(struct fm_mm *mm, uint32_t most);
bool pt_behind(struct fm_mm *mm);
void pt_throttle(struct fm_mm *mm);

#endif
