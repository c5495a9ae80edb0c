/* SPDX-License-Identifier: MIT */
/*
 * Reads of a store into pages.
 *
 * Owns the read requests. A request owns its pages' locks and a pin on each from its submission to its end;
 * when it passes its deadline, the pages are taken from it: they fail, leave the index and are unlocked,
 * while the pins keep their frames until the device is done with them. The request lock decides which of the
 * two ends, `done` or the deadline, a request comes to; page.request is changed under it.
 *
 * Errors. An attempt of one page has its errno on the page (PG_ERROR): all that waited for it get it, once;
 * the next fault begins a new attempt, which clears it. A failed attempt of several pages puts none on them:
 * who waited reads its page alone, and gets the errno that is its own.
 * May call: page_cache, frame_pool, io, store, os, stats.
 */
#include "mm/mm.h"

/* ------------------------------------------------------------------ the snapshot */

/*
 * The object's version is `now`, which the store was asked for in `epoch`. Takes it over where it is another one and the
 * policy is FM_CHANGED_REFRESH, and marks the file as changed under FM_CHANGED_ERROR. Returns whether what is cached may be older.
 * A version that was young when it was taken over may have been given to a later change, too: once no more change can get it,
 * all that was read meanwhile is old, though the version is the same.
 */
static bool version_note(struct fm_file *file, uint32_t epoch, const struct fm_store_version *now, uint64_t asked)
{
	bool refresh = file->changed_policy == FM_CHANGED_REFRESH;

	os_lock(&file->version_lock);
	bool late = atomic_get(&file->epoch) != epoch; /* another thread has taken over a version meanwhile, maybe a newer one */
	bool same = store_version_same(now, &file->version), grown_up = file->version.young_ns && !now->young_ns;
	bool old = late || !same || (grown_up && refresh);
	if (!old) {
		atomic_set(&file->checked, asked);
	} else if (!late && refresh) {
		file->version = *now;
		atomic_add(&file->epoch, 1u);
		store_size_set(file->store, now->size);
	} else if (!late) {
		atomic_set(&file->changed, 1u);
	}
	os_unlock(&file->version_lock);
	if (!late && !same)
		stats_add(file->mm->stats, files_changed, 1);
	return old;
}

/*
 * After a read that began in `epoch`, and ended at `ended`, by io_ends() (UINT64_MAX: the engine knows nothing of it): has
 * somebody changed the object since we opened it? 0, or -ESTALE under FM_CHANGED_ERROR. Under FM_CHANGED_REFRESH -EAGAIN: what
 * was read is to be forgotten with the rest, read again.
 * The kernel sets a file's mtime before it lets new bytes be seen, so a read that saw any is found out here; stores
 * through somebody's writable mapping are not, after the first to a page. Where several reads had ended before the store was
 * asked, its answer is for all of them.
 */
int file_recheck(struct fm_file *file, uint32_t epoch, uint64_t ended)
{
	struct fm_store_version now;
	const struct fm_store_ops *ops = file->store->ops;

	if (atomic_get(&file->changed))
		return -ESTALE;
	if (file->writable) /* whose changes are our own */
		return 0;
	if (!ops->version)
		return 0;
	covered_if(atomic_get(&file->checked) >= ended, a10_asked_for_several);
	if (atomic_get(&file->checked) >= ended)
		return atomic_get(&file->epoch) == epoch ? 0 : -EAGAIN;
	uint64_t asked = io_ends(file->mm->io); /* before the store is: what had come by now is judged by its answer */
	uint32_t before = atomic_get(&file->epoch);
	if (ops->version(file->store, &now) < 0)
		return 0;
	if (!version_note(file, before, &now, asked))
		return atomic_get(&file->epoch) == epoch ? 0 : -EAGAIN;
	return atomic_get(&file->changed) ? -ESTALE : -EAGAIN;
}

/* The file whose version decides: a private mapping's file has the size of its base. */
static struct fm_file *file_of_version(const struct fm_file *file)
{
	return file->base ? file->base : (struct fm_file *)(uintptr_t)file;
}

/* Whether an end that is known may be an old one, so that the store is to be asked. */
bool file_may_grow(const struct fm_file *file)
{
	const struct fm_file *known = file_of_version(file);
	return known->changed_policy == FM_CHANGED_REFRESH && !known->writable && known->store->ops->version;
}

/* Ask the store for the version of a file under FM_CHANGED_REFRESH. What is cached of an older one is forgotten, and the size is the
 * present one at return. 0, or the store's error. No lock but page locks of others may be held. */
int file_look(struct fm_file *file)
{
	struct fm_file *known = file_of_version(file);
	struct fm_store_version now;
	uint64_t asked = io_ends(known->mm->io);
	uint32_t before = atomic_get(&known->epoch);
	int err = known->store->ops->version(known->store, &now);

	if (!err && version_note(known, before, &now, asked))
		file_forget(known);
	return err;
}

/* The version as it is now, of which the file is to be a snapshot: see snapshot_settle(). */
static int version_settled(struct fm_file *file, struct fm_store_version *ret_now)
{
	const struct fm_store_ops *ops = file->store->ops;
	int err = ops->version(file->store, ret_now);

	if (err || !ret_now->young_ns || file->changed_policy != FM_CHANGED_ERROR)
		return err;
	os_sleep_until(os_now_ns() + ret_now->young_ns);
	return ops->version(file->store, ret_now);
}

/* Make the file a snapshot of the object as it is now, also where it was found changed (-ESTALE). Of a file that is not open for
 * writing. *ret_changed: it was of another version. Blocks on the store. */
