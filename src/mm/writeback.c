/* SPDX-License-Identifier: MIT */
/*
 * Writing dirty pages back: requests, fm_sync(), flushes, and the thread that writes in the background.
 *
 * A write takes a page out of the view, marks it as being written, and puts its lock: dirty.c says what may happen to it
 * meanwhile. So a request holds no lock, only pins, and nobody waits for it but who syncs. Neighbouring pages go together, what is
 * to be written at one time in the order of the file. A flush belongs to a file: one at a time, which whoever asks meanwhile
 * shares if it began after his writes had ended.
 *
 * Errors. What could not be written is dirty again; so is what was written before a flush that failed. `error_seq` counts
 * failures, `error_told` how many of them some call has returned: each call compares at its end with what had been told at
 * its beginning. The background tries again after RETRY_NS.
 *
 * The end of a file. Its last reference may be put with pages dirty: the background thread hands the file here, and gets
 * it back when all is written, or when writes have failed for mm_patience_ns: what is dirty then is lost, which the log is
 * told, and `dirty_lost`.
 *
 * The end of the mm, and of the process. writeback_finish() writes each file. A file that has lost its last reference
 * and has not come here yet is waited for. A store that refuses is tried again, with pauses, and a store that does
 * not answer is waited for, both for mm_patience_ns.
 *
 * Owns struct writeback. wb->lock protects the list of free requests. Nothing waits with a page lock held but for the kernel.
 * May call: dirty, page_cache, install, io, store, trap, os, stats.
 */
#include "mm/mm.h"

#include <stdlib.h>

#ifdef FM_SIM
#define WRITE_PAGES_MAX 8u
#define BATCH 16u
#else
#define WRITE_PAGES_MAX 64u
#define BATCH 256u /* pages that are put in order at a time */
#endif
#define AGE_NS (5 * OS_NSEC_PER_SEC)
#define TICK_NS (100 * OS_NSEC_PER_MSEC)
#define SOON_NS (2 * OS_NSEC_PER_MSEC)
#define RETRY_NS OS_NSEC_PER_SEC
#define LATE_NS (OS_NSEC_PER_SEC / 2)
#define FINISH_LEAST_NS (100 * OS_NSEC_PER_MSEC) /* where the end of the process has waited for as long before */
#define PAUSE_LEAST_NS (5 * OS_NSEC_PER_MSEC) /* between two tries at a store that refuses, at the end */
#define PAUSE_MOST_NS (500 * OS_NSEC_PER_MSEC)
#define FOR_EVER UINT64_MAX

/* How pages are gathered for a write. */
enum {
	HOW_DEMAND = 1u << 0, /* somebody waits */
	HOW_WAIT = 1u << 1,   /* for requests and page locks */
	HOW_FORCE = 1u << 2,  /* what cannot be taken out is written where it is */
};

struct write_request {
	struct io_request io;
	struct fm_file *file;
	struct write_request *next;
	uint32_t count;
	uint32_t page[WRITE_PAGES_MAX];
	uint64_t started_ns;
	uint32_t unmap_seq; /* the view's, when it began */
	bool ends;          /* it has the file's last page, in part: nothing can follow */
	uint32_t flush_failures; /* the file's, when it began */
	bool in_place;      /* some page is written from the view, where it stays */
	bool missing;       /* it came upon a page that was not there */
	bool taken;         /* of a file's own: it is in use; wb->lock */
};

struct writeback {
	struct fm_mm *mm;
	struct os_thread thread;
	uint32_t stop; /* atomic */
	struct os_lock lock;
	struct write_request *free; /* lock */
	struct gate freed;          /* one has been given back */
	uint32_t starved;           /* somebody found none; atomic */
	struct write_request *late; /* atomic stack: ended, and some of its pages may not be mapped any more */
	struct fm_file *closing;    /* atomic stack */
	struct fm_file *closing_list; /* the thread's */
	uint64_t aged_ns;           /* the thread's: when the bits of age were last made */
	uint64_t sweep_ns;          /* the thread's: not before */
	uint32_t sweep_pass;        /* the thread's */
	uint32_t cursor[MM_POOLS_MAX];
	uint32_t count;
	size_t len;
	struct write_request request[];
};

/* ------------------------------------------------------------------ requests */

void writeback_kick(struct fm_mm *mm)
{
	if (!atomic_get(&mm->wb))
		return;
	atomic_add(&mm->writer_bell.seq, 1u);
	os_futex_wake(&mm->writer_bell.seq, 1, OS_FUTEX_ANY);
}

/* There is something for its next pass: it is woken once. */
void writeback_note(struct fm_mm *mm)
{
	struct writer_bell *bell = &mm->writer_bell;
	if (atomic_get(&mm->wb) && !atomic_get(&bell->noted) && !atomic_xchg(&bell->noted, 1u))
		writeback_kick(mm);
}

/* Somebody waits for what is dirty, or written and not flushed. */
void writeback_urge(struct fm_mm *mm)
{
	if (atomic_get(&mm->wb) && !atomic_xchg(&mm->writer_bell.urgent, 1u))
		writeback_kick(mm);
}

/* One file may have half of them: were its store to die with all, nobody else could write. Two that die have all of them: then
 * each has one of its own that is left. */
static bool has_its_share(const struct writeback *wb, struct fm_file *file)
{
	return atomic_get(&file->write_requests) >= wb->count / 2;
}

/* wb->lock held. */
static struct write_request *request_take(struct writeback *wb, struct fm_file *file)
{
	struct write_request *req = has_its_share(wb, file) ? NULL : wb->free;

	if (req)
		wb->free = req->next;
	else if (!file->own_write->taken)
		req = file->own_write;
	if (req)
		req->taken = true;
	return req;
}

static struct write_request *request_try(struct writeback *wb, struct fm_file *file)
{
	os_lock(&wb->lock);
	struct write_request *req = request_take(wb, file);
	if (req)
		atomic_add(&file->write_requests, 1u);
	os_unlock(&wb->lock);
	return req;
}

/* NULL: there is none, or, waited for, the mm or the time has ended. */
static struct write_request *request_get(struct writeback *wb, struct fm_file *file, unsigned how, uint64_t until_ns)
{
	for (;;) {
		uint32_t seq = atomic_get(&wb->freed.seq);
		struct write_request *req = request_try(wb, file);
		if (!req) { /* who gives one back sees this, or it is seen here what he has given */
			atomic_set(&wb->starved, 1u);
			req = request_try(wb, file);
		}
		if (req || !(how & HOW_WAIT) || os_now_ns() >= until_ns)
			return req;
		requests_send(wb->mm); /* what is waited for may be our own */
		requests_hold(wb->mm);
		uint64_t slice = os_now_ns() + 20 * OS_NSEC_PER_MSEC;
		gate_wait(&wb->freed, seq, slice < until_ns ? slice : until_ns);
	}
}

static uint32_t request_put(struct writeback *wb, struct write_request *req)
{
	os_lock(&wb->lock);
	uint32_t left = atomic_sub(&req->file->write_requests, 1u) - 1;
	req->taken = false;
	if (req != req->file->own_write) {
		req->next = wb->free;
		wb->free = req;
	}
	os_unlock(&wb->lock);
	gate_open(&wb->freed);
	return left;
}

