/* SPDX-License-Identifier: MIT */
/*
 * The situations with writes to a mapping: of a FUSE file with slow writes, of a file on an
 * ext4 with a slow journal, and of a file on a frozen ext4. The file is always a scratch file,
 * never the user's file. A frozen file system is thawed three times: by the process that froze
 * the file system, by the coordinator at the end of the round, and by the undo list.
 */
#define _GNU_SOURCE
#include "demo/situations/situations.h"

#include "command/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* The probe `protect` makes the last page read-only, so no load thread writes to the last
 * page. */
#define SCRATCH_BYTES  ((64 << 20) + DEMO_PAGE)
#define THROTTLE_PAGES 2048u /* of each thread; all threads together dirty more than is allowed */
#define UNMAP_PAGES    4u
#define JOURNAL_PAGES  4u
#define THAWED_MS      100u
#define PAUSE_MS       20u /* long enough to leave processor time to the probes */

/* ------------------------------------------------------------------ a file over FUSE */

/* Make a file of holes, so that the speed of the server's disk has no influence. */
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
	/* The last sync, of pages far from each other, may take very long. */
	spec->max_ns = spec->min_ns + 4 * NSEC_PER_SEC;
	spec->cgroup[0] = demo->cgroup[0];
}

/* ------------------------------------------------------------------ another process that syncs */

/* Write to a file beside the mapped file, and sync the file, as a database would. */
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

/* The helper thaws the file system, unless the helper was killed. */
void situation_frozen_end(struct demo *demo)
{
	freeze_or_thaw(demo, false);
}

/* Freeze the file system for the delay, thaw it for a moment, and repeat. */
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