int snapshot_renew(struct fm_file *file, bool *ret_changed)
{
	struct fm_store_version now;

	for (;;) {
		uint32_t epoch = atomic_get(&file->epoch);
		int err = version_settled(file, &now);
		if (err)
			return err;
		os_lock(&file->version_lock);
		bool late = atomic_get(&file->epoch) != epoch;
		bool other = atomic_get(&file->changed) || !store_version_same(&now, &file->version);
		bool old = other || file->version.young_ns;
		if (!late && old) {
			file->version = now;
			atomic_add(&file->epoch, 1u);
			store_size_set(file->store, now.size);
			atomic_set(&file->changed, 0u);
		}
		os_unlock(&file->version_lock);
		if (late)
			continue;
		if (old)
			file_forget(file);
		if (other)
			stats_add(file->mm->stats, files_changed, 1);
		*ret_changed = other;
		return 0;
	}
}

/* A change explains what the read came to better than its own result. */
static int recheck_after(struct fm_file *file, uint32_t epoch, uint64_t ended, int err)
{
	int changed = file_recheck(file, epoch, ended);
	return changed ? changed : err;
}

/* ------------------------------------------------------------------ one page's end */

static uint64_t page_bytes(struct fm_file *file, const struct page *page)
{
	uint64_t size = file_size(file), start = page->index << file->pool->shift;
	uint64_t rest = start < size ? size - start : 0;
	return rest < file->pool->page_size ? rest : file->pool->page_size;
}

static void zero_tail(struct frame_pool *pool, struct page *page, uint64_t bytes)
{
	memset(slot_of(pool, page) + bytes, 0, pool->page_size - bytes);
}

/* A read that began in `epoch` ended before the file's end. */
static int changed_behind(struct fm_file *file, uint32_t epoch)
{
	os_lock(&file->version_lock);
	if (atomic_get(&file->epoch) == epoch) /* else the file has another version by now */
		atomic_set(&file->changed, file->changed_policy == FM_CHANGED_ERROR);
	os_unlock(&file->version_lock);
	return -ESTALE;
}

/* `bytes` of the page have come, or an error. Page locked. Returns the list where it belongs now. */
static enum page_list page_has_come(struct fm_file *file, struct page *page, uint64_t bytes, int error, uint32_t epoch)
{
	struct frame_pool *pool = file->pool;
	uint64_t wanted = page_bytes(file, page);

	covered_if(!error && !wanted, a10_all_past_end);
	covered_if(!error && bytes < wanted, a10_ended_early);
	if (!error && page_is(page, PG_HOLE)) /* there was no memory for it, which a read of nothing does not notice */
		error = -ENOMEM;
	if (!error && !wanted) /* all past the end by now: zeros that would be taken for data when it grows */
		error = -ENXIO;
	if (!error && bytes < wanted && file->writable) /* it has become longer meanwhile: zeros, and none of them lost */
		wanted = bytes;
	else if (!error && bytes < wanted) /* it ended before its end: somebody truncated it */
		error = changed_behind(file, epoch);
	if (error) {
		page_fail(page, error);
		return LIST_INACTIVE;
	}
	/* What the store has past the new end of a file that is being made shorter is the file's, should the store refuse. shrink()
	 * zeroes it. */
	if (wanted < bytes && range_is_punched(file, page->index))
		wanted = bytes;
	covered_if(wanted < pool->page_size, a12_tail);
	if (wanted < pool->page_size)
		zero_tail(pool, page, wanted);
	page_set(page, PG_UPTODATE, PG_ERROR);
	/* file_forget() passes by what is not uptodate: one of the two sees the other. */
	covered_if(file->epoch != epoch, a10_changed_meanwhile);
	if (atomic_get(&file->epoch) != epoch)
		page_set(page, 0, PG_UPTODATE);
	return LIST_AHEAD;
}

/* The same for one page, which is unlocked here. */
static void page_end_read(struct fm_file *file, struct page *page, uint64_t bytes, int error, uint32_t epoch)
{
	lru_set(file->pool, page, 1, page_has_come(file, page, bytes, error, epoch));
	page_unlock(file->pool, page);
}

/* An attempt that says nothing of this page alone: as if it had not been. Page locked. */
static void page_end_unread(struct fm_file *file, struct page *page)
{
	struct frame_pool *pool = file->pool;
	page_set(page, 0, PG_SPEC | PG_MARK | PG_ERROR);
	if (PG_PINS(atomic_get(&page->state)) == 1)
		page_remove(pool, page); /* nobody wants it */
	else
		lru_set(pool, page, 1, LIST_INACTIVE);
	page_unlock(pool, page);
}

static void page_begin_read(struct frame_pool *pool, struct page *page)
{
	mm_assert(page_is(page, PG_LOCKED) && !page_is(page, PG_UPTODATE));
	page_word_set(page, attempt, page->attempt + 1);
	page_word_set(page, error, 0);
	page_set(page, 0, PG_ERROR);
	if (page_is(page, PG_HOLE)) { /* it was emptied behind us */
		mm_charge(pool->mm, pool->page_size);
		if (frame_fill(pool, page) < 0) /* a hole it stays, and the read fails by EFAULT */
			mm_uncharge(pool->mm, pool->page_size);
	}
}

/* Some errnos have a meaning of our own on the way up: a store's may not look like them. Of writes, too: a fault that has to
 * wait for one may end with its errno. */