/* Something of the file has ended: whoever waits for it looks again. */
static void file_ended(struct fm_file *file)
{
	gate_open(&file->ended);
	frame_freed(file->pool);
}

/* Before anybody can see that the write or flush has ended. */
static void note_failure(struct fm_file *file, int error)
{
	atomic_set(&file->write_error, error);
	atomic_set(&file->retry_ns, os_now_ns() + RETRY_NS);
	atomic_set(&file->failing, 1u);
	atomic_add(&file->error_seq, 1u);
}

struct failure {
	struct fm_file *file;
	uint64_t offset, len;
	int error;
};

static void failure_out(void *arg)
{
	const struct failure *failure = arg;
	handles_tell(failure->file, failure->offset, failure->len, failure->error);
}

static void tell_failure(struct fm_file *file, uint64_t offset, uint64_t len, int error)
{
	if (!mm_call_begin(file->mm))
		return;
	os_call_out(failure_out, &(struct failure){file, offset, len, error});
	mm_call_end(file->mm);
}

/* Something that is dirty is lost, by no fault of the store's. A page lock may be held: only the next fm_sync() tells. */
void file_write_failed(struct fm_file *file, int error)
{
	atomic_set(&file->write_error, error);
	atomic_add(&file->error_seq, 1u);
}

/* A dirty page's bytes are gone: the program has put other memory in their place, has unmapped or emptied it. A page lock may be
 * held: the log is told by the write-back thread, or at the file's end. */
void file_lost_page(struct fm_file *file, uint64_t index)
{
	uint64_t first = atomic_get(&file->lost_first);
	while (index < first && !atomic_cas(&file->lost_first, &first, index))
		;
	atomic_add(&file->lost, 1u);
	file_write_failed(file, -EIO);
	writeback_note(file->mm);
}

/* One line of the log for all pages that have been lost since the last. No lock held. */
void file_tell_lost(struct fm_file *file)
{
	uint32_t lost = atomic_get(&file->lost), before = atomic_xchg(&file->lost_logged, lost);
	if (lost == before)
		return;
	uint64_t first = atomic_xchg(&file->lost_first, UINT64_MAX);
	mm_log(file->mm, FM_LOG_ERROR,
	       "%s: %u dirty pages from offset %llu on are lost: the program has put other memory in their place in the mapping (mmap with "
	       "MAP_FIXED), or has unmapped or emptied it (munmap, MADV_DONTNEED); use fm_unmap()",
	       file->uri, lost - before, (unsigned long long)(first << file->pool->shift));
}

/* A file that has lost pages which the log has not been told of, with a reference; NULL: there is none. */
static struct fm_file *next_lost(struct fm_mm *mm)
{
	struct fm_file *file;
	os_lock(&mm->files_lock);
	for (file = mm->files; file; file = file->next)
		if (atomic_get(&file->lost) != atomic_get(&file->lost_logged) && file_try_get(file))
			break;
	os_unlock(&mm->files_lock);
	return file;
}

static void tell_lost(struct writeback *wb)
{
	struct fm_mm *mm = wb->mm;
	struct fm_file *file;
	if (atomic_xchg(&wb->mm->writer_bell.merged, 0u))
		mm_log(mm, FM_LOG_WARNING, "the program allows the kernel to merge equal pages (PR_SET_MEMORY_MERGE) since it has mapped files for "
		       "writing: mappings opt out, and all that is in memory of these files is written once; allow it before fm_mm_create()");
	while ((file = next_lost(mm)) != NULL) {
		file_tell_lost(file);
		file_put(file);
	}
}

/* How long a page takes at the rate at which they are being written. */
static void note_pace(struct fm_file *file, const struct write_request *req, uint64_t now)
{
	uint64_t last = atomic_get(&file->last_write_ns), begun = last > req->started_ns ? last : req->started_ns;
	uint64_t each = (now > begun ? now - begun : 0) / req->count, old = atomic_get(&file->write_ns);
	atomic_set(&file->last_write_ns, now);
	atomic_set(&file->write_ns, old ? old - old / 8 + each / 8 : each);
}

static void request_end(struct writeback *wb, struct write_request *req)
{
	struct fm_file *file = req->file;
	for (uint32_t i = 0; i < req->count; i++)
		page_unpin(file->pool, &file->pool->pages[req->page[i]]);
	/* The thread goes on when there is something to be had for it: it would look through all that is dirty for each single one. Not
	 * for one that was given back unused: it would get that again. */
	if (request_put(wb, req) <= wb->count / 4 && atomic_xchg(&wb->starved, 0u))
		writeback_kick(wb->mm);
	file_ended(file);
	file_put(file);
}

/* In the I/O thread or a worker: beside the ends of other requests. */
static void write_done(struct io_request *io)
{
	struct write_request *req = io->owner;
	struct fm_file *file = req->file;
	struct frame_pool *pool = file->pool;
	struct fm_mm *mm = file->mm;
	struct writeback *wb = mm->wb;
	uint64_t now = os_now_ns();

	req->missing = io->error == -EFAULT;
	io->error = store_error(io->error);
	stats_record(&mm->stats->write_ns, now - req->started_ns);
	stats_add(mm->stats, writes, 1);
	stats_add(mm->stats, write_bytes, io->bytes_done);
	if (file->scratch)
		stats_add(mm->stats, spilled, io->bytes_done >> pool->shift);
	note_pace(file, req, now);
	/* First what is to be found by who sees that a page's write has ended. */
	if (io->error)
		note_failure(file, io->error);
	else
		atomic_set(&file->failing, 0u);
	uint32_t stored = io->error ? (uint32_t)(io->bytes_done >> pool->shift) : req->count;
	if (stored)
		atomic_add(&file->stored_seq, 1u);
	for (uint32_t i = 0; i < stored; i++) /* so that a flush that covers this write counts what it has written */
		page_stored(pool, &pool->pages[req->page[i]]);
	atomic_add(&file->written_seq, 1u);
	for (uint32_t i = 0; i < req->count; i++) {
		struct page *page = &pool->pages[req->page[i]];
		page_written(pool, page, i < stored ? 0 : io->error, req->flush_failures);
		if (page_is(page, PG_DUP)) /* the background met it while it was being written from */
			after_add(mm, pool, page, 1);
	}
	if (io->error) {
		stats_add(mm->stats, write_errors, 1);
		tell_failure(file, io->offset + io->bytes_done, store_iov_bytes(io->iov, io->iov_count) - io->bytes_done,
			     io->error);
	}
	if (likely(atomic_get(&file->view.unmap_seq) == req->unmap_seq && !req->in_place && !req->missing)) {
		request_end(wb, req);
		return;
	}
	/* Some page may have stayed in the view because it was being written; or is not there any more. */
	struct write_request *head = atomic_get(&wb->late);
	do {
		req->next = head;
	} while (!atomic_cas(&wb->late, &head, req));
	writeback_kick(mm);
}

