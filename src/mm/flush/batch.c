/* SPDX-License-Identifier: MIT */
/* Batches of dirty pages, in the order in which the pages are written. */
#include "mm/flush/batch.h"

#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/flush/request.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "os/atomic.h"

/* Compare two pages by file, then by index. The words read here may be stale: the writer looks at
 * each page again under the page lock. */
static bool comes_before(const struct frame_pool *pool, uint32_t a, uint32_t b)
{
	const struct page *x = &pool->pages[a], *y = &pool->pages[b];
	const struct fm_file *f = page_word(x, file), *g = page_word(y, file);
	return f != g ? f < g : page_word(x, index) < page_word(y, index);
}

/* One step of a heap sort, which needs no extra memory and no recursion. */
static void batch_sift(const struct frame_pool *pool, uint32_t *id, uint32_t at, uint32_t count)
{
	for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
		if (child + 1 < count && comes_before(pool, id[child], id[child + 1]))
			child++;
		if (!comes_before(pool, id[at], id[child]))
			return;
		uint32_t swap = id[at];
		id[at] = id[child];
		id[child] = swap;
	}
}

static void batch_sort(const struct frame_pool *pool, struct batch *batch)
{
	for (uint32_t i = batch->count / 2; i-- > 0;)
		batch_sift(pool, batch->id, i, batch->count);
	for (uint32_t n = batch->count; n > 1; n--) {
		uint32_t swap = batch->id[0];
		batch->id[0] = batch->id[n - 1];
		batch->id[n - 1] = swap;
		batch_sift(pool, batch->id, 0, n - 1);
	}
}

bool batch_is_in(const struct page *page, const struct fm_file *file, uint64_t first, uint64_t last)
{
	uint64_t index = page_word(page, index);
	return !file || (page_word(page, file) == file && index >= first && index <= last);
}

/* Collect the next pages whose bits are set, from frame *at on, in order. Takes pages of one file's
 * range, or of all files if `file` is NULL. Returns false if no page is found. */
bool batch_next(struct frame_pool *pool, uint64_t *bits, struct fm_file *file, uint64_t first,
		uint64_t last, uint32_t *at, struct batch *batch)
{
	uint32_t words = (pool->frames + 63) / 64;

	batch->count = 0;
	for (uint32_t word = *at / 64; word < words && batch->count < BATCH; word++) {
		uint64_t left = atomic_get(&bits[word]);
		if (word == *at / 64)
			left &= ~0ull << (*at % 64);
		for (; left && batch->count < BATCH; left &= left - 1) {
			uint32_t id = word * 64 + (uint32_t)__builtin_ctzll(left);
			*at = id + 1;
			if (batch_is_in(&pool->pages[id], file, first, last))
				batch->id[batch->count++] = id;
		}
		if (!left)
			*at = (word + 1) * 64;
	}
	batch_sort(pool, batch);
	return batch->count > 0;
}
