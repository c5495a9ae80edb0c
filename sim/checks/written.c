/* SPDX-License-Identifier: MIT */
/*
 * The history of what programs write to objects. For each sector of a page the history has the
 * values of the sector, and the steps between which the sector may have had each value. The
 * history also has the sector's bytes in the store: the value that reads see, the values that a
 * crash may leave, and the rank that a sync has promised.
 *
 * A value's rank is its place in its sector's history: the larger, the newer. The checks:
 *  - A program reads a value that its sector may have at that moment: the newest value, or zero
 *    where the sector is being truncated or punched.
 *  - A write takes the bytes that the page had at one moment between the start and the end of
 *    the write.
 *  - A write reaches no further than the object's end.
 *  - A crash leaves no sector older than a sync has acknowledged. A crash keeps the durable bytes,
 *    or any bytes written since. So the checkers do not crash the store here and there. Instead
 *    they look at the worst case at each step that changes what a crash could leave.
 *  - When all has been written, the store has the newest value of each sector.
 */
#include "sim.h"

#define VALUES 48u
#define PENDING 12u
#define NOT_YET UINT64_MAX

struct value {
	uint64_t tag, from, until; /* steps; NOT_YET: the sector may still have the value */
};

struct sector {
	struct value value[VALUES];
	uint32_t count, base;  /* base: number of older values that are forgotten */
	uint32_t zeroing;      /* calls under way that make the sector zero */
	bool written_in;       /* the sector was written to since the first such call */
	uint64_t stored, durable;
	struct {
		uint64_t tag;
		/* the number of the write, and its place among the ended writes; 0: still under
		 * way */
		uint32_t flight, ended;
	} pending[PENDING];
	uint32_t pendings;
	uint32_t acked; /* the rank that a sync has promised */
};

static struct sector sectors[SIM_FILES][SIM_PAGES][SIM_TAGS];
static uint64_t numbers; /* values written in this run */

/* ------------------------------------------------------------------ histories */

static struct sector *sector_of(const struct sim_store *s, uint32_t n, uint32_t i)
{
	return &sectors[s->id][n][i];
}

static void push(struct sector *sec, uint64_t tag)
{
	if (sec->count == VALUES) {
		uint32_t half = VALUES / 2;
		memmove(sec->value, sec->value + half, (VALUES - half) * sizeof(*sec->value));
		sec->count -= half;
		sec->base += half;
	}
	sec->value[sec->count++] = (struct value){tag, sim.step, NOT_YET};
}

/* End all present values of a sector, except the value `except`. */
static void over(struct sector *sec, const struct value *except)
{
	for (uint32_t i = 0; i < sec->count; i++)
		if (&sec->value[i] != except && sec->value[i].until == NOT_YET)
			sec->value[i].until = sim.step;
}

/* Return a value's rank, the newest of several. Returns -1 if the sector never had the value. */
static int64_t rank_of(const struct sector *sec, uint64_t tag)
{
	for (uint32_t i = sec->count; i-- > 0;)
		if (sec->value[i].tag == tag)
			return sec->base + i;
	return sec->base ? 0 : -1;
}

/* Return the rank of the oldest value that the sector may have now. */
static uint32_t oldest_now(const struct sector *sec)
{
	uint32_t i = 0;
	while (i + 1 < sec->count && sec->value[i].until != NOT_YET)
		i++;
	return sec->base + i;
}

void written_reset(void)
{
	numbers = 0;
}

void written_open(struct sim_store *s)
{
	for (uint32_t n = 0; n < SIM_PAGES; n++)
		for (uint32_t i = 0; i < SIM_TAGS; i++) {
			struct sector *sec = sector_of(s, n, i);
			uint64_t index = s->base + n * s->stride;
			bool there = index * OS_PAGE + i * SIM_SECTOR < s->size[0];
			sec->count = sec->base = sec->zeroing = sec->pendings = sec->acked = 0;
			sec->stored = sec->durable = there ? store_tag(s->id, 0, index, i) : 0;
			push(sec, sec->stored);
			sec->value[0].from = 0;
		}
	s->ended = 0;
}

/* The program writes to a sector. Returns the new value. */
uint64_t written_new(struct sim_store *s, uint32_t n, uint32_t i)
{
	struct sector *sec = sector_of(s, n, i);
	uint64_t tag = 0xf2ull << 56 | (uint64_t)s->id << 52 | (uint64_t)n << 44 |
		       (uint64_t)i << 40 | ++numbers;
	uint64_t at = (s->base + n * s->stride) * OS_PAGE + i * SIM_SECTOR;
	over(sec, NULL);
	push(sec, tag);
	sec->written_in = true;
	if (sec->zeroing || at >= s->size[0]) /* the value may be lost at once */
		push(sec, 0);
	event("writes sector %llu of page %llu of object %llu: number %llu", i,
	      s->base + n * s->stride, s->id, numbers);
	return tag;
}

