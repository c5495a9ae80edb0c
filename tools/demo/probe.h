/* SPDX-License-Identifier: MIT */
/*
 * A subject is a process that maps the slow file: it runs the load threads and the probe
 * threads. The monitor is another process, which reads /proc of the subject.
 */
#ifndef FILEMAP_DEMO_PROBE_H
#define FILEMAP_DEMO_PROBE_H

#include "demo/round.h"

#include <sys/types.h>

/* One operation of a probe. The probe thread calls the function in a loop. The function records
 * by itself, so that it can leave out preparation, or record more than one latency. */
typedef void (*probe_fn)(void *subject, struct round *round, struct recorder *rec);

struct subject_ops {
	/* Runs in a fresh process with a single thread. 0, or a negative number after
	 * round_fail(). */
	int (*open)(const struct round_spec *spec, struct round *round, void **ret_subject);
	probe_fn probe[PROBE_INSIDE];
	/* The body of load thread `index`. Returns at the end of its touches or of the
	 * round. */
	void (*load)(void *subject, struct round *round, unsigned index);
	/* Puts figures into the round before the mappings go. May be NULL. */
	void (*close)(void *subject, struct round *round);
};

extern const struct subject_ops filemap_subject; /* filemap.c */
extern const struct subject_ops kernel_subject;  /* kernel.c */

/* Join the cgroups of the round; for `open`. 0, or -1 after round_fail(). */
int subject_join_cgroups(const struct round_spec *spec, struct round *round);
/* The probe `fork`, the same for both subjects. */
void subject_probe_fork(void *subject, struct round *round, struct recorder *rec);
/* Run a subject in this process: open, threads, close. Returns the exit status. */
int subject_run(const struct round_spec *spec, struct round *round);
/* Read /proc/PID/{cmdline,smaps,maps} in a loop until the round is over. Returns the exit
 * status. */
int monitor_run(pid_t pid, struct round *round);

#endif
