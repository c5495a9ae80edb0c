/* SPDX-License-Identifier: MIT */
/*
 * memory:SIZE[?seed=N]: an object without any memory. The bytes are a fixed function of seed
 * and offset, for tests and measurements. Bytes 8i to 8i+7 are, in little-endian order,
 *
 *	splitmix64's output for the state seed + i * 0x9e3779b97f4a7c15,
 *
 * which is mix(seed + (i + 1) * 0x9e3779b97f4a7c15).
 *
 * If open for writing, the store owns address space for the object's bytes, and 1 GiB more to
 * grow into, of which only written pages take memory. The memory there is combined with the
 * pattern by XOR. Untouched memory, which is zero, is the pattern. A write of a few bytes needs
 * no copy of the bytes around them, so that writers of one page need not know of each other.
 * Where the object was grown or punched, the pattern no longer counts. `state` says for each
 * page of 4096 bytes which of the three states the page has, so that reading a page without
 * memory does not allocate memory. No lock. May call: io.h, os.h.
 */
#include "store.h"

#include "io/io.h"
#include "os/atomic.h"
#include "os/os.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GROW_BYTES (1ull << 30)

enum page_state {
	PAGE_PATTERN = 0, /* the page's memory is zero, and must not be touched */
	PAGE_MIXED = 1,   /* the page's memory is XORed with the pattern */
	PAGE_PLAIN = 2,   /* the page's memory is used as it is */
};

struct memory_store {
	struct fm_store store; /* first */
	uint64_t seed;
	/* for writing only */
	char *bytes;
	uint8_t *state; /* atomic; one for each page of `room` */
	uint64_t room;  /* bytes, a multiple of OS_PAGE */
};

static uint64_t memory_word(uint64_t seed, uint64_t index)
{
	uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return htole64(z ^ (z >> 31));
}

static void memory_fill(uint64_t seed, uint64_t offset, char *out, size_t len)
{
	while (len) {
		uint64_t word = memory_word(seed, offset / 8);
		size_t skip = offset % 8, n = 8 - skip < len ? 8 - skip : len;

		if (n == 8)
			memcpy(out, &word, 8);
		else
			memcpy(out, (char *)&word + skip, n);
		out += n;
		offset += n;
		len -= n;
	}
}

/* Compute out = in XOR pattern; `in` NULL: zeros. */
static void memory_mix(uint64_t seed, uint64_t offset, const char *in, char *out, size_t len)
{
	char pattern[256];

	while (len) {
		size_t n = len < sizeof(pattern) ? len : sizeof(pattern);

		memory_fill(seed, offset, pattern, n);
		for (size_t i = 0; i < n; i++)
			out[i] = (char)((in ? in[i] : 0) ^ pattern[i]);
		in = in ? in + n : NULL;
		out += n;
		offset += n;
		len -= n;
	}
}

static void page_read(struct memory_store *memory, uint64_t offset, char *out, size_t len)
{
	switch (atomic_get(&memory->state[offset / OS_PAGE])) {
	case PAGE_PATTERN:
		memory_fill(memory->seed, offset, out, len);
		break;
	case PAGE_MIXED:
		memory_mix(memory->seed, offset, memory->bytes + offset, out, len);
		break;
	default:
		memcpy(out, memory->bytes + offset, len);
		break;
	}
}

/* Write into a page; `in` NULL: zeros. */
static void page_write(struct memory_store *memory, uint64_t offset, const char *in, size_t len)
{
	uint8_t *state = &memory->state[offset / OS_PAGE];

	if (atomic_get(state) == PAGE_PLAIN) {
		if (in)
			memcpy(memory->bytes + offset, in, len);
		else
			memset(memory->bytes + offset, 0, len);
		return;
	}
	atomic_set(state, PAGE_MIXED); /* before the bytes are written: they are the same in both states */
	memory_mix(memory->seed, offset, in, memory->bytes + offset, len);
}