static void late_ones(struct writeback *wb)
{
	struct write_request *req = atomic_xchg(&wb->late, NULL);
	while (req) {
		struct write_request *next = req->next;
		struct fm_file *file = req->file;
		uint32_t stopped = (uint32_t)(req->io.bytes_done >> file->pool->shift);
		/* That of a page where it was to be written from the view, and somebody has emptied it: else it would be tried again and
		 * again. Of those behind it nobody knows: what is swapped out looks as if it were not there. */
		if (req->missing && stopped < req->count && page_is(&file->pool->pages[req->page[stopped]], PG_INSTALLED))
			page_really_there(&file->view, &file->pool->pages[req->page[stopped]]);
		for (uint32_t i = 0; i < req->count; i++) {
			struct page *page = &file->pool->pages[req->page[i]];
			if (page_is(page, PG_INSTALLED) && !mm_range_allows(wb->mm, page_addr(&file->view, file->pool, page), page_is(page, PG_UNPROTECTED)))
				file_take_out(file, page->index, page->index);
		}
		request_end(wb, req);
		req = next;
	}
}

/* ------------------------------------------------------------------ merged pages */

/* It may have been written to without a fault. Pinned. */
static void dirty_if_shown(struct frame_pool *pool, struct page *page)
{
	for (int tries = 0; tries < 200 && (page_state(page) & (PG_INSTALLED | PG_UNPROTECTED | PG_GONE)) == PG_INSTALLED && page->file->writable;
	     tries++) {
		if (!page_trylock(page)) {
			page_wait(pool->mm, page, false, os_now_ns() + 20 * OS_NSEC_PER_MSEC);
			continue;
		}
		if ((page_state(page) & (PG_INSTALLED | PG_UNPROTECTED | PG_GONE)) == PG_INSTALLED && page->file->writable)
			page_dirty(pool, page);
		page_unlock(pool, page);
		return;
	}
}

/*
 * The kernel merges equal pages of a program that has asked for it (prctl(PR_SET_MEMORY_MERGE), systemd's MemoryKSM=), and what it merges
 * loses its protection: later writes come without a fault. Views have opted out; but not against a prctl() that comes later. So this is asked before
 * anybody relies on a page's being clean: before a sync, before pages leave a view, at the end. Where it is so all that is shown of
 * files open for writing is taken for dirty, once. No lock held.
 */
void writeback_look_for_merging(struct fm_mm *mm)
{
	if (!atomic_get(&mm->wb) || likely(!trap_was_merged(mm->trap)))
		return;
	for (int p = 0; p < MM_POOLS_MAX && atomic_get(&mm->pool[p]); p++)
		for (uint32_t i = 0; i < mm->pool[p]->frames; i++) {
			struct page *page = &mm->pool[p]->pages[i];
			if (!page_is(page, PG_INSTALLED) || !page_try_pin(page))
				continue;
			dirty_if_shown(mm->pool[p], page);
			page_unpin(mm->pool[p], page);
		}
	trap_merging_noted(mm->trap); /* not before: who asks meanwhile does all this, too */
	if (!atomic_xchg(&mm->writer_bell.merged, 1u))
		writeback_kick(mm);
}

/* ------------------------------------------------------------------ gathering */

/*
 * A dirty page, locked and pinned, which no write has: from where it can be written in *ret_from, as it is now. 0: it is being
 * written, and the lock may be put. -EBUSY: the kernel has it pinned, as for I/O into it: later. -ENODATA: there is nothing to
 * be written any more.
 */
static int page_freeze(struct fm_file *file, struct page *page, unsigned how, char **ret_from)
{
	struct frame_pool *pool = file->pool;
	struct view *view = &file->view;
	char *from = slot_of(pool, page);
	bool keep = false;
	int err = 0;

	if (page_is(page, PG_INSTALLED)) {
		if (page->user_pins && page_is_foreign(view, page))
			page_gone_foreign(view, page);
		else
			err = page->user_pins ? -EBUSY : page_take_out(view, page, true);
		if (err == -EINVAL && !trap_readable(page_addr(view, pool, page))) /* the store could not read it either */
			err = page_bring_out(view, page);
		if (!err && !page_is(page, PG_DIRTY))
			return -ENODATA; /* its bytes had gone behind us */
		if (err == -EBUSY && !page->user_pins && !(how & HOW_FORCE))
			return err;
	}
	if (err) {
		/* Written where it is, protected for as long; what the program has pinned is left as it is. What anybody has pinned
		 * stays dirty: it may be written to without a fault. */
		uint64_t addr = page_addr(view, pool, page);
		page_drop_copy(file->mm, pool, page);
		keep = err != -EINVAL;
		if (page->user_pins || trap_protect(file->mm->trap, addr, pool->page_size) < 0)
			keep = true;
		else
			page_set(page, 0, PG_UNPROTECTED);
		from = (char *)addr;
		stats_add(file->mm->stats, write_in_place, 1);
	}
	page_writing(pool, page, keep);
	*ret_from = from;
	return 0;
}

static uint64_t bytes_of(struct fm_file *file, const struct page *page)
{
	uint64_t size = file_size(file), start = page->index << file->pool->shift;
	uint64_t rest = start < size ? size - start : 0;
	return rest < file->pool->page_size ? rest : file->pool->page_size;
}

/* Take a page, pinned, into the request; its pin is the request's then. 0, or why not: -EAGAIN: it is not to be had now;
 * -ETIMEDOUT: nor until then. */
static int request_add(struct write_request *req, struct page *page, unsigned how, uint64_t until_ns)
{
	struct fm_file *file = req->file;
	struct frame_pool *pool = file->pool;
	struct io_request *io = &req->io;
	char *from;
	int err = -EAGAIN;

	while (!page_trylock(page)) {
		/* With others gathered nobody is waited for: they would not be on their way meanwhile. */
		if (!(how & HOW_WAIT) || req->count)
			return -EAGAIN;
		uint64_t now = os_now_ns(), slice = now + 20 * OS_NSEC_PER_MSEC;
		if (now >= until_ns)
			return -ETIMEDOUT;
		requests_send(file->mm);
		requests_hold(file->mm);
		page_wait(file->mm, page, false, slice < until_ns ? slice : until_ns);
	}
	/* Who punches it waits for the lock, or is seen here. */
	bool punched = range_is_punched(file, page->index);
	if (punched)
		atomic_add(&file->passed_by, 1u);
	if ((page_state(page) & (PG_GONE | PG_DIRTY | PG_WRITEBACK)) == PG_DIRTY && page->file == file && bytes_of(file, page) && !punched &&
	    bit_is(pool->dirty_bits, (uint32_t)(page - pool->pages)))
		err = page_freeze(file, page, how, &from);
	if (!err) {
		/* Asked after WRITEBACK is set: who makes the file shorter waits for its end, or it is seen here. */
		uint64_t bytes = bytes_of(file, page);
		struct iovec *last = io->iov_count ? &io->iov[io->iov_count - 1] : NULL;
		if (!bytes) {
			page_written(pool, page, -ECANCELED, 0);
			err = -EAGAIN;
		} else if (last && (char *)last->iov_base + last->iov_len == from) {
			last->iov_len += bytes;
		} else {
			io->iov[io->iov_count++] = (struct iovec){from, bytes};
		}
		req->ends = bytes < pool->page_size;
		req->in_place |= from != slot_of(pool, page);
	}
	page_unlock(pool, page);
	if (err)
		return err;
	req->page[req->count++] = (uint32_t)(page - pool->pages);
	return 0;
}

