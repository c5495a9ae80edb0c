/* SPDX-License-Identifier: MIT */
/*
 * What a signal does that the library has claimed: see signal.c. Signal-safe.
 * May call: filemap.h.
 */
#ifndef FM_TRAP_SIGNAL_H
#define FM_TRAP_SIGNAL_H

#include "filemap.h"

#include <signal.h>
#include <ucontext.h>

/* Have this handler called for SIGBUS or SIGSEGV from now on; only the first call for a signal does
 * anything. 0 or negative errno. */
int signal_install(int signo, void (*handler)(int signo, siginfo_t *info, void *ucontext));
/* Pass a signal on to the handler that the program had before. */
void signal_chain(int signo, siginfo_t *info, ucontext_t *uc);
/* The signal that a failed access is to the program. */
void trap_signal(const struct fm_error *error, siginfo_t *info, void *ucontext);

#endif
