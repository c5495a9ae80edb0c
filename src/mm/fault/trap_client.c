/* SPDX-License-Identifier: MIT */
/* The functions that the traps call. */
#include "mm/fault/trap_client.h"

#include "filemap.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/self.h"
#include "mm/base/ticket.h"
#include "mm/base/view.h"
#include "mm/fault/attempt.h"
#include "mm/fault/drive.h"
#include "mm/fault/vmf.h"
#include "mm/flush/end.h"
#include "mm/reclaim/pin_sets.h"
#include "os/atomic.h"
#include "trap/trap.h"

#include <errno.h>

/* A fault's memory from one drive to the next, for the handler thread. */
struct waiting_fault {
	struct ticket ticket;
	struct fault vmf;
	/* A copy of the thread's progress when this fault began. A fault can outlive its access:
	 * the install of another fault may have woken the thread. The thread may then be in another
	 * pool when the fault ends. The copy tells which pin set's place the fault was given. */
	struct progress progress;
	bool begun, may_begin;
	void (*again)(void *cookie);
	void *cookie;
};

_Static_assert(sizeof(struct progress) <= TRAP_PROGRESS_BYTES, "trap.h keeps one for each thread");

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

/* Serve a fault in the faulting thread. May block. Returns 0 or the errno. */
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
		vmf.page = NULL; /* the pin set has the page's pin now */
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
		if (fault->repeated) /* the thread lost a page that it had: make the thread a pin set */
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
