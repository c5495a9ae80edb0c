/* SPDX-License-Identifier: MIT */
/* A queue of tickets. */
#ifndef FM_MM_BASE_TICKET_LIST_H
#define FM_MM_BASE_TICKET_LIST_H

#include "os/os.h"

struct ticket;

struct ticket_list { /* of tickets */
	struct os_lock lock;
	struct ticket *head, **tail;
};

#endif
