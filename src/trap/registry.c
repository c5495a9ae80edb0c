/* SPDX-License-Identifier: MIT */
/*
 * The registry: which view contains an address, for any thread and in signal context.
 *
 * Owns the table of regions: sorted, replaced as a whole by writers (writer lock), read without a
 * lock. A reader announces itself in `readers`, so that a replaced table is freed only when no
 * reader can still use the table. The reader pins the region before leaving, so that a removed
 * region is unmapped only after its last fault. After fork() the child's table is empty, and
 * PROT_NONE fills the places of the parent's views. So no memory of the child lands there and is
 * read as data. The background thread removes regions: a thread that holds malloc's lock may
 * wait, in a signal handler, for the background thread.
 * May call: os, parts.c.
 */
#include "trap/registry.h"

#include "os/atomic.h"
#include "os/os.h"
#include "os/syscall.h"
#include "trap/parts_private.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

struct table {
	size_t len; /* length of the table's memory */
	uint32_t count;
	struct view_region *region[];
};

static struct table *table;
static uint32_t readers;
static struct os_lock writer;
static uint32_t initialised;
/* The places of recently removed regions, for signals that come late. Changed under the writer
 * lock. */
#define GONE 64u
static struct {
	uint64_t base, end; /* atomic */
} gone[GONE];
static uint32_t gone_next;
static uint32_t *alive; /* zeroed by the kernel in a child (WIPEONFORK) */

bool trap_is_child(void)
{
	return alive && !atomic_get(alive);
}

