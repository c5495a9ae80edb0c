/* SPDX-License-Identifier: MIT */
/*
 * Stores whose bytes say what they are: the first eight of each 512 name file, version, index and place. They fail, come
 * short, are slow, and change behind the library's back: a new version, a smaller or larger size.
 * Owns struct sim_store and what a page's content may be.
 * May call: sched, trace, kernel.
 */
#include "sim.h"

#include <stdlib.h>

struct sim_store sim_store[SIM_FILES];

uint64_t store_tag(uint32_t file, uint32_t version, uint64_t index, uint32_t sector)
{
	return 0xf1ull << 56 | (uint64_t)file << 48 | (uint64_t)version << 44 | index << 3 | sector;
}

/* Which of the pages that the workload touches, two past the end among them; SIM_PAGES: none. */
static uint32_t place_of(const struct sim_store *s, uint64_t index)
{
	uint64_t n = (index - s->base) / s->stride;
	return index >= s->base && (index - s->base) % s->stride == 0 && n < s->pages + 2 ? (uint32_t)n
										     : SIM_PAGES;
}

void store_note_error(struct sim_store *s, uint64_t offset, uint64_t len)
{
	s->any_error_step = sim.step;
	/* the whole unit of the page cache gets it */
	uint64_t first = offset / s->page_size * s->page_size / OS_PAGE;
	for (uint64_t i = first; i < (offset + len + s->page_size - 1) / s->page_size * s->page_size / OS_PAGE; i++)
		if (place_of(s, i) < SIM_PAGES)
			s->error_step[place_of(s, i)] = sim.step;
}

bool store_is_bad(struct sim_store *s, uint64_t offset, uint64_t len)
{
	for (uint64_t at = offset; at < offset + len; at += OS_PAGE) {
		uint32_t n = place_of(s, at / OS_PAGE);
		if (n < SIM_PAGES && s->bad[n])
			return true;
	}
	return false;
}

int store_random_error(void)
{
	static const int errors[] = {-EIO, -EIO, -ENOSPC, -EAGAIN, -EBUSY, -EINTR, -EFAULT, -EACCES, -ENXIO,
				     -ENOMEM};
	return errors[sim_below(sizeof(errors) / sizeof(*errors))];
}

void store_change(struct sim_store *s, uint64_t size)
{
	if (s->version + 1 == sizeof(s->size) / sizeof(*s->size))
		return;
	mark(store_changed);
	s->size[s->version + 1] = size;
	s->version++;
	event("object %llu: version %llu, %llu bytes", s->id, s->version, size, 0);
}

/* ------------------------------------------------------------------ the device */

void store_write(struct sim_store *s, const struct iovec *iov, int iov_count, uint64_t offset,
		 uint64_t from, uint64_t to)
{
	uint64_t at = 0, size = s->size[s->version];
	for (int i = 0; i < iov_count; i++) {
		for (size_t in = 0; in < iov[i].iov_len; in += SIM_SECTOR, at += SIM_SECTOR) {
			uint64_t pos = offset + at, slot = (uint64_t)iov[i].iov_base + in;
			if (at < from || at >= to || pos >= size)
				continue;
			check_device_writes(slot & ~(uint64_t)(OS_PAGE - 1));
			*(uint64_t *)slot = store_tag(s->id, s->version, pos / OS_PAGE,
						      (uint32_t)(pos % OS_PAGE / SIM_SECTOR));
		}
	}
}

uint64_t store_part(const struct sim_store *s, uint64_t offset, uint64_t part)
{
	uint64_t size = s->size[s->version], rest = offset < size ? size - offset : 0;
	return part < rest ? part : rest;
}

/* In the faulting thread. The bytes come in two parts, with time between. */
static int sim_read(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
		    size_t *ret_done)
{
	struct sim_store *s = (struct sim_store *)store;
	uint64_t len = store_iov_bytes(iov, iov_count), size, part;
	check_may_block("a read");
	mark(inline_reads);
	event("reads object %llu, %llu bytes at page %llu", s->id, len, offset / OS_PAGE, 0);
	part = sim_below((uint32_t)(len / SIM_SECTOR)) * SIM_SECTOR;
	sim_sleep(1 + sim_below((uint32_t)sim.opt.io_ns));
	part = store_part(s, offset, part);
	store_write(s, iov, iov_count, offset, 0, part);
	if (part && !s->aborted)
		sim_sleep(sim_chance(sim.opt.slow_256) ? 50000000 : 1 + sim_below((uint32_t)sim.opt.io_ns));
	if (s->aborted)
		return -ECANCELED;
	if (sim_chance(sim.opt.error_256) || store_is_bad(s, offset, len)) {
		mark(inline_errors);
		store_note_error(s, offset, len);
		event("the read fails", 0, 0, 0, 0);
		return store_random_error();
	}
	size = s->size[s->version];
	if (part && sim_chance(sim.opt.short_256)) {
		*ret_done = part;
		return 0;
	}
	store_write(s, iov, iov_count, offset, part, len);
	*ret_done = offset >= size ? 0 : offset + len > size ? size - offset : len;
	event("the read ends, %llu bytes", *ret_done, 0, 0, 0);
	return 0;
}