int store_error(int err)
{
	switch (err) {
	case -EAGAIN:
	case -EBUSY:
	case -EINTR:
	case -EFAULT:
	case -EACCES:
	case -ENXIO:
		return -EIO;
	default:
		return err;
	}
}

static void note_latency(struct fm_file *file, uint64_t ns)
{
	uint64_t old = atomic_get(&file->latency_ns);
	atomic_set(&file->latency_ns, old ? old - old / 8 + ns / 8 : ns);
	stats_record(&file->mm->stats->read_ns, ns);
}

static int build_iov(struct fm_file *file, struct page **pages, uint32_t count, struct iovec *iov)
{
	int n = 0;
	for (uint32_t i = 0; i < count; i++) {
		char *slot = slot_of(file->pool, pages[i]);
		if (n && (char *)iov[n - 1].iov_base + iov[n - 1].iov_len == slot)
			iov[n - 1].iov_len += file->pool->page_size;
		else
			iov[n++] = (struct iovec){slot, file->pool->page_size};
	}
	return n;
}

static void count_read(struct fm_mm *mm, uint64_t bytes, unsigned shorts, int error)
{
	stats_add(mm->stats, reads, 1);
	stats_add(mm->stats, read_bytes, bytes);
	if (shorts)
		stats_add(mm->stats, read_short, shorts);
	if (error && error != -ECANCELED)
		stats_add(mm->stats, read_errors, 1);
}

/* All pages of one attempt; each locked and pinned by it. Neighbours go onto their list together. */
static void pages_end_read(struct fm_file *file, struct page **pages, uint32_t count,
			   uint64_t bytes, int error, uint32_t epoch)
{
	bool unread = error && (count > 1 || error == -ECANCELED || error == -EAGAIN);
	uint32_t first = 0;
	enum page_list list = LIST_NONE;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t size = file->pool->page_size, at = i * size;
		uint64_t came = bytes > at ? bytes - at : 0;
		if (unread) {
			page_end_unread(file, pages[i]);
			continue;
		}
		enum page_list to = page_has_come(file, pages[i], came < size ? came : size, error, epoch);
		if (i && (to != list || pages[i] != pages[i - 1] + 1)) {
			lru_set(file->pool, pages[first], i - first, list);
			first = i;
		}
		list = to;
	}
	if (unread || !count)
		return;
	lru_set(file->pool, pages[first], count - first, list);
	for (uint32_t i = 0; i < count; i++)
		page_unlock(file->pool, pages[i]);
}

/* ------------------------------------------------------------------ in the faulting thread */

/* The pages that follow and are not cached yet: read with the first, in one go. */
static uint32_t gather(struct fm_file *file, struct page **pages, uint32_t more)
{
	uint32_t count = 1;
	uint64_t end = file_pages(file);
	while (count <= more && count < READ_INLINE_MOST && pages[0]->index + count < end) {
		struct page *page;
		bool fresh;
		if (page_add(file, pages[0]->index + count, ADD_STREAM, &page, &fresh) < 0)
			break;
		if (!fresh) {
			page_unpin(file->pool, page);
			break;
		}
		page_begin_read(file->pool, page);
		page_set(page, PG_SPEC, 0);
		stats_add(file->mm->stats, ra_pages, 1);
		pages[count++] = page;
	}
	return count;
}

/* A demand read is done by the thread that wants it. */
bool read_is_inline(const struct fm_file *file)
{
	return !file->deadline_ns && (atomic_get(&file->store->caps) & FM_STORE_READ_INLINE);
}

/* A read in the faulting thread holds frames as a request does, and for as long: it counts like one. */
static bool inline_begin(struct fm_file *file, uint32_t *more)
{
	uint32_t cap = file->pool->frames / 4, before = atomic_add(&file->inflight, 1u);
	if (before && before >= cap) {
		atomic_sub(&file->inflight, 1u);
		return false;
	}
	if (before + 1 + *more > cap)
		*more = 0;
	return true;
}

static void inline_end(struct fm_file *file, uint32_t count)
{
	if (atomic_sub(&file->inflight, count) >= file->pool->frames / 4)
		frame_freed(file->pool); /* somebody may wait for room */
}

/* Somebody emptied frames behind us, or a MOVE was interrupted: their slots get memory again. How many had a hole: where
 * none had, the EFAULT is the store's own, and would be there again. -ENOMEM: the system has no memory; to try again at once
 * would be to try without end. */
static int pages_fill(struct frame_pool *pool, struct page **pages, uint32_t count)
{
	int holes = 0, err = 0;
	for (uint32_t i = 0; i < count && pool->registered; i++) /* else the kernel fills them itself */
		if (!trap_all_present((uint64_t)slot_of(pool, pages[i]), pool->page_size)) {
			bool charged = !page_is(pages[i], PG_HOLE);
			int failed = frame_fill(pool, pages[i]);
			if (!failed && !charged)
				mm_charge(pool->mm, pool->page_size);
			err = failed ? failed : err;
			holes++;
		}
	stats_add(pool->mm->stats, emptied_behind, holes);
	return err ? err : holes;
}

