/* SPDX-License-Identifier: MIT */
/*
 * From the trap to filemap_fault() and back: find the mapping, try until it is served, install, and, for those
 * that may not wait, turn what the fault wants into requests and tickets.
 *
 * Takes the map lock shared for each try; holds nothing while it installs but the page lock. The view is pinned
 * by the trap for the whole fault, so that its region and its file outlive it.
 * May call: all of mm, trap.
 */
#include "mm/mm.h"

/* The mm's view at addr, its region pinned for a fault by a call; NULL: there is none. */
struct view *view_find(struct fm_mm *mm, uint64_t addr)
{
	struct view_region *region = region_find(addr);
	struct view *view = region ? region->owner : NULL;

	if (view && view->mm == mm)
		return view;
	if (region)
		region_unpin(region);
	return NULL;
}

void fault_begin(struct fault *vmf, struct view *view, uint64_t addr, uint32_t flags)
{
	*vmf = (struct fault){
		.mm = view->mm,
		.file = view->file,
		.view = view,
		.addr = addr,
		.byte = addr - view->region.base,
		.index = (addr - view->region.base) >> view->file->pool->shift,
		.flags = flags,
		.started_ns = os_now_ns(),
	};
}

static void put_stale(struct fault *vmf)
{
	struct frame_pool *pool = vmf->file->pool;
	struct page *locked = vmf->stale_locked, *stale = vmf->stale;

	vmf->stale_locked = vmf->stale = NULL;
	if (locked) {
		page_unlock(pool, locked);
		page_unpin(pool, locked);
	}
	if (stale)
		page_unpin(pool, stale);
}

/* Before a wait for a locked page: the lock may be held for something else than a read, over the errno of an attempt
 * that ended before. */
void fault_note_attempt(struct fault *vmf, const struct page *page)
{
	vmf->had_error = page_is(page, PG_ERROR);
	vmf->attempt = page_word(page, attempt);
}

/* After it: the errno of the attempt that was waited for; 0: there is none, look again. */
int fault_attempt_error(const struct fault *vmf, const struct page *page)
{
	int error = page_error(page, page_state(page));
	bool own = !vmf->had_error || page_word(page, attempt) != vmf->attempt;
	covered_if(error && !own, a6_older_error);
	return own ? error : 0;
}

/* Put what the fault still holds, and count it: once, however many tries it took. */
void fault_end(struct fault *vmf, int error)
{
	struct stats_page *stats = vmf->mm->stats;
	uint64_t ns = os_now_ns() - vmf->started_ns;

	put_stale(vmf);
	if (vmf->page)
		page_unpin(vmf->file->pool, vmf->page);
	vmf->page = NULL;
	stats_add(stats, faults, 1);
	if (error == -EFAULT || error == -EACCES)
		stats_add(stats, faults_segv, 1);
	else if (error && error != -EAGAIN) /* told to come again */
		stats_add(stats, faults_sigbus, 1);
	if (vmf->counted_major) {
		stats_record(&stats->fault_major_ns, ns);
	} else {
		stats_add(stats, faults_minor, 1);
		stats_record(&stats->fault_minor_ns, ns);
	}
	if (vmf->tries > 1)
		stats_add(stats, fault_retries, vmf->tries - 1);
}

/* FM_MM_HOLD_LOCK: the experiment. What the fault wants is done and waited for with the map lock held, as a
 * fault path without the rule would. */
