/* SPDX-License-Identifier: MIT */
/*
 * Messages to the log function of the program, and the event descriptor for calls with
 * FM_NOWAIT.
 */
#ifndef FM_MM_BASE_REPORT_H
#define FM_MM_BASE_REPORT_H

#include "filemap.h"

#include <stdbool.h>

struct fm_mm;

void mm_log(struct fm_mm *mm, enum fm_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
bool mm_call_begin(struct fm_mm *mm);
void mm_call_end(struct fm_mm *mm);
/* Note that this thread is in a callback that the program has given to the mm; `callback` lives
 * until mm_callback_end(). mm_in_callback(): whether this thread is in such a callback. */
struct callback {
	const struct fm_mm *mm;
	struct callback *outer;
};
void mm_callback_begin(struct callback *callback, const struct fm_mm *mm);
void mm_callback_end(const struct callback *callback);
bool mm_in_callback(const struct fm_mm *mm);
void mm_note(void *arg, const char *line);
void mm_event(struct fm_mm *mm);
int mm_event_fd(struct fm_mm *mm, int *ret_fd);

#endif
