/* SPDX-License-Identifier: MIT */
/* Waiting for the rest of a group, so that it goes into the view as a whole. */
#ifndef FM_MM_FAULT_GROUP_WAIT_H
#define FM_MM_FAULT_GROUP_WAIT_H

#include <stdbool.h>

struct fault;
struct page;

bool group_wait(struct fault *vmf, struct page *page);

#endif