static void memory_pages(struct memory_store *memory, uint64_t offset, char *buf, size_t len,
			 bool is_write)
{
	while (len) {
		size_t n = OS_PAGE - offset % OS_PAGE;

		n = n < len ? n : len;
		if (is_write)
			page_write(memory, offset, buf, n);
		else
			page_read(memory, offset, buf, n);
		buf += n;
		offset += n;
		len -= n;
	}
}

static size_t memory_transfer(struct memory_store *memory, const struct iovec *iov, int iov_count,
			      uint64_t offset, bool is_write)
{
	uint64_t size = store_reach(&memory->store);
	size_t done = 0;

	for (int i = 0; i < iov_count && offset + done < size; i++) {
		uint64_t left = size - offset - done;
		size_t len = iov[i].iov_len < left ? iov[i].iov_len : (size_t)left;

		if (memory->bytes)
			memory_pages(memory, offset + done, iov[i].iov_base, len, is_write);
		else
			memory_fill(memory->seed, offset + done, iov[i].iov_base, len);
		done += len;
	}
	return done;
}

static int memory_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		       uint64_t offset, size_t *ret_done)
{
	*ret_done = memory_transfer((struct memory_store *)store, iov, iov_count, offset, false);
	return 0;
}

static int memory_write(struct fm_store *store, const struct iovec *iov, int iov_count,
			uint64_t offset, size_t *ret_done)
{
	struct memory_store *memory = (struct memory_store *)store;

	if (!memory->bytes)
		return -EBADF;
	*ret_done = memory_transfer(memory, iov, iov_count, offset, true);
	return 0;
}

/* Flush: no work. The bytes are kept until the store is closed, and a flush cannot keep them
 * longer. */
static int memory_flush(struct fm_store *store)
{
	(void)store;
	return 0;
}

static int memory_submit(struct fm_store *store, struct io_engine *engine,
			 struct io_request *request)
{
	uint64_t offset = request->offset + request->bytes_done;
	size_t done = 0;
	int error = 0;

	if (request->op == IO_WRITE)
		error = memory_write(store, request->rest, request->rest_count, offset, &done);
	else if (request->op == IO_READ)
		error = memory_read(store, request->rest, request->rest_count, offset, &done);
	io_complete(engine, request, error, done);
	return 0;
}

/* ------------------------------------------------------------------ its shape */

/* Make whole pages zeros and free their memory. */
static void pages_empty(struct memory_store *memory, uint64_t from, uint64_t to)
{
	if (from >= to)
		return;
	for (uint64_t page = from / OS_PAGE; page < to / OS_PAGE; page++)
		atomic_set(&memory->state[page], PAGE_PLAIN);
	(void)madvise(memory->bytes + from, to - from, MADV_DONTNEED);
}

static uint64_t page_up(uint64_t offset)
{
	return (offset + OS_PAGE - 1) & ~(uint64_t)(OS_PAGE - 1);
}

/* Resize. Only growing has to make zeros: bytes beyond the end are not read before the object
 * grows. Zeros are made from the old end on, which may lie in a page of the pattern. */
static int memory_resize(struct fm_store *store, uint64_t size_bytes)
{
	struct memory_store *memory = (struct memory_store *)store;
	uint64_t old = store_reach(store), middle = page_up(old);

	if (!memory->bytes)
		return -EBADF;
	if (size_bytes > memory->room)
		return -EFBIG;
	if (size_bytes > old) {
		if (middle > old)
			page_write(memory, old, NULL, (size_t)(middle - old));
		pages_empty(memory, middle, page_up(size_bytes));
	} else if (page_up(size_bytes) < middle) {
		(void)madvise(memory->bytes + page_up(size_bytes), middle - page_up(size_bytes), MADV_DONTNEED);
	}
	return 0;
}

/* Punch. If the last page is not whole, it has no bytes beyond the end that must stay. */
static int memory_punch(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct memory_store *memory = (struct memory_store *)store;
	uint64_t end = page_up(store_size(store));

	if (!memory->bytes)
		return -EBADF;
	if (offset % OS_PAGE || len % OS_PAGE)
		return -EINVAL;
	if (offset < end)
		pages_empty(memory, offset, len < end - offset ? offset + len : end);
	return 0;
}

