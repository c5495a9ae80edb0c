/* SPDX-License-Identifier: MIT */
/*
 * Bells and events: eventfds of the library's table, and eventfds that the program waits for.
 * May call: fds.c, os.h.
 */
#include "os/bells.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/fds_give.h"
#include "os/fds_numbers.h"
#include "os/fds_private.h"
#include "os/os.h"
#include "os/syscall.h"

#include <errno.h>
#include <sys/eventfd.h>

static long bell_make(void *arg)
{
	return os_fd_make(eventfd(0, *(int *)arg));
}

/* Note what os_bell_is_there() compares with. */
static void bell_know(struct os_bell *bell)
{
	struct os_fd_id id = {0, 0};
	if (!os_fds_apart())
		(void)os_fd_id(bell->fd, &id);
	bell->dev = id.dev;
	bell->ino = id.ino;
}

int os_bell_open(struct os_bell *bell, int flags)
{
	*bell = (struct os_bell){.fd = -1};
	flags |= EFD_CLOEXEC;
	bell->fd = (int)(os_fds_apart() ? fds_holder_call(fds_now(), bell_make, &flags)
					: bell_make(&flags));
	if (bell->fd < 0)
		return bell->fd;
	bell_know(bell);
	return 0;
}

bool os_bell_is_there(const struct os_bell *bell)
{
	return os_fds_apart() || os_fd_is(bell->fd, &(struct os_fd_id){bell->dev, bell->ino});
}

/* Close a bell. The holder closes the bell after it has rung the bells that were asked for. */
void os_bell_close(struct os_bell *bell)
{
	struct fds *fds = fds_now();

	if (bell->fd >= 0 && os_fds_apart())
		fds_job_wait(fds, &fds->quick, &fds->holder_word, fds_close_one, (void *)(intptr_t)bell->fd);
	else if (bell->fd >= 0 && os_bell_is_there(bell))
		os_syscall1(SYS_close, bell->fd);
	bell->fd = -1;
}

void os_bell_ring(struct os_bell *bell)
{
	struct fds *fds = fds_now();
	uint64_t one = 1;

	if (os_fds_own() || !os_fds_apart()) {
		if (os_bell_is_there(bell))
			os_syscall3(SYS_write, bell->fd, &one, sizeof(one));
		return;
	}
	if (atomic_xchg(&bell->pending, 1u))
		return;
	bell->next = atomic_get(&fds->bells);
	while (!atomic_cas(&fds->bells, &bell->next, bell))
		;
	fds_word_raise(&fds->holder_word);
}

int os_event_open(void)
{
	int err = os_fds_get(), fd, at = 0;
	struct fds *fds = fds_now();
	uint32_t unused = 0;

	if (err)
		return err;
	while (at < FDS_EVENTS_MOST && !atomic_cas(&fds->event[at].used, &unused, 1u)) {
		unused = 0;
		at++;
	}
	fd = at < FDS_EVENTS_MOST ? os_fd_make(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) : -EMFILE;
	if (fd >= 0) {
		fds->event[at].bell = (struct os_bell){.fd = os_fd_give(fd)};
		bell_know(&fds->event[at].bell);
		fds->event[at].fd = fd;
		if (fds->event[at].bell.fd >= 0)
			return at;
		err = fds->event[at].bell.fd;
		os_syscall1(SYS_close, fd);
	} else {
		err = fd;
	}
	if (at < FDS_EVENTS_MOST)
		atomic_set(&fds->event[at].used, 0u);
	os_fds_put();
	return err;
}

int os_event_fd(int event)
{
	return fds_now()->event[event].fd;
}

static long event_drain(void *arg)
{
	struct event *event = arg;
	uint64_t count;

	if (!os_bell_is_there(&event->bell))
		return -EBADF;
	return os_syscall3(SYS_read, event->bell.fd, &count, sizeof(count));
}

static bool readable(int fd)
{
	struct {
		int fd;
		short events, revents;
	} poll_fd = {.fd = fd, .events = 1};
	struct timespec now = {0};

	return os_syscall5(SYS_ppoll, &poll_fd, 1, &now, NULL, 8) == 1 && poll_fd.revents == 1;
}

static long event_write(void *arg)
{
	const struct event *event = arg;
	uint64_t one = 1;

	if (!os_bell_is_there(&event->bell))
		return -EBADF;
	return os_syscall3(SYS_write, event->bell.fd, &one, sizeof(one));
}

/* Test whether the event's number still stands for the event. The program may have closed the
 * number, and have put another file there. All eventfds have one inode, so the test uses the
 * number's behaviour: the number is readable after the library's write, and not before. */
static bool event_number_is_ours(struct event *event)
{
	bool before, after;

	os_fds_call(event_drain, event);
	before = readable(event->fd);
	os_fds_call(event_write, event);
	after = readable(event->fd);
	return !before && after;
}

/* Close the event's number in the program's table. Runs in a thread with the program's table. */
static void event_close_number(void *arg)
{
	struct event *event = arg;

	if (event_number_is_ours(event))
		os_syscall1(SYS_close, event->fd);
}

void os_event_close(int at)
{
	struct event *event = &fds_now()->event[at];

	if (event->bell.fd != event->fd || !os_fds_apart())
		os_call_out(event_close_number, event);
	if (os_fds_apart())
		os_bell_close(&event->bell);
	atomic_set(&event->used, 0u);
	os_fds_put();
}

/* Signal an event. Waits for the holder if the holder has to write: an event that is signalled
 * before another action must not arrive after that action. */
void os_event_signal(int at)
{
	struct fds *fds = fds_now();

	if (os_fds_apart())
		fds_holder_call(fds, event_write, &fds->event[at]);
	else
		event_write(&fds->event[at]);
}

void os_event_clear(int at)
{
	struct fds *fds = fds_now();

	if (os_fds_apart())
		fds_holder_call(fds, event_drain, &fds->event[at]);
	else
		event_drain(&fds->event[at]);
}
