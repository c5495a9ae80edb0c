/* SPDX-License-Identifier: MIT */
/*
 * Writing a known pattern through a mapping, and finding it again: what verb.c asks of write.c.
 * May call: filemap.h, command/order.h.
 */
#ifndef FM_TOOL_VERIFY_WRITE_H
#define FM_TOOL_VERIFY_WRITE_H

#include "filemap.h"
#include "command/order.h"

struct verify_pattern {
	fm_mm *mm;
	fm_file *file;
	char *map; /* of the whole file; writable where it is to be written */
	uint64_t size, page_size, budget_bytes;
	uint64_t seed; /* of the bytes; another one each time, so that what was there before is not
			  taken for them */
	enum order_kind order;
	unsigned threads;
	bool pin; /* the mapping has no trap: fm_pin() each page */
	void (*progress)(const char *what, uint64_t done_bytes, uint64_t all_bytes);
};

struct verify_found {
	uint64_t bytes;        /* written, or compared */
	uint64_t plain_wrong, mapped_wrong; /* pages of 4096 bytes: by plain reads, and in the mapping */
	uint64_t wrong_at;     /* the first of either; UINT64_MAX: none */
	int error;             /* negative errno that ended the pass early */
	uint64_t error_at;
	bool error_in_mapping; /* else in the plain read */
};

/* Each blocks until done. 0, or a negative errno when threads or buffers are not to be had; errors
 * of the data are in *ret_found. */
int verify_pattern_write(const struct verify_pattern *job, struct verify_found *ret_found);
int verify_pattern_find(const struct verify_pattern *job, struct verify_found *ret_found);

#endif
