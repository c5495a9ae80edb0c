/* SPDX-License-Identifier: MIT */
/*
 * Doors of keepers: abstract sockets, one for a keeper and a file, named by the file's device and
 * inode. Nothing lies in a folder, nothing is left behind, and no lock of a program's is in the
 * way. They reach as far as the network namespace. May call: the kernel.
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

/* What the program asks its keeper by the control socket. */
enum { ASK_TAKE = 1, ASK_FORGET = 2 };
struct keeper_question {
	uint32_t what, place;
};

/* A socket that answers for this file: listening, not blocking. -EUSERS: there are 16. */
int door_open(const struct stat *st);
/* In the keeper: who has knocked first is answered; false: nobody has. Or all are. */
bool door_answer_one(int door, const struct door_answer *answer);
void door_answer_all(int door, const struct door_answer *answer);

#endif