static void request_submit(struct write_request *req, uint64_t index, unsigned how)
{
	struct fm_file *file = req->file;

	req->io.store = file->store;
	req->io.offset = index << file->pool->shift;
	req->io.priority = how & HOW_DEMAND ? IO_DEMAND : IO_SPECULATIVE;
	req->io.op = IO_WRITE;
	req->io.done = write_done;
	req->io.owner = req;
	req->started_ns = os_now_ns();
	req->flush_failures = atomic_get(&file->flush_failures);
	file_get(file);
	request_send(file->mm, &req->io);
}

/*
 * Write a dirty page, pinned, and what is dirty after it, up to page `last`. Returns how many pages are on their way, or why
 * the first of them is not: -EBUSY as of page_freeze(), -EAGAIN, -ETIMEDOUT, -ENOBUFS: no request to be had. Takes no pin away.
 */
static int write_run(struct fm_file *file, struct page *first, uint64_t last, unsigned how, uint64_t until_ns)
{
	struct writeback *wb = file->mm->wb;
	struct frame_pool *pool = file->pool;
	uint64_t index = first->index;
	int err = 0;

	if (atomic_get(&file->given_up)) /* a later user of the file may have written newer bytes */
		return -EAGAIN;
	struct write_request *req = request_get(wb, file, how, until_ns);
	if (!req)
		return -ENOBUFS;
	req->file = file;
	req->count = 0;
	req->io.iov_count = 0;
	req->ends = req->in_place = false;
	req->unmap_seq = atomic_get(&file->view.unmap_seq);
	if (index < last)
		take_out_together(file, first, last - index < WRITE_PAGES_MAX ? (uint32_t)(last - index + 1) : WRITE_PAGES_MAX,
				  PG_UNPROTECTED | PG_DIRTY, 0);
	while (!err && !req->ends && req->count < WRITE_PAGES_MAX && index + req->count <= last && req->io.iov_count < IO_SEGMENTS_MAX) {
		struct page *page = first;
		if (req->count)
			page = page_find(file, index + req->count);
		else
			page_pin(first);
		if (!page)
			break;
		err = request_add(req, page, how, until_ns);
		if (err)
			page_unpin(pool, page);
	}
	int count = (int)req->count;
	if (count)
		request_submit(req, index, how);
	else
		request_put(wb, req);
	return count ? count : err;
}

/* ------------------------------------------------------------------ which pages, in what order */

struct batch {
	uint32_t id[BATCH], count;
};

/* By file, then by index. What is read here may be old: each page is looked at anew under its lock. */
static bool comes_before(const struct frame_pool *pool, uint32_t a, uint32_t b)
{
	const struct page *x = &pool->pages[a], *y = &pool->pages[b];
	const struct fm_file *f = page_word(x, file), *g = page_word(y, file);
	return f != g ? f < g : page_word(x, index) < page_word(y, index);
}

/* Heap sort: no memory, no recursion. */
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

static bool is_in(const struct page *page, const struct fm_file *file, uint64_t first, uint64_t last)
{
	uint64_t index = page_word(page, index);
	return !file || (page_word(page, file) == file && index >= first && index <= last);
}

/* The next pages whose bits are set, from frame *at on; of one file's range, or of all where `file` is NULL. False: none. */
static bool batch_next(struct frame_pool *pool, uint64_t *bits, struct fm_file *file, uint64_t first, uint64_t last,
		       uint32_t *at, struct batch *batch)
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
			if (is_in(&pool->pages[id], file, first, last))
				batch->id[batch->count++] = id;
		}
		if (!left)
			*at = (word + 1) * 64;
	}
	batch_sort(pool, batch);
	return batch->count > 0;
}

/* ------------------------------------------------------------------ a file's range */

/*
 * A dirty page, pinned, and what follows it. One that is being written is dirty since: who has to have it written waits for that
 * here. range_wait() may miss it, since the bit that it looks for goes before WRITEBACK does. A write that begins after the
 * first wait has what is wanted.
 */
static int write_surely(struct fm_file *file, struct page *page, uint64_t last, unsigned how, uint64_t until_ns)
{
	int err = write_run(file, page, last, how, until_ns);
	for (int tries = 0; err == -EAGAIN && (how & HOW_FORCE) && (how & HOW_WAIT) && tries < 2; tries++) { /* it may have ended since */
		requests_send(file->mm); /* it may be our own */
		requests_hold(file->mm);
		if (page_wait_written(file->mm, page, until_ns) < 0)
			return -ENOBUFS; /* the time has passed */
		err = page_is(page, PG_DIRTY) ? write_run(file, page, last, how, until_ns) : 0;
	}
	return err;
}

static int range_begin_held(struct fm_file *file, uint64_t first, uint64_t last, unsigned how, uint64_t until_ns)
{
	struct frame_pool *pool = file->pool;
	struct batch batch;
	uint32_t at = 0;

	while (atomic_get(&file->dirty) && batch_next(pool, pool->dirty_bits, file, first, last, &at, &batch))
		for (uint32_t i = 0; i < batch.count; i++) {
			struct page *page = &pool->pages[batch.id[i]];
			/* Most have been written with one before it. */
			if (!bit_is(pool->dirty_bits, batch.id[i]) || !page_try_pin(page))
				continue;
			int err = 0;
			if (is_in(page, file, first, last) && page_is(page, PG_DIRTY))
				err = write_surely(file, page, last, how, until_ns);
			page_unpin(pool, page);
			if (err == -ENOBUFS || err == -ETIMEDOUT)
				return os_now_ns() >= until_ns ? -ETIMEDOUT : 0;
		}
	return 0;
}

/* Begin to write what is dirty of a range. 0, or -ETIMEDOUT. */
static int range_begin(struct fm_file *file, uint64_t first, uint64_t last, unsigned how, uint64_t until_ns)
{
	requests_hold(file->mm);
	int err = range_begin_held(file, first, last, how, until_ns);
	requests_send(file->mm);
	return err;
}

/* Wait for the writes of a range that are under way. 0, or -ETIMEDOUT. */
static int range_wait(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns)
{
	struct frame_pool *pool = file->pool;
	struct batch batch;
	uint32_t at = 0;
	int err = 0;

	while (!err && atomic_get(&file->writing) && batch_next(pool, pool->writing_bits, file, first, last, &at, &batch))
		for (uint32_t i = 0; i < batch.count && !err; i++) {
			struct page *page = &pool->pages[batch.id[i]];
			if (!page_try_pin(page))
				continue;
			if (is_in(page, file, first, last))
				err = page_wait_written(file->mm, page, until_ns);
			page_unpin(pool, page);
		}
	return err;
}

