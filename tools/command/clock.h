/* SPDX-License-Identifier: MIT */
/*
 * Time as the verbs measure it and wait for it.
 * May call: libc.
 */
#ifndef FILEMAP_CLOCK_H
#define FILEMAP_CLOCK_H

#include <stdint.h>

uint64_t tool_now_ns(void); /* of the monotonic clock */
void tool_sleep_ms(unsigned ms); /* all of it, whatever signals come */

#endif
