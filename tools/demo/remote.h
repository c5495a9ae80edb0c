/* SPDX-License-Identifier: MIT */
/*
 * LOAD_REMOTE: another process reads the slow mapping of the subject through /proc/PID/mem.
 */
#ifndef FILEMAP_DEMO_REMOTE_H
#define FILEMAP_DEMO_REMOTE_H

#include "demo/round.h"

#include <sys/types.h>

/* The steps of a hand-over in turn `t`, under filemap. First the load thread of the subject has
 * pinned the page. Then the remote reader has read the page. */
#define HANDOVER_PINNED(t) (2 * (t) + 1)
#define HANDOVER_READ(t)   (2 * (t) + 2)

void handover_step(struct round *round, unsigned index, uint32_t step);
/* Wait for the step. Returns false if the round ends before the step. */
bool handover_wait(struct round *round, unsigned index, uint32_t step);
/* Read all pages of the plan, in threads. Returns the exit status. */
int remote_run(const struct round_spec *spec, pid_t pid, struct round *round);

#endif
