/* SPDX-License-Identifier: MIT */
/*
 * Signals and cancellation: which threads have them blocked, and their arrival, at any point where
 * they are not.
 *
 * A thread of the program has them open outside the library; the library's own threads never. No
 * lock may be taken with them open (checks/rules.c), so that a handler that touches a view never
 * finds its own thread inside; what the handler does is the workload's (sim.on_signal), on the same
 * stack. Cancellation is such a signal, too. While it is blocked it is pending; an asynchronous one
 * ends the thread where it arrives, so it is only sent to threads that are about an access, as no
 * call of the library may be left that way. A deferred one ends a thread at its next cancellation
 * point, which the library has none of: between two operations. Owns sim_thread.signals_open,
 * in_handler. May call: sched, rules, world through sim.on_signal.
 */
#include "sim.h"

os_sigmask os_signals_block(void)
{
	bool open = sim.self && sim.self->signals_open;
	if (open)
		sim.self->signals_open = false;
	return !open;
}

void os_signals_restore(os_sigmask mask)
{
	if (mask || !sim.self)
		return;
	check_nothing_held("a call that opens signals again");
	sim.self->signals_open = true;
}

/* Before each step of a thread with signals open. */
void sim_signal_arrives(struct sim_thread *self)
{
	if (self->in_handler || !sim.on_signal || sim_below(1024) >= sim.opt.signal_1024)
		return;
	check_nothing_held("what a signal interrupts");
	mark(signals);
	if (self->may_end && sim_chance(sim.opt.cancel_256)) {
		mark(cancelled);
		event("is cancelled", 0, 0, 0, 0);
		sim_thread_exit();
	}
	event("a signal arrives", 0, 0, 0, 0);
	self->in_handler = true;
	sim.on_signal();
	self->in_handler = false;
	event("back from the signal's handler", 0, 0, 0, 0);
}
