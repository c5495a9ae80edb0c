/* SPDX-License-Identifier: MIT */
/*
 * The account of page tables: how many pages each 2 MiB of a view has, so that empty tables can
 * be given back.
 */
#ifndef FM_MM_VIEW_PAGE_TABLES_H
#define FM_MM_VIEW_PAGE_TABLES_H

#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;
struct page;

/* Empty page tables are given back: how many installed pages each 2 MiB of view has. Where the
 * kernel gives no address by itself, or for a budget beyond a TiB, some go uncounted. 8 bytes for
 * two frames: 0.1 %. */
#define PT_KEYS (1ull << 27)
#define PT_END ((1u << 27) - 1) /* of a chain */

struct pt_range {
	uint64_t key : 27, count : 10, next : 27;
};

_Static_assert(sizeof(struct pt_range) == 8, "two of them for each frame at worst");

struct pt_table {
	struct os_lock lock;
	uint32_t mask, free_head, entries, used, empty;
	uint32_t uncounted; /* pages that are installed without a range: the table was full */
	uint32_t *heads;
	struct pt_range *range;
	uint32_t scan; /* where the search for empty ones goes on */
	uint64_t releasing;   /* the range that is being given back; 0: none */
	uint32_t release_seq; /* futex */
};

int pt_init(struct fm_mm *mm);
bool pt_get(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr, bool may_wait);
void pt_put(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr);
void pt_release_empty(struct fm_mm *mm, uint32_t most);
bool pt_behind(struct fm_mm *mm);
void pt_throttle(struct fm_mm *mm);

#endif
