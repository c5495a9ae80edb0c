/* SPDX-License-Identifier: MIT */
/* The end of the process: what is dirty is written. */
#ifndef FM_API_PROCESS_ENDS_H
#define FM_API_PROCESS_ENDS_H

#include <stdbool.h>

/* Write all that is dirty. With `last`, nothing of the library runs after the call. */
void api_process_ends(bool last);

#endif