static int read_inline(struct fm_file *file, struct page *page, uint32_t more)
{
	struct page *pages[READ_INLINE_MOST];
	struct iovec iov[READ_INLINE_MOST];
	struct frame_pool *pool = file->pool;
	size_t bytes = 0;
	unsigned shorts = 0;

	pages[0] = page;
	page_begin_read(pool, page);
	uint32_t count = gather(file, pages, more);
	atomic_add(&file->inflight, count - 1);
	int iov_count = build_iov(file, pages, count, iov);
	uint64_t offset = page->index << pool->shift, started = os_now_ns();
	uint32_t epoch = atomic_get(&file->epoch);
	int err = store_read_full(file->store, iov, iov_count, offset, &bytes, &shorts);
	int filled = err == -EFAULT ? pages_fill(pool, pages, count) : 0;
	if (filled < 0) {
		err = filled;
	} else if (filled) { /* holes in the slots: once more */
		iov_count = build_iov(file, pages, count, iov);
		err = store_read_full(file->store, iov, iov_count, offset, &bytes, &shorts);
	}
	err = store_error(err);
	note_latency(file, os_now_ns() - started);
	count_read(file->mm, bytes, shorts, err);
	if (!err || err == -EIO) /* also what ended before its end */
		err = recheck_after(file, epoch, UINT64_MAX, err);
	bool dropped = err == -EAGAIN;
	inline_end(file, count); /* as in read_done() */
	page_pin(page);
	pages_end_read(file, pages, count, bytes, err, epoch);
	for (uint32_t i = 1; i < count; i++)
		page_unpin(pool, pages[i]);
	int own = page_error(page, page_state(page));
	page_unpin(pool, page);
	if (dropped)
		file_forget(file);
	if (err && count > 1)
		ra_shrink(file);
	return own;
}

/* ------------------------------------------------------------------ by way of a staging slot */

/*
 * A page that one fault alone wants, and for which there is a frame without memory, is read into a staging slot and copied into
 * the view. The frame's slot stays empty, as after a MOVE; yet nothing had to be filled first or protected after, and no
 * other core is interrupted.
 */
bool read_may_stage(const struct fault *vmf)
{
	struct frame_pool *pool = vmf->file->pool;
	return atomic_get(&pool->stages_free) && !pool_pauses(pool) && !vmf->no_stage && !vmf->more &&
	       !(vmf->exact && (vmf->flags & FM_FAULT_WRITE)) && /* what is read for a call comes in protected */
	       (vmf->flags & FM_FAULT_ALLOW_RETRY) &&
	       !atomic_get(&vmf->file->changed) && /* else a hole would have to be filled, and another frame need not */
	       (vmf->index + 1) << pool->shift <= file_size(vmf->file);
}

/* No staging slot: the frame gets memory of its own, and its lock is put. -ENOMEM: the page is gone again. */
static int fill_instead(struct frame_pool *pool, struct page *page)
{
	if (frame_fill_first(pool, page) == 0) {
		page_unlock_unread(pool, page);
		return 0;
	}
	mm_uncharge(pool->mm, pool->page_size);
	page_remove(pool, page);
	page_unlock(pool, page);
	page_unpin(pool, page);
	return -ENOMEM;
}

/* Somebody emptied a staging slot behind us. As pages_fill(): 0 where there was no hole. */
static int stage_fill(struct frame_pool *pool, const char *stage)
{
	if (!pool->registered || trap_all_present((uint64_t)stage, OS_PAGE))
		return 0;
	int err = trap_fill(pool->mm->trap, (uint64_t)stage, OS_PAGE);
	return err ? err : 1;
}

/* What was read has not gone into the view: the page is what it was without its memory, or bears the errno. Unlocked here. */
static void staged_end(struct fm_file *file, struct page *page, uint64_t bytes, int err, uint32_t epoch)
{
	uint64_t wanted = page_bytes(file, page);
	bool unread = err == -ECANCELED || err == -EAGAIN || (!err && (bytes >= wanted || file->writable));

	mm_uncharge(file->mm, file->pool->page_size);
	covered_if(unread, exit_staged_unread);
	if (!unread && !err) /* it ended before its end; which may have come nearer since, and the page has no memory to be uptodate in */
		err = changed_behind(file, epoch);
	if (unread)
		page_end_unread(file, page);
	else
		page_end_read(file, page, bytes, err, epoch);
}

/* What was read into a staging slot goes into the view, with `write` to be written to. Page locked, which ends here. *err becomes
 * -EAGAIN where the object has changed. `may_wait`: see pt_get(). False: it is not in the view. */
static bool staged_install(struct view *view, struct page *page, const char *stage, bool write, bool may_wait, uint64_t bytes,
			   uint32_t epoch, int *err)
{
	struct fm_file *file = view->file;
	bool all = bytes == OS_PAGE && page_bytes(file, page) == OS_PAGE;

	if (*err || !all || !pt_get(view->mm, page, 1, page_addr(view, file->pool, page), may_wait) ||
	    page_install_from(view, page, stage, write) < 0) {
		staged_end(file, page, bytes, *err, epoch);
		return false;
	}
	/* file_forget() passes by what is not uptodate: one of the two sees the other. */
	if (atomic_get(&file->epoch) != epoch)
		*err = -EAGAIN;
	page_unlock(file->pool, page);
	return true;
}

