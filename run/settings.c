/* SPDX-License-Identifier: MIT */
/*
 * The settings of the shim, and its lines on stderr.
 * Owns the settings. Lines are written by one raw system call: the program may be inside stdio.
 * May call: libc, os/syscall.h.
 */
#include "settings.h"

#include "os/syscall.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>

#define LINE_MOST 1024

static struct settings settings;
static struct stat first_stderr;
static bool has_stderr, done;

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	char *end;

	if (!text || *text < '0' || *text > '9')
		return otherwise;
	unsigned long long value = strtoull(text, &end, 10);
	return *end ? otherwise : value;
}

static bool flag(const char *name)
{
	const char *text = getenv(name);

	return text && *text && strcmp(text, "0");
}

/* Copy a text: the program may change its environment. */
static const char *text(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? strdup(value) : NULL;
}

const struct settings *settings_get(void)
{
	if (done)
		return &settings;
	settings = (struct settings){
		.budget_bytes = number(RUN_ENV_BUDGET, 0),
		.min_bytes = number(RUN_ENV_MIN_SIZE, RUN_MIN_BYTES),
		.readahead_bytes = number(RUN_ENV_READAHEAD, 0),
		.match = text(RUN_ENV_MATCH),
		.stats = text(RUN_ENV_STATS),
		.all = flag(RUN_ENV_ALL),
		.verbose = flag(RUN_ENV_VERBOSE),
		.off = getauxval(AT_SECURE) != 0,
	};
	has_stderr = fstat(STDERR_FILENO, &first_stderr) == 0;
	done = true;
	return &settings;
}

/* Tell whether stderr is still what it was when the program began. A daemon may have put one of its
 * files there. */
static bool stderr_is_first(void)
{
	struct stat now;

	return has_stderr && fstat(STDERR_FILENO, &now) == 0 && now.st_dev == first_stderr.st_dev &&
	       now.st_ino == first_stderr.st_ino && now.st_rdev == first_stderr.st_rdev;
}

static void say_list(const char *format, va_list list)
{
	char line[LINE_MOST];
	int used = snprintf(line, sizeof(line), "filemap run: ");
	int more = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, list);
	int saved = errno;

	used += more < LINE_MOST - used - 1 ? more : LINE_MOST - used - 2;
	line[used++] = '\n';
	if (stderr_is_first())
		os_syscall3(SYS_write, STDERR_FILENO, line, used);
	errno = saved;
}

void say(const char *format, ...)
{
	va_list list;

	if (!settings_get()->verbose)
		return;
	va_start(list, format);
	say_list(format, list);
	va_end(list);
}

void say_always(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	say_list(format, list);
	va_end(list);
}

void say_statistics(const char *line)
{
	const char *name = settings_get()->stats;
	int saved = errno;
	long fd = STDERR_FILENO;

	if (!name || (!strcmp(name, "-") && !stderr_is_first()))
		return;
	if (strcmp(name, "-"))
		fd = os_syscall4(SYS_openat, AT_FDCWD, name,
				 O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
	if (fd < 0)
		return;
	os_syscall3(SYS_write, fd, line, strlen(line));
	if (fd != STDERR_FILENO)
		os_syscall1(SYS_close, fd);
	errno = saved;
}
