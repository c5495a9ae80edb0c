/* SPDX-License-Identifier: MIT */
/* Read deadlines: take the pages away from a request that has passed its deadline. */
#ifndef FM_MM_FILL_ABANDON_H
#define FM_MM_FILL_ABANDON_H

#include <stdbool.h>
#include <stdint.h>

struct fm_file;
struct fm_mm;
struct page;

void read_wanted(struct fm_file *file, struct page *page);
bool read_is_stuck(struct fm_file *file, struct page *page, uint64_t waited_ns);
void read_abandon_page(struct fm_mm *mm, struct page *page);
void read_expire(struct fm_mm *mm, uint64_t now_ns, uint64_t *ret_next_ns);
void read_cancel_all(struct fm_mm *mm, struct fm_file *file);

#endif
