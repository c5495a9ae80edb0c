/* SPDX-License-Identifier: MIT */
/*
 * `filemap verify` can fail. The verify workers run over a fake library whose mapping is made to
 * differ. The test covers each order, several thread counts, and runs with and without pins. The
 * workers must report the lowest offset that differs, and errors of either side. A tail past the
 * end that is not zero differs too. If nothing differs, the workers must see every byte once.
 */
#include "check.h"
#include "verify/verify.h"

#include <stdatomic.h>

#define SIZE     (5ull * 1048576 + 12345)
#define MAP_SIZE ((SIZE + 4095) & ~4095ull)

static unsigned char *map_bytes, *store_bytes;
static uint64_t plain_error_at = UINT64_MAX, guard_error_at = UINT64_MAX;
static _Atomic long pinned;
static _Atomic uint64_t pins_seen;

/* ---- the fake library: only what tools/verify/work.c calls */

int fm_file_read(fm_file *file, void *buf, size_t len, uint64_t offset, size_t *ret_len)
{
	(void)file;
	CHECK(offset + len <= SIZE);
	if (plain_error_at >= offset && plain_error_at < offset + len)
		return -EIO;
	memcpy(buf, store_bytes + offset, len);
	*ret_len = len;
	return 0;
}

int fm_guard(void (*body)(void *arg), void *arg, struct fm_error *ret_error)
{
	if (guard_error_at != UINT64_MAX) {
		*ret_error = (struct fm_error){.offset = guard_error_at, .error = -ETIMEDOUT};
		return -ETIMEDOUT;
	}
	body(arg);
	return 0;
}

int fm_pin(fm_mm *mm, const void *addr, size_t len, unsigned flags)
{
	(void)mm;
	(void)flags;
	CHECK((const unsigned char *)addr + len <= map_bytes + MAP_SIZE);
	atomic_fetch_add(&pinned, 1);
	atomic_fetch_add(&pins_seen, 1);
	return 0;
}

int fm_unpin(fm_mm *mm, const void *addr, size_t len)
{
	(void)mm;
	(void)addr;
	(void)len;
	atomic_fetch_sub(&pinned, 1);
	return 0;
}

/* ---- the tests */

static struct verify_result run(enum order_kind order, unsigned threads, uint64_t page_size,
				bool pin)
{
	const struct verify_job job = {
		.map = (const char *)map_bytes,
		.size = SIZE,
		.page_size = page_size,
		.budget_bytes = 16 * page_size,
		.order = order,
		.stride = 65536,
		.threads = threads,
		.pin = pin,
	};
	struct verify_result result = {.bytes = 0};

	pins_seen = 0;
	CHECK_OK(verify_run(&job, &result));
	CHECK_EQ(pinned, 0);
	CHECK_EQ(pins_seen > 0, pin);
	return result;
}

static void test_one(enum order_kind order, unsigned threads, uint64_t page_size, bool pin)
{
	struct verify_result result = run(order, threads, page_size, pin);
	uint64_t low = 1048576 + 65536 + 77, high = 4 * 1048576 + 5;

	CHECK(!result.differs && !result.error);
	CHECK_EQ(result.bytes, order == ORDER_STRIDED ? (SIZE + 65535) / 65536 * 4096 : SIZE);

	map_bytes[high] ^= 1;
	map_bytes[low] ^= 1;
	result = run(order, threads, page_size, pin);
	CHECK(result.differs);
	CHECK_EQ(result.differs_at, low);
	map_bytes[high] ^= 1;
	map_bytes[low] ^= 1;

	if (order != ORDER_STRIDED) {
		map_bytes[MAP_SIZE - 1] = 1;
		result = run(order, threads, page_size, pin);
		CHECK(result.differs);
		CHECK_EQ(result.differs_at, MAP_SIZE - 1);
		map_bytes[MAP_SIZE - 1] = 0;

		plain_error_at = high;
		result = run(order, threads, page_size, pin);
		CHECK_EQ(result.error, -EIO);
		CHECK(!result.error_in_mapping);
		plain_error_at = UINT64_MAX;
	}
	guard_error_at = 4096;
	result = run(order, threads, page_size, pin);
	CHECK_EQ(result.error, -ETIMEDOUT);
	CHECK_EQ(result.error_at, 4096);
	CHECK(result.error_in_mapping);
	guard_error_at = UINT64_MAX;
}

int main(void)
{
	map_bytes = calloc(1, MAP_SIZE);
	store_bytes = calloc(1, MAP_SIZE);
	CHECK(map_bytes && store_bytes);
	for (uint64_t i = 0; i < SIZE; i++)
		map_bytes[i] = store_bytes[i] = (unsigned char)(i * 2654435761u >> 13 | 1);
	for (int order = ORDER_SEQUENTIAL; order <= ORDER_STRIDED; order++) {
		test_one(order, 1, 4096, false);
		test_one(order, 16, 4096, true);
		test_one(order, 3, 2 << 20, order & 1);
	}
	free(map_bytes);
	free(store_bytes);
	return 0;
}
