/* SPDX-License-Identifier: MIT */
/* Events: the program waits for these instead of eventfds. */
#include "sim.h"

static struct sim_event {
	bool open;
	uint64_t signals; /* number of signals so far */
	bool readable;
} events[SIM_EVENTS];

void sim_events_reset(void)
{
	memset(events, 0, sizeof(events));
}

int os_event_open(void)
{
	int fd = 0;
	if (kernel_refuses())
		return -EMFILE;
	while (events[fd].open)
		if (++fd == SIM_EVENTS)
			return -EMFILE;
	events[fd] = (struct sim_event){.open = true};
	return fd;
}

static struct sim_event *event_at(int fd, const char *what)
{
	check_may_block(what);
	if (fd < 0 || fd >= SIM_EVENTS || !events[fd].open)
		sim_fail("%s, but is not open", what);
	return &events[fd];
}

int os_event_fd(int event)
{
	return event;
}

void os_call_out(void (*fn)(void *arg), void *arg)
{
	fn(arg);
}

void os_event_close(int fd)
{
	event_at(fd, "an event is closed")->open = false;
}

void os_event_signal(int fd)
{
	struct sim_event *e = event_at(fd, "an event is written");
	sim_point_at(e, true);
	e->signals++;
	e->readable = true;
	sim_notify(WAIT_CHANNEL, (uint64_t)e);
}

void os_event_clear(int fd)
{
	struct sim_event *e = event_at(fd, "an event is read");
	sim_point_at(e, true);
	e->readable = false;
}

uint64_t sim_event_signals(int fd)
{
	return event_at(fd, "an event is examined")->signals;
}

/* Wait like poll(): for the level, or with `edge` for a signal after the `seen` earlier signals.
 * Returns false when the time is over. */
bool sim_event_wait(int fd, bool edge, uint64_t seen, uint64_t until_ns)
{
	struct sim_event *e = event_at(fd, "an event is waited for");
	while (e->open && (edge ? e->signals == seen : !e->readable))
		if (sim_wait_for(WAIT_CHANNEL, (uint64_t)e, until_ns))
			return false;
	return true;
}

uint32_t sim_events_open(void)
{
	uint32_t count = 0;
	for (int i = 0; i < SIM_EVENTS; i++)
		count += events[i].open;
	return count;
}