/* Reserve. Memory is not promised, here as elsewhere; only address space is. */
static int memory_reserve(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct memory_store *memory = (struct memory_store *)store;

	if (!memory->bytes)
		return -EBADF;
	return offset > memory->room || len > memory->room - offset ? -EFBIG : 0;
}

static int memory_version(struct fm_store *store, struct fm_store_version *ret_version)
{
	struct memory_store *memory = (struct memory_store *)store;

	*ret_version = (struct fm_store_version){.size = store_size(store), .version = {memory->seed}};
	return 0;
}

static void *room_map(uint64_t len)
{
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		return NULL;
	(void)madvise(mem, len, MADV_NOHUGEPAGE); /* a few scattered bytes must not take 2 MiB each */
	return mem;
}

static int room_make(struct memory_store *memory)
{
	uint64_t room = page_up(memory->store.size_bytes) + GROW_BYTES;

	memory->room = room;
	memory->bytes = room_map(room);
	memory->state = room_map(room / OS_PAGE);
	return memory->bytes && memory->state ? 0 : -ENOMEM;
}

static void memory_close(struct fm_store *store)
{
	struct memory_store *memory = (struct memory_store *)store;

	if (memory->bytes)
		munmap(memory->bytes, memory->room);
	if (memory->state)
		munmap(memory->state, memory->room / OS_PAGE);
	free(memory);
}

static const struct fm_store_ops memory_ops = {
	.name = "memory",
	.read = memory_read,
	.submit_read = memory_submit,
	.version = memory_version,
	.write = memory_write,
	.submit_write = memory_submit,
	.flush = memory_flush,
	.submit_flush = memory_submit,
	.resize = memory_resize,
	.punch = memory_punch,
	.reserve = memory_reserve,
	.close = memory_close,
};

static int memory_parameters(struct memory_store *memory, const char *parameters, char *error_text,
			     size_t error_text_len)
{
	const char *cursor = parameters;
	char key[64], value[64];
	int error = 0;

	while (store_next_parameter(&cursor, key, sizeof(key), value, sizeof(value), &error)) {
		if (strcmp(key, "seed"))
			return store_say(-EINVAL, error_text, error_text_len,
					 "memory:…: unknown parameter '%s'; known parameters: seed, "
					 "deadline",
					 key);
		if (store_parse_size(value, &memory->seed))
			return store_say(-EINVAL, error_text, error_text_len,
					 "memory:…: bad seed '%s': write a number", value);
	}
	return error ? store_say(error, error_text, error_text_len, "memory:…: bad parameter '%s'",
				 cursor)
		     : 0;
}

int store_memory_open(const char *spec, unsigned flags, const char *parameters, char *error_text,
		      size_t error_text_len, struct fm_store **ret_store)
{
	struct memory_store *memory;
	uint64_t size;
	int error;

	if (store_parse_size(spec, &size))
		return store_say(-EINVAL, error_text, error_text_len,
				 "memory:%s: bad size: write a number with K, M, G or T, such as "
				 "memory:64M; the path of a file with this name is ./memory:%s",
				 spec, spec);
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		return store_say(-ENOMEM, error_text, error_text_len, "memory:%s: %s", spec,
				 strerror(ENOMEM));
	error = memory_parameters(memory, parameters, error_text, error_text_len);
	if (error) {
		free(memory);
		return error;
	}
	memory->store.ops = &memory_ops;
	memory->store.caps = FM_STORE_READ_INLINE | FM_STORE_SUBMIT;
	memory->store.size_bytes = size;
	if (flags & FM_STORE_OPEN_WRITE) {
		error = size > INT64_MAX - 2 * GROW_BYTES ? -ENOMEM : room_make(memory);
		if (error) {
			memory_close(&memory->store);
			return store_say(error, error_text, error_text_len,
					 "memory:%s: not enough address space for a writable store of this size", spec);
		}
		memory->store.caps |= FM_STORE_WRITE;
	}
	memory_version(&memory->store, &memory->store.opened);
	*ret_store = &memory->store;
	return 0;
}
