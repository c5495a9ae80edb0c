/* SPDX-License-Identifier: MIT */
/*
 * memory:SIZE[?seed=N]: an object without any memory. The bytes are a fixed function of seed and
 * offset, for tests and measurements: bytes 8i to 8i+7 are, in little-endian order,
 *	splitmix64's output for the state seed + i * 0x9e3779b97f4a7c15,
 * which is mix(seed + (i + 1) * 0x9e3779b97f4a7c15). Owns a constant structure; no lock.
 * May call: io.h.
 */
#include "store.h"

#include "io/io.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct memory_store {
	struct fm_store store; /* first */
	uint64_t seed;
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

static int memory_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		       uint64_t offset, size_t *ret_done)
{
	struct memory_store *memory = (struct memory_store *)store;
	size_t done = 0;

	for (int i = 0; i < iov_count && offset + done < store->size_bytes; i++) {
		uint64_t left = store->size_bytes - offset - done;
		size_t len = iov[i].iov_len < left ? iov[i].iov_len : (size_t)left;

		memory_fill(memory->seed, offset + done, iov[i].iov_base, len);
		done += len;
	}
	*ret_done = done;
	return 0;
}

static int memory_submit_read(struct fm_store *store, struct io_engine *engine,
			      struct io_request *request)
{
	size_t done = 0;
	int error = memory_read(store, request->rest, request->rest_count,
				request->offset + request->bytes_done, &done);

	io_complete(engine, request, error, done);
	return 0;
}

static int memory_version(struct fm_store *store, struct fm_store_version *ret_version)
{
	struct memory_store *memory = (struct memory_store *)store;

	*ret_version = (struct fm_store_version){store->size_bytes, {memory->seed, 0}};
	return 0;
}

static void memory_close(struct fm_store *store)
{
	free(store);
}

static const struct fm_store_ops memory_ops = {
	.name = "memory",
	.read = memory_read,
	.submit_read = memory_submit_read,
	.version = memory_version,
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
					 "memory:…: unknown parameter '%s'; known are seed, "
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

	(void)flags;
	if (store_parse_size(spec, &size))
		return store_say(-EINVAL, error_text, error_text_len,
				 "memory:%s: bad size: write a number with K, M, G or T, such as "
				 "memory:64M",
				 spec);
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
	memory_version(&memory->store, &memory->store.opened);
	*ret_store = &memory->store;
	return 0;
}
