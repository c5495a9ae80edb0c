/* SPDX-License-Identifier: MIT */
/*
 * The list of what a verb set up on the machine. The list is undone at the end, however the program
 * ends. See undo.c.
 */
#ifndef FILEMAP_UNDO_H
#define FILEMAP_UNDO_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

/* How a FUSE server of the demonstration answers. The structure is in shared memory, so a change
 * takes effect at the next request. */
struct fuse_control {
	_Atomic uint32_t read_delay_ms, write_delay_ms;
	_Atomic int32_t read_error; /* errno of the answer, after the delay; 0: no error */
	_Atomic uint32_t reads, writes;
};

/* A process of its own holds the list, so the list is undone even if the coordinator dies. Entries
 * are undone from the newest to the oldest. A child of the coordinator may call undo_child()
 * only. */
struct undo;
enum undo_kind {
	UNDO_KILL,   /* pid: SIGCONT and SIGKILL, then a wait for the end of the process */
	UNDO_UMOUNT, /* path; with MNT_DETACH if the mount stays busy */
	UNDO_LOOP,   /* path of the loop device */
	UNDO_UNLINK, /* path */
	UNDO_RMDIR,  /* path of a plain directory or a cgroup */
	UNDO_WRITE,  /* path and text: write the text, for example to lift a limit */
	UNDO_THAW,   /* path of a directory on a file system that may be frozen */
	UNDO_CALM,   /* control of a FUSE server: no more delays, no more errors */
};
int undo_start(struct undo **ret_undo);
/* Add an entry. Where possible, the caller adds the entry BEFORE the change is made. Returns 0 or a
 * negative errno. */
int undo_add(struct undo *undo, enum undo_kind kind, pid_t pid, const char *path, const char *text);
int undo_add_calm(struct undo *undo, struct fuse_control *control);
unsigned undo_mark(const struct undo *undo);
/* Undo all entries added since `mark`. Each failure is one line on stderr. Returns the number of
 * failures, or a negative errno. */
int undo_to(struct undo *undo, unsigned mark);
void undo_end(struct undo *undo);
/* In a child: close the list, and ignore the terminal's signals, which the coordinator handles. */
void undo_child(struct undo *undo);

#endif
