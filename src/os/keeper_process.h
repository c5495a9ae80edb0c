/* SPDX-License-Identifier: MIT */
/*
 * The process that keeper.c starts, and the memory that the two share. May call: keeper.h.
 */
#ifndef FM_OS_KEEPER_PROCESS_H
#define FM_OS_KEEPER_PROCESS_H

#include "os/keeper.h"

#include <poll.h>

#define KEEPER_STACK_BYTES  (64u << 10)
/* Thread-locals of the program's libraries, on either side of the pointer. */
#define KEEPER_LOCALS_BYTES (2u << 20)
#define KEEPER_READY        1u
#define KEEPER_FIRST_DOOR   3

/* The keeper's working memory, behind its stack and its thread-locals. */
struct keeper_memory {
	struct os_kept file[OS_KEPT_MAX];
	struct keeper_rights rights;
	struct pollfd poll[KEEPER_FIRST_DOOR + OS_KEPT_MAX];
	uint16_t place[KEEPER_FIRST_DOOR + OS_KEPT_MAX]; /* of the file that the door belongs to */
};

int keeper_main(void *arg); /* by clone(); `arg` is the struct os_keeper */

#endif
