/* SPDX-License-Identifier: MIT */
/*
 * The address space of views and of frames' memory: reserved, opened for the trap, given back.
 * May call: os, the kernel, uffd.c, registry, parts.c.
 */
#include "trap/regions.h"

#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/parts.h"
#include "trap/parts_private.h"
#include "trap/registry.h"
#include "trap/release.h"
#include "trap/uffd.h"
#include "trap/uffd_abi.h"

#include <sys/mman.h>
#include <sys/resource.h>

/* ------------------------------------------------------------------ opening */

/* Find address space that lies in no view. The program may have unmapped a part of a view, and
 * the kernel may put the next mapping there: the mapping would be taken for the view's own. */
static char *find_place(uint64_t len)
{
	char *mem = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED || !registry_overlaps((uint64_t)(uintptr_t)mem, len))
		return mem;
	char *elsewhere = find_place(len); /* while this place is taken */
	munmap(mem, len);
	return elsewhere;
}

/* Keep reserved memory apart from fork(), core dumps, merging, and mlockall(). Merging drops the
 * write protection of merged pages. */
static void advise(char *mem, uint64_t len, bool huge)
{
	madvise(mem, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	madvise(mem, len, MADV_DONTFORK);
	madvise(mem, len, MADV_DONTDUMP);
	madvise(mem, len, MADV_UNMERGEABLE);
	munlock(mem, len);
}

/* Reserve address space without access, owned by no view. mlockall(MCL_FUTURE) would fill any
 * other mapping at once. */
int region_reserve(uint64_t len, uint64_t align, bool huge, char **ret_mem)
{
	uint64_t whole = len + align;
	if (whole < len)
		return -ENOMEM;
	char *mem = find_place(whole);
	if (mem == MAP_FAILED)
		return -errno;
	char *start = (char *)(((uintptr_t)mem + align - 1) & ~(uintptr_t)(align - 1));
	if (start > mem)
		munmap(mem, (size_t)(start - mem));
	if (start + len < mem + whole)
		munmap(start + len, (size_t)(mem + whole - start - len));
	advise(start, len, huge);
	*ret_mem = start;
	return 0;
}

int region_reserve_at(uint64_t addr, uint64_t len, bool huge)
{
	char *want = (char *)(uintptr_t)addr;
	char *mem = mmap(want, len, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (mem == MAP_FAILED)
		return -errno;
	if (mem != want) { /* Linux before 4.17 */
		munmap(mem, len);
		return -EEXIST;
	}
	advise(mem, len, huge);
	return 0;
}

/* ------------------------------------------------------------------ address space */

/*
 * Give a region its anon_vma before the region is used. The kernel serves MOVE and COPY under its
 * per-region lock only if the region has an anon_vma. Otherwise the first call takes mmap_lock to
 * make the anon_vma, behind another thread's stalled mmap().
 */
static int make_anon_vma(struct trap *trap, char *mem, uint64_t len)
{
	int err = trap_fill(trap, (uint64_t)(uintptr_t)mem, OS_PAGE);
	if (!err)
		/* Discard the whole range, so that its page table is freed too: otherwise the
		 * first huge page would be split because of this table. */
		err = trap_discard(trap, (uint64_t)(uintptr_t)mem, len < UFFD_CHUNK ? len : UFFD_CHUNK);
	return err;
}

int region_serve(struct trap *trap, char *mem, uint64_t len)
{
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING;
	if (trap->has_wp)
		mode |= UFFDIO_REGISTER_MODE_WP;
	int err = uffd_register(trap, mem, len, mode);
	/* The region is protected page by page if the kernel can: then a stray write is a fault
	 * of the library, told like all other faults. Otherwise, or if no more memory may be
	 * writable (overcommit_memory=2), the whole region is read-only, and the kernel tells the
	 * write. */
	int prot = trap->has_wp ? PROT_READ | PROT_WRITE : PROT_READ;
	if (!err && mprotect(mem, len, prot) < 0)
		err = trap->has_move || mprotect(mem, len, PROT_READ) < 0 ? -errno : 0;
	return err ? err : make_anon_vma(trap, mem, len);
}

/* Reserve and open all of a region at once. */
static int open_whole(struct view_region *region, const struct view_region *as, uint64_t align,
		      bool huge)
{
	char *mem;
	int err = region_reserve(as->len, align, huge, &mem);
	if (err)
		return err;
	err = region_serve(as->trap, mem, as->len);
	if (!err) {
		*region = *as;
		region->base = (uint64_t)(uintptr_t)mem;
		err = registry_add(region);
	}
	if (err) {
		munmap(mem, as->len);
		region->opened = false;
	}
	return err == -EEXIST ? -ENOMEM : err;
}

int trap_region_open(struct trap *trap, struct view_region *region, uint64_t len, uint64_t align,
		     bool huge, void *owner)
{
	struct view_region as = {.len = len, .owner = owner, .trap = trap, .opened = true};
	bool large = huge && trap->has_move;
	int err = parts_are_wanted(len) ? -ENOMEM : open_whole(region, &as, align, large);
	if (err == -ENOMEM && align <= TRAP_TOGETHER)
		err = parts_open(region, &as, large);
	return err;
}

uint64_t trap_address_limit(void)
{
	struct rlimit64 space = {RLIM64_INFINITY, 0}, data = {RLIM64_INFINITY, 0};
	os_syscall4(SYS_prlimit64, 0, RLIMIT_AS, NULL, &space);
	os_syscall4(SYS_prlimit64, 0, RLIMIT_DATA, NULL, &data);
	return space.rlim_cur < data.rlim_cur ? space.rlim_cur
					      : data.rlim_cur; /* no limit: all ones */
}

static void unmap_piece(uint64_t addr, uint64_t len)
{
	munmap((void *)(uintptr_t)addr, len);
}

void region_release(struct view_region *region, uint64_t start, uint64_t end)
{
	atomic_set(&region->released_start, start);
	atomic_set(&region->released_end, end);
}

bool region_is_released(const struct view_region *region, uint64_t addr)
{
	return addr < atomic_get(&region->released_end) &&
	       addr >= atomic_get(&region->released_start);
}

void region_each_ours(struct view_region *region, uint64_t start, uint64_t end,
		      uffd_piece_fn fn)
{
	uint64_t from = atomic_get(&region->released_start), to = atomic_get(&region->released_end);

	if (from >= to || from >= end || to <= start) {
		uffd_each_ours(region->trap, start, end - start, fn);
		return;
	}
	if (start < from)
		uffd_each_ours(region->trap, start, from - start, fn);
	if (end > to)
		uffd_each_ours(region->trap, to, end - to, fn);
}

static void unmap_ours(void *region, uint64_t addr, uint64_t len)
{
	region_each_ours(region, addr, addr + len, unmap_piece);
}

bool trap_region_close(struct view_region *region)
{
	registry_remove(region);
	if (atomic_get(&region->pins))
		return false;
	parts_each(region, 0, region->len, unmap_ours, region);
	parts_close(region);
	region->opened = false;
	return true;
}

/* Put [start, end) in the place of the range that starts at `old`; 0 is an empty place. */
static void slots_note(struct trap *trap, uint64_t old, uint64_t start, uint64_t end)
{
	for (int i = 0; i < TRAP_SLOTS_MAX; i++) {
		uint64_t here = old;
		if (atomic_cas(&trap->slots[i].start, &here, start)) {
			atomic_set(&trap->slots[i].end, end);
			return;
		}
	}
}

bool trap_in_slots(struct trap *trap, uint64_t addr)
{
	bool inside = false;
	for (int i = 0; i < TRAP_SLOTS_MAX; i++) {
		uint64_t start = atomic_get(&trap->slots[i].start);
		inside |= start && addr >= start && addr < atomic_get(&trap->slots[i].end);
	}
	return inside;
}

int trap_slots_open(struct trap *trap, uint64_t len, uint64_t align, bool huge, void **ret_mem,
		    bool *ret_registered)
{
	char *mem;
	int err = region_reserve(len, align, huge, &mem);
	if (err)
		return err;
	if (mprotect(mem, len, PROT_READ | PROT_WRITE) < 0)
		err = -errno;
	if (!err && trap->has_move && !huge)
		err = uffd_register(trap, mem, len, UFFDIO_REGISTER_MODE_MISSING);
	if (!err && trap->has_move && !huge)
		err = make_anon_vma(trap, mem, len);
	if (err) {
		munmap(mem, len);
		return err;
	}
	slots_note(trap, 0, (uint64_t)(uintptr_t)mem, (uint64_t)(uintptr_t)mem + len);
	*ret_mem = mem;
	*ret_registered = trap->has_move;
	return 0;
}

int trap_slots_populate(struct trap *trap, void *mem, uint64_t len)
{
	if (madvise(mem, len, MADV_POPULATE_WRITE) < 0) {
		if (errno != EINVAL)
			return -errno;
		for (uint64_t at = 0; at < len; at += OS_PAGE)
			((volatile char *)mem)[at] = 0;
	}
	return trap->has_move ? uffd_register(trap, mem, len, UFFDIO_REGISTER_MODE_MISSING) : 0;
}

void trap_slots_close(struct trap *trap, void *mem, uint64_t len)
{
	slots_note(trap, (uint64_t)(uintptr_t)mem, 0, 0);
	munmap(mem, len);
}