static void wait_under_lock(struct fault *vmf)
{
	struct fm_file *file = vmf->file;
	bool fresh;

	might_block(vmf->mm); /* counts */
	put_stale(vmf);
	if (vmf->want == WANT_SIZE) {
		(void)file_look(file);
		return;
	}
	if (vmf->want == WANT_THROTTLE) {
		if (!vmf->error && !page_is(vmf->page, PG_UPTODATE))
			vmf->error = page_wait_written(vmf->mm, vmf->page, fault_deadline(vmf));
		else if (!vmf->error)
			vmf->error = dirty_wait(vmf);
		return;
	}
	if (!vmf->page) {
		int err = page_add(file, vmf->index, ADD_RECLAIM, &vmf->page, &fresh);
		if (err) {
			frame_wait(file, true, OS_FOREVER);
			return;
		}
		if (fresh)
			page_unlock_unread(file->pool, vmf->page);
	}
	struct page *page = vmf->page;
	while (!page_trylock(page))
		if (page_wait(vmf->mm, page, true, OS_FOREVER) < 0)
			return;
	if (page_is(page, PG_UPTODATE | PG_GONE | PG_WRITEBACK))
		page_unlock(file->pool, page);
	else
		vmf->error = read_page(file, page, 0);
	if (vmf->error == -EBUSY)
		vmf->error = read_wait_for_room(file, OS_FOREVER);
}

/* Start the read that a fault wants. 0: the page is under way (or gone or read meanwhile); else no frame or no
 * request can be had: the pool's queue is the place to wait. */
static int start_wanted_read(struct fault *vmf, bool told_later)
{
	struct fm_file *file = vmf->file;
	bool fresh = false;
	int err = 0;
	/* Not for a thread that waits in the kernel: it would go on before its fault has ended. */
	unsigned how = ADD_RECLAIM | (vmf->exact && read_may_stage(vmf) ? ADD_HOLE : 0);

	if (!vmf->page && !read_has_room(file, false)) /* a frame taken and given back would wake the next in vain */
		vmf->page = page_find(file, vmf->index);
	if (!vmf->page)
		err = read_has_room(file, false) ? page_add(file, vmf->index, how, &vmf->page, &fresh) : -EAGAIN;
	bool staged = !err && fresh && page_is(vmf->page, PG_HOLE);
	covered_if(err == -ENOMEM, no_frame_n);
	covered_if(err == -EAGAIN, no_request_n);
	if (err)
		return err;
	if (!fresh && !page_trylock(vmf->page))
		return 0;
	if (page_is(vmf->page, PG_UPTODATE | PG_GONE | PG_WRITEBACK)) {
		page_unlock(file->pool, vmf->page);
		return 0;
	}
	if (atomic_get(&file->changed)) {
		covered(exit_stale_n);
		if (staged) /* its memory had been charged for, and it gets none */
			mm_uncharge(vmf->mm, file->pool->page_size);
		page_unlock_unread(file->pool, vmf->page);
		vmf->error = -ESTALE;
		return 0;
	}
	if (told_later)
		page_set(vmf->page, PG_ASKED, 0);
	err = staged ? read_submit_staged(vmf) : read_submit(file, &vmf->page, 1, false);
	vmf->no_stage |= staged; /* not again, should it fail */
	vmf->had_error = false;
	if (!err) {
		vmf->waited = true; /* its errno is ours, also if it has ended by now */
		return 0;
	}
	/* Nobody waits while it holds a frame: an unread page that only this fault wants is given back. */
	if (PG_PINS(atomic_get(&vmf->page->state)) == 1) {
		covered(exit_unread_dropped_n);
		page_remove(file->pool, vmf->page);
		page_unlock(file->pool, vmf->page);
	} else {
		covered(exit_unread_kept_n);
		page_unlock_unread(file->pool, vmf->page);
	}
	page_unpin(file->pool, vmf->page);
	vmf->page = NULL;
	return err;
}

static void submit_window(struct fault *vmf)
{
	if (!vmf->ra.count)
		return;
	ra_submit(vmf->file, &vmf->ra, true);
	vmf->ra.count = 0;
}

static bool past_deadline(const struct fault *vmf)
{
	uint64_t until = fault_deadline(vmf);
	return until != OS_FOREVER && os_now_ns() >= until;
}

/* What a fault that may not wait wants, after the map lock was dropped. True: the ticket will be run (or, without
 * one, the reads are under way). False: try again at once. */
