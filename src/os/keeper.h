/* SPDX-License-Identifier: MIT */
/*
 * A keeper: a process that shares the memory of the program that started the keeper, and
 * outlives the program. The keeper has its own table of descriptors, which contains nothing of
 * the program's except the files that the keeper was given. When the program has ended, or has
 * become another program by exec(), `fn(arg)` runs in the keeper.
 *
 * A door: any process that knows the device and inode of a keeper's file can knock at the
 * file's door. The keeper answers at once while its program lives, and with the keeper's end
 * after that. The calls are not signal-safe, except what runs in the keeper itself. Errors are
 * negative errno. May call: the kernel.
 */
#ifndef FM_OS_KEEPER_H
#define FM_OS_KEEPER_H

#include "os/os.h"

#include <sys/stat.h>

#define OS_KEPT_MAX 1024u /* files of one keeper */

struct os_kept {
	bool taken;    /* of the program: this place is taken */
	int fd;        /* in the keeper's table; -1: none */
	int door;      /* in the keeper's table; answers processes that knock */
	int error;     /* at the end: why pages are lost; 0: none are */
	uint32_t lost; /* pages */
	bool begun;    /* fn() has begun with this file */
	uint64_t size; /* bytes that may be written to */
};

/* What user, groups and capabilities permit. */
#define KEEPER_GROUPS_MOST  256u
#define KEEPER_STATUS_BYTES 8192u
struct keeper_rights {
	uint64_t permitted; /* capabilities of the keeper */
	bool followed;
	struct rights {
		uint32_t uid[3], gid[3]; /* real, effective, saved */
		uint32_t groups, group[KEEPER_GROUPS_MOST];
		uint64_t permitted;
	} now, before; /* of the program */
	char text[KEEPER_STATUS_BYTES];
};

struct os_keeper {
	int pid, program;
	uint64_t began_ns; /* when fn() began; set by fn() */
	void (*fn)(void *arg);
	void *arg;
	void *mem;
	struct os_kept *file;         /* OS_KEPT_MAX entries; in `mem` */
	struct keeper_rights *rights; /* in `mem` */
	struct os_lock lock;          /* of file[].taken */
	struct os_thread anchor;
	uint32_t anchored, stop; /* futexes */
	uint32_t ready;          /* futex; KEEPER_READY, or the errno that stops the keeper */
	int anchor_error, anchor_tid;
	int pipe[2]; /* the anchor has the write end, the keeper the read end */
	int program_fd, task_fd, status_fd, leader_fd, also_fd, pagemap_fd, control_fd; /* the keeper's */
	char control[32]; /* the name of the socket by which the program talks to the keeper */
	uint32_t control_len;
};

/* Start a keeper. `also_fd`: the keeper has that descriptor, too, by the same number. `fn` has
 * all signals blocked and 50 KiB of stack, and may make the few raw system calls of
 * keeper_rights.c. */
int os_keeper_start(struct os_keeper *keeper, void (*fn)(void *arg), void *arg, int also_fd);
void os_keeper_stop(struct os_keeper *keeper); /* the keeper ends without fn; its files may be
						  forgotten until os_keeper_free() */
void os_keeper_free(struct os_keeper *keeper);

/* Give the keeper the descriptor's open file, and a door for the file. *ret_place: index in
 * `file`. -EUSERS: 16 keepers have this file; -EMFILE: OS_KEPT_MAX; -EPIPE: the keeper is gone.
 */
int os_keeper_take(struct os_keeper *keeper, int fd, const struct stat *st, uint32_t *ret_place);
void os_keeper_forget(struct os_keeper *keeper, uint32_t place);
/* In the keeper: test whether the page has been swapped out. */
bool os_keeper_swapped(const struct os_keeper *keeper, uint64_t addr);

/* How a keeper of a file has ended. */
struct os_kept_end {
	int program;   /* the process that started the keeper; 0: there was no keeper */
	int error;     /* why not all pages were written; 0: all were */
	uint32_t lost; /* pages */
};
/* Wait until no keeper whose program has ended has this file; with `any`, until no keeper at
 * all has the file. Returns 0, or -ETIMEDOUT. *ret_end: the worst end among the keepers waited
 * for; after -ETIMEDOUT, the keeper that is still there. */
int os_keepers_wait(const struct stat *st, bool any, uint64_t until_ns,
		    struct os_kept_end *ret_end);

/* keeper_rights.c: what the keeper may do; all functions run in the keeper. */
int keeper_drop_rights(struct keeper_rights *own);
void keeper_follow_rights(struct keeper_rights *own, int status_fd);
bool keeper_leader_lives(struct keeper_rights *own, int leader_fd);
bool keeper_has_rights(const struct keeper_rights *own);

#endif
