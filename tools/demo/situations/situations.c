/* SPDX-License-Identifier: MIT */
/*
 * The table of situations, and the set-up that several situations share. Each thing that a
 * set-up makes is put on the undo list before it is made.
 */
#define _GNU_SOURCE
#include "demo/situations/situations.h"

#include "command/clock.h"
#include "demo/fuse.h"

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
	/* Only the server holds the descriptor. When the server ends, no request waits any
	 * longer. */
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

/* Each thread of the server stops by itself some time after the signal. Until the last thread
 * has stopped, the server may still answer a request. So wait for the stop. */
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

/* For the kernel, FUSE makes the file slow. For filemap, the store itself is slow, so that the
 * filemap ways run without root. */
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
	/* The kernel reads twice in each fault, so each thread touches fewer pages. */
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
	spec->threads = 9; /* the last thread calls the kernel's mmap() of the ext4 file */
}

const struct situation demo_situations[] = {
	{
		.name = "slow-store",
		.what = {"cold pages of a store that delays each read"},
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
		.what = {"cold pages of a FUSE file whose server is stopped; a deadline"},
		.ways = FILEMAP_WAYS,
		.kernel_not = "it has no deadline",
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
		.what = {"cold pages; a limit of 5 reads a second; a full memory cgroup",
			 "the kernel stalls others by chance: more rounds show more"},
		.ways = FILEMAP_WAYS | KERNEL_WAYS,
		.setup_ways = FILEMAP_WAYS | KERNEL_WAYS,
		.load = LOAD_TOUCH,
		.delay_ms = 200,
		.setup = situation_blkio_setup,
		.fill = situation_blkio_fill,
		.begin = situation_blkio_begin,
		.end = situation_blkio_end,
		.helper = situation_blkio_helper,
		/* The neighbour uses all processors, so probes have few samples. The controls
		 * have the neighbour, too: otherwise a wait for a processor would look like a
		 * wait for the disk. */
		.control_has_helper = true,
		.samples_min = 250,
	},
	{
		.name = "error-retry",
		.what = {"cold pages of a slow store whose reads fail"},
		.ways = FILEMAP_WAYS | KERNEL_WAYS,
		.setup_ways = FILEMAP_WAYS | KERNEL_WAYS,
		.load = LOAD_TOUCH,
		.expect_error = EIO,
		.setup = fuse_file_setup,
		.fill = error_fill,
		.begin = error_begin,
		.end = calm_end,
	},
	{
		.name = "proc-mem",
		.what = {"another process reads cold pages by /proc/PID/mem",
			 "under filemap, a thread pins each page first"},
		.ways = FILEMAP_WAYS | KERNEL_WAYS,
		.setup_ways = FILEMAP_WAYS | KERNEL_WAYS,
		.load = LOAD_REMOTE,
		.setup = fuse_file_setup,
		.fill = fuse_file_fill,
		.begin = slow_begin,
		.end = calm_end,
	},
	{
		.name = "journal",
		.what = {"mmap() of an ext4 file, and writes to one, while the journal",
			 "waits for a slow disk"},
		.ways = FILEMAP_WAYS | KERNEL_WAYS,
		.setup_ways = FILEMAP_WAYS | KERNEL_WAYS,
		.load = LOAD_JOURNAL,
		/* These probes wait for the kernel's lock. A thread of the process calls the
		 * kernel's mmap(), which holds the lock. */
		.excused = 1u << PROBE_CMDLINE | 1u << PROBE_SMAPS | 1u << PROBE_MAPS,
		.setup = situation_journal_setup,
		.fill = journal_fill,
		.begin = journal_begin,
		.end = calm_end,
		.helper = situation_journal_helper,
	},
	{
		.name = "write-journal",
		.what = {"writes to a mapping of an ext4 file, while the journal waits",
			 "for a slow disk; beside fork and mprotect"},
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
		.what = {"writes to a mapping of a file on a frozen ext4",
			 "beside fork and mprotect"},
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
		.what = {"writes to a mapping of a slow FUSE file, more than may be",
			 "dirty, in a memory cgroup of 64 MiB"},
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
		.what = {"mappings of a FUSE file with slow writes are written to and",
			 "unmapped at once"},
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
