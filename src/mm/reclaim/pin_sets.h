/* SPDX-License-Identifier: MIT */
/* Forward progress of an instruction that needs several pages at once. */
#ifndef FM_MM_RECLAIM_PIN_SETS_H
#define FM_MM_RECLAIM_PIN_SETS_H

#include <stdbool.h>
#include <stdint.h>

struct frame_pool;
struct page;
struct progress;
struct ticket;

#define MM_KEEP_PAGES 4  /* pages that one instruction can need at once */

struct pin_set {
	uint64_t since_ns;   /* time of the end of the owner's last fault; atomic */
	uint32_t generation; /* odd: the pin set is taken; atomic */
	uint32_t count;
	uint32_t page[MM_KEEP_PAGES];
	uint32_t busy; /* a thread uses or empties the pin set; atomic */
};

int progress_open(struct frame_pool *pool);
void progress_close(struct frame_pool *pool);
bool progress_begin(struct progress *progress, struct frame_pool *pool, uint64_t instruction,
		    struct ticket *ticket);
void progress_tick(struct frame_pool *pool);
bool progress_keep(struct progress *progress, struct frame_pool *pool, struct page *page);
void progress_fail(struct progress *progress, struct frame_pool *pool);
void progress_drop_old(struct frame_pool *pool, uint64_t now_ns);
void progress_drop_all(struct frame_pool *pool);

#endif
