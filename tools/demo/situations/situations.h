/* SPDX-License-Identifier: MIT */
/*
 * The table of situations, and the state of the demonstration that a set-up uses.
 */
#ifndef FILEMAP_DEMO_SITUATIONS_H
#define FILEMAP_DEMO_SITUATIONS_H

#include "command/undo.h"
#include "demo/round.h"

#include <limits.h>
#include <sys/types.h>

struct demo {
	/* options */
	const char *file; /* the file whose bytes are served; NULL until chosen */
	unsigned delay_ms;
	bool json, all;
	const char *plot;
	/* state */
	struct undo *undo;
	char tmp_dir[200];
	char file_made[PATH_MAX]; /* the file that the demonstration wrote, if none was given */
	char cached_path[PATH_MAX], hole_path[300];
	struct fuse_control *control;
	struct round *round;
	pid_t coordinator;
	/* what the present situation set up */
	char slow_path[PATH_MAX], journal_path[PATH_MAX];
	char cgroup[2][PATH_MAX];
	char limit_path[PATH_MAX], limit_text[64];
	pid_t server;
};

#define SITUATION_WHY       240
#define DEMO_SITUATIONS_MAX 12

struct situation {
	const char *name;
	const char *what[2];    /* one or two lines of at most 63 columns, for --help */
	unsigned ways;          /* WAY_BIT()s */
	unsigned setup_ways;    /* the ways that need the set-up */
	const char *kernel_not; /* why the kernel's mmap() does not run here, or NULL */
	enum load load;
	unsigned delay_ms; /* in place of the delay that was asked for; 0: that delay */
	int expect_error;  /* the errno with which every slow access ends; 0: with the bytes */
	/* Probes that the kernel itself may stall in a filemap way, bits. */
	unsigned excused;
	unsigned probes;      /* the probes of PROBE_SPECIAL that run here, bits */
	unsigned samples_min; /* of each judged probe in a round; 0: 1,000 */
	/* Runs once. 0, or -1 and in `why` what is missing and what to do. NULL: no set-up. */
	int (*setup)(struct demo *demo, const struct situation *situation, char *why);
	void (*fill)(struct demo *demo, struct round_spec *spec);
	/* Run before and after the measured part of a round that is no control. May be NULL. */
	void (*begin)(struct demo *demo);
	void (*end)(struct demo *demo);
	/* The body of a process beside each such round. Returns the exit status. May be
	 * NULL. */
	int (*helper)(struct demo *demo, const struct round_spec *spec, struct round *round,
		      pid_t subject);
	bool control_has_helper; /* the controls have the process, too */
};

extern const struct situation demo_situations[];
extern const size_t demo_situation_count;

static inline unsigned situation_samples_min(const struct situation *situation)
{
	return situation->samples_min ? situation->samples_min : 1000;
}

/* Fork a process that is in the undo list. Returns 0 in the child. */
pid_t demo_fork(struct demo *demo);
int situation_fuse_setup(struct demo *demo, const char *backing, bool read_only, char *why);

/* journal.c */
int situation_journal_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_journal_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			     pid_t subject);

/* blkio.c */
int situation_memory_cgroup(struct demo *demo, size_t index, char *why);
int situation_blkio_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_blkio_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			   pid_t subject);
void situation_blkio_fill(struct demo *demo, struct round_spec *spec);
void situation_blkio_begin(struct demo *demo);
void situation_blkio_end(struct demo *demo);

/* write.c */
int situation_scratch_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_throttle_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_sync_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			  pid_t subject);
int situation_frozen_setup(struct demo *demo, const struct situation *situation, char *why);
int situation_frozen_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			    pid_t subject);
void situation_frozen_end(struct demo *demo);
void situation_write_fill(struct demo *demo, struct round_spec *spec);
void situation_ext4_fill(struct demo *demo, struct round_spec *spec);
void situation_throttle_fill(struct demo *demo, struct round_spec *spec);

#endif