static bool submit_wanted(struct fault *vmf, struct ticket *ticket)
{
	put_stale(vmf);
	if (vmf->want == WANT_SIZE) {
		(void)file_look(vmf->file);
		return false;
	}
	if (vmf->want == WANT_READ) {
		if (vmf->ra.count && vmf->ra.mark == vmf->index) /* it is in its window: read with a group */
			submit_window(vmf);
		int err = start_wanted_read(vmf, !ticket);
		if (!err && vmf->page && !vmf->waited)
			read_wanted(vmf->file, vmf->page);
		submit_window(vmf);
		if (err && past_deadline(vmf)) {
			covered(exit_frame_timeout_n);
			vmf->error = -ETIMEDOUT;
			return false;
		}
		if (err && ticket)
			frame_queue_ticket(vmf->file, ticket);
		else if (err)
			frame_ask(vmf->file);
		if (err)
			return true;
	} else if (vmf->want == WANT_THROTTLE) {
		if (vmf->error)
			return false;
		if (past_deadline(vmf)) {
			vmf->error = -ETIMEDOUT;
			return false;
		}
		stats_add(vmf->mm->stats, write_throttled, 1);
		if (ticket)
			frame_queue_throttled(vmf->file, ticket, fault_deadline(vmf));
		else
			frame_ask(vmf->file);
		writeback_urge(vmf->mm);
		return true;
	} else if (vmf->page) {
		read_wanted(vmf->file, vmf->page);
	}
	if (vmf->error || !vmf->page || !page_is(vmf->page, PG_LOCKED))
		return false;
	if (!vmf->waited)
		fault_note_attempt(vmf, vmf->page);
	vmf->waited = true;
	return ticket ? page_queue_ticket(vmf->mm, vmf->page, ticket) : page_ask(vmf->page);
}

/* The wait of a ticket is over: the errno of the attempt it waited for is this fault's. */
static void take_attempt_error(struct fault *vmf, const struct ticket *ticket)
{
	if (!vmf->waited || !vmf->page)
		return;
	uint32_t state = atomic_get(&vmf->page->state);
	if (!(state & PG_LOCKED)) {
		int own = fault_attempt_error(vmf, vmf->page);
		if (own)
			vmf->error = own;
		if (!ticket) /* told now, not later */
			page_unask(vmf->page);
		vmf->waited = false;
	}
}

/* What the fault has installed and nothing maps any more, or only for reading, where it may have come to be written to. */
static void take_out_unmapped(struct fault *vmf)
{
	uint32_t shift = vmf->file->pool->shift;
	for (uint64_t i = vmf->run_first; i <= vmf->run_last; i++) {
		uint64_t addr = i == vmf->index ? vmf->addr : vmf->view->region.base + (i << shift);
		if (!mm_range_allows(vmf->mm, addr, vmf->file->writable && vmf->writable))
			file_take_out(vmf->file, i, i);
	}
	if (vmf->file->writable) { /* what is being written just then has to be swept out later */
		atomic_set(&vmf->file->swept_seq, vmf->unmap_seq);
		writeback_note(vmf->mm);
	}
}

/* vmf->run_* has been installed, and its locks put. Unmapped since we looked: what came too late is taken out again. */
void fault_after_install(struct fault *vmf)
{
	if (likely(atomic_get(&vmf->view->unmap_seq) == vmf->unmap_seq))
		return;
	covered(exit_unmapped_installed);
	take_out_unmapped(vmf);
}

/* A ticket's wait is over, and it may be long until the fault is driven on: it keeps the errno, and not the page. True: the
 * page has come. */
bool fault_park(struct fault *vmf, const struct ticket *ticket)
{
	struct page *page = vmf->page;
	if (!page)
		return false;
	take_attempt_error(vmf, ticket);
	bool came = !vmf->error && (atomic_get(&page->state) & (PG_UPTODATE | PG_GONE)) == PG_UPTODATE;
	vmf->waited = false;
	vmf->page = NULL;
	page_unpin(vmf->file->pool, page);
	return came;
}

