/* SPDX-License-Identifier: MIT */
/* A queue of tickets. */
#ifndef FM_MM_BASE_WAIT_QUEUE_H
#define FM_MM_BASE_WAIT_QUEUE_H

#include "os/os.h"

struct ticket;

struct wait_queue { /* of tickets */
	struct os_lock lock;
	struct ticket *head, **tail;
};

#endif
