/* SPDX-License-Identifier: MIT */
/*
 * Doors of keepers: abstract sockets, one for a keeper and a file, named by the file's device
 * and inode. A door leaves no entry in a folder, leaves nothing behind, and does not conflict
 * with a program's lock. Doors reach as far as the network namespace. May call: the kernel.
 */
#ifndef FM_OS_KEEPER_DOOR_H
#define FM_OS_KEEPER_DOOR_H

#include "os/keeper.h"

#include <sys/socket.h>
#include <sys/un.h>

#define DOOR_MAGIC 0x666d6b70u
enum { DOOR_ALIVE = 1, DOOR_ENDED = 2 };
struct door_answer {
	uint32_t magic, state, lost;
	int32_t error;
};

/* Questions that the program asks its keeper by the control socket. */
enum { ASK_TAKE = 1, ASK_FORGET = 2 };
struct keeper_question {
	uint32_t what, place;
};

/* Open a socket that answers for this file: listening, not blocking. -EUSERS: there are 16. */
int door_open(const struct stat *st);
/* In the keeper: answer the process that knocked first (false: none has knocked), or answer
 * all. */
bool door_answer_one(int door, const struct door_answer *answer);
void door_answer_all(int door, const struct door_answer *answer);

#endif
