/* SPDX-License-Identifier: MIT */
/*
 * One pass over a mapping beside plain reads of the same store: the interface between verb.c and
 * work.c.
 */
#ifndef FM_TOOL_VERIFY_H
#define FM_TOOL_VERIFY_H

#include "filemap.h"
#include "command/order.h"

/* Past the file's end, the file's last page of this size reads as zeros. */
#define VERIFY_PAGE 4096u

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
	uint64_t bytes;        /* bytes compared */
	bool differs;
	uint64_t differs_at;   /* the lowest offset that differs; from `size` on: a byte is not
				  zero */
	int error;             /* the negative errno that ended the pass early */
	uint64_t error_at;
	bool error_in_mapping; /* false: in the plain read */
};

/* Make the pass. Blocks until the pass is done. Returns 0, or a negative errno if the threads
 * cannot be started. All other errors are in *ret_result. */
int verify_run(const struct verify_job *job, struct verify_result *ret_result);

#endif