/* vmf->page is fresh: locked, pinned, a hole. 0: look again; -ENOMEM: no frame after all; else the errno of the attempt. */
int read_staged(struct fault *vmf)
{
	struct fm_file *file = vmf->file;
	struct frame_pool *pool = file->pool;
	struct page *page = vmf->page;
	uint32_t more = 0;
	char *stage = atomic_get(&file->changed) ? NULL : stage_take(pool, true);

	might_block(file->mm);
	if (stage && !inline_begin(file, &more)) {
		stage_put(pool, stage);
		stage = NULL;
	}
	if (!stage) {
		int err = fill_instead(pool, page);
		if (err) {
			vmf->page = NULL;
			vmf->no_stage = true; /* one that is filled may be free */
		}
		return err;
	}
	struct iovec iov = {stage, OS_PAGE};
	uint64_t started = os_now_ns();
	uint32_t epoch = atomic_get(&file->epoch);
	size_t bytes = 0;
	unsigned shorts = 0;

	page_word_set(page, attempt, page->attempt + 1);
	int err = store_read_full(file->store, &iov, 1, page->index << pool->shift, &bytes, &shorts);
	if (err == -EFAULT) {
		int filled = stage_fill(pool, stage);
		err = filled < 0 ? filled : filled ? -ECANCELED : err;
	}
	err = store_error(err);
	note_latency(file, os_now_ns() - started);
	count_read(file->mm, bytes, shorts, err);
	if (!err || err == -EIO)
		err = recheck_after(file, epoch, UINT64_MAX, err);
	int own = 0;
	page->keep = vmf->keep;
	bool write = (vmf->flags & FM_FAULT_WRITE) && dirty_may_come(vmf);
	if (staged_install(vmf->view, page, stage, write, true, bytes, epoch, &err)) {
		vmf->run_first = vmf->run_last = vmf->index;
		fault_after_install(vmf);
	} else {
		vmf->no_stage = true; /* what kept it from the view may do so again */
		own = page_error(page, page_state(page));
	}
	stage_put(pool, stage);
	if (err == -EAGAIN)
		file_forget(file);
	inline_end(file, 1);
	if (write)
		dirty_pace(vmf);
	return own;
}

/* Wait, outside all locks, for a page that somebody reads. 0, or the errno of that attempt. */
static int wait_for_read(struct fm_file *file, struct page *page)
{
	uint64_t until = file->deadline_ns ? os_now_ns() + file->deadline_ns : OS_FOREVER;
	int err = page_wait(file->mm, page, true, until);
	if (err == -ETIMEDOUT) {
		read_abandon_page(file->mm, page);
		return -ETIMEDOUT;
	}
	return err ? err : page_error(page, page_state(page));
}

/* No request to be had, or too many frames with this store: wait until one is done. The caller holds no frame: those
 * of the ones that wait would be beyond the store's share. 0: try again; else -ETIMEDOUT or -ECANCELED. */
int read_wait_for_room(struct fm_file *file, uint64_t until_ns)
{
	uint32_t *seq = &file->pool->free_seq, before;
	uint64_t now = os_now_ns(), slice = now + 10 * OS_NSEC_PER_MSEC;
	int ret = 0;
	if (now >= until_ns)
		return -ETIMEDOUT;
	stats_add(file->mm->stats, frame_waits, 1);
	atomic_add(&file->pool->free_waiters, 1u);
	do { /* two that wait must not keep each other awake by the pages that they put */
		before = atomic_get(seq);
		if (atomic_get(&file->mm->dying))
			ret = -ECANCELED;
	} while (!ret && !read_has_room(file, true) &&
		 os_futex_wait(seq, before, OS_FUTEX_ANY, slice < until_ns ? slice : until_ns) == 0);
	atomic_sub(&file->pool->free_waiters, 1u);
	return ret;
}

/*
 * Read a page, and up to `more` that follow it. Called with the page locked (which ends here) and pinned
 * (which stays), no other lock. 0: look again; -EBUSY: nothing was read, put the page and read_wait_for_room();
 * else the errno of the attempt.
 */
int read_page(struct fm_file *file, struct page *page, uint32_t more)
{
	might_block(file->mm);
	if (atomic_get(&file->changed)) { /* nothing new may be read into the snapshot */
		covered(exit_stale_d);
		page_begin_read(file->pool, page);
		page_fail(page, -ESTALE);
		page_unlock_unread(file->pool, page);
		return -ESTALE;
	}
	bool here = read_is_inline(file);
	if (here && inline_begin(file, &more))
		return read_inline(file, page, more);
	if (!here && read_submit(file, &page, 1, false) == 0)
		return wait_for_read(file, page);
	page_unlock_unread(file->pool, page);
	return -EBUSY;
}

/* ------------------------------------------------------------------ requests */

/* One store may have as many as it leaves to others: half of them, or, where one has died with half, a quarter. Were it to die with
 * all, nobody else could read. */
static uint32_t requests_most(const struct fm_file *file)
{
	return atomic_get(&file->mm->requests_left);
}

static struct read_request *request_get(struct fm_file *file)
{
	struct fm_mm *mm = file->mm;
	struct read_request *req = NULL;
	os_lock(&mm->request_lock);
	if (mm->request_free != NONE && atomic_get(&file->requests) < requests_most(file)) {
		atomic_add(&file->requests, 1u);
		req = &mm->requests[mm->request_free];
		atomic_set(&mm->request_free, req->next_free);
		atomic_set(&mm->requests_left, mm->requests_left - 1);
	}
	os_unlock(&mm->request_lock);
	if (req)
		stats_add(mm->stats, requests, 1);
	return req;
}

static void request_put(struct fm_mm *mm, struct read_request *req)
{
	os_lock(&mm->request_lock);
	atomic_set(&req->busy, 0u);
	req->next_free = mm->request_free;
	atomic_set(&mm->request_free, (uint32_t)(req - mm->requests));
	atomic_set(&mm->requests_left, mm->requests_left + 1);
	os_unlock(&mm->request_lock);
	stats_sub(mm->stats, requests, 1);
	atomic_sub(&mm->requests_busy, 1u);
}

