/* SPDX-License-Identifier: MIT */
/*
 * Whether a program can be preloaded: see elf.c.
 * May call: libc.
 */
#ifndef FM_TOOL_RUN_ELF_H
#define FM_TOOL_RUN_ELF_H

#include <stddef.h>

/* Find the file that execvp() would run. Returns 0, or an errno such as ENOENT. */
int elf_find(const char *program, char *ret_path, size_t path_len);

/* Why the program at `path` cannot be preloaded; NULL: it can. The interpreter of a script counts,
 * and the program behind `#!/usr/bin/env`. The text is in static storage. */
const char *elf_refused(const char *path);

#endif
