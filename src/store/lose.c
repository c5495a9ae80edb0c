/* SPDX-License-Identifier: MIT */
/*
 * The store that faulty: puts over its inner store while lose=1. Written bytes stay here, where
 * reads find them, until a flush passes them on. So a test can have a crash: unflushed bytes
 * are gone, or a random half of them, as after a power failure. A change of size and a punched
 * hole are passed on at once, and are not lost.
 *
 * Owns address space for the object's bytes and 1 GiB to grow into, of which only the dirty
 * pages have memory. `lock` protects the whole state and is held, with signals blocked, over
 * calls of the inner store. All operations here may block, none runs in the I/O thread (no
 * FM_STORE_SUBMIT), and the store is for tests. Lock order: this lock, then the locks of the
 * inner store. May call: os.h, the inner store.
 */
#include "store.h"

#include "os/atomic.h"
#include "os/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GROW_BYTES (1ull << 30)

struct lose_store {
	struct fm_store store; /* first */
	struct fm_store *inner;
	struct os_lock lock;
	bool is_off; /* no bytes are kept any more; later writes are passed on */
	uint64_t room; /* of bytes; a multiple of OS_PAGE */
	char *bytes;
	uint8_t *dirty;    /* for each page: the page's bytes are here */
	uint64_t from, to; /* in pages; the dirty pages lie between */
};

static os_sigmask lose_lock(struct lose_store *lose)
{
	os_sigmask mask = os_signals_block();

	os_lock(&lose->lock);
	return mask;
}

static void lose_unlock(struct lose_store *lose, os_sigmask mask)
{
	os_unlock(&lose->lock);
	os_signals_restore(mask);
}

/* ------------------------------------------------------------------ pages; all with the lock held
 */

static uint64_t page_up(uint64_t offset)
{
	return (offset + OS_PAGE - 1) / OS_PAGE;
}

static void pages_clean(struct lose_store *lose, uint64_t from, uint64_t to)
{
	from = from > lose->from ? from : lose->from;
	to = to < lose->to ? to : lose->to;
	if (from >= to)
		return;
	memset(lose->dirty + from, 0, to - from);
	(void)madvise(lose->bytes + from * OS_PAGE, (to - from) * OS_PAGE, MADV_DONTNEED);
	if (from == lose->from && to == lose->to)
		lose->from = lose->to = 0;
}

static void page_mark_dirty(struct lose_store *lose, uint64_t page)
{
	lose->dirty[page] = 1;
	if (lose->from == lose->to) {
		lose->from = page;
		lose->to = page + 1;
	} else if (page < lose->from) {
		lose->from = page;
	} else if (page >= lose->to) {
		lose->to = page + 1;
	}
}

/* Fill a page of which only a part is to be written: the rest is as the inner store has it. */
static int page_fill(struct lose_store *lose, uint64_t page)
{
	struct iovec iov = {lose->bytes + page * OS_PAGE, OS_PAGE};
	unsigned shorts;
	size_t done;

	memset(iov.iov_base, 0, OS_PAGE);
	return store_read_full(lose->inner, &iov, 1, page * OS_PAGE, &done, &shorts);
}

static int page_write(struct lose_store *lose, uint64_t offset, const char *in, size_t len)
{
	uint64_t page = offset / OS_PAGE;
	int error = len == OS_PAGE || lose->dirty[page] ? 0 : page_fill(lose, page);

	if (error)
		return error;
	memcpy(lose->bytes + offset, in, len);
	page_mark_dirty(lose, page);
	return 0;
}

static int pages_pass_on(struct lose_store *lose, uint64_t from, uint64_t to)
{
	uint64_t begin = from * OS_PAGE, size = store_reach(lose->inner);
	uint64_t end = to * OS_PAGE < size ? to * OS_PAGE : size;
	struct iovec iov = {lose->bytes + begin, begin < end ? end - begin : 0};
	size_t done;

	return store_write_full(lose->inner, &iov, 1, begin, &done);
}

/* Pass the dirty pages on: a run of dirty pages is one write. The first error ends the work and
 * is returned. */
