/* SPDX-License-Identifier: MIT */
/*
 * Which pages the writing loads write to, and which numbers must be in the file at the end.
 */
#ifndef FILEMAP_DEMO_WRITE_H
#define FILEMAP_DEMO_WRITE_H

#include "demo/round.h"

/* For LOAD_WRITE and LOAD_UNMAP. Each writing thread has pages of its own. */
struct write_plan {
	uint64_t file_bytes;
	unsigned writers, pages; /* pages of each writer */
	uint64_t *last;          /* the last number in each of writers * pages; 0: none */
};

/* 0, or -1 after round_fail(). */
int write_plan_make(const struct round_spec *spec, struct round *round,
		    struct write_plan *ret_plan);
static inline uint64_t write_plan_offset(const struct write_plan *plan, unsigned index,
					 unsigned page)
{
	return ((uint64_t)index * plan->pages + page) * DEMO_PAGE;
}
/* Return the page for a turn. The order is scattered, so that a page is also written to again
 * while the page is on its way to the store. */
unsigned write_plan_page(const struct write_plan *plan, unsigned turn);
/* Write the next number to a page. A fault may interrupt the caller between two stores. */
void write_plan_write(struct write_plan *plan, unsigned index, unsigned page, unsigned char *at);
/* Read the file with pread(). Pages without their last number are counted as `wrong`. */
void write_plan_check(const struct write_plan *plan, const struct round_spec *spec,
		      struct round *round);

#endif
