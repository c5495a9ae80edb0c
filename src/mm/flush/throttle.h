/* SPDX-License-Identifier: MIT */
/* Holding back writes while too much is dirty. */
#ifndef FM_MM_FLUSH_THROTTLE_H
#define FM_MM_FLUSH_THROTTLE_H

#include <stdbool.h>

struct fault;
struct page;

bool dirty_must_wait(const struct fault *vmf, const struct page *page, int *ret_error);
bool dirty_may_come(const struct fault *vmf);
void dirty_pace(struct fault *vmf);
int dirty_wait(struct fault *vmf);

#endif
