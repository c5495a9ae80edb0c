/* SPDX-License-Identifier: MIT */
/*
 * The store that the files of file: share. May call: store.h, here.h.
 */
#ifndef FM_STORE_FILE_H
#define FM_STORE_FILE_H

#include "store/here.h"
#include "store/store.h"

#define FILE_DIRECT_ALIGN 4096u

struct file_store {
	struct fm_store store; /* first */
	/* The descriptors: file_upgrade() changes both while reads run. If there is no direct
	 * descriptor, `own` of `direct` is -1. */
	_Atomic(struct store_here *) buffered, direct;
	struct store_here here[4]; /* two of the opener; two of the writer, from file_upgrade() on */
	uint32_t direct_refused; /* atomic: a direct read or write gave EINVAL: make none any more */
	bool lockless; /* no read may wait for the inode's lock: see file_read_lockless() and
			  learn_locks() */
	bool buffered_locks;     /* lockless, and a buffered read would take the inode's lock */
	bool direct_locks; /* lockless, and a direct read waits for the inode's lock, even if asked not
			      to wait */
	uint32_t nowait_refused; /* atomic: the file system cannot say that a direct read would wait */
	bool is_block;
	bool is_remote; /* see fs_is_remote() */
	uint64_t grain_ns; /* see file_store_stamp_grain_ns() */
	struct file_keep {
		uint32_t on;           /* atomic: a keeper has the file */
		uint32_t begun, ended; /* changes by this process; atomic */
		uint64_t own_ns;       /* the latest mtime that a change by this process has left; atomic */
		uint64_t alive_ns;     /* at this time the program lived; atomic */
		uint64_t size, mtime;  /* of the keeper: the file as the keeper's last change left it */
	} keep;
	uint32_t name_unsynced; /* atomic: opening made the file, and no flush has succeeded yet */
	int folder_fd;          /* of a file that opening made; -1: the folder could not be opened */
};

/* The operation of a store; see store.h. */
void file_store_close(struct fm_store *store);
/* Make a store without descriptors. Returns 0, or a negative errno and the reason in
 * `error_text`. */
int file_store_alloc(unsigned flags, const char *name, char *error_text, size_t error_text_len,
		     struct file_store **ret_file);

#endif
