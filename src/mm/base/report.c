/* SPDX-License-Identifier: MIT */
/*
 * Messages to the log function of the program, and the event descriptor for calls with
 * FM_NOWAIT.
 */
#include "mm/base/report.h"

#include "filemap.h"
#include "mm/base/mm.h"
#include "mm/base/self.h"
#include "os/atomic.h"
#include "os/os.h"

#include <stdarg.h>
#include <stdio.h>

struct said {
	struct fm_mm *mm;
	enum fm_log_level level;
	const char *line;
};

/* Replace control bytes in a line. File names may contain any byte except NUL, and the log
 * function must still get a single line. */
static void line_clean(char *line)
{
	for (; *line; line++)
		if ((unsigned char)*line < 0x20 || *line == 0x7f)
			*line = '?';
}

static void say_out(void *arg)
{
	const struct said *said = arg;
	struct callback callback;

	mm_callback_begin(&callback, said->mm);
	said->mm->log(said->mm->log_arg, said->level, said->line);
	mm_callback_end(&callback);
}

void mm_log(struct fm_mm *mm, enum fm_log_level level, const char *format, ...)
{
	char line[512];
	va_list args;
	if (!mm->log || !mm_call_begin(mm))
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	line_clean(line);
	/* The log function may write to a descriptor that belongs to the program. */
	os_call_out(say_out, &(struct said){mm, level, line});
	mm_call_end(mm);
}

/* Announce a call of a callback that the program has given to the mm or to a file. Returns
 * false if fm_mm_destroy() has returned or is about to: the caller must not call the
 * callback. */
bool mm_call_begin(struct fm_mm *mm)
{
	atomic_add(&mm->calling, 1u);
	if (!atomic_get(&mm->silent))
		return true;
	mm_call_end(mm);
	return false;
}

void mm_call_end(struct fm_mm *mm)
{
	atomic_sub(&mm->calling, 1u);
}

void mm_callback_begin(struct callback *callback, const struct fm_mm *mm)
{
	*callback = (struct callback){mm, self()->callbacks};
	self()->callbacks = callback;
}

void mm_callback_end(const struct callback *callback)
{
	self()->callbacks = callback->outer;
}

bool mm_in_callback(const struct fm_mm *mm)
{
	const struct callback *callback = self()->callbacks;

	while (callback && callback->mm != mm)
		callback = callback->outer;
	return callback != NULL;
}

void mm_note(void *arg, const char *line)
{
	mm_log(arg, FM_LOG_WARNING, "%s", line);
}

/* Signal the event descriptor: work that a call with FM_NOWAIT asked for has ended. The
 * descriptor is signalled once until the next such call, which finds everything that has ended
 * meanwhile. */
void mm_event(struct fm_mm *mm)
{
	int fd = atomic_get(&mm->event_fd);
	if (fd >= 0 && !atomic_xchg(&mm->event_signalled, 1u))
		os_event_signal(fd);
}

int mm_event_fd(struct fm_mm *mm, int *ret_fd)
{
	int none = -1, fd = atomic_get(&mm->event_fd);
	if (fd < 0) {
		fd = os_event_open();
		if (fd < 0)
			return fd;
		if (!atomic_cas(&mm->event_fd, &none, fd)) { /* another thread was faster */
			os_event_close(fd);
			fd = none;
		}
		mm_event(mm); /* for work that ended before the descriptor existed */
	}
	*ret_fd = os_event_fd(fd);
	return 0;
}
