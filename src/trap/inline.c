/* SPDX-License-Identifier: MIT */
/*
 * The SIGBUS handler: the inline trap, and the part of the handler that the other traps need. If
 * the thread trap has no marks to tell errors by (before Linux 6.6), also a SIGSEGV handler.
 *
 * Claims only a SIGBUS inside a view, of three kinds: BUS_ADRERR, the mark by which the handler
 * thread tells an error, or a SIGBUS that the library sent (TRAP_TOLD). All other signals go to
 * the handler that was installed before (signal.c). Runs in signal context with all signals
 * blocked: raw system calls, no malloc, errno kept.
 * May call: registry, os, and mm through struct trap_client.
 */
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/registry.h"
#include "trap/release.h"
#include "trap/signal.h"

#include <ucontext.h>

#ifndef BUS_MCEERR_AR
#define BUS_MCEERR_AR 4
#endif

/* ------------------------------------------------------------------ what the instruction was */

#if defined(__x86_64__)
static bool access_is_write(const ucontext_t *uc)
{
	return (uc->uc_mcontext.gregs[REG_ERR] & 2) != 0; /* page-fault error code, bit 1 */
}

/* Hash the instruction pointer and the registers. The hash is the same again only if the
 * instruction made no progress. */
static uint64_t instruction_of(const ucontext_t *uc)
{
	uint64_t hash = 0x9e3779b97f4a7c15ull;
	for (int i = REG_R8; i <= REG_RIP; i++)
		hash = (hash ^ (uint64_t)uc->uc_mcontext.gregs[i]) * 0x100000001b3ull;
	return hash | 1;
}
#elif defined(__aarch64__)
static bool access_is_write(const ucontext_t *uc)
{
	const uint8_t *at = (const uint8_t *)uc->uc_mcontext.__reserved;
	const struct _aarch64_ctx *head = (const struct _aarch64_ctx *)at;
	for (; head->magic; head = (const struct _aarch64_ctx *)(at += head->size))
		if (head->magic == ESR_MAGIC)
			return (((const struct esr_context *)head)->esr & (1u << 6)) != 0;
	return false;
}

static uint64_t instruction_of(const ucontext_t *uc)
{
	uint64_t hash = uc->uc_mcontext.pc;
	for (int i = 0; i < 31; i++)
		hash = (hash ^ uc->uc_mcontext.regs[i]) * 0x100000001b3ull;
	return hash | 1;
}
#else
static bool access_is_write(const ucontext_t *uc)
{
	(void)uc;
	return false;
}

static uint64_t instruction_of(const ucontext_t *uc)
{
	(void)uc;
	return 0;
}
#endif

/* ------------------------------------------------------------------ serving */

static uint64_t address_of(const siginfo_t *info)
{
	return (uint64_t)(uintptr_t)(info->si_code == TRAP_TOLD ? info->si_value.sival_ptr
								: info->si_addr);
}

/* Tell whether the memory itself is broken, which the program must be told. The mark by which the
 * handler thread tells an error has the same code, but has no page behind it. If a page has come
 * meanwhile, the page can be read. */
static bool memory_is_broken(const struct trap *trap, const siginfo_t *info)
{
	if (info->si_code != BUS_MCEERR_AR)
		return false;
	uint64_t addr = (uint64_t)(uintptr_t)info->si_addr;
	return trap->kind != FM_TRAP_THREAD ||
	       (trap_present(addr) == 1 && !trap_readable(addr) && trap_present(addr) == 1);
}

/* Tell whether an access in memory that is the program's by now is to be repeated. The signal may
 * be older than the program's mapping: see fm_release(). If the same instruction comes again, the
 * signal is of the program's own mapping. */
static bool repeat_once(uint64_t addr, uint64_t instruction)
{
	static __thread uint64_t last_addr, last_instruction;
	bool again = last_addr == addr && last_instruction == instruction;

	last_addr = again ? 0 : addr;
	last_instruction = instruction;
	return !again;
}