int store_read_full(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
		    size_t *ret_done, unsigned *ret_short)
{
	struct iovec rest[IO_SEGMENTS_MAX];
	size_t done = 0, got;
	memcpy(rest, iov, (size_t)iov_count * sizeof(*iov));
	for (;;) {
		int n = 0;
		size_t skip = done;
		for (int i = 0; i < iov_count; i++) {
			size_t cut = skip < iov[i].iov_len ? skip : iov[i].iov_len;
			skip -= cut;
			if (cut < iov[i].iov_len)
				rest[n++] = (struct iovec){(char *)iov[i].iov_base + cut,
							   iov[i].iov_len - cut};
		}
		if (!n || offset + done >= atomic_get(&store->size_bytes))
			break;
		int err = store->ops->read(store, rest, n, offset + done, &got);
		if (err)
			return err;
		if (!got)
			return -EIO;
		done += got;
		if (done < store_iov_bytes(iov, iov_count) && offset + done < store->size_bytes)
			++*ret_short;
	}
	*ret_done = done;
	return 0;
}

static int sim_version(struct fm_store *store, struct fm_store_version *ret_version)
{
	struct sim_store *s = (struct sim_store *)store;
	check_may_block("a question for the version");
	sim_point();
	if (s->no_version)
		return -EOPNOTSUPP;
	*ret_version = (struct fm_store_version){.size = s->size[s->version], .version = {s->version}};
	return 0;
}

static void sim_store_abort(struct fm_store *store)
{
	struct sim_store *s = (struct sim_store *)store;
	s->aborted = true;
	io_hurry(s);
}

static void sim_close(struct fm_store *store)
{
	struct sim_store *s = (struct sim_store *)store;
	if (!s->open)
		sim_fail("a store is closed twice");
	s->open = false;
}

static const struct fm_store_ops sim_ops = {
	.name = "sim",
	.read = sim_read,
	.abort = sim_store_abort,
	.version = sim_version,
	.close = sim_close,
};

int store_open(const char *uri, char *error_text, size_t error_text_len, struct fm_store **ret_store)
{
	struct sim_store *s = &sim_store[uri[0] - '0'];
	(void)error_text;
	(void)error_text_len;
	s->open = true;
	s->store = (struct fm_store){.ops = &sim_ops, .size_bytes = s->size[0],
				     .caps = s->inline_reads ? FM_STORE_READ_INLINE : 0,
				     .opened = {.size = s->size[0]}};
	*ret_store = &s->store;
	return 0;
}

/* ------------------------------------------------------------------ what may be seen */

/* A store that can't tell its versions may mix them; but up to the size that was told at first there are no holes. */
static void check_unversioned(struct sim_store *s, uint64_t index, const struct view_page *page)
{
	for (uint32_t i = 0; i < SIM_TAGS; i++) {
		uint32_t version = page->tag[i] >> 44 & 15;
		uint64_t expected = index * OS_PAGE + i * SIM_SECTOR < s->size[0] ? store_tag(s->id, version, index, i) : 0;
		if (page->tag[i] != expected || version > s->version)
			sim_fail("page %llu of object %u, which has no versions, shows %#llx at byte %u",
				 (unsigned long long)index, s->id, (unsigned long long)page->tag[i], i * SIM_SECTOR);
	}
}

/* One version throughout, one that has been; of a snapshot, the one that was opened. */
void check_content(struct sim_store *s, uint64_t index, const struct view_page *page)
{
	uint32_t version = page->tag[0] >> 44 & 15;
	if (s->no_version) {
		check_unversioned(s, index, page);
		return;
	}
	uint64_t start = index * OS_PAGE;
	for (uint32_t i = 0; i < SIM_TAGS; i++) {
		uint64_t expected = start + i * SIM_SECTOR < s->size[version]
					    ? store_tag(s->id, version, index, i) : 0;
		if (page->tag[i] != expected || version > s->version)
			sim_fail("page %llu of object %u shows %#llx at byte %u, not %#llx: bytes that are not its own",
				 (unsigned long long)index, s->id, (unsigned long long)page->tag[i],
				 i * SIM_SECTOR, (unsigned long long)expected);
	}
	if (version && sim.mm && !sim.dying) {
		struct fm_file *file = sim.mm->files;
		while (file && file->store != &s->store)
			file = file->next;
		if (file && file->changed_policy == FM_CHANGED_ERROR)
			sim_fail("page %llu of object %u shows version %u: the snapshot was of version 0",
				 (unsigned long long)index, s->id, version);
	}
}
