/* SPDX-License-Identifier: MIT */
/*
 * The descriptors of a file.
 * May call: file.h.
 */
#ifndef FM_STORE_FILE_OPEN_H
#define FM_STORE_FILE_OPEN_H

#include "store/file.h"

#include <sys/stat.h>

/* What the opening thread has opened, in its own table; -1: not. */
struct opened {
	int buffered, direct, folder;
};

/* The store's identity, from what was opened. */
void file_store_identify(struct file_store *file, const struct stat *st);
/* Open a file's descriptors, in the calling thread's table, or judge the one that `opened` has. 0,
 * or a negative errno and why in `error_text`. May block for a keeper of the file. */
int file_store_open_fds(struct file_store *file, struct opened *opened, const char *path,
			unsigned flags, bool direct, char *error_text, size_t error_text_len);
/* Close what has been opened and not been taken over. */
void file_store_opened_close(struct opened *opened);

#endif
