/* SPDX-License-Identifier: MIT */
/*
 * Signals: which threads have them blocked.
 * A thread of the program has them open outside the library; the library's own threads never. No lock may be taken with
 * them open (rules.c), so that a handler that touches a view never finds its own thread inside.
 * Owns sim_thread.signals_open.
 * May call: rules.
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