static bool range_changes(struct fm_file *file, uint64_t first, uint64_t last)
{
	uint64_t from = atomic_get(&file->punch_first), to = atomic_get(&file->punch_last);
	return from <= to && from <= last && to >= first;
}

/* Until no page of the range is being punched. 0, or -ETIMEDOUT. */
static int range_wait_change(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns)
{
	for (;;) {
		uint32_t seq = atomic_get(&file->ended.seq);
		if (!range_changes(file, first, last))
			return 0;
		uint64_t now = os_now_ns(), slice = now + 20 * OS_NSEC_PER_MSEC;
		if (now >= until_ns)
			return -ETIMEDOUT;
		gate_wait(&file->ended, seq, slice < until_ns ? slice : until_ns);
	}
}

/* What was passed by once because it was being punched would be passed by again where punches never pause: from here on none begins. */
static void sync_alone(struct fm_file *file, bool *alone)
{
	if (*alone)
		return;
	*alone = true;
	atomic_add(&file->syncs_alone, 1u);
}

static void sync_not_alone(struct fm_file *file, bool alone)
{
	if (!alone)
		return;
	atomic_sub(&file->syncs_alone, 1u);
	gate_open(&file->ended);
}

static int range_write(struct fm_file *file, uint64_t first, uint64_t last, uint64_t until_ns)
{
	bool alone = false;
	int err = 0;
	/* Twice: what was being written and had been changed since, and what the kernel had pinned, is left for the second. What
	 * was passed by because it was being punched is looked at again: it is still dirty where that has failed. What is punched
	 * elsewhere is not waited for: who drops old segments of a log all the time would keep it from its end. */
	for (int pass = 0; pass < 2 && !err; pass++) {
		uint32_t passed_by = atomic_get(&file->passed_by);
		err = range_wait_change(file, first, last, until_ns);
		if (!err)
			err = range_begin(file, first, last, HOW_DEMAND | HOW_WAIT | (pass ? HOW_FORCE : 0), until_ns);
		if (!err)
			err = range_wait(file, first, last, until_ns);
		if (range_changes(file, first, last) || atomic_get(&file->passed_by) != passed_by) {
			sync_alone(file, &alone);
			pass--;
		}
	}
	sync_not_alone(file, alone);
	return err;
}

static uint64_t sync_deadline(const struct fm_file *file)
{
	return file->deadline_ns ? os_now_ns() + file->deadline_ns : OS_FOREVER;
}

/* What is dirty of a file is written, not flushed. Returns 0, the errno of what has failed meanwhile, or -ETIMEDOUT: the file's
 * deadline has passed, or, where it has none, the store has taken nothing for mm_patience_ns. */
int writeback_all(struct fm_file *file)
{
	uint32_t errors = atomic_get(&file->error_seq), stored;
	int err;

	if (!file->writable)
		return 0;
	might_block(file->mm);
	do {
		stored = atomic_get(&file->stored_seq);
		err = range_write(file, 0, FOR_EVER, os_now_ns() + (file->deadline_ns ? file->deadline_ns : mm_patience_ns));
	} while (err == -ETIMEDOUT && !file->deadline_ns && atomic_get(&file->stored_seq) != stored);
	return err ? err : atomic_get(&file->error_seq) != errors ? atomic_get(&file->write_error) : 0;
}

/* What is dirty of a range is written, not flushed. With `wait` the errno of what has failed meanwhile. */
int writeback_range(struct fm_file *file, uint64_t first, uint64_t last, bool wait)
{
	uint64_t until = sync_deadline(file);
	uint32_t errors = atomic_get(&file->error_seq);

	if (!file->writable)
		return 0;
	might_block(file->mm);
	writeback_look_for_merging(file->mm);
	if (!wait)
		return range_begin(file, first, last, 0, until);
	int err = range_write(file, first, last, until);
	return err ? err : atomic_get(&file->error_seq) != errors ? atomic_get(&file->write_error) : 0;
}

/* ------------------------------------------------------------------ flushes */

/* Of each of the file's pages that has its bit: what has been written is the present flush's (`begins`), or was, and that has ended. */
static void flush_pages(struct fm_file *file, bool begins, bool failed)
{
	struct frame_pool *pool = file->pool;
	uint64_t *bits = begins ? pool->unflushed_bits : pool->flushing_bits;
	uint32_t words = (pool->frames + 63) / 64;

	/* The count is set after a bit, so it can be low by what others add just now: that may begin later, while nothing may end later. */
	for (uint32_t word = 0; word < words && (!begins || atomic_get(&file->unflushed)); word++)
		for (uint64_t left = atomic_get(&bits[word]); left; left &= left - 1) {
			uint32_t id = word * 64 + (uint32_t)__builtin_ctzll(left);
			struct page *page = &pool->pages[id];
			if (page_word(page, file) != file || !page_try_pin(page))
				continue;
			if (page->file == file && begins)
				page_flushing(pool, page);
			else if (page->file == file && bit_is(bits, id))
				page_flushed(pool, page, bits, failed);
			page_unpin(pool, page);
		}
}

/* As write_done(). */
static void flush_done(struct io_request *io)
{
	struct fm_file *file = io->owner;
	struct frame_pool *pool = file->pool;
	struct fm_mm *mm = file->mm;
	int error = store_error(io->error); /* the request may be the next flush's before this one has returned */

	stats_add(mm->stats, flushes, 1);
	if (error) {
		note_failure(file, error);
		atomic_add(&file->flush_failures, 1u);
		flush_pages(file, true, false); /* also of what was written since the store may have lost some */
	}
	flush_pages(file, false, error != 0);
	if (error) {
		stats_add(mm->stats, flush_errors, 1);
		tell_failure(file, 0, 0, error);
	}
	os_lock(&file->flush_lock);
	atomic_set(&file->flushing, false);
	file->flush_result = error;
	file->flush_ended = file->flush_covers;
	atomic_set(&file->flushed_ns, os_now_ns());
	os_unlock(&file->flush_lock);
	if (error) /* another flush has to come */
		atomic_add(&file->written_seq, 1u);
	file_ended(file);
	if (unflushed_many(pool) || atomic_get(&mm->writer_bell.urgent) || atomic_get(&file->swept_seq) != atomic_get(&file->view.unmap_seq))
		writeback_kick(mm);
	file_put(file);
}

/* False: one is under way. */
static bool flush_begin(struct fm_file *file)
{
	os_lock(&file->flush_lock);
	bool ours = !file->flushing;
	if (ours) {
		atomic_set(&file->flushing, true);
		file->flush_covers = atomic_get(&file->written_seq);
	}
	os_unlock(&file->flush_lock);
	if (!ours)
		return false;
	flush_pages(file, true, false);
	struct io_request *io = file->flush_io;
	io->store = file->store;
	io->offset = 0;
	io->iov_count = 0;
	io->priority = IO_DEMAND;
	io->op = IO_FLUSH;
	io->done = flush_done;
	io->owner = file;
	file_get(file);
	io_submit(file->mm->io, io);
	return true;
}

