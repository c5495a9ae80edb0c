/* SPDX-License-Identifier: MIT */
/*
 * The account of page tables counts the installed pages in each 2 MiB of a view, so that
 * empty page tables can be given back to the kernel.
 */
#include "mm/view/page_tables.h"

#include "mm/base/bell.h"
#include "mm/base/budget.h"
#include "mm/base/common.h"
#include "mm/base/mm.h"
#include "mm/base/view.h"
#include "mm/frames/page.h"
#include "mm/frames/pool.h"
#include "mm/map/map_lock.h"
#include "os/atomic.h"
#include "os/os.h"
#include "stats/stats.h"
#include "trap/parts.h"
#include "trap/trap.h"

#include <limits.h>

#define PT_SLACK_BYTES (1ull << 20)
#define PT_THROTTLE_NS (5 * OS_NSEC_PER_MSEC)

int pt_init(struct fm_mm *mm)
{
	struct pt_table *pt = mm->pt;
	pt->free_head = PT_END;
	for (uint32_t i = 0; i < pt->entries; i++) {
		pt->range[i].next = pt->free_head;
		pt->free_head = i;
	}
	for (uint32_t i = 0; i <= pt->mask; i++)
		pt->heads[i] = PT_END;
	return 0;
}

static uint32_t *pt_head(struct pt_table *pt, uint64_t key)
{
	return &pt->heads[(key * 0x9e3779b97f4a7c15ull >> 32) & pt->mask];
}

/* Find the range with this key. Returns PT_END if the table has no such range. The
 * caller holds the page-table lock. */
static uint32_t pt_find(struct pt_table *pt, uint64_t key)
{
	uint32_t id = *pt_head(pt, key);
	while (id != PT_END && pt->range[id].key != key)
		id = pt->range[id].next;
	return id;
}

/*
 * Count more installed pages of neighbouring frames in the 2 MiB around addr. The caller
 * holds the page locks. If the table is full, the pages go uncounted, and each page
 * remembers that. Until such pages have left, no page table is given back, since the
 * table could be theirs. If the table of this range is just being given back because the
 * range was empty, the function waits. Otherwise the new pages would be discarded with
 * the table. Only here can a fault come to wait for the kernel's mmap_lock, behind the
 * background thread. A thread that others wait for may not wait here: with `may_wait`
 * false the function returns false.
 */
bool pt_get(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr, bool may_wait)
{
	struct pt_table *pt = mm->pt;
	uint64_t key = addr >> 21;
	bool fresh = false;

	os_lock(&pt->lock);
	while (pt->releasing == key) {
		uint32_t seq = atomic_get(&pt->release_seq);
		os_unlock(&pt->lock);
		if (!may_wait)
			return false;
		os_futex_wait(&pt->release_seq, seq, OS_FUTEX_ANY, OS_FOREVER);
		os_lock(&pt->lock);
	}
	uint32_t id = pt_find(pt, key);
	if (id == PT_END && pt->free_head != PT_END && key < PT_KEYS) {
		uint32_t *head = pt_head(pt, key);
		id = pt->free_head;
		atomic_set(&pt->free_head, (uint32_t)pt->range[id].next);
		pt->range[id] = (struct pt_range){.key = key, .next = *head};
		*head = id;
		pt->used++;
		atomic_add(&pt->empty, 1u);
		fresh = true;
	}
	if (id != PT_END) {
		if (!pt->range[id].count)
			atomic_sub(&pt->empty, 1u);
		pt->range[id].count += count;
	} else {
		pt->uncounted += count;
	}
	for (uint32_t i = 0; i < count; i++)
		first[i].uncounted = id == PT_END;
	os_unlock(&pt->lock);
	if (fresh) {
		mm_charge(mm, OS_PAGE);
		stats_add(mm->stats, pt_ranges, 1);
	}
	return true;
}

void pt_put(struct fm_mm *mm, struct page *first, uint32_t count, uint64_t addr)
{
	struct pt_table *pt = mm->pt;
	uint64_t key = addr >> 21;
	uint32_t uncounted = 0;

	os_lock(&pt->lock);
	uint32_t id = pt_find(pt, key);
	for (uint32_t i = 0; i < count; i++) {
		uncounted += first[i].uncounted;
		first[i].uncounted = false;
	}
	pt->uncounted -= uncounted;
	count -= uncounted;
	if (id != PT_END && count && pt->range[id].count) {
		pt->range[id].count -= count < pt->range[id].count ? count : pt->range[id].count;
		if (!pt->range[id].count)
			atomic_add(&pt->empty, 1u);
	}
	bool many = atomic_get(&pt->empty) > pt->entries / 8;
	os_unlock(&pt->lock);
	if (many || atomic_get(&mm->charged_bytes) > mm->budget_bytes)
		background_kick(mm);
}

