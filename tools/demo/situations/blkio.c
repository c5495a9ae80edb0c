/* SPDX-License-Identifier: MIT */
/*
 * The situation with which the project began: tasks of low priority, with few reads a second
 * and little memory. There are two cgroups (version 1). One limits the reads of the disk that
 * holds the file. The other limits the memory, and a neighbour uses most of the memory. In the
 * kernel's mmap(), the neighbour can evict the page that a fault has read before the thread
 * runs again. The second try of the fault then reads under the kernel's lock. Whether that
 * happens is a matter of chance; on Linux 6.18 and two processors, it happened in 5 rounds of
 * 8.
 *
 * The subject and its page cache are in the same cgroups in each way. The mappings have no
 * readahead: eight windows of 8 MiB in flight are 64 MiB that cannot be reclaimed, and the kernel
 * would kill a process of the cgroup.
 */
#define _GNU_SOURCE
#include "demo/situations/situations.h"

#include "command/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define READS_PER_SECOND 5
#define MEMORY_LIMIT     "67108864"
#define MEMORY_USED      (60ull << 20)
#define BUDGET_BYTES     (2u << 20)
/* The filemap subject has this much memory of its own: its page cache, its tables and its
 * stacks. The neighbour uses so much less beside that subject. The rest of the cgroup is then
 * as small as beside the kernel subject, whose page cache is in the rest. */
#define FILEMAP_USED     (5ull << 20)
#define NEIGHBOURS_MAX   8
#define COLD_BYTES       (256ull << 20)
#define HOLE_BYTES       (1ll << 30)

/* Make a file that is one hole. Reads of the hole fill the page cache without the disk. */
static int make_hole_file(struct demo *demo, const char *dir, char *why)
{
	int fd;

	snprintf(demo->hole_path, sizeof(demo->hole_path), "%.200s/filemap-demo-hole.%d", dir,
		 (int)demo->coordinator);
	undo_add(demo->undo, UNDO_UNLINK, 0, demo->hole_path, NULL);
	fd = open(demo->hole_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, HOLE_BYTES)) {
		snprintf(why, SITUATION_WHY, "%.150s: %s", demo->hole_path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	close(fd);
	return 0;
}

/* Make a file with all its blocks on the disk and none in memory. */
static int make_cold_file(struct demo *demo, const char *dir, char *why)
{
	static uint64_t block[(64 << 10) / sizeof(uint64_t)];
	char path[PATH_MAX];
	uint64_t state = 0x9e3779b97f4a7c15ull;
	int fd;

	snprintf(path, sizeof(path), "%s/filemap-demo-cold.%d", dir, (int)demo->coordinator);
	undo_add(demo->undo, UNDO_UNLINK, 0, path, NULL);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		snprintf(why, SITUATION_WHY, "%.150s: %s", path, strerror(errno));
		return -1;
	}
	for (uint64_t done = 0; done < COLD_BYTES; done += sizeof(block)) {
		for (size_t i = 0; i < sizeof(block) / sizeof(block[0]); i += 512)
			block[i] = state = state * 6364136223846793005ull + 1442695040888963407ull;
		if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block)) {
			snprintf(why, SITUATION_WHY, "%.150s: %s", path, strerror(errno));
			close(fd);
			return -1;
		}
	}
	if (fsync(fd)) {
		snprintf(why, SITUATION_WHY, "%.150s: %s", path, strerror(errno));
		close(fd);
		return -1;
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	snprintf(demo->slow_path, sizeof(demo->slow_path), "%s", path);
	return make_hole_file(demo, dir, why);
}

/* Take the first place that is on a disk and has room. */
static int choose_cold_file(struct demo *demo, unsigned *ret_major, unsigned *ret_minor, char *why)
{
	const char *const dirs[] = {demo->tmp_dir, "/var/tmp", "/tmp", "."};
	struct stat st;

	if (!stat(demo->file, &st) && (uint64_t)st.st_size >= COLD_BYTES &&
	    !machine_find_disk(demo->file, ret_major, ret_minor)) {
		snprintf(demo->slow_path, sizeof(demo->slow_path), "%s", demo->file);
		return 0;
	}
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		struct statvfs vfs;

		if (machine_find_disk(dirs[i], ret_major, ret_minor) || statvfs(dirs[i], &vfs) ||
		    (uint64_t)vfs.f_bavail * vfs.f_frsize < 2 * COLD_BYTES)
			continue;
		return make_cold_file(demo, dirs[i], why);
	}
	snprintf(why, SITUATION_WHY,
		 "no disk with 1 GiB free under TMPDIR, /var/tmp, /tmp or here");
	return -1;
}

static int make_cgroup(struct demo *demo, const char *controller, size_t index, char *why)
{
	char hierarchy[PATH_MAX / 2], dir[PATH_MAX / 2 + 64];

	if (!machine_find_hierarchy(controller, hierarchy, sizeof(hierarchy))) {
		snprintf(why, SITUATION_WHY,
			 "no cgroup version 1 hierarchy with the %s controller is mounted here",
			 controller);
		return -1;
	}
	snprintf(dir, sizeof(dir), "%s/filemap-demo.%d", hierarchy, (int)demo->coordinator);
	undo_add(demo->undo, UNDO_RMDIR, 0, dir, NULL);
	if (mkdir(dir, 0755)) {
		snprintf(why, SITUATION_WHY, "%.150s: %s", dir, strerror(errno));
		return -1;
	}
	snprintf(demo->cgroup[index], sizeof(demo->cgroup[index]), "%s/cgroup.procs", dir);
	return 0;
}