/* LOCKED: the map lock is dropped, the page installed under its lock. 0; -EAGAIN: look again; else the error. */
static int install_locked(struct fault *vmf)
{
	struct page *page = vmf->page;
	struct fm_file *ahead = vmf->want == WANT_AHEAD ? vmf->file : NULL;

	if (ahead) /* the mapping's reference may go with the lock */
		file_get(ahead);
	map_unlock_shared(&vmf->mm->map);
	put_stale(vmf);
	if (group_wait(vmf, page)) {
		if (ahead) {
			submit_window(vmf);
			file_put(ahead);
		}
		return -EAGAIN;
	}
	/* Protected, it is not there for a write. */
	bool there = page_is(page, PG_INSTALLED) && (!(vmf->flags & FM_FAULT_WRITE) || page_is(page, PG_UNPROTECTED));
	int err = install_run(vmf, page);
	/* The file has become shorter: nothing was put where the thread waits. Looked at again, it is past the end. */
	if (!err && !there && (vmf->byte & (vmf->file->pool->page_size - 1)) / OS_PAGE >= page->shown)
		err = -EAGAIN;
	page_unlock(vmf->file->pool, page);
	if (ahead) { /* which may have to take pages out of the cache */
		submit_window(vmf);
		file_put(ahead);
	}
	fault_after_install(vmf); /* also where the page itself was lost: its neighbours may be in the view */
	covered_if(err == -EAGAIN, exit_install_again);
	covered_if(err == -ENOMEM, exit_install_no_memory);
	if (err == FOREIGN) /* not mapped, as far as the program's own call has gone */
		return -EFAULT;
	if (err) /* EBUSY: some of it could neither be moved in nor back, for now. Upwards it would mean that a ticket is queued. */
		return err == -EBUSY ? -EAGAIN : err;
	if (there && vmf->repeated && !page_really_there(vmf->view, page)) {
		covered_by(!(vmf->flags & FM_FAULT_RETRY_NOWAIT), emptied);
		return -EAGAIN;
	}
	/* Only where there is swap: it may wait for the kernel's lock. */
	if (there && vmf->repeated && (vmf->flags & FM_FAULT_WRITE) && vmf->file->writable && trap_has_swap())
		page_unprotect_again(vmf->view, page);
	if (there && !vmf->exact) /* nobody waits in the kernel for what a call asked for */
		trap_wake(vmf->mm->trap, vmf->addr & ~(uint64_t)(OS_PAGE - 1), OS_PAGE);
	return 0;
}

/* A call with FM_NOWAIT comes back: the errno of the attempt that an earlier one began, which nobody has waited for, is
 * told once. */
static void take_asked_error(struct fault *vmf)
{
	struct page *page = page_find(vmf->file, vmf->index);
	if (!page)
		return;
	uint32_t state = atomic_get(&page->state);
	if ((state & PG_ASKED) && page_error(page, state)) {
		vmf->error = page_error(page, state);
		page_unask(page);
	}
	page_unpin(vmf->file->pool, page);
}

/* Page tables are behind: a fault that begins, and so holds nothing, gives way to the background thread once. True: its
 * ticket will be run. */
static bool give_way(struct fault *vmf, struct ticket *ticket)
{
	if (likely(vmf->tries > 1 || vmf->page || !pt_behind(vmf->mm)))
		return false;
	if (!(vmf->flags & FM_FAULT_RETRY_NOWAIT))
		pt_throttle(vmf->mm);
	else if (ticket)
		frame_queue_last(vmf->file->pool, ticket);
	return (vmf->flags & FM_FAULT_RETRY_NOWAIT) && ticket;
}