static bool pt_unlink(struct pt_table *pt, uint32_t id)
{
	uint32_t *head = pt_head(pt, pt->range[id].key), at = *head, before = PT_END;
	for (; at != PT_END && at != id; at = pt->range[at].next)
		before = at;
	if (at == PT_END)
		return false; /* the entry is free */
	if (before == PT_END)
		*head = pt->range[id].next;
	else
		pt->range[before].next = pt->range[id].next;
	pt->range[id].next = pt->free_head;
	atomic_set(&pt->free_head, id);
	pt->used--;
	atomic_sub(&pt->empty, 1u);
	return true;
}

/* Take an empty range off the table and mark the range as being released. Returns its
 * key; 0: there is no empty range. */
static uint64_t pt_choose_empty(struct pt_table *pt)
{
	uint64_t key = 0;
	os_lock(&pt->lock);
	/* A large table is not scanned in one hold of the lock, because faults want the lock. */
	for (uint32_t i = 0;
	     i < pt->entries && i < 4096 && atomic_get(&pt->empty) && !pt->uncounted && !key; i++) {
		uint32_t id = pt->scan++ % pt->entries;
		key = pt->range[id].key;
		if (!key || pt->range[id].count || !pt_unlink(pt, id))
			key = 0;
		else
			pt->range[id].key = 0;
	}
	pt->releasing = key;
	os_unlock(&pt->lock);
	return key;
}

/* Find and pin the region at addr, if the region is this mm's. Another mm's region may
 * lie where a view has gone. */
static struct view_region *own_region(struct fm_mm *mm, uint64_t addr)
{
	struct view_region *region = region_find(addr);
	if (!region || ((struct view *)region->owner)->mm == mm)
		return region;
	region_unpin(region);
	return NULL;
}

static void discard_range(struct fm_mm *mm, uint64_t start, uint64_t end)
{
	struct view_region *region = own_region(mm, start);
	if (!region)
		region = own_region(mm, end - OS_PAGE);
	if (!region)
		return; /* the view has gone, and the page table with it */
	if (start < region->base)
		start = region->base;
	if (end > region->base + region->len)
		end = region->base + region->len;
	trap_region_discard(region, start - region->base, end - start);
	region_unpin(region);
}

/* Give back the page tables of up to `most` empty ranges. For the background thread
 * only. */
void pt_release_empty(struct fm_mm *mm, uint32_t most)
{
	struct pt_table *pt = mm->pt;
	uint64_t key;

	while (most-- && (key = pt_choose_empty(pt)) != 0) {
		discard_range(mm, key << 21, (key + 1) << 21);
		os_lock(&pt->lock);
		pt->releasing = 0;
		os_unlock(&pt->lock);
		atomic_add(&pt->release_seq, 1u);
		os_futex_wake(&pt->release_seq, INT_MAX, OS_FUTEX_ANY);
		mm_uncharge(mm, OS_PAGE);
		stats_sub(mm->stats, pt_ranges, 1);
		stats_add(mm->stats, pt_released, 1);
		for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++)
			if (unlikely(atomic_get(&mm->pool[i]->tickets.head)))
				pool_wake_waiters(mm->pool[i]);
	}
}

/* Return true if page tables are made faster than the background thread gives them back.
 * Then the budget is exceeded, or the table is full, so that more pages could not even
 * be counted. In addition some range must be empty. */
bool pt_behind(struct fm_mm *mm)
{
	uint64_t most = mm->budget_bytes + mm->budget_bytes / 32 + PT_SLACK_BYTES;
	return (atomic_get(&mm->charged_bytes) > most || atomic_get(&mm->pt->free_head) == PT_END) &&
	       atomic_get(&mm->pt->empty) > 0;
}

/* Let the background thread get on, for a moment only: the background thread may itself
 * be waiting for the kernel's mmap_lock. No lock and no page is held at call. May block. */
void pt_throttle(struct fm_mm *mm)
{
	uint64_t until = os_now_ns() + PT_THROTTLE_NS;
	might_block(mm);
	while (pt_behind(mm) && os_now_ns() < until && !atomic_get(&mm->dying)) {
		uint32_t seq = atomic_get(&mm->pt->release_seq);
		background_kick(mm);
		os_futex_wait(&mm->pt->release_seq, seq, OS_FUTEX_ANY, until);
	}
}
