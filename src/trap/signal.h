/* SPDX-License-Identifier: MIT */
/*
 * What the library does with the signals that it claims: see signal.c. Signal-safe.
 * May call: filemap.h.
 */
#ifndef FM_TRAP_SIGNAL_H
#define FM_TRAP_SIGNAL_H

#include "filemap.h"

#include <signal.h>
#include <ucontext.h>

/* Install a handler for SIGBUS or SIGSEGV. Only the first call for a signal has an effect.
 * Returns 0 or negative errno. */
int signal_install(int signo, void (*handler)(int signo, siginfo_t *info, void *ucontext));
/* Pass a signal on to the handler that the program had installed before. */
void signal_chain(int signo, siginfo_t *info, ucontext_t *uc);
/* Give the program the signal that a failed access stands for. */
void trap_signal(const struct fm_error *error, siginfo_t *info, void *ucontext);

#endif