/* A call begins that makes sectors [from, to) zero. Sectors count from the object's first page. */
void written_zeroing(struct sim_store *s, uint64_t from, uint64_t to)
{
	for (uint64_t at = from; at < to && at < SIM_PAGES * SIM_TAGS; at++) {
		struct sector *sec = sector_of(s, (uint32_t)(at / SIM_TAGS), at % SIM_TAGS);
		if (!sec->zeroing++)
			sec->written_in = false;
		push(sec, 0);
	}
}

void written_zeroed(struct sim_store *s, uint64_t from, uint64_t to, bool well)
{
	for (uint64_t at = from; at < to && at < SIM_PAGES * SIM_TAGS; at++) {
		struct sector *sec = sector_of(s, (uint32_t)(at / SIM_TAGS), at % SIM_TAGS);
		sec->zeroing--;
		if (well && !sec->zeroing && !sec->written_in)
			over(sec, &sec->value[sec->count - 1]);
	}
}

/* The program has thrown away a page's bytes. The page may show any value that the store had. */
void written_lost(struct sim_store *s, uint32_t n)
{
	s->lost[n] = true;
}

/* ------------------------------------------------------------------ what a program sees */

static void check_sector(struct sim_store *s, uint64_t index, uint32_t n, uint32_t i, uint64_t tag)
{
	struct sector *sec = sector_of(s, n, i);
	for (uint32_t v = sec->count; v-- > 0;)
		if (sec->value[v].tag == tag && (sec->value[v].until == NOT_YET || s->lost[n])) {
			if (!sec->zeroing && !s->lost[n] && index * OS_PAGE + i * SIM_SECTOR < s->size[0])
				over(sec, &sec->value[v]);
			return;
		}
	int64_t rank = rank_of(sec, tag);
	bool ragged = s->ragged == n + 1 && index * OS_PAGE + i * SIM_SECTOR >= s->size[0];
	if ((s->lost[n] || ragged) && rank >= 0)
		return;
	if (rank < 0)
		sim_fail("page %llu of object %u shows %#llx in sector %u, which never had this value",
			 (unsigned long long)index, s->id, (unsigned long long)tag, i);
	sim_fail("page %llu of object %u shows %#llx in sector %u, although %u newer writes have "
		 "replaced this value: the newest is %#llx",
		 (unsigned long long)index, s->id, (unsigned long long)tag, i,
		 sec->base + sec->count - 1 - (uint32_t)rank,
		 (unsigned long long)sec->value[sec->count - 1].tag);
}

void written_check_view(struct sim_store *s, uint64_t index, const struct view_page *page)
{
	uint32_t n = (uint32_t)((index - s->base) / s->stride);
	for (uint32_t i = 0; i < SIM_TAGS; i++)
		check_sector(s, index, n, i, page->tag[i]);
}

/* ------------------------------------------------------------------ the store's side */

uint64_t written_stored(const struct sim_store *s, uint32_t n, uint32_t i)
{
	return sector_of(s, n, i)->stored;
}

/* Check the worst that a crash could leave of a sector. */
static void check_crash(const struct sim_store *s, uint32_t n, uint32_t i)
{
	const struct sector *sec = sector_of(s, n, i);
	int64_t worst = rank_of(sec, sec->durable);
	uint64_t tag = sec->durable;
	for (uint32_t p = 0; p < sec->pendings; p++)
		if (rank_of(sec, sec->pending[p].tag) < worst) {
			worst = rank_of(sec, sec->pending[p].tag);
			tag = sec->pending[p].tag;
		}
	if (worst < 0)
		sim_fail("the store has %#llx in sector %u of page %u of object %u, which never had "
			 "this value",
			 (unsigned long long)tag, i, n, s->id);
	if (worst < sec->acked && !s->lost[n])
		sim_fail("a crash would leave %#llx in sector %u of page %u of object %u, of rank "
			 "%lld, but a sync has acknowledged rank %u",
			 (unsigned long long)tag, i, n, s->id, (long long)worst, sec->acked);
}

/* A sector reaches the store. */
void written_put(struct sim_store *s, uint32_t n, uint32_t i, uint64_t tag, uint32_t flight)
{
	struct sector *sec = sector_of(s, n, i);
	sec->stored = tag;
	if (sec->pendings == PENDING) {
		memmove(sec->pending, sec->pending + 1, (PENDING - 1) * sizeof(*sec->pending));
		sec->pendings--;
	}
	sec->pending[sec->pendings].tag = tag;
	sec->pending[sec->pendings].flight = flight;
	sec->pending[sec->pendings++].ended = 0;
	check_crash(s, n, i);
}

/* A write has ended. Flushes that begin from now on make the write durable. */
void written_ended(struct sim_store *s, uint32_t flight)
{
	s->ended++;
	for (uint32_t n = 0; n < SIM_PAGES; n++)
		for (uint32_t i = 0; i < SIM_TAGS; i++) {
			struct sector *sec = sector_of(s, n, i);
			for (uint32_t p = 0; p < sec->pendings; p++)
				if (sec->pending[p].flight == flight && !sec->pending[p].ended)
					sec->pending[p].ended = s->ended;
		}
}

/*
 * A flush of the first `covers` ended writes has ended. A failed flush may have lost these writes:
 * the store shows the bytes until a crash, and no later flush makes the bytes durable. A failed
 * flush does not lose holes or ends: a file system that loses its own records reports that from
 * then on.
 */
