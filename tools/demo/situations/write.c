/* SPDX-License-Identifier: MIT */
/*
 * The situations in which a file is written to through its mapping: a file over FUSE whose writes
 * are slow, and an ext4 whose journal is, or that is frozen. Always a scratch file: never the
 * user's own. A frozen file system is thawed by who froze it, by the coordinator at the end of the
 * round, and by the undo list. Owns nothing. May call: libc, the kernel.
 */
#define _GNU_SOURCE
#include "demo/demo.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SCRATCH_BYTES                                                                              \
	((64 << 20) + DEMO_PAGE) /* nobody writes to the last page, which the protect probe takes  \
				    writing from */
#define THROTTLE_PAGES 2048u /* of each thread: all of them together are more than may be dirty */
#define UNMAP_PAGES    4u
#define JOURNAL_PAGES  4u
#define THAWED_MS      100u
#define PAUSE_MS       20u /* seldom enough not to keep the probes from the processor */

/* ------------------------------------------------------------------ a file over FUSE */

/* Holes: the server's own disk is not to matter. */
int situation_scratch_setup(struct demo *demo, const struct situation *situation, char *why)
{
	char path[256];
	int fd;

	(void)situation;
	snprintf(path, sizeof(path), "%s/scratch", demo->tmp_dir);
	undo_add(demo->undo, UNDO_UNLINK, 0, path, NULL);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, SCRATCH_BYTES)) {
		snprintf(why, SITUATION_WHY, "%.150s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	close(fd);
	return situation_fuse_setup(demo, path, false, why);
}

int situation_throttle_setup(struct demo *demo, const struct situation *situation, char *why)
{
	return situation_memory_cgroup(demo, 0, why) ||
			       situation_scratch_setup(demo, situation, why) ?
		       -1 :
		       0;
}

/* ------------------------------------------------------------------ what a round is to do */

/* Long enough for several waits of the delay, and for many accesses. */
static void fill(struct demo *demo, struct round_spec *spec, const char *path, unsigned pages)
{
	spec->path = path;
	spec->pages = pages;
	spec->min_ns = (uint64_t)demo->delay_ms * 4 * NSEC_PER_MSEC;
	if (spec->min_ns < NSEC_PER_SEC)
		spec->min_ns = NSEC_PER_SEC;
}

void situation_write_fill(struct demo *demo, struct round_spec *spec)
{
	fill(demo, spec, demo->slow_path, UNMAP_PAGES);
	spec->pause_ms = PAUSE_MS;
}

void situation_ext4_fill(struct demo *demo, struct round_spec *spec)
{
	fill(demo, spec, demo->journal_path, JOURNAL_PAGES);
	spec->threads = 9; /* the last one syncs */
	spec->pause_ms = PAUSE_MS;
}

void situation_throttle_fill(struct demo *demo, struct round_spec *spec)
{
	fill(demo, spec, demo->slow_path, THROTTLE_PAGES);
	spec->threads = 9;
	/* The last sync, of pages far from each other, may take longer than anybody wants to watch. */
	spec->max_ns = spec->min_ns + 4 * NSEC_PER_SEC;
	spec->cgroup[0] = demo->cgroup[0];
}

/* ------------------------------------------------------------------ another process that syncs */

/* It writes to a file of its own beside the mapped one, and syncs it, as a database beside would.
 */
int situation_sync_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			  pid_t subject)
{
	char path[PATH_MAX], *name;
	int fd;

	(void)demo;
	(void)subject;
	snprintf(path, sizeof(path), "%s", spec->path);
	name = strrchr(path, '/');
	snprintf(name, sizeof(path) - (size_t)(name - path), "/synced");
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		round_fail(round, "%s: %s", path, strerror(errno));
		return 1;
	}
	round_wait_phase(round, PHASE_MEASURE);
	for (unsigned i = 0; !round_over(round); i++) {
		if (pwrite(fd, &i, sizeof(i), (off_t)(i % 64) * DEMO_PAGE) != (ssize_t)sizeof(i) ||
		    fsync(fd)) {
			round_fail(round, "fsync on the slow ext4: %s", strerror(errno));
			break;
		}
	}
	return round->failure[0] ? 1 : 0;
}

/* ------------------------------------------------------------------ a frozen file system */

static void ext4_dir(const struct demo *demo, char *path, size_t len)
{
	snprintf(path, len, "%s/ext4", demo->tmp_dir);
}

int situation_frozen_setup(struct demo *demo, const struct situation *situation, char *why)
{
	char path[256];

	if (situation_journal_setup(demo, situation, why))
		return -1;
	ext4_dir(demo, path, sizeof(path));
	if (undo_add(demo->undo, UNDO_THAW, 0, path, NULL)) {
		snprintf(why, SITUATION_WHY, "the thaw can't be made sure of");
		return -1;
	}
	return 0;
}

static int freeze_or_thaw(const struct demo *demo, bool freeze)
{
	char path[256];
	int fd, error = 0;

	ext4_dir(demo, path, sizeof(path));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, freeze ? FIFREEZE : FITHAW, 0))
		error = -errno;
	close(fd);
	return error;
}

/* The helper has thawed it, unless it was killed. */
void situation_frozen_end(struct demo *demo)
{
	freeze_or_thaw(demo, false);
}

/* Freezes for the delay, thaws for a moment, and again. */
int situation_frozen_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			    pid_t subject)
{
	int error = 0;

	(void)spec;
	(void)subject;
	round_wait_phase(round, PHASE_MEASURE);
	while (!error && !round_over(round)) {
		error = freeze_or_thaw(demo, true);
		for (unsigned ms = 0; !error && ms < demo->delay_ms && !round_over(round); ms += 5)
			tool_sleep_ms(5);
		if (!error)
			error = freeze_or_thaw(demo, false);
		tool_sleep_ms(THAWED_MS);
	}
	if (error && !round_over(round))
		round_fail(round, "freezing: %s", strerror(-error));
	return error ? 1 : 0;
}
