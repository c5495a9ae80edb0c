/* SPDX-License-Identifier: MIT */
/* Holding back write faults while too many pages are dirty. */
#ifndef FM_MM_FLUSH_THROTTLE_H
#define FM_MM_FLUSH_THROTTLE_H

#include <stdbool.h>

struct access;
struct page;

bool dirty_must_wait(const struct access *access, const struct page *page, int *ret_error);
bool dirty_may_come(const struct access *access);
void dirty_pace(struct access *access);
int dirty_wait(struct access *access);

#endif
