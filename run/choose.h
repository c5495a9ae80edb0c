/* SPDX-License-Identifier: MIT */
/*
 * Which mappings are served, and the account of them: see choose.c.
 * May call: filemap.h, settings.h, os.
 */
#ifndef FM_RUN_CHOOSE_H
#define FM_RUN_CHOOSE_H

#include "filemap.h"

#include <sys/stat.h>
#include <sys/types.h>

/* A mapping that the program has asked for, and that the kernel has made. */
struct wish {
	void *shadow;
	size_t len;
	int prot, flags, fd;
	off_t offset;
	struct stat st; /* set by choose() */
};

/* Returns NULL if the mapping may be served; else why the kernel serves it, or "" if that is not
 * worth a word (anonymous memory). Takes no lock. */
const char *choose(struct wish *wish);

/* Count a mapping: `why` is the result of choose(), or a later reason. */
void choose_count(const char *why);
void choose_count_handed(const char *why);
/* Begin a new account, in a forked child. */
void choose_forget(void);
/* Tell the user of a mapping, with --verbose. */
void choose_say(const struct wish *wish, const void *addr, const char *why);
/* Write the account, and the library's statistics if there are any. */
void choose_statistics(const struct fm_stats *stats);

#endif
