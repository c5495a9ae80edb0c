/* SPDX-License-Identifier: MIT */
/*
 * One pass over a mapping beside plain reads of the same store: what verb.c asks of
 * work.c.
 * May call: filemap.h, command/order.h.
 */
#ifndef FM_TOOL_VERIFY_H
#define FM_TOOL_VERIFY_H

#include "filemap.h"
#include "command/order.h"

#define VERIFY_PAGE 4096u /* up to the end of this page, what is past the file's end reads zeros */

struct verify_job {
	fm_mm *mm;
	fm_file *file;
	const char *map; /* of the whole file */
	uint64_t size, page_size, budget_bytes;
	enum order_kind order;
	uint64_t stride;
	unsigned threads;
	bool pin; /* the mapping has no trap: fm_pin() each piece */
	void (*progress)(uint64_t done_bytes, uint64_t all_bytes);
};

struct verify_result {
	uint64_t bytes;        /* compared */
	bool differs;
	uint64_t differs_at;   /* the lowest offset that differs; from `size` on: not zero there */
	int error;             /* negative errno that ended the pass early */
	uint64_t error_at;
	bool error_in_mapping; /* else in the plain read */
};

/* Blocks until done. 0, or a negative errno when threads or buffers are not to be had; errors of
 * the data are in *ret_result. */
int verify_run(const struct verify_job *job, struct verify_result *ret_result);

#endif
