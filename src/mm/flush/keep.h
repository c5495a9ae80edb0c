/* SPDX-License-Identifier: MIT */
/*
 * FM_KEEP: the keeper (os/keeper.h) writes pages that are dirty when the process has ended. The
 * kernel does the same for the mappings of a program that was killed.
 */
#ifndef FM_MM_FLUSH_KEEP_H
#define FM_MM_FLUSH_KEEP_H

#include <stdint.h>

struct fm_file;
struct fm_store;
struct fm_mm;

int keep_start(struct fm_mm *mm);
void keep_stop(struct fm_mm *mm);
int keep_file(struct fm_file *file, struct fm_store *store);
void keep_forget(struct fm_file *file);
void keep_alive(struct fm_mm *mm);
int keeper_wait(const char *path, uint64_t timeout_ns);

#endif