/* Make a memory cgroup with the limit. */
int situation_memory_cgroup(struct demo *demo, size_t index, char *why)
{
	char path[PATH_MAX + 64], dir[PATH_MAX];
	int error;

	if (geteuid()) {
		snprintf(why, SITUATION_WHY, "needs root, to make cgroups");
		return -1;
	}
	if (make_cgroup(demo, "memory", index, why))
		return -1;
	snprintf(dir, sizeof(dir), "%s", demo->cgroup[index]);
	*strrchr(dir, '/') = 0;
	snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", dir);
	error = machine_write_text(path, MEMORY_LIMIT);
	if (error)
		snprintf(why, SITUATION_WHY, "%.150s: %s", path, strerror(-error));
	return error ? -1 : 0;
}

int situation_blkio_setup(struct demo *demo, const struct situation *situation, char *why)
{
	char path[PATH_MAX + 64], dir[PATH_MAX];
	unsigned disk_major, disk_minor;
	int error;

	(void)situation;
	if (geteuid()) {
		snprintf(why, SITUATION_WHY, "needs root, to make cgroups");
		return -1;
	}
	if (choose_cold_file(demo, &disk_major, &disk_minor, why) ||
	    situation_memory_cgroup(demo, 0, why) || make_cgroup(demo, "blkio", 1, why))
		return -1;
	snprintf(dir, sizeof(dir), "%s", demo->cgroup[1]);
	*strrchr(dir, '/') = 0;
	snprintf(demo->limit_path, sizeof(demo->limit_path),
		 "%.4000s/blkio.throttle.read_iops_device", dir);
	snprintf(demo->limit_text, sizeof(demo->limit_text), "%u:%u %u", disk_major, disk_minor,
		 READS_PER_SECOND);
	error = machine_write_text(demo->limit_path, demo->limit_text);
	if (error) {
		snprintf(why, SITUATION_WHY, "%.150s: %s", demo->limit_path, strerror(-error));
		return -1;
	}
	/* A read that is queued behind the limit would delay the end of the subject. */
	snprintf(path, 64, "%u:%u 0", disk_major, disk_minor);
	undo_add(demo->undo, UNDO_WRITE, 0, demo->limit_path, path);
	situation_blkio_end(demo);
	return 0;
}

void situation_blkio_fill(struct demo *demo, struct round_spec *spec)
{
	spec->path = demo->slow_path;
	spec->truth = demo->slow_path;
	spec->cgroup[0] = demo->cgroup[0];
	spec->cgroup[1] = demo->cgroup[1];
	spec->touches = 6;
	spec->random = true;
	spec->nice = 19;
	spec->max_ns = 9 * NSEC_PER_SEC;
	spec->budget_bytes = BUDGET_BYTES;
}

void situation_blkio_begin(struct demo *demo)
{
	machine_write_text(demo->limit_path, demo->limit_text);
}

void situation_blkio_end(struct demo *demo)
{
	char text[64];

	snprintf(text, sizeof(text), "%s", demo->limit_text);
	*strchr(text, ' ') = 0;
	strcat(text, " 0");
	machine_write_text(demo->limit_path, text);
}

struct neighbour {
	struct round *round;
	const char *path;
	int fd;
};

static void *neighbour_thread(void *arg)
{
	struct neighbour *self = arg;
	char buffer[1 << 18];

	if (round_wait_phase(self->round, PHASE_MEASURE) != PHASE_MEASURE)
		return NULL;
	for (off_t at = 0; !round_over(self->round);
	     at = (at + (off_t)sizeof(buffer)) % HOLE_BYTES) {
		if (pread(self->fd, buffer, sizeof(buffer), at) < 0) {
			round_fail(self->round, "%s: %s", self->path, strerror(errno));
			break;
		}
	}
	return NULL;
}

/* The neighbour in the same memory cgroup uses most of the memory. On every processor, a thread
 * scans a file through the rest, so that the page cache turns over within milliseconds. */
int situation_blkio_helper(struct demo *demo, const struct round_spec *spec, struct round *round,
			   pid_t subject)
{
	static struct neighbour neighbour;
	long count = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t thread;
	size_t used_bytes = MEMORY_USED - (way_is_kernel(spec->way) ? 0 : FILEMAP_USED);
	char *used;

	(void)subject;
	neighbour = (struct neighbour){.round = round, .path = demo->hole_path};
	neighbour.fd = open(demo->hole_path, O_RDONLY | O_CLOEXEC);
	if (neighbour.fd < 0 || machine_write_text(spec->cgroup[0], "0")) {
		round_fail(round, "can't join %s or read %s", spec->cgroup[0], demo->hole_path);
		return 1;
	}
	posix_fadvise(neighbour.fd, 0, 0, POSIX_FADV_RANDOM);
	used = mmap(NULL, used_bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (used == MAP_FAILED) {
		round_fail(round, "no memory in %s", spec->cgroup[0]);
		return 1;
	}
	for (long i = 1; i < count && i < NEIGHBOURS_MAX; i++) {
		if (pthread_create(&thread, NULL, neighbour_thread, &neighbour)) {
			round_fail(round, "can't start a thread");
			return 1;
		}
	}
	neighbour_thread(&neighbour);
	return round->failure[0] ? 1 : 0;
}