static bool serve(struct view_region *region, siginfo_t *info, void *ucontext)
{
	struct trap *trap = region->trap;
	struct trap_fault fault = {.addr = address_of(info),
				   .write = access_is_write(ucontext),
				   .instruction = instruction_of(ucontext)};
	struct fm_error error;
	fm_error_fn fn = NULL;
	void *arg = NULL;
	int err;

	if (memory_is_broken(trap, info)) {
		region_unpin(region);
		return false;
	}
	if (trap->kind == FM_TRAP_INLINE) {
		err = trap->client->fault(region, &fault, &error, &fn, &arg);
	} else if (trap->kind == FM_TRAP_THREAD) {
		/* The handler thread has told the error. If there is no error to be told (any
		 * more), the access is simply repeated. */
		err = trap_poison_take(trap, fault.addr, &error, &fn, &arg) ? error.error : 0;
		/* The read met the mark of a refused write. A signal sent by the library has no
		 * error code. */
		if (err == -EACCES && !fault.write && info->si_code != TRAP_TOLD)
			err = 0;
	} else {
		err = fault.write ? -EACCES : -ENODATA; /* no trap: no call has brought the page
							   in */
		error = (struct fm_error){.addr = info->si_addr, .error = err,
					  .signo = fault.write ? SIGSEGV : SIGBUS,
					  .offset = fault.addr - region->base};
	}
	/* The program may have mapped another file there that is too short: then the signal is
	 * the program's own. */
	bool doubtful = err == -EFAULT || (!err && trap->kind == FM_TRAP_THREAD);
	bool ours = !doubtful || trap_is_ours(trap, fault.addr & ~(uint64_t)(OS_PAGE - 1), OS_PAGE);
	bool released = region_is_released(region, fault.addr);
	region_unpin(region);
	if (released || !ours)
		return repeat_once(fault.addr, fault.instruction);
	if (err)
		trap_raise(&error, fn, arg, info, ucontext);
	return true;
}

/* Tell whether the access can be repeated. The kernel refused the access only because the kernel
 * was to refuse another thread's access, or an earlier access of this thread. A SIGSEGV by which
 * the library tells an error has an errno. */
static bool is_momentary(const siginfo_t *info)
{
	int saved = errno;
	if (info->si_code != SEGV_ACCERR || info->si_errno)
		return false;
	uint64_t addr = (uint64_t)(uintptr_t)info->si_addr;
	struct view_region *region = region_find(addr);
	bool ours = region && tell_was_refusing(region->trap, addr);
	if (region)
		region_unpin(region);
	errno = saved;
	return ours;
}

/* Tell whether the signal comes late: the view of the access has gone before this handler could
 * pin the view. Nothing else is mapped in the view's place. */
static bool comes_late(const siginfo_t *info)
{
	uint64_t addr = address_of(info);
	unsigned char there;

	return registry_was_here(addr) &&
	       os_syscall3(SYS_mincore, addr & ~(uint64_t)(OS_PAGE - 1), OS_PAGE, &there) == -ENOMEM;
}

static void tell_late(siginfo_t *info, void *ucontext)
{
	struct fm_error error = {.addr = (void *)(uintptr_t)address_of(info),
				 .signo = SIGBUS,
				 .error = -ECANCELED};
	trap_raise(&error, NULL, NULL, info, ucontext);
}

bool trap_sigbus(int signo, siginfo_t *info, void *ucontext)
{
	if (signo == SIGSEGV && info)
		return is_momentary(info);
	if (signo != SIGBUS || !info || !ucontext)
		return false;
	if (info->si_code != BUS_ADRERR && info->si_code != BUS_MCEERR_AR && info->si_code != TRAP_TOLD)
		return false;
	int saved = errno;
	struct view_region *region = region_find(address_of(info));
	bool ours = region && serve(region, info, ucontext);
	if (!region && comes_late(info)) {
		tell_late(info, ucontext);
		ours = true;
	} else if (!region && registry_was_here(address_of(info))) {
		ours = repeat_once(address_of(info), instruction_of(ucontext));
	}
	errno = saved;
	return ours ||
	       info->si_code ==
		       TRAP_TOLD; /* the view has gone meanwhile: no error is left to tell */
}

/* ------------------------------------------------------------------ passing on */

static void on_signal(int signo, siginfo_t *info, void *ucontext)
{
	if (!trap_sigbus(signo, info, ucontext))
		signal_chain(signo, info, ucontext);
}

int trap_sigbus_install(void)
{
	return signal_install(SIGBUS, on_signal);
}

int trap_sigsegv_install(void)
{
	return signal_install(SIGSEGV, on_signal);
}