static int dirty_pass_on(struct lose_store *lose)
{
	uint64_t page = lose->from;
	int error = 0;

	while (!error && page < lose->to) {
		uint64_t from = page;

		while (page < lose->to && lose->dirty[page])
			page++;
		if (page > from)
			error = pages_pass_on(lose, from, page);
		else
			page++;
	}
	return error;
}

/* ------------------------------------------------------------------ reading and writing */

static int lose_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	struct lose_store *lose = (struct lose_store *)store;
	os_sigmask mask = lose_lock(lose);
	size_t done = 0, left;
	int error = lose->inner->ops->read(lose->inner, iov, iov_count, offset, &done);

	left = done;
	for (int i = 0; i < iov_count && left && !error; i++)
		for (size_t at = 0; at < iov[i].iov_len && left;) {
			size_t n = OS_PAGE - offset % OS_PAGE;

			n = n < iov[i].iov_len - at ? n : iov[i].iov_len - at;
			n = n < left ? n : left;
			if (offset < lose->room && lose->dirty[offset / OS_PAGE])
				memcpy((char *)iov[i].iov_base + at, lose->bytes + offset, n);
			offset += n;
			at += n;
			left -= n;
		}
	lose_unlock(lose, mask);
	if (!error)
		*ret_done = done;
	return error;
}

/* Write into this store, with the lock held. The write is short at the end of the object, and
 * where the inner store could not be read. */
static int write_here(struct lose_store *lose, const struct iovec *iov, int iov_count,
		      uint64_t offset, size_t *ret_done)
{
	uint64_t size = store_reach(lose->inner);
	size_t done = 0;

	for (int i = 0; i < iov_count; i++)
		for (size_t at = 0; at < iov[i].iov_len && offset + done < size;) {
			size_t n = OS_PAGE - (offset + done) % OS_PAGE;
			int error;

			n = n < iov[i].iov_len - at ? n : iov[i].iov_len - at;
			n = n < size - offset - done ? n : (size_t)(size - offset - done);
			error = page_write(lose, offset + done, (char *)iov[i].iov_base + at, n);
			if (error && !done)
				return error;
			if (error)
				goto out;
			at += n;
			done += n;
		}
out:
	*ret_done = done;
	return 0;
}

static int lose_write(struct fm_store *store, const struct iovec *iov, int iov_count,
		      uint64_t offset, size_t *ret_done)
{
	struct lose_store *lose = (struct lose_store *)store;
	os_sigmask mask = lose_lock(lose);
	int error = lose->is_off ? lose->inner->ops->write(lose->inner, iov, iov_count, offset, ret_done)
				 : write_here(lose, iov, iov_count, offset, ret_done);

	lose_unlock(lose, mask);
	return error;
}

/* Flush. After a failure all pages stay here, and the next flush passes them on again: bytes
 * that the inner store took are not durable. */
static int lose_flush(struct fm_store *store)
{
	struct lose_store *lose = (struct lose_store *)store;
	os_sigmask mask = lose_lock(lose);
	int error = dirty_pass_on(lose);

	if (!error)
		error = lose->inner->ops->flush(lose->inner);
	if (!error)
		pages_clean(lose, lose->from, lose->to);
	lose_unlock(lose, mask);
	return error;
}

/* ------------------------------------------------------------------ its shape */

/* Cut the dirty pages at `size`. The pages that stay are zeros beyond the end, so that growing
 * needs no work. */
static void dirty_cut(struct lose_store *lose, uint64_t size)
{
	uint64_t last = size / OS_PAGE;

	pages_clean(lose, page_up(size), lose->to);
	if (size % OS_PAGE && last < lose->to && lose->dirty[last])
		memset(lose->bytes + size, 0, OS_PAGE - size % OS_PAGE);
}

static int lose_resize(struct fm_store *store, uint64_t size_bytes)
{
	struct lose_store *lose = (struct lose_store *)store;
	os_sigmask mask = lose_lock(lose);
	int error = -EOPNOTSUPP;

	if (size_bytes > lose->room)
		error = -EFBIG;
	else if (lose->inner->ops->resize)
		error = lose->inner->ops->resize(lose->inner, size_bytes);
	if (!error)
		dirty_cut(lose, size_bytes);
	lose_unlock(lose, mask);
	return error;
}

