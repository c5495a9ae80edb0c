/* SPDX-License-Identifier: MIT */
/* What the trap's files share: struct trap. */
#ifndef FM_TRAP_INTERNAL_H
#define FM_TRAP_INTERNAL_H

#include "os/atomic.h"
#include "os/os.h"
#include "trap/trap.h"

#include <errno.h>

#define TRAP_SLOTS_MAX 16

struct handler; /* thread.c */

struct trap {
	enum fm_trap kind;
	int fd;
	bool has_move, has_wp, has_poison;
	bool user_mode_only;
	const struct trap_client *client;
	struct handler *handler;
	struct {
		uint64_t start, end; /* atomic; 0: none */
	} slots[TRAP_SLOTS_MAX];     /* the frames' memory, by which the handler knows a hole in it */
};

/* Of uffd.c, for thread.c. */
bool trap_in_slots(struct trap *trap, uint64_t addr);
int uffd_poison(struct trap *trap, uint64_t addr, uint64_t len);
/* Of thread.c, for uffd.c. */
int handler_start(struct trap *trap);
void handler_stop(struct trap *trap);
bool handler_has_told(struct trap *trap);

#endif
