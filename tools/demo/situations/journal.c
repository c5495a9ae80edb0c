/* SPDX-License-Identifier: MIT */
/*
 * An ext4 file system on a disk with slow writes. The disk is a loop device with direct I/O
 * over an image, and the FUSE server of the demonstration serves the image. A commit of the
 * journal then takes long, and each thread that needs the journal waits.
 */
#define _GNU_SOURCE
#include "demo/situations/situations.h"

#include "command/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define IMAGE_BYTES        (64 << 20)
#define JOURNAL_FILE_BYTES (64 * DEMO_PAGE)

struct journal_writer {
	struct round *round;
	int fd;
};

static int run_mkfs(const char *image, char *why)
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		snprintf(why, SITUATION_WHY, "fork: %s", strerror(errno));
		return -1;
	}
	if (!pid) {
		int null_fd = open("/dev/null", O_RDWR);

		dup2(null_fd, 0);
		dup2(null_fd, 1);
		dup2(null_fd, 2);
		setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1);
		execlp("mkfs.ext4", "mkfs.ext4", "-q", "-F", "-J", "size=4", "-E",
		       "lazy_itable_init=0,lazy_journal_init=0", image, (char *)NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		snprintf(why, SITUATION_WHY, "mkfs.ext4 is missing; install e2fsprogs");
	else
		snprintf(why, SITUATION_WHY, "mkfs.ext4 failed");
	return -1;
}

/* Attach a free loop device to `path`, with direct I/O. Buffered writes would end in memory. */
static int attach_loop(struct demo *demo, const char *path, char *device, size_t len, char *why)
{
	struct loop_config config = {.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO};
	int control_fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int file_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	int loop_fd = -1;

	if (control_fd < 0 || file_fd < 0) {
		snprintf(why, SITUATION_WHY, "%.150s: %s",
			 control_fd < 0 ? "/dev/loop-control" : path, strerror(errno));
		goto out;
	}
	/* Another process may take the device between the two calls; then try the next
	 * device. */
	for (unsigned i = 0; i < 8; i++) {
		int number = ioctl(control_fd, LOOP_CTL_GET_FREE);

		if (number < 0)
			break;
		snprintf(device, len, "/dev/loop%d", number);
		loop_fd = open(device, O_RDWR | O_CLOEXEC);
		if (loop_fd < 0)
			break;
		config.fd = (uint32_t)file_fd;
		if (!ioctl(loop_fd, LOOP_CONFIGURE, &config)) {
			undo_add(demo->undo, UNDO_LOOP, 0, device, NULL);
			close(control_fd);
			close(file_fd);
			return loop_fd;
		}
		close(loop_fd);
		loop_fd = -1;
		if (errno != EBUSY)
			break;
	}
	snprintf(why, SITUATION_WHY, "no loop device: %s", strerror(errno));
out:
	if (control_fd >= 0)
		close(control_fd);
	if (file_fd >= 0)
		close(file_fd);
	return -1;
}

/* Make a file to map, and a file to write and sync, with all blocks allocated. */
static int make_files(struct demo *demo, const char *dir, char *why)
{
	static char block[JOURNAL_FILE_BYTES];
	const char *const names[] = {"mapped", "synced"};

	for (size_t i = 0; i < 2; i++) {
		int fd;

		snprintf(demo->journal_path, sizeof(demo->journal_path), "%s/%s", dir,
			 names[1 - i]);
		fd = open(demo->journal_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0 || write(fd, block, sizeof(block)) != (ssize_t)sizeof(block) ||
		    fsync(fd)) {
			snprintf(why, SITUATION_WHY, "%.150s: %s", demo->journal_path,
				 strerror(errno));
			if (fd >= 0)
				close(fd);
			return -1;
		}
		close(fd);
	}
	return 0;
}

int situation_journal_setup(struct demo *demo, const struct situation *situation, char *why)
{
	char image[256], dir[256], device[64];
	int fd, loop_fd;

	(void)situation;
	if (geteuid()) {
		snprintf(why, SITUATION_WHY, "needs root, to mount an ext4 file system");
		return -1;
	}
	snprintf(image, sizeof(image), "%s/image", demo->tmp_dir);
	snprintf(dir, sizeof(dir), "%s/ext4", demo->tmp_dir);
	undo_add(demo->undo, UNDO_UNLINK, 0, image, NULL);
	undo_add(demo->undo, UNDO_RMDIR, 0, dir, NULL);
	fd = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, IMAGE_BYTES) || mkdir(dir, 0700)) {
		snprintf(why, SITUATION_WHY, "%.150s: %s", image, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	close(fd);
	if (run_mkfs(image, why) || situation_fuse_setup(demo, image, false, why))
		return -1;
	loop_fd = attach_loop(demo, demo->slow_path, device, sizeof(device), why);
	if (loop_fd < 0)
		return -1;
	undo_add(demo->undo, UNDO_UMOUNT, 0, dir, NULL);
	if (mount(device, dir, "ext4", MS_NOSUID | MS_NODEV, NULL)) {
		snprintf(why, SITUATION_WHY, "can't mount ext4 from %s: %s", device,
			 strerror(errno));
		close(loop_fd);
		return -1;
	}
	close(loop_fd);
	return make_files(demo, dir, why);
}

/* Write to the mapped file all the time, without a sync. The modification time is then always
 * later than the access time, so that the next mmap() updates the access time. */
static void *journal_writer(void *arg)
{
	struct journal_writer *self = arg;

	if (round_wait_phase(self->round, PHASE_MEASURE) != PHASE_MEASURE)
		return NULL;
	for (unsigned i = 0; !round_over(self->round); i++) {
		if (pwrite(self->fd, &i, sizeof(i), 0) != (ssize_t)sizeof(i)) {
			round_fail(self->round, "write on the slow ext4: %s", strerror(errno));
			break;
		}
		tool_sleep_ms(2);
	}
	return NULL;
}

/* The process that keeps the journal busy: one thread writes, and the other thread syncs. */
int situation_journal_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			     pid_t subject)
{
	static struct journal_writer writer;
	char path[PATH_MAX], *name;
	pthread_t thread;
	int synced_fd;

	(void)demo;
	(void)subject;
	snprintf(path, sizeof(path), "%s", spec->journal_path);
	writer = (struct journal_writer){.round = round, .fd = open(path, O_RDWR | O_CLOEXEC)};
	name = strrchr(path, '/');
	snprintf(name, sizeof(path) - (size_t)(name - path), "/synced");
	synced_fd = open(path, O_RDWR | O_CLOEXEC);
	if (writer.fd < 0 || synced_fd < 0 ||
	    pthread_create(&thread, NULL, journal_writer, &writer)) {
		round_fail(round, "%s: %s", path, strerror(errno));
		return 1;
	}
	round_wait_phase(round, PHASE_MEASURE);
	for (unsigned i = 0; !round_over(round); i++) {
		if (pwrite(synced_fd, &i, sizeof(i), (off_t)(i % 64) * DEMO_PAGE) !=
			    (ssize_t)sizeof(i) ||
		    fsync(i % 2 ? synced_fd : writer.fd)) {
			round_fail(round, "fsync on the slow ext4: %s", strerror(errno));
			break;
		}
	}
	pthread_join(thread, NULL);
	return round->failure[0] ? 1 : 0;
}