/* One try. 0: served; -EAGAIN: try again; -EBUSY: the ticket will be run; else the error. */
static int fault_try(struct fault *vmf, struct ticket *ticket)
{
	struct fm_mm *mm = vmf->mm;
	bool may_wait = !(vmf->flags & FM_FAULT_RETRY_NOWAIT);
	bool may_drop = may_wait && (vmf->flags & FM_FAULT_ALLOW_RETRY);

	if (atomic_get(&mm->dying)) {
		covered(exit_dying);
		covered_if(!may_wait && (vmf->flags & FM_FAULT_TRIED), killed_n);
		return -ECANCELED;
	}
	take_attempt_error(vmf, ticket);
	if (give_way(vmf, ticket))
		return -EBUSY;
	os_populate_stack();
	map_lock_shared(&mm->map);
	vmf->vma = mm_find_vma(mm, vmf->addr);
	vmf->unmap_seq = atomic_get(&vmf->view->unmap_seq);
	int err = !vmf->vma ? -EFAULT : (vmf->flags & FM_FAULT_WRITE) && !vmf->vma->writable ? -EACCES : 0;
	if (err) {
		if (vmf->vma)
			covered_by(may_drop, read_only);
		else
			covered_by(may_drop, no_mapping);
		covered_if(!vmf->vma && (vmf->flags & FM_FAULT_TRIED), a1_unmapped_between);
		map_unlock_shared(&mm->map);
		return err;
	}
	vmf->advice = vmf->vma->advice;
	vmf->keep = vmf->vma->keep;
	vmf->writable = vmf->vma->writable;
	vmf->on_error = vmf->vma->on_error;
	vmf->on_error_arg = vmf->vma->on_error_arg;
	uint64_t unit = vmf->file->pool->page_size, base = vmf->view->region.base;
	vmf->low = (vmf->vma->start - base + unit - 1) / unit;
	vmf->high = (vmf->vma->end - base) / unit; /* one too many: it may have none */
	vmf->mapped_end = (vmf->vma->end - base + unit - 1) / unit;
	unsigned ret = filemap_fault(vmf);
	vmf->flags |= FM_FAULT_TRIED;
	if (ret & FM_FAULT_LOCKED)
		return install_locked(vmf);
	if (!(ret & FM_FAULT_RETRY)) {
		map_unlock_shared(&mm->map);
		return vmf->error;
	}
	if (may_drop)
		return -EAGAIN; /* the lock is gone */
	if (may_wait)
		wait_under_lock(vmf);
	struct fm_file *file = vmf->file; /* once its ticket is queued the fault may end in another thread */
	file_get(file); /* the mapping's reference may go with the lock */
	map_unlock_shared(&mm->map);
	bool under_way = !may_wait && submit_wanted(vmf, ticket);
	file_put(file);
	return under_way ? -EBUSY : -EAGAIN;
}

/*
 * Serve a fault. Without RETRY_NOWAIT: 0 or the error, after as many tries as it takes; each try after the first
 * comes after a wait that ended, so it ends once its I/O does. With RETRY_NOWAIT: -EAGAIN when the ticket will be
 * run, or, without a ticket, when the reads have been started.
 */
int fault_drive(struct fault *vmf, struct ticket *ticket)
{
	if ((vmf->flags & FM_FAULT_RETRY_NOWAIT) && !ticket)
		take_asked_error(vmf);
	for (;;) {
		vmf->tries++;
		watched(fault_try, vmf);
		int err = fault_try(vmf, ticket);
		if (err == -EBUSY) /* another thread may have gone on with it by now */
			return -EAGAIN;
		put_stale(vmf);
		if (!err && unlikely(vmf->file->record))
			record_touch(vmf->file->record, vmf->page);
		if (err != -EAGAIN)
			return err;
	}
}

/* ------------------------------------------------------------------ for the traps */

static void error_fill(const struct fault *vmf, int err, struct fm_error *ret_error)
{
	bool segv = err == -EFAULT || err == -EACCES;
	*ret_error = (struct fm_error){.addr = (void *)(uintptr_t)vmf->addr,
				       .offset = err == -EFAULT ? 0 : vmf->byte,
				       .signo = segv ? SIGSEGV : SIGBUS,
				       .error = err};
}

static uint32_t fault_flags_of(const struct fm_mm *mm, const struct trap_fault *fault)
{
	return fault_flags(mm, fault->write ? FM_FAULT_WRITE : 0);
}

/* In the faulting thread. */
static int client_fault(struct view_region *region, const struct trap_fault *fault,
			struct fm_error *ret_error, fm_error_fn *ret_fn, void **ret_arg)
{
	struct view *view = region->owner;
	struct thread_local_area *t = self();
	struct fault vmf;

