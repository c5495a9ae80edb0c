/* SPDX-License-Identifier: MIT */
/*
 * Signals and cancellation: which threads block signals, and the arrival of signals at any point
 * of the other threads.
 *
 * A thread of the program has signals open while the thread is outside the library. The library's
 * own threads never have signals open. A thread with signals open may take no lock
 * (checks/rules.c). So a handler that touches a view never finds its own thread inside the
 * library. The handler (sim.on_signal) belongs to the workload and runs on the same stack.
 *
 * Cancellation is such a signal, too. A blocked cancellation stays pending. An asynchronous
 * cancellation ends the thread at the point of arrival. No call of the library may be left that
 * way, so only threads that make an access get one. A deferred cancellation ends a thread at the
 * thread's next cancellation point. The library has no such point, so the thread ends between two
 * operations.
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
	check_nothing_held("a call that unblocks signals");
	sim.self->signals_open = true;
}

/* Let a signal arrive, perhaps. Called before each step of a thread with signals open. */
void sim_signal_arrives(struct sim_thread *self)
{
	if (self->in_handler || !sim.on_signal || sim_below(1024) >= sim.opt.signal_1024)
		return;
	check_nothing_held("code that a signal interrupts");
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
