/* SPDX-License-Identifier: MIT */
/*
 * How the program continues after a failed access: the mapping's callback, then fm_guard(), then
 * the signal.
 * Owns the thread's chain of guards.
 * May call: signal.c. trap_raise runs in signal context.
 */
#include "trap/internal.h"
#include "trap/signal.h"

#include <setjmp.h>

struct guard {
	sigjmp_buf env;
	struct guard *outer;
	struct fm_error error;
};

static __thread struct guard *guards __attribute__((tls_model("initial-exec")));

void trap_raise(const struct fm_error *error, fm_error_fn fn, void *fn_arg, siginfo_t *info,
		void *ucontext)
{
	if (fn && fn(fn_arg, error) == FM_ERROR_RETRY)
		return;
	struct guard *guard = guards;
	if (guard) {
		guard->error = *error;
		siglongjmp(guard->env, 1); /* restores the signal mask, and so unblocks the
					      signals that the handler blocked */
	}
	trap_signal(error, info, ucontext);
}

int fm_guard(void (*body)(void *arg), void *arg, struct fm_error *ret_error)
{
	struct guard guard;

	if (!body)
		return -EINVAL;
	guard.outer = guards;
	if (sigsetjmp(guard.env, 1) == 0) {
		guards = &guard;
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		body(arg);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		guards = guard.outer;
		return 0;
	}
	guards = guard.outer;
	if (ret_error)
		*ret_error = guard.error;
	return guard.error.error;
}
