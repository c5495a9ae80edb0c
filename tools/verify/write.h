/* SPDX-License-Identifier: MIT */
/*
 * Writing a known pattern through a mapping, and finding the pattern again: the interface between
 * verb_write.c and write.c.
 */
#ifndef FM_TOOL_VERIFY_WRITE_H
#define FM_TOOL_VERIFY_WRITE_H

#include "filemap.h"
#include "command/order.h"

struct verify_pattern {
	fm_mm *mm;
	fm_file *file;
	char *map; /* of the whole file; writable in the first pass */
	uint64_t size, page_size, budget_bytes;
	uint64_t seed; /* of the bytes; new in each run, so that old bytes differ */
	enum order_kind order;
	unsigned threads;
	bool pin; /* the mapping has no trap: fm_pin() each page */
	void (*progress)(const char *what, uint64_t done_bytes, uint64_t all_bytes);
};

struct verify_found {
	uint64_t bytes;        /* bytes written, or compared */
	uint64_t plain_wrong, mapped_wrong; /* pages of 4096 bytes: in plain reads, and in the
					       mapping */
	uint64_t wrong_at;     /* the first wrong byte of either kind; UINT64_MAX: none */
	int error;             /* the negative errno that ended the pass early */
	uint64_t error_at;
	bool error_in_mapping; /* false: in the plain read */
};

/* Make a pass. Blocks until the pass is done. Returns 0, or a negative errno if the threads cannot
 * be started. All other errors are in *ret_found. */
int verify_pattern_write(const struct verify_pattern *job, struct verify_found *ret_found);
int verify_pattern_find(const struct verify_pattern *job, struct verify_found *ret_found);

#endif
