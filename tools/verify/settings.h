/* SPDX-License-Identifier: MIT */
/*
 * What the two halves of `filemap verify` share. verb.c has the options and reads; verb_write.c
 * writes.
 */
#ifndef FM_TOOL_VERIFY_SETTINGS_H
#define FM_TOOL_VERIFY_SETTINGS_H

#include "filemap.h"

struct verify_settings {
	const char *uri, *budget_text;
	unsigned order, trap, install;
	uint64_t stride, threads, page_size, budget_bytes;
	bool json, write, overwrite;
	uint64_t size; /* with `write`; 0: unchanged, or 64 MiB for a new file */
};

extern const char *const verify_order_names[], *const verify_trap_names[],
						       *const verify_install_names[];
extern const enum fm_trap verify_traps[];

/* Receive the library's log. verify_fail() prints the last error. */
void verify_on_log(void *arg, enum fm_log_level level, const char *line);
/* Print one line. Returns the exit status. `what` is NULL if no address space could be made: only
 * in this case the machine may be the cause. */
int verify_fail(const char *what, int error);
double verify_now_s(void);

/* Check that the file may be written to, and set its size. Called once, before all traps. Returns
 * the exit status. */
int verify_write_prepare(struct verify_settings *set);
/* Write and verify through one trap. *ret_compared is true if there is a result, which has been
 * printed. */
int verify_write_one(const struct verify_settings *set, unsigned trap, bool *ret_compared);

#endif