static void flush_sector(struct sector *sec, uint32_t covers, bool well)
{
	uint32_t kept = 0;
	bool lose = !well && sim_chance(128);
	for (uint32_t p = 0; p < sec->pendings; p++) {
		bool covered_by_it = sec->pending[p].ended && sec->pending[p].ended <= covers;
		if (covered_by_it && well)
			sec->durable = sec->pending[p].tag;
		if (!covered_by_it || !(well || (lose && sec->pending[p].tag)))
			sec->pending[kept++] = sec->pending[p];
	}
	sec->pendings = kept;
}

void written_flushed(struct sim_store *s, uint32_t covers, bool well)
{
	for (uint32_t n = 0; n < SIM_PAGES; n++)
		for (uint32_t i = 0; i < SIM_TAGS; i++) {
			flush_sector(sector_of(s, n, i), covers, well);
			check_crash(s, n, i);
		}
}

/* The device makes a hole of sectors [from, to), or the object ends at `from`. */
void written_put_zeros(struct sim_store *s, uint64_t from, uint64_t to, uint32_t flight)
{
	for (uint64_t at = from; at < to && at < SIM_PAGES * SIM_TAGS; at++)
		written_put(s, (uint32_t)(at / SIM_TAGS), at % SIM_TAGS, 0, flight);
	written_ended(s, flight);
}

/* ------------------------------------------------------------------ writes */

/* Check that the sectors of a page could have these values at one moment. A moment at which one of
 * the values began is enough to try. */
void written_check_snapshot(struct sim_store *s, uint32_t n, const uint64_t *tags, uint32_t count,
			    uint64_t begun, bool pinned)
{
	uint64_t moment[SIM_TAGS * VALUES + 1];
	uint32_t moments = 0;
	moment[moments++] = begun;
	for (uint32_t i = 0; i < count; i++) {
		struct sector *sec = sector_of(s, n, i);
		bool some = false;
		for (uint32_t v = 0; v < sec->count; v++) {
			if (sec->value[v].tag != tags[i] || sec->value[v].until < begun)
				continue;
			some = true;
			if (sec->value[v].from > begun)
				moment[moments++] = sec->value[v].from;
		}
		if (!some && !s->lost[n])
			sim_fail("a write takes %#llx from sector %u of page %u of object %u, "
				 "which did not have this value since the write began",
				 (unsigned long long)tags[i], i, n, s->id);
	}
	for (uint32_t m = 0; m < moments; m++) {
		uint32_t good = 0;
		for (uint32_t i = 0; i < count; i++) {
			struct sector *sec = sector_of(s, n, i);
			for (uint32_t v = 0; v < sec->count; v++)
				if (sec->value[v].tag == tags[i] &&
				    sec->value[v].from <= moment[m] &&
				    sec->value[v].until >= moment[m]) {
					good++;
					break;
				}
		}
		if (good == count)
			return;
	}
	if (!pinned && !s->lost[n])
		sim_fail("a write takes page %u of object %u torn: the page never had all these "
			 "values at one moment",
			 n, s->id);
}

/* ------------------------------------------------------------------ what was promised */

/* A sync begins. Fill `need` with the ranks that the sync promises if the sync succeeds, for each
 * sector of pages [first, last]. */
void written_need(struct sim_store *s, uint32_t first, uint32_t last, uint32_t (*need)[SIM_TAGS])
{
	for (uint32_t n = first; n <= last; n++)
		for (uint32_t i = 0; i < SIM_TAGS; i++)
			need[n - first][i] = oldest_now(sector_of(s, n, i));
}

/* The sync has succeeded. Beyond the end of the object nothing is promised. */
void written_acknowledged(struct sim_store *s, uint32_t first, uint32_t last,
			  uint32_t (*need)[SIM_TAGS], uint64_t size)
{
	for (uint32_t n = first; n <= last; n++)
		for (uint32_t i = 0; i < SIM_TAGS; i++) {
			struct sector *sec = sector_of(s, n, i);
			if ((s->base + n * s->stride) * OS_PAGE + i * SIM_SECTOR >= size)
				continue;
			if (need[n - first][i] > sec->acked)
				sec->acked = need[n - first][i];
			check_crash(s, n, i);
		}
}

/* Check, after all has been written, that the store has the values of `need` or newer values. */
void written_check_stored(struct sim_store *s, uint32_t (*need)[SIM_TAGS], uint64_t size)
{
	for (uint32_t n = 0; n < s->pages + 2; n++)
		for (uint32_t i = 0; i < SIM_TAGS; i++) {
			const struct sector *sec = sector_of(s, n, i);
			if ((s->base + n * s->stride) * OS_PAGE + i * SIM_SECTOR >= size || s->lost[n])
				continue;
			if (rank_of(sec, sec->stored) < need[n][i])
				sim_fail("after all writes, the store has %#llx in sector %u of page %u of "
					 "object %u, of rank %lld, but the newest rank was %u",
					 (unsigned long long)sec->stored, i, n, s->id,
					 (long long)rank_of(sec, sec->stored), need[n][i]);
		}
}
