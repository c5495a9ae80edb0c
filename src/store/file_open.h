/* SPDX-License-Identifier: MIT */
/*
 * The descriptors of a file.
 * May call: file.h.
 */
#ifndef FM_STORE_FILE_OPEN_H
#define FM_STORE_FILE_OPEN_H

#include "store/file.h"

#include <sys/stat.h>

/* Descriptors that the opening thread has opened, in its own table; -1: not opened. */
struct opened {
	int buffered, direct, folder;
};

/* Set the store's identity from the opened file's `st`. */
void file_store_identify(struct file_store *file, const struct stat *st);
/* Open a file's descriptors, in the calling thread's table, or check the descriptor in
 * `opened`. Returns 0, or a negative errno and the reason in `error_text`. May block for a
 * keeper of the file. */
int file_store_open_fds(struct file_store *file, struct opened *opened, const char *path,
			unsigned flags, bool direct, char *error_text, size_t error_text_len);
/* Close the descriptors in `opened` that the store has not taken over. */
void file_store_opened_close(struct opened *opened);

#endif