/* Until all writes that have ended by now are durable. 0, or the errno of the flush that should have made them so. */
static int flush_wait(struct fm_file *file, uint64_t until_ns)
{
	uint32_t need = atomic_get(&file->written_seq);

	for (;;) {
		uint32_t seq = atomic_get(&file->ended.seq);
		os_lock(&file->flush_lock);
		bool done = (int32_t)(file->flush_ended - need) >= 0;
		int result = file->flush_result;
		os_unlock(&file->flush_lock);
		if (done)
			return result;
		if (atomic_get(&file->mm->dying))
			return -ECANCELED;
		if (os_now_ns() >= until_ns)
			return -ETIMEDOUT;
		if (flush_begin(file))
			continue;
		uint64_t slice = os_now_ns() + 20 * OS_NSEC_PER_MSEC;
		gate_wait(&file->ended, seq, slice < until_ns ? slice : until_ns);
	}
}

int file_flush(struct fm_file *file)
{
	might_block(file->mm);
	return flush_wait(file, sync_deadline(file));
}

/* What was written to a range before the call is durable. See fm_sync(). `error_told` is a handle's, and counts which
 * failures were told by it. */
int file_sync(struct fm_file *file, uint64_t first, uint64_t last, unsigned flags, uint32_t *error_told)
{
	uint64_t until = sync_deadline(file);
	uint32_t told = atomic_get(error_told);

	if (!file->writable || file->scratch)
		return 0;
	might_block(file->mm);
	writeback_look_for_merging(file->mm);
	if (flags & FM_SYNC_ASYNC) {
		range_begin(file, first, last, HOW_DEMAND, until);
		return 0;
	}
	int err = range_write(file, first, last, until);
	if (!err)
		err = flush_wait(file, until);
	uint32_t now = atomic_get(&file->error_seq);
	if (now != told) {
		uint32_t before = told;
		err = err ? err : atomic_get(&file->write_error);
		while ((int32_t)(now - before) > 0 && !atomic_cas(error_told, &before, now))
			;
	}
	return err;
}

/* ------------------------------------------------------------------ the thread */

/* A file whose pages are not to be tried for a while. */
static bool rests(struct fm_file *file, uint64_t now)
{
	return atomic_get(&file->failing) && now < atomic_get(&file->retry_ns);
}

/* Write pages of a pool whose bits are set, until there are few, or no request is to be had. */
static void pool_write_held(struct writeback *wb, int place, uint64_t *bits, bool all, unsigned how)
{
	struct frame_pool *pool = wb->mm->pool[place];
	uint32_t *at = &wb->cursor[place], looked = 0;
	uint64_t now = os_now_ns();
	const struct fm_file *full = NULL; /* a file that has its share of requests, and its own: others are not to wait for it */
	struct batch batch;

	while (looked < 2) {
		uint32_t begun = *at;
		if (!batch_next(pool, bits, NULL, 0, 0, at, &batch)) {
			*at = 0; /* from the beginning, once */
			looked++;
			continue;
		}
		for (uint32_t i = 0; i < batch.count; i++) {
			struct page *page = &pool->pages[batch.id[i]];
			if (!bit_is(bits, batch.id[i]) || (full && page_word(page, file) == full) || !page_try_pin(page))
				continue;
			struct fm_file *file = page->file; /* of one that is not dirty any more maybe none */
			int err = 0;
			/* What the program has pinned stays dirty: for room it is written in vain. One that nobody refers to any more
			 * comes by way of its end. */
			bool in_vain = bits == pool->dirty_bits && page_word(page, user_pins);
			if (page_is(page, PG_DIRTY) && !in_vain && !rests(file, now) && (!file->scratch || bits == pool->dirty_bits) && file_try_get(file)) {
				err = write_run(file, page, FOR_EVER, how, 0);
				if (err == -ENOBUFS && atomic_get(&file->dirty) < atomic_get(&pool->dirty)) {
					full = file;
					err = 0;
				}
				file_put(file);
			}
			if (err > 0)
				page_unpin(pool, page);
			else
				page_unpin_quiet(pool, page); /* who waits for a frame asks for this pass: they would call each other for ever */
			if (err == -ENOBUFS || (!all && dirty_few(pool))) {
				*at = begun; /* the rest of them next time */
				return;
			}
		}
	}
}

static void pool_write(struct writeback *wb, int place, uint64_t *bits, bool all, unsigned how)
{
	requests_hold(wb->mm);
	pool_write_held(wb, place, bits, all, how);
	requests_send(wb->mm);
}

static void age(struct frame_pool *pool)
{
	uint32_t words = (pool->frames + 63) / 64;
	for (uint32_t word = 0; word < words; word++)
		atomic_set(&pool->aged_bits[word], atomic_get(&pool->dirty_bits[word]));
}

static void pools_write(struct writeback *wb, uint64_t now, bool urgent)
{
	struct fm_mm *mm = wb->mm;
	bool old = now >= wb->aged_ns + AGE_NS;

	for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++) {
		struct frame_pool *pool = mm->pool[i];
		if (!atomic_get(&pool->dirty))
			continue;
		if (urgent || dirty_many(pool))
			pool_write(wb, i, pool->dirty_bits, urgent, urgent ? HOW_DEMAND : 0);
		if (!old)
			continue;
		pool_write(wb, i, pool->aged_bits, true, 0);
		age(pool);
	}
	if (old)
		wb->aged_ns = now;
}

/* A file whose flush is due, with a reference. */
static struct fm_file *flush_due(struct writeback *wb, uint64_t now, bool urgent)
{
	struct fm_mm *mm = wb->mm;
	struct fm_file *due = NULL;

	os_lock(&mm->files_lock);
	for (struct fm_file *file = mm->files; file && !due; file = file->next) {
		uint32_t unflushed = atomic_get(&file->unflushed);
		if (!file->writable || !unflushed || atomic_get(&file->flushing) || rests(file, now))
			continue;
		bool many = unflushed_many(file->pool) || (urgent && unflushed >= file->pool->frames / 64);
		bool quiet = !atomic_get(&file->dirty) && !atomic_get(&file->writing);
		if ((many || (urgent && quiet) || now >= atomic_get(&file->flushed_ns) + AGE_NS) && file_try_get(file))
			due = file;
	}
	os_unlock(&mm->files_lock);
	return due;
}

static void files_flush(struct writeback *wb, uint64_t now, bool urgent)
{
	struct fm_file *file;
	for (int most = 64; most && (file = flush_due(wb, now, urgent)); most--) {
		flush_begin(file);
		file_put(file);
	}
}

static void take_out_unmapped(struct fm_file *file, struct page *page, void *arg)
{
	bool *left = arg;
	if (!page_is(page, PG_INSTALLED) || mm_range_allows(file->mm, page_addr(&file->view, file->pool, page), page_is(page, PG_UNPROTECTED)))
		return;
	file_take_out(file, page->index, page->index);
	/* What the program has pinned is taken out when it is unpinned. */
	*left |= page_is(page, PG_INSTALLED) && page_is_held(file->pool, page) && !page_word(page, user_pins);
}

/* One that has pages to be swept, with a reference; in each pass another. NULL: it was the last. */
static struct fm_file *sweep_next(struct writeback *wb)
{
	struct fm_mm *mm = wb->mm;
	struct fm_file *file;

