/* SPDX-License-Identifier: MIT */
/* The beginning and the end of a fault, and the errno of the read attempt the fault waited for. */
#ifndef FM_MM_FAULT_ATTEMPT_H
#define FM_MM_FAULT_ATTEMPT_H

#include <stdint.h>

struct fault;
struct page;
struct ticket;
struct view;

void fault_begin(struct fault *vmf, struct view *view, uint64_t addr, uint32_t flags);
void fault_put_stale(struct fault *vmf);
void fault_note_attempt(struct fault *vmf, const struct page *page);
int fault_attempt_error(const struct fault *vmf, const struct page *page);
void fault_end(struct fault *vmf, int error);
void fault_take_attempt_error(struct fault *vmf, const struct ticket *ticket);
void fault_take_notified_error(struct fault *vmf);

#endif
