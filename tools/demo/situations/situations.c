/* SPDX-License-Identifier: MIT */
/*
 * The situations of the demonstration: one table, and the set-up that several share. What is set
 * up goes into the undo list before it is done.
 * May call: libc, the kernel.
 */
#define _GNU_SOURCE
#include "demo/demo.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOP_WAIT_MS 5000
#define FILEMAP_WAYS (WAY_BIT(WAY_CONTROL) | WAY_BIT(WAY_FILEMAP))
#define KERNEL_WAYS  (WAY_BIT(WAY_KERNEL_CONTROL) | WAY_BIT(WAY_KERNEL))

pid_t demo_fork(struct demo *demo)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid > 0)
		undo_add(demo->undo, UNDO_KILL, pid, NULL, NULL);
	else if (!pid)
		undo_child(demo->undo);
	return pid;
}

/* ------------------------------------------------------------------ a slow file over FUSE */

int situation_fuse_setup(struct demo *demo, const char *backing, bool read_only, char *why)
{
	char dir[PATH_MAX];
	int backing_fd, fuse_fd;
	struct stat st;

	if (geteuid()) {
		snprintf(why, SITUATION_WHY, "needs root, to mount a FUSE file system");
		return -1;
	}
	snprintf(dir, sizeof(dir), "%s/fuse", demo->tmp_dir);
	backing_fd = open(backing, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (backing_fd < 0) {
		snprintf(why, SITUATION_WHY, "%.150s: %s", backing, strerror(errno));
		return -1;
	}
	memset(demo->control, 0, sizeof(*demo->control));
	undo_add(demo->undo, UNDO_RMDIR, 0, dir, NULL);
	if (mkdir(dir, 0700)) {
		snprintf(why, SITUATION_WHY, "%.150s: %s", dir, strerror(errno));
		goto out_backing;
	}
	undo_add(demo->undo, UNDO_UMOUNT, 0, dir, NULL);
	if (fuse_mount(dir, read_only, &fuse_fd, why, SITUATION_WHY))
		goto out_backing;
	demo->server = demo_fork(demo);
	if (!demo->server)
		fuse_serve(fuse_fd, backing_fd, read_only, demo->control);
	/* The server alone holds it: when it ends, nobody waits any longer. */
	close(fuse_fd);
	close(backing_fd);
	undo_add_calm(demo->undo, demo->control);
	snprintf(demo->slow_path, sizeof(demo->slow_path), "%s/fuse/data", demo->tmp_dir);
	if (demo->server < 0 || stat(demo->slow_path, &st)) {
		snprintf(why, SITUATION_WHY, "the FUSE server does not answer: %s",
			 strerror(errno));
		return -1;
	}
	return 0;

out_backing:
	close(backing_fd);
	return -1;
}

static int fuse_file_setup(struct demo *demo, const struct situation *situation, char *why)
{
	(void)situation;
	return situation_fuse_setup(demo, demo->file, true, why);
}

static void fuse_file_fill(struct demo *demo, struct round_spec *spec)
{
	spec->path = demo->slow_path;
}

/* ------------------------------------------------------------------ begin and end */

static void slow_begin(struct demo *demo)
{
	atomic_store(&demo->control->read_delay_ms, demo->delay_ms);
}

static void error_begin(struct demo *demo)
{
	atomic_store(&demo->control->read_error, EIO);
	atomic_store(&demo->control->read_delay_ms, demo->delay_ms);
}

static void calm_end(struct demo *demo)
{
	atomic_store(&demo->control->read_delay_ms, 0);
	atomic_store(&demo->control->write_delay_ms, 0);
	atomic_store(&demo->control->read_error, 0);
}

static void journal_begin(struct demo *demo)
{
	atomic_store(&demo->control->write_delay_ms, demo->delay_ms);
}

/* The signal is sent at once, but each of the server's threads stops by itself: until the last one
 * has, a request may still be answered. */
static void stop_begin(struct demo *demo)
{
	siginfo_t info = {0};

	kill(demo->server, SIGSTOP);
	for (unsigned ms = 0; ms < STOP_WAIT_MS && !info.si_pid; ms++) {
		if (waitid(P_PID, (id_t)demo->server, &info,
			   WSTOPPED | WEXITED | WNOHANG | WNOWAIT))
			break;
		tool_sleep_ms(1);
	}
}

static void stop_end(struct demo *demo)
{
	kill(demo->server, SIGCONT);
}

/* ------------------------------------------------------------------ what a round is to do */

/* The file is slow by FUSE for the kernel, by the store itself for filemap: so without root the
 * filemap ways still run. */
static void store_fill(struct demo *demo, struct round_spec *spec)
{
	if (way_is_kernel(spec->way)) {
		fuse_file_fill(demo, spec);
		return;
	}
	spec->path = demo->file;
	spec->delay_ms = demo->delay_ms;
}

static void stopped_fill(struct demo *demo, struct round_spec *spec)
{
	spec->path = demo->slow_path;
	spec->deadline_ns = 2 * (uint64_t)demo->delay_ms * NSEC_PER_MSEC;
	spec->threads = 12;
	spec->touches = 2;
}

static void error_fill(struct demo *demo, struct round_spec *spec)
{
	fuse_file_fill(demo, spec);
	/* Each fault is two reads. */
	spec->threads = 12;
	spec->touches = 2;
}

static void journal_fill(struct demo *demo, struct round_spec *spec)
{
	spec->journal_path = demo->journal_path;
	spec->min_ns = (uint64_t)demo->delay_ms * 4 * NSEC_PER_MSEC;
	spec->path = demo->file;
	if (way_is_kernel(spec->way))
		return;
	spec->delay_ms = demo->delay_ms;
	spec->threads = 9; /* the last one maps the ext4 file */
}

const struct situation demo_situations[] = {
	{
		.name = "slow-store",
		.what = "cold pages of a store that delays each read",
		.ways = FILEMAP_WAYS | WAY_BIT(WAY_HOLD) | KERNEL_WAYS,
		.setup_ways = KERNEL_WAYS,
		.load = LOAD_TOUCH,
		.setup = fuse_file_setup,
		.fill = store_fill,
		.begin = slow_begin,
		.end = calm_end,
	},
	{
		.name = "fuse-stopped",
		.what = "cold pages of a FUSE file whose server is stopped, with a deadline",
		.ways = FILEMAP_WAYS,
		.setup_ways = FILEMAP_WAYS,
		.load = LOAD_TOUCH,
		.expect_error = ETIMEDOUT,
		.setup = fuse_file_setup,
		.fill = stopped_fill,
		.begin = stop_begin,
		.end = stop_end,
	},
	{
		.name = "blkio-memcg",
		.what = "cold pages under a limit of 5 reads a second, in a full memory cgroup of "
			"64 MiB",
		.ways = KERNEL_WAYS,
		.setup_ways = KERNEL_WAYS,
		.load = LOAD_TOUCH,
		.delay_ms = 200,
		.setup = situation_blkio_setup,
		.fill = situation_blkio_fill,
		.begin = situation_blkio_begin,
		.end = situation_blkio_end,
		.helper = situation_blkio_helper,
	},
	{
		.name = "error-retry",
		.what = "cold pages of a slow store whose reads fail",
		.ways = KERNEL_WAYS,
		.setup_ways = KERNEL_WAYS,
		.load = LOAD_TOUCH,
		.expect_error = EIO,
		.setup = fuse_file_setup,
		.fill = error_fill,
		.begin = error_begin,
		.end = calm_end,
	},
	{
		.name = "proc-mem",
		.what = "another process reads cold pages of a slow store by /proc/PID/mem",
		.ways = KERNEL_WAYS,
		.setup_ways = KERNEL_WAYS,
		.load = LOAD_REMOTE,
		.setup = fuse_file_setup,
		.fill = fuse_file_fill,
		.begin = slow_begin,
		.end = calm_end,
	},
	{
		.name = "journal",
		.what = "mmap() of an ext4 file, and writes to one, whose journal is on a slow "
			"disk",
		.ways = FILEMAP_WAYS | KERNEL_WAYS,
		.setup_ways = FILEMAP_WAYS | KERNEL_WAYS,
		.load = LOAD_JOURNAL,
		/* They wait for the kernel's lock, which the kernel's own mmap() holds. */
		.excused = 1u << PROBE_CMDLINE | 1u << PROBE_SMAPS | 1u << PROBE_MAPS,
		.setup = situation_journal_setup,
		.fill = journal_fill,
		.begin = journal_begin,
		.end = calm_end,
		.helper = situation_journal_helper,
	},
	{
		.name = "write-journal",
		.what = "writes to a mapping of a file on ext4, whose journal is on a slow disk, beside "
			"fork, mprotect",
		.ways = FILEMAP_WAYS | KERNEL_WAYS,
		.setup_ways = FILEMAP_WAYS | KERNEL_WAYS,
		.load = LOAD_WRITE,
		.probes = PROBE_SPECIAL,
		.setup = situation_journal_setup,
		.fill = situation_ext4_fill,
		.begin = journal_begin,
		.end = calm_end,
		.helper = situation_sync_helper,
	},
	{
		.name = "write-frozen",
		.what = "writes to a mapping of a file on a frozen ext4, beside fork and mprotect",
		.ways = FILEMAP_WAYS | KERNEL_WAYS,
		.setup_ways = FILEMAP_WAYS | KERNEL_WAYS,
		.load = LOAD_WRITE,
		.probes = PROBE_SPECIAL,
		.setup = situation_frozen_setup,
		.fill = situation_ext4_fill,
		.end = situation_frozen_end,
		.helper = situation_frozen_helper,
	},
	{
		.name = "dirty-throttle",
		.what = "writes to a mapping of a slow FUSE file, more than may be dirty, in a memory "
			"cgroup of 64 MiB",
		.ways = FILEMAP_WAYS | KERNEL_WAYS,
		.setup_ways = FILEMAP_WAYS | KERNEL_WAYS,
		.load = LOAD_WRITE,
		.probes = 1u << PROBE_PROTECT,
		.setup = situation_throttle_setup,
		.fill = situation_throttle_fill,
		.begin = journal_begin,
		.end = calm_end,
	},
	{
		.name = "unmap-dirty",
		.what = "mappings of a FUSE file with slow writes are unmapped just written to",
		.ways = FILEMAP_WAYS | KERNEL_WAYS,
		.setup_ways = FILEMAP_WAYS | KERNEL_WAYS,
		.load = LOAD_UNMAP,
		.setup = situation_scratch_setup,
		.fill = situation_write_fill,
		.begin = journal_begin,
		.end = calm_end,
	},
};
const size_t demo_situation_count = sizeof(demo_situations) / sizeof(demo_situations[0]);
_Static_assert(sizeof(demo_situations) / sizeof(demo_situations[0]) <= DEMO_SITUATIONS_MAX,
	       "the report has room for the situations");
