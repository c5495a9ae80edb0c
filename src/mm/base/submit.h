/* SPDX-License-Identifier: MIT */
/* Handing requests to the I/O engine, one at a time or several together. */
#ifndef FM_MM_BASE_SUBMIT_H
#define FM_MM_BASE_SUBMIT_H

#include <stdbool.h>

struct fm_mm;
struct io_request;

int store_error(int err);
void request_send(struct fm_mm *mm, struct io_request *io);
bool requests_hold(struct fm_mm *mm);
void requests_send(struct fm_mm *mm);

#endif
