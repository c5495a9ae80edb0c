/* SPDX-License-Identifier: MIT */
/* The lists of a pool that its pages are on. The pool lock protects them. */
#include "mm/frames/lists.h"

#include "mm/base/common.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "os/os.h"

uint32_t page_id(const struct frame_pool *pool, const struct page *page)
{
	return (uint32_t)(page - pool->pages);
}

void queue_unlink(struct frame_pool *pool, struct page *page)
{
	struct page_queue *queue = &pool->queue[page->list];
	if (page->list == LIST_NONE)
		return;
	if (page->lru_prev == NONE)
		queue->head = page->lru_next;
	else
		pool->pages[page->lru_prev].lru_next = page->lru_next;
	if (page->lru_next == NONE)
		queue->tail = page->lru_prev;
	else
		pool->pages[page->lru_next].lru_prev = page->lru_prev;
	__atomic_store_n(&queue->count, queue->count - 1, __ATOMIC_RELAXED);
	page->list = LIST_NONE;
}

void queue_append(struct frame_pool *pool, struct page *page, enum page_list list)
{
	struct page_queue *queue = &pool->queue[list];
	mm_assert(page->list == LIST_NONE);
	page->list = (uint8_t)list;
	if (list == LIST_NONE)
		return;
	page->lru_next = NONE;
	page->lru_prev = queue->tail;
	if (queue->tail == NONE)
		queue->head = page_id(pool, page);
	else
		pool->pages[queue->tail].lru_next = page_id(pool, page);
	queue->tail = page_id(pool, page);
	__atomic_store_n(&queue->count, queue->count + 1, __ATOMIC_RELAXED);
}

/* Move `count` pages whose frames are neighbours to the end of a list. Takes the pool lock. */
void lru_set(struct frame_pool *pool, struct page *first, uint32_t count, enum page_list list)
{
	os_lock(&pool->lock);
	for (struct page *page = first; page < first + count; page++) {
		queue_unlink(pool, page);
		queue_append(pool, page, list);
	}
	os_unlock(&pool->lock);
}

/* Move a page to the end of list `to` if the page is on list `from`. Takes the pool lock. */
void lru_move(struct frame_pool *pool, struct page *page, enum page_list from, enum page_list to)
{
	os_lock(&pool->lock);
	if (page->list == from) {
		queue_unlink(pool, page);
		queue_append(pool, page, to);
	}
	os_unlock(&pool->lock);
}

struct page *lru_take_last(struct frame_pool *pool, enum page_list list)
{
	struct page *page = NULL;
	os_lock(&pool->lock);
	if (pool->queue[list].tail != NONE) {
		page = &pool->pages[pool->queue[list].tail];
		queue_unlink(pool, page);
	}
	os_unlock(&pool->lock);
	return page;
}

uint32_t lru_count(struct frame_pool *pool, enum page_list list)
{
	return __atomic_load_n(&pool->queue[list].count, __ATOMIC_RELAXED);
}