	os_lock(&mm->files_lock);
	for (file = mm->files; file; file = file->next)
		if (file->writable && file->sweep_pass != wb->sweep_pass && atomic_get(&file->swept_seq) != atomic_get(&file->view.unmap_seq) &&
		    !atomic_get(&file->unflushed) && file_try_get(file))
			break;
	os_unlock(&mm->files_lock);
	if (file)
		file->sweep_pass = wb->sweep_pass;
	return file;
}

/* What is dirty or not flushed, and can't be moved just then, does not leave the view when it is unmapped: its only bytes are
 * there. By COPY that is all of it. Where some is left it is looked at again, but not before wb->sweep_ns: who waits for a frame is
 * told of each pin that is put here, and would ask for the next pass. True: some is left. */
static bool files_sweep(struct writeback *wb, uint64_t now)
{
	struct fm_file *file;
	bool some_left = false;

	if (now < wb->sweep_ns)
		return true;
	wb->sweep_pass++;
	while ((file = sweep_next(wb)) != NULL) {
		bool left = false;
		uint32_t seq = atomic_get(&file->view.unmap_seq);
		atomic_set(&file->swept_seq, seq); /* first: who sets it back from here on has a page that may not be met */
		file_each_cached(file, 0, FOR_EVER >> file->pool->shift, take_out_unmapped, &left);
		if (left)
			atomic_set(&file->swept_seq, seq - 1);
		some_left |= left;
		file_put(file);
	}
	if (some_left) {
		uint64_t ended = os_now_ns();
		wb->sweep_ns = ended + SOON_NS + 10 * (ended - now); /* a tenth of the time at most */
	}
	return some_left;
}

static bool has_unwritten(struct fm_file *file)
{
	return atomic_get(&file->dirty) || atomic_get(&file->writing);
}

/* Tell the log what of a file has not been written, and why: `error`, or -ETIMEDOUT where the store has not answered. */
static void tell_unwritten(struct fm_file *file, int error)
{
	uint32_t dirty = atomic_get(&file->dirty), writing = atomic_get(&file->writing);
	int last = atomic_get(&file->write_error);

	if (error == -ETIMEDOUT && !writing && last)
		error = last;
	if (writing)
		mm_log(file->mm, FM_LOG_ERROR, "%s: its store has not answered for %u seconds: %u pages are still being written, and may or may not get there; %u more are dirty, and not written: %s",
		       file->uri, (uint32_t)(mm_patience_ns / OS_NSEC_PER_SEC), writing, dirty, strerror(ETIMEDOUT));
	else
		mm_log(file->mm, FM_LOG_ERROR, "%s: closed, and %u dirty pages could not be written: %s", file->uri, dirty,
		       strerror(-error));
}

/* Nothing of the file is written from here on: what is dirty is lost. */
static void give_up(struct fm_file *file, int error)
{
	if (atomic_xchg(&file->given_up, true))
		return;
	if (atomic_get(&file->mm->dying))
		atomic_set(&file->mm->lost, true);
	stats_add(file->mm->stats, dirty_lost, atomic_get(&file->dirty));
	tell_unwritten(file, error);
}

/* Its last reference has been put, and its writes have failed for long enough. The mm's end waits by itself. */
static bool close_in_vain(struct fm_file *file, uint64_t now)
{
	if (!atomic_get(&file->failing))
		file->closing_ns = 0;
	else if (!file->closing_ns)
		file->closing_ns = now;
	return file->closing_ns && now >= file->closing_ns + mm_patience_ns && !atomic_get(&file->writing);
}

/* A file that nobody refers to any more; our reference is its last. True: it has been put. */
static bool close_one(struct fm_file *file, uint64_t now)
{
	bool given_up = atomic_get(&file->given_up);
	if (given_up ? !atomic_get(&file->writing) : !has_unwritten(file)) {
		file_put(file);
		return true;
	}
	if (given_up || !atomic_get(&file->dirty))
		return false;
	if (close_in_vain(file, now)) {
		give_up(file, atomic_get(&file->write_error));
		file_put(file);
		return true;
	}
	if (rests(file, now))
		return false;
	file_drop_pins(file);
	range_begin(file, 0, FOR_EVER, HOW_DEMAND | HOW_FORCE, now);
	return false;
}

static void close_some(struct writeback *wb, uint64_t now)
{
	struct fm_file *file = atomic_xchg(&wb->closing, NULL), **at = &wb->closing_list;

	while (file) {
		struct fm_file *next = file->reap_next;
		file->reap_next = wb->closing_list;
		wb->closing_list = file;
		file = next;
	}
	while ((file = *at) != NULL) {
		struct fm_file *next = file->reap_next;
		if (close_one(file, now))
			*at = next;
		else
			at = &file->reap_next;
	}
}

/* The background thread has a file without references. True: it is written first, and comes back. */
bool writeback_close(struct fm_file *file)
{
	struct writeback *wb = atomic_get(&file->mm->wb);

	if (file->writable && !file->given_up)
		writeback_look_for_merging(file->mm);
	if (!file->writable || file->scratch || file->given_up || !(atomic_get(&file->dirty) + atomic_get(&file->writing)))
		return false;
	file_drop_pins(file);
	atomic_set(&file->refs, 1u);
	struct fm_file *head = atomic_get(&wb->closing);
	do {
		file->reap_next = head;
	} while (!atomic_cas(&wb->closing, &head, file));
	writeback_kick(file->mm);
	return true;
}

static bool anything_to_do(struct fm_mm *mm)
{
	bool some = false;
	for (int i = 0; i < MM_POOLS_MAX && atomic_get(&mm->pool[i]); i++)
		some |= atomic_get(&mm->pool[i]->dirty) || atomic_get(&mm->pool[i]->writing) || atomic_get(&mm->pool[i]->unflushed);
	return some;
}

/* True: something is being written to when the process has all but ended. The log is told once. */
static bool tell_late(struct fm_mm *mm)
{
	if (!atomic_get(&mm->late))
		return false;
	if (atomic_get(&mm->late) == 1) {
		mm_log(mm, FM_LOG_ERROR, "a mapping is written to after the last moment at which the library could write it back: such bytes may be lost");
		atomic_set(&mm->late, 2u);
		os_futex_wake(&mm->late, INT32_MAX, OS_FUTEX_ANY);
	}
	return true;
}

/* Something has been written to after the end of the process: the thread that writes has to tell, and to write it at once. With
 * `may_wait` the log has been told when this returns, for the process may end at any moment. */
void writeback_late(struct fm_mm *mm, bool may_wait)
{
	uint64_t until = os_now_ns() + LATE_NS;
	uint32_t none = 0;

	(void)atomic_cas(&mm->late, &none, 1u);
	writeback_kick(mm);
	while (may_wait && atomic_get(&mm->late) == 1 && os_now_ns() < until)
		os_futex_wait(&mm->late, 1, OS_FUTEX_ANY, until);
}

