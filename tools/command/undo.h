/* SPDX-License-Identifier: MIT */
/*
 * The list of what a verb set up on the machine, undone at the end whatever the end is. See undo.c.
 * May call: libc, the kernel.
 */
#ifndef FILEMAP_UNDO_H
#define FILEMAP_UNDO_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

/* How a FUSE server of the demonstration answers. Shared memory: takes effect at the next request.
 */
struct fuse_control {
	_Atomic uint32_t read_delay_ms, write_delay_ms;
	_Atomic int32_t read_error; /* errno, after the delay; 0: none */
	_Atomic uint32_t reads, writes;
};

/* A process of its own holds the list, so that it is undone also when the coordinator dies. It
 * undoes from the newest to the oldest. Never call these from a child of the coordinator. */
struct undo;
enum undo_kind {
	UNDO_KILL,   /* pid: SIGKILL (after SIGCONT), and wait for its end */
	UNDO_UMOUNT, /* path; by MNT_DETACH when it is busy */
	UNDO_LOOP,   /* path of the loop device */
	UNDO_UNLINK, /* path */
	UNDO_RMDIR,  /* path, a plain directory or a cgroup */
	UNDO_WRITE,  /* path, text: lift a limit */
	UNDO_THAW,   /* path of a directory on a file system that may be frozen */
	UNDO_CALM,   /* the control of a FUSE server: no more delays, no more errors */
};
int undo_start(struct undo **ret_undo);
/* What is to be undone, recorded BEFORE it is done where that is possible. 0 or -errno. */
int undo_add(struct undo *undo, enum undo_kind kind, pid_t pid, const char *path, const char *text);
int undo_add_calm(struct undo *undo, struct fuse_control *control);
unsigned undo_mark(const struct undo *undo);
/* Undo everything added since `mark`. Complaints go to stderr, one line each; their number. */
int undo_to(struct undo *undo, unsigned mark);
void undo_end(struct undo *undo);
/* In a child: let go of the list; leave the terminal's signals to the coordinator. */
void undo_child(struct undo *undo);

#endif
