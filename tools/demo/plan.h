/* SPDX-License-Identifier: MIT */
/*
 * Which pages the load reads, and the true bytes of these pages.
 */
#ifndef FILEMAP_DEMO_PLAN_H
#define FILEMAP_DEMO_PLAN_H

#include "demo/round.h"

struct load_plan {
	uint64_t file_bytes;
	unsigned threads, touches;
	unsigned char *truth; /* threads * touches pages; anonymous memory */
};

/* Read the true bytes. 0, or -1 after round_fail(). */
int load_plan_make(const struct round_spec *spec, struct round *round, struct load_plan *ret_plan);
/* Return the offset of the page that load thread `index` touches at its turn `turn`. The pages
 * are spread over the file, so that the readahead for one page does not bring in another. */
uint64_t load_plan_offset(const struct load_plan *plan, unsigned index, unsigned turn);
const unsigned char *load_plan_truth(const struct load_plan *plan, unsigned index, unsigned turn);

#endif
