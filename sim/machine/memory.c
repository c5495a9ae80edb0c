/* SPDX-License-Identifier: MIT */
/*
 * The library's allocations. They come from one piece of address space at a fixed address. So code
 * that hashes an address does the same in every process. Some allocations are refused.
 */
#include "machine/memory.h"

#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define REFUSED_MAX 3u

static char *arena;
static uint64_t arena_used;

static uint32_t refused; /* number in this run */

void kernel_init(void)
{
	arena = mmap((void *)ARENA, ARENA_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (arena != (char *)ARENA) {
		fprintf(stderr,
			"filemap-sim: other memory occupies the addresses from %#llx on; runs cannot "
			"be repeated\n",
			ARENA);
		exit(77);
	}
}

uint64_t memory_reset(void)
{
	uint64_t used = arena_used;
	arena_used = 0;
	refused = 0;
	sim.allocated = 0;
	return used;
}

void *memory_take(size_t len, size_t align)
{
	uint64_t at = (arena_used + align - 1) & ~(uint64_t)(align - 1);
	if (at + len > ARENA_BYTES)
		sim_fail("the simulator's own memory is used up");
	arena_used = at + len;
	return arena + at;
}

/* Refuse an allocation now and then, at most REFUSED_MAX times in a run. Otherwise the program
 * would never begin. */
bool kernel_refuses(void)
{
	if (refused >= REFUSED_MAX || !sim_chance(sim.opt.meta_256))
		return false;
	refused++;
	mark(meta_refused);
	event("an allocation is refused", 0, 0, 0, 0);
	return true;
}

void *os_meta_alloc(size_t len)
{
	if (kernel_refuses())
		return NULL;
	void *mem = memory_take(len, 64);
	memset(mem, 0, len);
	sim.allocated += len;
	return mem;
}

/* Freed memory is never used again, so a late access finds nonsense. */
void os_meta_free(void *mem, size_t len)
{
	if (!mem)
		return;
	memset(mem, 0xdb, len);
	sim.allocated -= len;
}

void *sim_calloc(size_t n, size_t size)
{
	uint64_t *mem = os_meta_alloc(n * size + 64);
	if (!mem)
		return NULL;
	mem[0] = n * size + 64;
	return mem + 8;
}

void sim_free(void *mem)
{
	if (mem)
		os_meta_free((uint64_t *)mem - 8, ((uint64_t *)mem)[-8]);
}

int stats_page_create(const char *trap, const char *install, struct stats_page **ret_page,
		      int *ret_fd)
{
	(void)trap;
	(void)install;
	*ret_page = os_meta_alloc(sizeof(struct stats_page));
	*ret_fd = -1;
	return *ret_page ? 0 : -ENOMEM;
}

#define FM_X(name, help)                                                                       \
	sim_marks.name += page->name;
static void sum_counters(const struct stats_page *page)
{
	FM_COUNTERS(FM_X)
}
#undef FM_X

void stats_page_destroy(struct stats_page *page, int fd)
{
	(void)fd;
	if (!page)
		return;
	if (page->frames_used || page->pages_installed || page->requests || page->mappings ||
	    page->views || page->files || page->pins || page->dirty_pages ||
	    page->writeback_pages || page->unflushed_pages)
		sim_fail("gauges are not 0 at the end: frames_used %llu, pages_installed %llu, requests %llu, "
			 "mappings %llu, views %llu, files %llu, pins %llu, dirty %llu, writeback %llu, unflushed %llu",
			 (unsigned long long)page->frames_used, (unsigned long long)page->pages_installed,
			 (unsigned long long)page->requests, (unsigned long long)page->mappings,
			 (unsigned long long)page->views, (unsigned long long)page->files,
			 (unsigned long long)page->pins, (unsigned long long)page->dirty_pages,
			 (unsigned long long)page->writeback_pages, (unsigned long long)page->unflushed_pages);
	if (!sim.hold && page->lock_held_over_block)
		sim_fail("lock_held_over_block is not 0");
	sum_counters(page);
	os_meta_free(page, sizeof(*page));
}