static int lose_punch(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct lose_store *lose = (struct lose_store *)store;
	os_sigmask mask = lose_lock(lose);
	int error = lose->inner->ops->punch ? lose->inner->ops->punch(lose->inner, offset, len)
					    : -EOPNOTSUPP;

	if (!error && offset < lose->room)
		pages_clean(lose, offset / OS_PAGE,
			    len < lose->room - offset ? (offset + len) / OS_PAGE : lose->to);
	lose_unlock(lose, mask);
	return error;
}

/* ------------------------------------------------------------------ losing */

static bool survives(uint64_t seed, uint64_t page)
{
	uint64_t z = seed + (page + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z >> 40) & 1;
}

/* Simulate a crash. Seed 1: all dirty pages are gone. Another seed: each page survives or does
 * not, at random. */
static int lose_crash(struct lose_store *lose, uint64_t seed)
{
	os_sigmask mask = lose_lock(lose);
	int error = 0, now;

	for (uint64_t page = lose->from; page < lose->to && seed != 1; page++) {
		if (!lose->dirty[page] || !survives(seed, page))
			continue;
		now = pages_pass_on(lose, page, page + 1);
		error = error ? error : now;
	}
	pages_clean(lose, lose->from, lose->to);
	now = lose->inner->ops->flush(lose->inner);
	lose_unlock(lose, mask);
	return error ? error : now;
}

/* Stop keeping written bytes and pass on the kept bytes; or start to keep bytes again. */
static int lose_switch(struct lose_store *lose, bool is_off)
{
	os_sigmask mask = lose_lock(lose);
	int error = is_off ? dirty_pass_on(lose) : 0;

	if (!error && is_off)
		pages_clean(lose, lose->from, lose->to);
	if (!error)
		lose->is_off = is_off;
	lose_unlock(lose, mask);
	return error;
}

/* Set crash=SEED or lose=0|1: faulty: has checked the values. */
static int lose_control(struct fm_store *store, const char *key, const char *value)
{
	struct lose_store *lose = (struct lose_store *)store;
	uint64_t seed;

	if (!strcmp(key, "lose"))
		return lose_switch(lose, value[0] == '0');
	if (strcmp(key, "crash"))
		return -EOPNOTSUPP;
	if (store_parse_size(value, &seed) || !seed || lose->is_off)
		return -EINVAL;
	return lose_crash(lose, seed);
}

/* ------------------------------------------------------------------ opening and closing */

static void lose_free(struct lose_store *lose)
{
	if (lose->bytes)
		munmap(lose->bytes, lose->room);
	if (lose->dirty)
		munmap(lose->dirty, lose->room / OS_PAGE);
	free(lose);
}

/* Close the store. An orderly end is no crash: bytes that a cache still has of a closed file
 * reach the file in time. */
static void lose_close(struct fm_store *store)
{
	struct lose_store *lose = (struct lose_store *)store;

	(void)lose_switch(lose, true);
	lose_free(lose);
}

static const struct fm_store_ops lose_ops = {
	.name = "lose",
	.read = lose_read,
	.write = lose_write,
	.flush = lose_flush,
	.resize = lose_resize,
	.punch = lose_punch,
	.control = lose_control,
	.close = lose_close,
};

static void *room_map(uint64_t len)
{
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

int store_lose_open(struct fm_store *inner, struct fm_store **ret_store)
{
	struct lose_store *lose = calloc(1, sizeof(*lose));

	if (!lose)
		return -ENOMEM;
	lose->room = page_up(store_size(inner)) * OS_PAGE + GROW_BYTES;
	lose->bytes = room_map(lose->room);
	lose->dirty = room_map(lose->room / OS_PAGE);
	if (!lose->bytes || !lose->dirty) {
		lose_free(lose);
		return -ENOMEM;
	}
	lose->inner = inner;
	lose->store.ops = &lose_ops;
	lose->store.caps = FM_STORE_WRITE;
	lose->store.below = inner;
	*ret_store = &lose->store;
	return 0;
}
