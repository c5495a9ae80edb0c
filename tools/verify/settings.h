/* SPDX-License-Identifier: MIT */
/*
 * What the two halves of `filemap verify` share: verb.c, which has the options and reads, and
 * verb_write.c, which writes.
 * May call: filemap.h.
 */
#ifndef FM_TOOL_VERIFY_SETTINGS_H
#define FM_TOOL_VERIFY_SETTINGS_H

#include "filemap.h"

struct verify_settings {
	const char *uri, *budget_text;
	unsigned order, trap, install;
	uint64_t stride, threads, page_size, budget_bytes;
	bool json, write, overwrite;
	uint64_t size; /* with `write`; 0: as it is */
};

extern const char *const verify_order_names[], *const verify_trap_names[],
						       *const verify_install_names[];
extern const enum fm_trap verify_traps[];

/* The library's log: its last error is the line that verify_fail() tells. */
void verify_on_log(void *arg, enum fm_log_level level, const char *line);
/* One line; the exit status. `what` is NULL where no address space could be made: that alone may be
 * the machine's doing. */
int verify_fail(const char *what, int error);
double verify_now_s(void);

/* May the file be written to, and how large is it to be? Once, before all traps. The exit status.
 */
int verify_write_prepare(struct verify_settings *set);
/* Through one trap. *ret_compared: there is a result, and it has been printed. */
int verify_write_one(const struct verify_settings *set, unsigned trap, bool *ret_compared);

#endif
