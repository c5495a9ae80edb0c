/* SPDX-License-Identifier: MIT */
/* The monotonic clock, and a sleep that signals do not shorten. */
#ifndef FILEMAP_CLOCK_H
#define FILEMAP_CLOCK_H

#include <stdint.h>

uint64_t tool_now_ns(void); /* the monotonic clock */
void tool_sleep_ms(unsigned ms); /* sleeps the whole time, whatever signals arrive */

#endif