static struct page *segment_first(const struct frame_pool *pool, const struct iovec *segment)
{
	return pool->pages + (((uintptr_t)segment->iov_base - (uintptr_t)pool->slots) >> pool->shift);
}

static struct page *segment_end(const struct frame_pool *pool, const struct iovec *segment)
{
	return segment_first(pool, segment) + (segment->iov_len >> pool->shift);
}

/* The slots of its pages, as many as lie together in one; returns how many there are of these. */
static int request_segments(const struct read_request *req, struct iovec *segments)
{
	const struct frame_pool *pool = req->file->pool;

	if (req->stage) {
		segments[0] = (struct iovec){slot_of(pool, &pool->pages[req->first]), pool->page_size};
		return 1;
	}
	memcpy(segments, req->io.iov, (size_t)req->io.iov_count * sizeof(*segments));
	return req->io.iov_count;
}

uint32_t request_pages(const struct read_request *req, struct page **pages)
{
	const struct frame_pool *pool = req->file->pool;
	struct iovec segments[IO_SEGMENTS_MAX];
	int segment_count = request_segments(req, segments);
	uint32_t count = 0;

	for (int i = 0; i < segment_count; i++)
		for (struct page *page = segment_first(pool, &segments[i]); page < segment_end(pool, &segments[i]); page++)
			pages[count++] = page;
	mm_assert(count == req->page_count && pages[0] == &pool->pages[req->first]);
	return count;
}

/* Of a window of so many. In several requests, else none of its pages would be there before all are; and none that is too much
 * of what one store may have under way. */
uint32_t read_pages_most(const struct frame_pool *pool, uint32_t wanted)
{
	uint32_t most = wanted / 2 < pool->frames / 16 ? wanted / 2 : pool->frames / 16;
	if (most > READ_PAGES_MAX)
		most = READ_PAGES_MAX;
	return most < IO_SEGMENTS_MAX || pool->page_size > OS_PAGE ? IO_SEGMENTS_MAX : most;
}

/* Whether one request can have the pages, which the last of them is the news of; *segments is counted on. */
bool read_fits(struct page **pages, uint32_t count, uint32_t *segments)
{
	if (count > 1 && pages[count - 1] == pages[count - 2] + 1)
		return true;
	return ++*segments <= READ_SEGMENTS_MAX;
}

/* What was read by way of a staging slot goes into the view. Page locked, which ends here. -EAGAIN: the object has changed. */
static int staged_done(struct read_request *req, struct page *page, int err)
{
	struct fm_file *file = req->file;
	uint64_t index = page->index;

	region_pin(&file->view.region); /* as a fault, which takes out what came too late */
	bool there = staged_install(&file->view, page, req->stage, false, false, req->io.bytes_done, req->epoch, &err);
	if (there && unlikely(atomic_get(&file->view.unmap_seq) != req->unmap_seq) && !mm_range_mapped(file->mm, req->stage_addr)) {
		covered(exit_unmapped_staged);
		file_take_out(file, index, index);
	}
	region_unpin(&file->view.region);
	return err;
}

/* A page's slot, or the staging slot, had been emptied behind us. As pages_fill(). */
static int request_fill(struct read_request *req, struct page **pages)
{
	struct frame_pool *pool = req->file->pool;
	return req->stage ? stage_fill(pool, req->stage) : pages_fill(pool, pages, req->page_count);
}

static void read_done(struct io_request *io)
{
	struct read_request *req = io->owner;
	struct fm_file *file = req->file;
	struct fm_mm *mm = file->mm;
	struct page *pages[READ_PAGES_MAX];
	uint32_t count = request_pages(req, pages);
	int err = io->error;

	os_lock(&mm->request_lock);
	bool abandoned = atomic_get(&req->abandoned);
	for (uint32_t i = 0; !abandoned && i < count; i++)
		pages[i]->request = 0;
	os_unlock(&mm->request_lock);
	/* Of one that was abandoned the staging slot alone is its own still. */
	int filled = err == -EFAULT && (req->stage || !abandoned) ? request_fill(req, pages) : 0;
	if (filled)
		err = filled < 0 ? filled : -ECANCELED; /* holes in the slots: as if it had not been tried */
	err = store_error(err);

	note_latency(file, os_now_ns() - req->started_ns);
	count_read(mm, io->bytes_done, io->shorts, abandoned ? 0 : err); /* as a failure it has been counted */
	if ((!err || err == -EIO) && !abandoned)
		err = recheck_after(file, req->epoch, io->ended, err);
	/* Before anybody can see that they have come: who goes on to the mark is to find room for the next window. */
	atomic_sub(&file->inflight, count);
	atomic_sub(&file->requests, 1u);
	if (!abandoned && req->stage)
		err = staged_done(req, pages[0], err);
	else if (!abandoned)
		pages_end_read(file, pages, count, io->bytes_done, err, req->epoch);
	if (req->stage)
		stage_put(file->pool, req->stage);
	for (uint32_t i = 0; i < count; i++)
		page_unpin(file->pool, pages[i]);
	if (err == -EAGAIN)
		file_forget(file);
	if (err && count > 1)
		ra_shrink(file);
	struct frame_pool *pool = file->pool;
	request_put(mm, req);
	if (unlikely(replays_under_way(mm)))
		replay_room(mm);
	frame_freed(pool);
	file_put(file);
}