	fault_begin(&vmf, view, fault->addr, fault_flags_of(view->mm, fault));
	vmf.repeated = t->last_instruction == fault->instruction && t->last_addr == fault->addr;
	t->last_instruction = fault->instruction;
	t->last_addr = fault->addr;
	progress_begin(&t->progress, vmf.file->pool, fault->instruction, NULL);
	int err = fault_drive(&vmf, NULL);
	if (!err && vmf.page && progress_keep(&t->progress, vmf.file->pool, vmf.page))
		vmf.page = NULL; /* the keeper has its pin now */
	else if (err)
		progress_fail(&t->progress, vmf.file->pool);
	fault_end(&vmf, err);
	if (err) {
		error_fill(&vmf, err, ret_error);
		*ret_fn = vmf.on_error;
		*ret_arg = vmf.on_error_arg;
	} else if (unlikely(fault->write && atomic_get(&view->mm->ended))) {
		writeback_late(view->mm, true);
	}
	return err;
}

/* For the handler thread: a fault's memory from one drive to the next. */
struct waiting_fault {
	struct ticket ticket;
	struct fault vmf;
	/* The thread's, when this fault began. A fault can outlive its access (another's install woke the thread), and the
	 * thread be in another pool by the end of it: the place it was given here is told by this copy. */
	struct progress progress;
	bool begun, may_begin;
	void (*again)(void *cookie);
	void *cookie;
};

static void run_ticket(struct ticket *ticket)
{
	struct waiting_fault *wait = (struct waiting_fault *)ticket;
	wait->again(wait->cookie);
}

static int client_fault_nowait(struct view_region *region, const struct trap_fault *fault,
			       void *state, void (*again)(void *cookie), void *cookie,
			       struct progress *progress, struct fm_error *ret_error,
			       fm_error_fn *ret_fn, void **ret_arg)
{
	struct view *view = region->owner;
	struct waiting_fault *wait = state;

	if (!wait->begun) {
		fault_begin(&wait->vmf, view, fault->addr,
			    fault_flags_of(view->mm, fault) | FM_FAULT_RETRY_NOWAIT);
		wait->begun = true;
		if (fault->repeated) /* it lost a page that it had: it is a keeper from here on */
			progress->instruction = fault->instruction;
		wait->vmf.repeated = fault->repeated;
		wait->ticket.run = run_ticket;
		wait->again = again;
		wait->cookie = cookie;
	}
	if (!wait->may_begin) {
		if (!atomic_get(&view->mm->dying) &&
		    progress_begin(progress, view->file->pool, fault->instruction, &wait->ticket))
			return -EAGAIN;
		wait->progress = *progress;
		wait->may_begin = true;
	}
	int err = fault_drive(&wait->vmf, &wait->ticket);
	if (err == -EAGAIN)
		return err;
	if (!err && wait->vmf.page &&
	    progress_keep(&wait->progress, view->file->pool, wait->vmf.page))
		wait->vmf.page = NULL;
	else if (err)
		progress_fail(&wait->progress, view->file->pool);
	fault_end(&wait->vmf, err);
	if (err) {
		error_fill(&wait->vmf, err, ret_error);
		*ret_fn = wait->vmf.on_error;
		*ret_arg = wait->vmf.on_error_arg;
	} else if (unlikely(fault->write && atomic_get(&view->mm->ended))) {
		writeback_late(view->mm, false);
	}
	return err;
}

_Static_assert(sizeof(struct progress) <= TRAP_PROGRESS_BYTES, "trap.h keeps one for each thread");

static int client_fault_nowait_opaque(struct view_region *region, const struct trap_fault *fault,
				      void *state, void (*again)(void *cookie), void *cookie,
				      void *progress, struct fm_error *ret_error,
				      fm_error_fn *ret_fn, void **ret_arg)
{
	return client_fault_nowait(region, fault, state, again, cookie, progress, ret_error, ret_fn,
				   ret_arg);
}

const struct trap_client fault_trap_client = {
	.fault = client_fault,
	.fault_nowait = client_fault_nowait_opaque,
	.state_bytes = sizeof(struct waiting_fault),
};
