/* SPDX-License-Identifier: MIT */
/*
 * FM_KEEP: what is dirty when the process has ended is written by its keeper (os.h), as the kernel writes what a program that
 * was killed had mapped.
 *
 * Its threads may have died anywhere: with locks held, lists half changed, a page between its slot and the view, a write under
 * way. So nothing is believed here but the state words, which change by one instruction each, and what memory is there: a
 * dirty page's bytes are in the view, in its slot, or, for a moment, in a place between the two. Nobody else is left, so no
 * lock is taken. What was being written is written once more.
 * May call: store (`write`, `flush`), trap_has_bytes(), os. Raw system calls only.
 */
#include "mm/mm.h"

#define TRIES 10
#define PAUSE_NS (100 * OS_NSEC_PER_MSEC)

/* It has bytes, and is not the program's own memory, which it has put there. */
static bool view_has_bytes(const struct view *view, uint64_t addr)
{
	return trap_is_ours(view->mm->trap, addr, OS_PAGE) && trap_has_bytes(addr);
}

/* Where a page's bytes are; NULL: they are gone. */
static char *bytes_at(const struct frame_pool *pool, const struct page *page, uint32_t state)
{
	const struct view *view = &page->file->view;
	uint64_t shown = page_addr(view, pool, page), slot = (uint64_t)slot_of(pool, page);
	/* A page that may be written to is newer in the view than what its slot may still have; one that is on its way out of
	 * the view, or into it, is in one of the two. */
	bool first = (state & PG_INSTALLED) && view_has_bytes(view, shown);

	if (first)
		return (char *)shown;
	if (!pool->registered || trap_has_bytes(slot))
		return (char *)slot;
	return view_has_bytes(view, shown) ? (char *)shown : NULL;
}

static int write_all(struct fm_store *store, char *from, uint64_t len, uint64_t offset)
{
	struct iovec iov = {from, len};
	size_t done = 0;
	int err = -EIO;

	for (int tries = 0; err && tries < TRIES; tries++) {
		if (tries)
			os_sleep_until(os_now_ns() + PAUSE_NS);
		err = store_write_full(store, &iov, 1, offset, &done);
	}
	return err;
}

static void keep_page(const struct frame_pool *pool, const struct page *page)
{
	uint32_t state = page_state(page);
	struct fm_file *file = page->file;

	if (!(state & (PG_DIRTY | PG_WRITEBACK)) || (state & PG_FREE) || !file || !file->writable || file->scratch)
		return;
	uint64_t offset = page->index << pool->shift, size = file_size(file);
	char *from = offset < size ? bytes_at(pool, page, state) : NULL;
	if (!from)
		return;
	write_all(file->store, from, size - offset < pool->page_size ? size - offset : pool->page_size, offset);
}

/* In the keeper. */
static void keep(void *arg)
{
	struct fm_mm *mm = arg;

	for (int p = 0; p < MM_POOLS_MAX && mm->pool[p]; p++)
		for (uint32_t i = 0; i < mm->pool[p]->frames; i++)
			keep_page(mm->pool[p], &mm->pool[p]->pages[i]);
	for (struct fm_file *file = mm->files; file; file = file->next)
		if (file->writable && !file->scratch && file->store)
			file->store->ops->flush(file->store);
}

int keep_start(struct fm_mm *mm)
{
	int err = os_keeper_start(&mm->keeper, keep, mm);
	if (err)
		mm_log(mm, FM_LOG_ERROR, "no keeper (FM_KEEP): %s; it needs pidfd_open() (Linux 5.3) and clone()", strerror(-err));
	return err;
}

void keep_stop(struct fm_mm *mm)
{
	os_keeper_stop(&mm->keeper);
}
