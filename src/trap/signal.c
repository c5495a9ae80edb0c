/* SPDX-License-Identifier: MIT */
/*
 * The process's actions for the signals that the library claims, installed once and kept, and the
 * program's actions from before.
 * Owns both. Runs in signal context with all signals blocked: raw system calls, no malloc, errno
 * kept.
 * May call: os.
 */
#include "trap/signal.h"

#include "os/atomic.h"
#include "os/os.h"
#include "os/syscall.h"

#include <string.h>
#include <ucontext.h>

struct claimed {
	struct sigaction before; /* the action for the signal before the library's */
	uint32_t installed;
};
static struct claimed sigbus, sigsegv;

static void set_mask(uint64_t mask)
{
	os_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

static uint64_t mask_word(const sigset_t *set)
{
	uint64_t word;
	memcpy(&word, set, sizeof(word));
	return word;
}

#define BIT(signo) (1ull << ((signo) - 1))

/* Deliver a signal to this thread when its handler returns, as the kernel would have. If the
 * program ignores or blocks the signal, the signal kills the program, as the kernel's would. */
static void queue_to_self(siginfo_t *info, ucontext_t *uc)
{
	struct sigaction now;
	int signo = info->si_signo;
	uint64_t mask = mask_word(&uc->uc_sigmask);
	if (sigaction(signo, NULL, &now) == 0 &&
	    ((mask & BIT(signo)) || now.sa_handler == SIG_IGN)) {
		struct sigaction dfl = {.sa_handler = SIG_DFL};
		sigaction(signo, &dfl, NULL);
		mask &= ~BIT(signo);
		memcpy(&uc->uc_sigmask, &mask, sizeof(mask));
	}
	os_syscall4(SYS_rt_tgsigqueueinfo, os_syscall1(SYS_getpid, 0), os_gettid(), signo, info);
}

/* Pass a signal to the action that was installed before the library's. */
void signal_chain(int signo, siginfo_t *info, ucontext_t *uc)
{
	const struct sigaction *before = signo == SIGSEGV ? &sigsegv.before : &sigbus.before;
	if (!(before->sa_flags & SA_SIGINFO) &&
	    (before->sa_handler == SIG_DFL || before->sa_handler == SIG_IGN)) {
		struct sigaction dfl = {.sa_handler = SIG_DFL};
		sigaction(signo, &dfl, NULL);
		queue_to_self(info, uc);
		return;
	}
	uint64_t mask = mask_word(&uc->uc_sigmask) | mask_word(&before->sa_mask);
	if (!(before->sa_flags & SA_NODEFER))
		mask |= BIT(signo);
	uint64_t ours = os_signals_block();
	set_mask(mask);
	if (before->sa_flags & SA_SIGINFO)
		before->sa_sigaction(signo, info, uc);
	else
		before->sa_handler(signo);
	set_mask(ours);
}

/* Give the program the signal that a failed access stands for. */
void trap_signal(const struct fm_error *error, siginfo_t *info, void *ucontext)
{
	siginfo_t told = *info;
	told.si_signo = error->signo;
	told.si_errno = -error->error;
	told.si_addr = error->addr;
	if (error->signo == SIGSEGV) {
		told.si_code = error->error == -EACCES ? SEGV_ACCERR : SEGV_MAPERR;
		queue_to_self(&told, ucontext);
		return;
	}
	told.si_code = BUS_ADRERR;
	signal_chain(SIGBUS, &told, ucontext);
}

int signal_install(int signo, void (*handler)(int signo, siginfo_t *info, void *ucontext))
{
	struct claimed *claimed = signo == SIGSEGV ? &sigsegv : &sigbus;
	uint32_t no = 0;
	if (!atomic_cas(&claimed->installed, &no, 1u))
		return 0;
	struct sigaction ours = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	sigfillset(&ours.sa_mask);
	/* The mask includes 32, which the C library leaves out: pthread_cancel() would unwind
	 * from inside the fault path. The mask excludes 33, by which set*id() reaches all
	 * threads: set*id() must not wait for a slow store. */
	uint64_t mask = ~BIT(33);
	memcpy(&ours.sa_mask, &mask, sizeof(mask));
	if (sigaction(signo, &ours, &claimed->before) < 0) {
		claimed->installed = 0;
		return -errno;
	}
	return 0;
}