/* A demand read could begin now: in the caller's own thread, if it may wait and the store allows, else as a request. */
bool read_has_room(struct fm_file *file, bool may_wait)
{
	uint32_t inflight = atomic_get(&file->inflight);
	bool here = may_wait && read_is_inline(file);
	bool place = atomic_get(&file->mm->request_free) != NONE &&
		     atomic_get(&file->requests) < requests_most(file);
	return (here || place) && (!inflight || inflight < file->pool->frames / 4);
}

/* A request that has its share of frames; NULL: there is none, or the store has its share. */
static struct read_request *request_begin(struct fm_file *file, uint32_t count, bool speculative)
{
	uint32_t cap = file->pool->frames / 4, before = atomic_add(&file->inflight, count);
	struct read_request *req = NULL;

	mm_assert(count && count <= READ_PAGES_MAX);
	if (before + count <= cap || (!before && !speculative))
		req = request_get(file);
	if (!req) {
		atomic_sub(&file->inflight, count);
		return NULL;
	}
	file_get(file);
	req->file = file;
	req->page_count = count;
	req->speculative = speculative;
	atomic_set(&req->cancelled, 0u);
	atomic_set(&req->abandoned, 0u);
	req->stage = NULL;
	req->epoch = atomic_get(&file->epoch);
	return req;
}

void request_send(struct fm_mm *mm, struct io_request *io)
{
	if (self()->plugged) {
		io_submit_later(mm->io, io);
		self()->unsent = true;
	} else {
		io_submit(mm->io, io);
	}
}

/* Requests that are made between these two go to the I/O thread together. Nothing is waited for meanwhile that could wait for
 * them: not so in the experiment, where the map lock is held over reads. False: they are held already. */
bool requests_hold(struct fm_mm *mm)
{
	bool begun = !self()->plugged;
	self()->plugged = !(mm->flags & FM_MM_HOLD_LOCK);
	return begun;
}

void requests_send(struct fm_mm *mm)
{
	bool unsent = self()->unsent;
	self()->plugged = self()->unsent = false;
	if (unsent)
		io_kick(mm->io);
}

static bool asked_to_end(struct read_request *req)
{
	return atomic_get(&req->cancelled) || atomic_get(&req->abandoned);
}

/* Its pages' locks are its own from here on, and it has pins on them. */
static void request_submit(struct read_request *req, struct page **pages)
{
	struct fm_file *file = req->file;
	struct fm_mm *mm = file->mm;

	for (uint32_t i = 0; i < req->page_count; i++)
		page_pin(pages[i]);
	req->first = (uint32_t)(pages[0] - file->pool->pages);
	req->io.store = file->store;
	req->io.offset = pages[0]->index << file->pool->shift;
	req->io.priority = req->speculative ? IO_SPECULATIVE : IO_DEMAND;
	req->io.done = read_done;
	req->io.owner = req;
	req->started_ns = os_now_ns();
	req->deadline_ns = file->deadline_ns ? req->started_ns + file->deadline_ns : OS_FOREVER;
	os_lock(&mm->request_lock);
	for (uint32_t i = 0; i < req->page_count; i++)
		pages[i]->request = (uint16_t)(req - mm->requests + 1);
	atomic_set(&req->busy, 1u);
	os_unlock(&mm->request_lock);
	atomic_add(&mm->requests_busy, 1u);
	if (file->deadline_ns)
		background_kick(mm);
	request_send(mm, &req->io);
	if (unlikely(asked_to_end(req))) { /* before there was anything to be cancelled. By now it may be another's, of which the same holds */
		os_lock(&mm->request_lock);
		if (atomic_get(&req->busy) && asked_to_end(req))
			io_cancel(mm->io, &req->io);
		os_unlock(&mm->request_lock);
	}
}

/*
 * Start reading neighbouring pages, all locked and pinned by the caller and not uptodate. On 0 the locks
 * are the request's, which has its own pins. -EAGAIN: no request, or the store has its share of frames.
 */
int read_submit(struct fm_file *file, struct page **pages, uint32_t count, bool speculative)
{
	struct read_request *req = request_begin(file, count, speculative);
	if (!req)
		return -EAGAIN;
	for (uint32_t i = 0; i < count; i++)
		page_begin_read(file->pool, pages[i]);
	req->io.iov_count = build_iov(file, pages, count, req->io.iov);
	request_submit(req, pages);
	return 0;
}

/* One page, which is a hole that is charged for, into a staging slot. */
static void submit_staged(struct read_request *req, struct page *page, char *stage, uint64_t addr, uint32_t unmap_seq)
{
	page_word_set(page, attempt, page->attempt + 1);
	req->stage = stage;
	req->stage_addr = addr;
	req->unmap_seq = unmap_seq;
	req->io.iov[0] = (struct iovec){stage, OS_PAGE};
	req->io.iov_count = 1;
	watched(staging, req);
	request_submit(req, &page);
}

/* The same for vmf->page alone, which is fresh: a hole, whose memory is charged for. Read into a staging slot, it is in the view
 * when its lock is put. Failing this it is a hole that is not charged for. */
int read_submit_staged(struct fault *vmf)
{
	struct fm_file *file = vmf->file;
	struct frame_pool *pool = file->pool;
	struct page *page = vmf->page;
	char *stage = stage_take(pool, true);
	struct read_request *req;

	if (!stage && frame_fill_first(pool, page) == 0)
		return read_submit(file, &page, 1, false);
	req = stage ? request_begin(file, 1, false) : NULL;
	if (!req) {
		if (stage)
			stage_put(pool, stage);
		mm_uncharge(vmf->mm, pool->page_size);
		return -EAGAIN;
	}
	submit_staged(req, page, stage, vmf->addr, vmf->unmap_seq);
	return 0;
}

