/* SPDX-License-Identifier: MIT */
/*
 * What the two halves of `filemap verify` share: names, the last line of the library's log, the
 * clock. `log_lock` protects the line.
 */
#include "verify/settings.h"

#include "command/tool.h"
#include "filemap.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

const char *const verify_order_names[] = {"sequential", "reverse", "random", "strided", NULL};
const char *const verify_trap_names[] = {"inline", "thread", "call", "all", NULL};
const enum fm_trap verify_traps[] = {FM_TRAP_INLINE, FM_TRAP_THREAD, FM_TRAP_CALL};
const char *const verify_install_names[] = {"auto", "move", "copy", NULL};

/* ------------------------------------------------------------------ what the library says */

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_line[512]; /* the last error, shown if a call fails */

void verify_on_log(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	if (level != FM_LOG_ERROR)
		return;
	pthread_mutex_lock(&log_lock);
	snprintf(log_line, sizeof(log_line), "%s", line);
	pthread_mutex_unlock(&log_lock);
}

int verify_fail(const char *what, int error)
{
	enum tool_status status = TOOL_FAILED;
	char line[sizeof(log_line)];

	if (error == -EINVAL)
		status = TOOL_USAGE;
	else if (!what && (error == -ENOSYS || error == -EPERM || error == -EOPNOTSUPP))
		status = TOOL_CANNOT;
	pthread_mutex_lock(&log_lock);
	memcpy(line, log_line, sizeof(line));
	pthread_mutex_unlock(&log_lock);
	if (*line)
		return tool_error(status, "verify: %s", line);
	return tool_error(status, "verify: %s: %s", what ? what : "cannot create an address space",
			  strerror(-error));
}

/* ------------------------------------------------------------------ one run */

double verify_now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}
