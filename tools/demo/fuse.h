/* SPDX-License-Identifier: MIT */
/*
 * A small FUSE server that makes a file slow, bad or dead.
 */
#ifndef FILEMAP_DEMO_FUSE_H
#define FILEMAP_DEMO_FUSE_H

#include "command/undo.h"

#include <stdbool.h>
#include <stddef.h>

/* Mount a FUSE file system on `dir`. 0, or a negative errno and one line in `why`. */
int fuse_mount(const char *dir, bool read_only, int *ret_fuse_fd, char *why, size_t why_len);
/* Serve `backing_fd` as the file `data` for ever. Runs in a process of its own. */
void fuse_serve(int fuse_fd, int backing_fd, bool read_only, struct fuse_control *control)
	__attribute__((noreturn));

#endif