static void *writeback_main(void *arg)
{
	struct writeback *wb = arg;
	for (;;) {
		atomic_set(&wb->mm->writer_bell.noted, 0u);
		uint32_t seq = atomic_get(&wb->mm->writer_bell.seq);
		if (atomic_get(&wb->stop))
			return NULL;
		uint64_t now = os_now_ns(), next = OS_FOREVER;
		bool urgent = atomic_xchg(&wb->mm->writer_bell.urgent, 0u);
		urgent |= tell_late(wb->mm);
		keep_alive(wb->mm);
		late_ones(wb);
		tell_lost(wb);
		pools_write(wb, now, urgent);
		files_flush(wb, now, urgent);
		bool left = files_sweep(wb, now);
		close_some(wb, now);
		if (wb->closing_list)
			next = now + SOON_NS;
		else if (anything_to_do(wb->mm))
			next = now + TICK_NS;
		if (left && wb->sweep_ns < next)
			next = wb->sweep_ns;
		os_futex_wait(&wb->mm->writer_bell.seq, seq, OS_FUTEX_ANY, next);
	}
}

/* ------------------------------------------------------------------ begun and ended */

static uint32_t requests_for(const struct fm_mm *mm)
{
	uint64_t count = mm->budget_bytes / OS_PAGE / 256;
	return count < 8 ? 8 : count > 64 ? 64 : (uint32_t)count;
}

struct write_request *writeback_request_alloc(void)
{
	return calloc(1, sizeof(struct write_request));
}

/* With the first file that is opened for writing. 0 or -ENOMEM and the like. */
int writeback_open(struct fm_mm *mm)
{
	uint32_t count = requests_for(mm);
	size_t len = sizeof(struct writeback) + count * sizeof(struct write_request);
	struct writeback *wb, *none = NULL;

	if (atomic_get(&mm->wb))
		return 0;
	wb = os_meta_alloc(len);
	if (!wb)
		return -ENOMEM;
	wb->mm = mm;
	wb->len = len;
	wb->count = count;
	wb->aged_ns = os_now_ns();
	for (uint32_t i = 0; i < count; i++) {
		wb->request[i].next = wb->free;
		wb->free = &wb->request[i];
	}
	int err = os_thread_start(&wb->thread, "fm-write", writeback_main, wb);
	if (!err && atomic_cas(&mm->wb, &none, wb))
		return 0;
	if (!err) { /* another thread was faster */
		atomic_set(&wb->stop, 1u);
		writeback_kick(mm);
		os_thread_join(&wb->thread);
	}
	os_meta_free(wb, len);
	return err;
}

/* All files are gone. */
void writeback_stop(struct fm_mm *mm)
{
	struct writeback *wb = mm->wb;
	if (!wb)
		return;
	atomic_set(&wb->stop, 1u);
	writeback_kick(mm);
	os_thread_join(&wb->thread);
}

void writeback_free(struct fm_mm *mm)
{
	if (mm->wb)
		os_meta_free(mm->wb, mm->wb->len);
	mm->wb = NULL;
}

/* The next file that the call `finish` has not written yet, with a reference. NULL: there is none; but with *ret_closing
 * there is a file on its way to the thread that writes it, and it has no reference to be had. */
static struct fm_file *next_unwritten(struct fm_mm *mm, uint32_t finish, bool *ret_closing)
{
	struct fm_file *file;

	*ret_closing = false;
	os_lock(&mm->files_lock);
	for (file = mm->files; file; file = file->next) {
		if (!file->writable || file->scratch || file->finished == finish || atomic_get(&file->given_up) || !has_unwritten(file))
			continue;
		if (file_try_get(file))
			break;
		*ret_closing = true;
	}
	os_unlock(&mm->files_lock);
	return file;
}

/* Write what is dirty of a file until the store has taken it all. Returns 0; -ETIMEDOUT if nothing has got there for `most_ns`;
 * or the errno with which the store has refused for as long. What other threads write meanwhile is not waited for. */
static int write_out(struct fm_file *file, uint64_t most_ns)
{
	uint64_t pause = PAUSE_LEAST_NS, failing_ns = 0;

	for (;;) {
		uint32_t stored = atomic_get(&file->stored_seq), errors = atomic_get(&file->error_seq);
		uint64_t begun = os_now_ns();
		int err = range_write(file, 0, FOR_EVER, begun + most_ns);
		uint64_t now = os_now_ns();
		if (!has_unwritten(file))
			return 0;
		if (err == -ETIMEDOUT && atomic_get(&file->stored_seq) != stored)
			continue; /* a store that is slow */
		if (err)
			return err;
		if (atomic_get(&file->error_seq) == errors || atomic_get(&file->given_up))
			return 0;
		failing_ns = failing_ns ? failing_ns : begun;
		if (now + pause >= failing_ns + most_ns)
			return atomic_get(&file->write_error);
		os_sleep_until(now + pause);
		pause = pause * 2 < PAUSE_MOST_NS ? pause * 2 : PAUSE_MOST_NS;
	}
}

/* One file's part of writeback_finish(). The end of a process comes here several times: all together wait for mm_patience_ns. */
static void finish_one(struct fm_file *file)
{
	uint64_t begun = os_now_ns(), spent = file->finish_spent_ns;
	int err;

	file_drop_pins(file);
	err = write_out(file, spent + FINISH_LEAST_NS < mm_patience_ns ? mm_patience_ns - spent : FINISH_LEAST_NS);
	if (!err)
		return;
	file->finish_spent_ns = spent + (os_now_ns() - begun);
	if (atomic_get(&file->mm->dying))
		give_up(file, err);
	else if (spent < mm_patience_ns)
		tell_unwritten(file, err);
}

/*
 * The mm, or the process, ends: write what is dirty, if its store will have it. What threads still write to meanwhile, in
 * pages that they have, is written with the end of the file. A file that has lost its last reference is waited for until
 * the thread that writes it has it: from then on a reference can be taken. Blocks, for mm_patience_ns a file at most.
 */
void writeback_finish(struct fm_mm *mm)
{
	uint32_t finish = atomic_add(&mm->finishes, 1u) + 1;
	uint64_t waits_until = 0;

	writeback_look_for_merging(mm);
	while (atomic_get(&mm->wb)) {
		bool closing;
		struct fm_file *file = next_unwritten(mm, finish, &closing);
		if (file) {
			finish_one(file);
			file->finished = finish;
			file_put(file);
			continue;
		}
		uint64_t now = os_now_ns();
		waits_until = waits_until ? waits_until : now + mm_patience_ns;
		if (!closing || now >= waits_until)
			return;
		os_sleep_until(now + OS_NSEC_PER_MSEC);
	}
}

/* The mm is dying, and has given up what is dirty: ask for an early end of the writes and flushes that are under way. */
void writeback_cancel(struct fm_mm *mm)
{
	struct writeback *wb = atomic_get(&mm->wb);

	for (uint32_t i = 0; wb && i < wb->count; i++)
		io_cancel(mm->io, &wb->request[i].io);
	os_lock(&mm->files_lock);
	for (struct fm_file *file = mm->files; file; file = file->next)
		if (file->flush_io)
			io_cancel(mm->io, file->flush_io);
	os_unlock(&mm->files_lock);
}