/* The same for a page that nobody wants yet, with its staging slot. */
int read_submit_ahead(struct fm_file *file, struct page *page, char *stage, uint32_t unmap_seq)
{
	struct read_request *req = request_begin(file, 1, true);
	if (!req) {
		stage_put(file->pool, stage);
		mm_uncharge(file->mm, file->pool->page_size);
		return -EAGAIN;
	}
	submit_staged(req, page, stage, page_addr(&file->view, file->pool, page), unmap_seq);
	return 0;
}

/* The request that has this page's lock, if it is still to end; request lock held. */
static struct read_request *request_of(struct fm_mm *mm, const struct page *page)
{
	return page->request ? &mm->requests[page->request - 1] : NULL;
}

/* A fault needs a page that a request reads: it is no speculation any more. */
void read_wanted(struct fm_file *file, struct page *page)
{
	struct fm_mm *mm = file->mm;
	struct io_request *io = NULL;
	os_lock(&mm->request_lock);
	struct read_request *req = request_of(mm, page);
	if (req && req->speculative) {
		req->speculative = false;
		io = &req->io;
	}
	if (io)
		io_promote(mm->io, io);
	os_unlock(&mm->request_lock);
}

/* A fault has waited this long for a page of a readahead request. When that is far beyond what the store
 * usually takes, the request is aborted, once: its pages are unlocked unread, and the fault reads its own. */
bool read_is_stuck(struct fm_file *file, struct page *page, uint64_t waited_ns)
{
	struct fm_mm *mm = file->mm;
	uint64_t patience = 4 * atomic_get(&file->latency_ns);
	bool aborted = false;

	if (patience < 20 * OS_NSEC_PER_MSEC)
		patience = 20 * OS_NSEC_PER_MSEC;
	if (waited_ns < patience)
		return false;
	os_lock(&mm->request_lock);
	struct read_request *req = request_of(mm, page);
	if (req && req->page_count > 1 && !atomic_get(&req->cancelled)) {
		aborted = true;
		atomic_set(&req->cancelled, 1u);
		io_cancel(mm->io, &req->io);
	}
	os_unlock(&mm->request_lock);
	if (aborted)
		stats_add(mm->stats, ra_aborted, 1);
	return aborted;
}

/* Take the pages from a request whose time is up; request lock held, is dropped. */
static void request_abandon(struct fm_mm *mm, struct read_request *req)
{
	struct iovec segments[IO_SEGMENTS_MAX]; /* the pages themselves would be too many for a signal handler's stack */
	struct fm_file *file = req->file;
	int count = request_segments(req, segments);
	bool req_staged = req->stage != NULL;

	atomic_set(&req->abandoned, 1u);
	for (int i = 0; i < count; i++)
		for (struct page *page = segment_first(file->pool, &segments[i]); page < segment_end(file->pool, &segments[i]); page++) {
			page->request = 0;
			page_pin(page); /* the request's own pin may be put as soon as the lock is free */
		}
	file_get(file);
	io_cancel(mm->io, &req->io);
	os_unlock(&mm->request_lock);

	stats_add(mm->stats, read_timeouts, 1);
	stats_add(mm->stats, read_errors, 1);
	for (int i = 0; i < count; i++)
		for (struct page *page = segment_first(file->pool, &segments[i]); page < segment_end(file->pool, &segments[i]); page++) {
			if (req_staged) /* its memory was only charged for */
				mm_uncharge(mm, file->pool->page_size);
			page_fail(page, -ETIMEDOUT);
			page_remove(file->pool, page);
			page_unlock(file->pool, page);
			page_unpin(file->pool, page);
		}
	file_put(file);
}

void read_abandon_page(struct fm_mm *mm, struct page *page)
{
	os_lock(&mm->request_lock);
	struct read_request *req = request_of(mm, page);
	if (req && !atomic_get(&req->abandoned))
		request_abandon(mm, req);
	else
		os_unlock(&mm->request_lock);
}

/* Abandon what has passed its deadline; *ret_next_ns is lowered to the next one. Background thread. */
void read_expire(struct fm_mm *mm, uint64_t now_ns, uint64_t *ret_next_ns)
{
	for (uint32_t i = 0; i < mm->request_count; i++) {
		struct read_request *req = &mm->requests[i];
		os_lock(&mm->request_lock);
		bool waits = atomic_get(&req->busy) && !atomic_get(&req->abandoned) && req->deadline_ns != OS_FOREVER;
		/* Else it has ended, and its pages may be another's by now. */
		bool here = waits && req->file->pool->pages[req->first].request == i + 1;
		if (here && req->deadline_ns <= now_ns) {
			request_abandon(mm, req);
			continue;
		}
		if (here && req->deadline_ns < *ret_next_ns)
			*ret_next_ns = req->deadline_ns;
		os_unlock(&mm->request_lock);
	}
}

/* Ask for the end of all requests, or of one file's. */
void read_cancel_all(struct fm_mm *mm, struct fm_file *file)
{
	for (uint32_t i = 0; i < mm->request_count; i++) {
		struct read_request *req = &mm->requests[i];
		os_lock(&mm->request_lock);
		if (atomic_get(&req->busy) && (!file || req->file == file) && !atomic_get(&req->cancelled)) {
			atomic_set(&req->cancelled, 1u);
			io_cancel(mm->io, &req->io);
		}
		os_unlock(&mm->request_lock);
	}
}
