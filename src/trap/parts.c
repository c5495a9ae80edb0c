/* SPDX-License-Identifier: MIT */
/*
 * Regions in parts: see parts.h. Owns struct region_parts.
 * May call: os, the kernel, regions.c, registry.
 */
#include "trap/parts.h"

#include "os/fds_numbers.h"
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/parts_private.h"
#include "trap/regions.h"
#include "trap/registry.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PARTS_MOST (1u << 19)
#define LIMIT_SHARE 64u /* a region beyond this share of the limit is reserved in parts */
#define ADDRESSES_END (1ull << 48) /* the kernel's own lines of the maps lie beyond */
#define PLACE_TRIES 16

struct region_parts {
	struct os_lock lock; /* held over system calls, by trap_region_grow() only */
	uint64_t unit, count;
	bool huge;
	uint64_t open[]; /* a bit for each part; atomic */
};

/* ------------------------------------------------------------------ a place */

struct gap {
	uint64_t start, end;
};

/* Note the gap before the mapping that a line of the maps describes. */
static void gap_note(const char *line, uint64_t *last_end, struct gap *widest)
{
	char *dash;
	uint64_t start = strtoull(line, &dash, 16);
	uint64_t end = *dash == '-' ? strtoull(dash + 1, NULL, 16) : start;

	if (start < ADDRESSES_END && start > *last_end &&
	    start - *last_end > widest->end - widest->start)
		*widest = (struct gap){*last_end, start};
	*last_end = end;
}

/* Find the widest gap between the mappings of the process. Returns 0 or negative errno. */
static int gap_find(struct gap *ret_gap)
{
	char text[4096], line[64];
	uint64_t last_end = 0;
	size_t len = 0;
	long got;
	int fd = os_fd_open(AT_FDCWD, "/proc/thread-self/maps", O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	*ret_gap = (struct gap){0, 0};
	while ((got = os_syscall3(SYS_read, fd, text, sizeof(text))) > 0) {
		for (long i = 0; i < got; i++) {
			if (text[i] != '\n') {
				if (len < sizeof(line) - 1)
					line[len++] = text[i];
				continue;
			}
			line[len] = 0;
			gap_note(line, &last_end, ret_gap);
			len = 0;
		}
	}
	close(fd);
	return ret_gap->end ? 0 : -ENOMEM;
}

/* Choose addresses for a region of which nothing is reserved. They lie in the middle of the
 * widest gap, where neither the heap nor the kernel's choices for mmap() come soon. */
static int place_choose(uint64_t len, uint64_t *ret_base)
{
	struct gap gap;
	int err = gap_find(&gap);

	if (err)
		return err;
	uint64_t middle = gap.start + (gap.end - gap.start) / 2;
	uint64_t base = registry_free_from(middle & ~(uint64_t)(TRAP_TOGETHER - 1), len, TRAP_TOGETHER);
	if (base + len < base || base + len > gap.end - (gap.end - gap.start) / 8)
		return -ENOMEM;
	*ret_base = base;
	return 0;
}

/* ------------------------------------------------------------------ opening */

bool parts_are_wanted(uint64_t len)
{
	uint64_t limit = trap_address_limit();
	return limit != UINT64_MAX && len > limit / LIMIT_SHARE;
}

int parts_open(struct view_region *region, const struct view_region *as, bool huge)
{
	uint64_t unit = TRAP_TOGETHER, count;

	while ((as->len + unit - 1) / unit > PARTS_MOST)
		unit *= 2;
	count = (as->len + unit - 1) / unit;
	struct region_parts *parts = calloc(1, sizeof(*parts) + (count + 63) / 64 * sizeof(uint64_t));
	if (!parts)
		return -ENOMEM;
	parts->unit = unit;
	parts->count = count;
	parts->huge = huge;
	int err = -EEXIST;
	for (int tries = 0; err == -EEXIST && tries < PLACE_TRIES; tries++) {
		*region = *as;
		region->parts = parts;
		err = place_choose(as->len, &region->base);
		if (!err)
			err = registry_add(region);
	}
	if (err) {
		free(parts);
		*region = (struct view_region){.opened = false};
		return err == -EEXIST ? -ENOMEM : err;
	}
	return 0;
}

void parts_close(struct view_region *region)
{
	free(region->parts);
	region->parts = NULL;
}

void parts_huge(struct view_region *region)
{
	if (region->parts)
		atomic_set(&region->parts->huge, true);
}

static bool part_is_open(const struct region_parts *parts, uint64_t part)
{
	return atomic_get(&parts->open[part / 64]) >> (part % 64) & 1;
}

/* Return the end of the run of parts from `part` on, before `end`, that are all open or all
 * not. */
static uint64_t run_end(const struct region_parts *parts, uint64_t part, uint64_t end)
{
	uint64_t at = part + 1;
	while (at < end && part_is_open(parts, at) == part_is_open(parts, part))
		at++;
	return at;
}

static uint64_t parts_end(const struct view_region *region, uint64_t end_offset)
{
	const struct region_parts *parts = region->parts;
	uint64_t end = (end_offset + parts->unit - 1) / parts->unit;
	return end < parts->count ? end : parts->count;
}

void parts_each(const struct view_region *region, uint64_t offset, uint64_t len, parts_fn fn,
		void *arg)
{
	const struct region_parts *parts = region->parts;

	if (!parts) {
		fn(arg, region->base + offset, len);
		return;
	}
	uint64_t end = parts_end(region, offset + len);
	for (uint64_t part = offset / parts->unit, next; part < end; part = next) {
		next = run_end(parts, part, end);
		uint64_t from = part * parts->unit, to = next * parts->unit;
		from = from > offset ? from : offset;
		to = to < offset + len ? to : offset + len;
		if (part_is_open(parts, part) && from < to)
			fn(arg, region->base + from, to - from);
	}
}

/* Reserve and open the parts [part, end), none of which is open. */
static int run_open(struct view_region *region, uint64_t part, uint64_t end)
{
	struct region_parts *parts = region->parts;
	uint64_t from = part * parts->unit, to = end * parts->unit;
	to = to < region->len ? to : region->len;
	int err = region_reserve_at(region->base + from, to - from, atomic_get(&parts->huge));

	if (err)
		return err;
	err = region_serve(region->trap, (char *)(uintptr_t)(region->base + from), to - from);
	if (err) {
		munmap((void *)(uintptr_t)(region->base + from), to - from);
		return err;
	}
	for (; part < end; part++) {
		uint64_t *word = &parts->open[part / 64];
		atomic_set(word, *word | 1ull << part % 64);
	}
	return 0;
}

int trap_region_grow(struct view_region *region, uint64_t offset, uint64_t len)
{
	struct region_parts *parts = region->parts;
	int err = 0;

	if (!parts)
		return 0;
	uint64_t end = parts_end(region, offset + len);
	os_sigmask mask = os_signals_block();
	os_lock(&parts->lock);
	for (uint64_t part = offset / parts->unit, next; part < end && !err; part = next) {
		next = run_end(parts, part, end);
		if (!part_is_open(parts, part))
			err = run_open(region, part, next);
	}
	os_unlock(&parts->lock);
	os_signals_restore(mask);
	return err;
}

static void discard_ours(uint64_t addr, uint64_t len)
{
	trap_discard(NULL, addr, len);
}

static void discard_piece(void *region, uint64_t addr, uint64_t len)
{
	region_each_ours(region, addr, addr + len, discard_ours);
}

void trap_region_discard(struct view_region *region, uint64_t offset, uint64_t len)
{
	parts_each(region, offset, len, discard_piece, region);
}
