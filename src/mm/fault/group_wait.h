/* SPDX-License-Identifier: MIT */
/* Waits for the rest of a group of pages, so that the whole group is installed at once. */
#ifndef FM_MM_FAULT_GROUP_WAIT_H
#define FM_MM_FAULT_GROUP_WAIT_H

#include <stdbool.h>

struct fault;
struct page;

bool group_wait(struct fault *vmf, struct page *page);

#endif