static void fill_in_child(void *arg, uint64_t addr, uint64_t len)
{
	(void)arg;
	mmap((void *)(uintptr_t)addr, len, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

static void in_child(void)
{
	struct table *t = table;
	for (uint32_t i = 0; t && i < t->count; i++)
		parts_each(t->region[i], 0, t->region[i]->len, fill_in_child, NULL);
	table = NULL;
	readers = 0;
	writer.word = 0;
}

int registry_init(void)
{
	os_sigmask mask = os_signals_block();
	int err = 0;
	os_lock(&writer);
	if (!initialised) {
		uint32_t *page = mmap(NULL, OS_PAGE, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED) {
			err = -ENOMEM;
		} else {
			madvise(page, OS_PAGE, MADV_WIPEONFORK);
			err = -pthread_atfork(NULL, NULL, in_child);
			initialised = !err;
			alive = page;
		}
	}
	if (!err)
		atomic_set(alive, 1u);
	os_unlock(&writer);
	os_signals_restore(mask);
	return err;
}

/* Return the index of the first region that ends after addr. */
static uint32_t place_of(const struct table *t, uint64_t addr)
{
	uint32_t low = 0, high = t ? t->count : 0;
	while (low < high) {
		uint32_t mid = (low + high) / 2;
		if (t->region[mid]->base + t->region[mid]->len <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct view_region *region_find(uint64_t addr)
{
	struct view_region *found = NULL;
	atomic_add(&readers, 1u);
	struct table *t = atomic_get(&table);
	uint32_t at = place_of(t, addr);
	if (t && at < t->count && t->region[at]->base <= addr) {
		found = t->region[at];
		region_pin(found);
	}
	atomic_sub(&readers, 1u);
	return found;
}

bool registry_overlaps(uint64_t addr, uint64_t len)
{
	atomic_add(&readers, 1u);
	struct table *t = atomic_get(&table);
	uint32_t at = place_of(t, addr);
	bool overlaps = t && at < t->count && t->region[at]->base < addr + len;
	atomic_sub(&readers, 1u);
	return overlaps;
}

uint64_t registry_free_from(uint64_t addr, uint64_t len, uint64_t align)
{
	atomic_add(&readers, 1u);
	struct table *t = atomic_get(&table);
	for (uint32_t at = place_of(t, addr); t && at < t->count && t->region[at]->base < addr + len; at++)
		addr = (t->region[at]->base + t->region[at]->len + align - 1) & ~(align - 1);
	atomic_sub(&readers, 1u);
	return addr;
}

void registry_each(const struct trap *trap, void (*fn)(const struct view_region *region))
{
	atomic_add(&readers, 1u);
	struct table *t = atomic_get(&table);
	for (uint32_t i = 0; t && i < t->count; i++)
		if (t->region[i]->trap == trap)
			fn(t->region[i]);
	atomic_sub(&readers, 1u);
}

void region_pin(struct view_region *region)
{
	atomic_add(&region->pins, 1u);
}

void region_unpin(struct view_region *region)
{
	/* The waiter polls too, so no wake-up is needed: after this statement the region may be
	 * gone. */
	atomic_sub(&region->pins, 1u);
}

/* Replace the table. The writer lock is held. Blocks until the old table has no reader left. */
static void table_replace(struct table *fresh)
{
	struct table *old = atomic_xchg(&table, fresh);
	while (atomic_get(&readers))
		os_sleep_until(os_now_ns() + 10000);
	if (old)
		munmap(old, old->len);
}

static struct table *table_copy(uint32_t count)
{
	size_t len = sizeof(struct table) + count * sizeof(struct view_region *);
	struct table *t = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t == MAP_FAILED)
		return NULL;
	t->len = len;
	return t;
}

int registry_add(struct view_region *region)
{
	os_sigmask mask = os_signals_block();
	os_lock(&writer);
	uint32_t count = table ? table->count : 0, at = place_of(table, region->base);
	bool taken = at < count && table->region[at]->base < region->base + region->len;
	struct table *fresh = taken ? NULL : table_copy(count + 1);
	if (fresh) {
		fresh->count = count + 1;
		fresh->region[at] = region;
		if (table) {
			memcpy(fresh->region, table->region, at * sizeof(region));
			memcpy(fresh->region + at + 1, table->region + at, (count - at) * sizeof(region));
		}
		table_replace(fresh);
	}
	os_unlock(&writer);
	os_signals_restore(mask);
	return fresh ? 0 : taken ? -EEXIST : -ENOMEM;
}

/* Take away all access to [addr, addr+len) of a region, except to the part that was handed back. */
static void take_access(void *arg, uint64_t addr, uint64_t len)
{
	const struct view_region *region = arg;
	uint64_t end = addr + len, from = atomic_get(&region->released_start),
		 to = atomic_get(&region->released_end);

	if (from >= to || from >= end || to <= addr)
		from = to = end;
	if (addr < from)
		os_syscall3(SYS_mprotect, addr, from - addr, PROT_NONE);
	if (to < end)
		os_syscall3(SYS_mprotect, to, end - to, PROT_NONE);
}

void registry_close_all(const struct trap *trap)
{
	atomic_add(&readers, 1u);
	struct table *t = atomic_get(&table);
	for (uint32_t i = 0; t && i < t->count; i++)
		if (t->region[i]->trap == trap)
			parts_each(t->region[i], 0, t->region[i]->len, take_access, t->region[i]);
	atomic_sub(&readers, 1u);
}

static void remember(const struct view_region *region)
{
	atomic_set(&gone[gone_next].end, 0ull);
	atomic_set(&gone[gone_next].base, region->base);
	atomic_set(&gone[gone_next].end, region->base + region->len);
	gone_next = (gone_next + 1) % GONE;
}

bool registry_was_here(uint64_t addr)
{
	for (uint32_t i = 0; i < GONE; i++)
		if (addr < atomic_get(&gone[i].end) && addr >= atomic_get(&gone[i].base))
			return true;
	return false;
}

void registry_remove(struct view_region *region)
{
	os_sigmask mask = os_signals_block();
	os_lock(&writer);
	uint32_t count = table ? table->count : 0, at = 0;
	remember(region);
	while (at < count && table->region[at] != region)
		at++;
	/* Without memory for a smaller table, the present table is changed in place while no
	 * reader uses the table. */
	struct table *fresh = at < count && count > 1 ? table_copy(count - 1) : NULL;
	if (fresh) {
		fresh->count = count - 1;
		memcpy(fresh->region, table->region, at * sizeof(region));
		memcpy(fresh->region + at, table->region + at + 1, (count - at - 1) * sizeof(region));
	}
	if (fresh || (at < count && count == 1)) {
		table_replace(fresh);
	} else if (at < count) {
		struct table *old = atomic_xchg(&table, NULL);
		while (atomic_get(&readers))
			os_sleep_until(os_now_ns() + 10000);
		memmove(old->region + at, old->region + at + 1, (count - at - 1) * sizeof(region));
		old->count--;
		atomic_set(&table, old);
	}
	os_unlock(&writer);
	os_signals_restore(mask);
}
