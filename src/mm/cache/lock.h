/* SPDX-License-Identifier: MIT */
/* The page lock: release of the lock, and waits for the lock by sleep or by ticket. */
#ifndef FM_MM_CACHE_LOCK_H
#define FM_MM_CACHE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;
struct frame_pool;
struct page;
struct ticket;

void page_unlock(struct frame_pool *pool, struct page *page);
void page_unlock_unread(struct frame_pool *pool, struct page *page);
int page_wait(struct fm_mm *mm, struct page *page, bool killable, uint64_t until_ns);
bool page_queue_ticket(struct fm_mm *mm, struct page *page, struct ticket *ticket);
bool ticket_cancel(struct fm_mm *mm, struct frame_pool *pool, struct ticket *ticket);
bool page_set_notify(struct page *page);
void page_clear_notify(struct page *page);
void page_fail(struct page *page, int error);
int page_wait_written(struct fm_mm *mm, struct page *page, uint64_t until_ns);

#endif
