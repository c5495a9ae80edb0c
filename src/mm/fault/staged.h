/* SPDX-License-Identifier: MIT */
/* Reads a wanted page by way of a staging slot. */
#ifndef FM_MM_FAULT_STAGED_H
#define FM_MM_FAULT_STAGED_H

#include <stdbool.h>

struct fault;

bool read_may_stage(const struct fault *vmf);
int read_staged(struct fault *vmf);

#endif
