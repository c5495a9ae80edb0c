/* SPDX-License-Identifier: MIT */
/*
 * What the benchmark sets up on the machine: a file, a cold cache, a short readahead, a memory
 * cgroup. Each change is in the undo list before the change is made. Only the last two need a
 * privilege. If one of these is not possible, no_readahead or no_cgroup says why.
 */
#include "bench/bench.h"

#include "command/machine.h"
#include "command/tool.h"
#include "command/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHORT_READAHEAD "128"
#define PROCESS_BYTES   (4 * MIB) /* for a process's own pages, beside the page cache */

/* ------------------------------------------------------------------ the file */

static int write_file(int fd, uint64_t bytes)
{
	static uint64_t block[(64 << 10) / sizeof(uint64_t)];
	uint64_t state = 0x9e3779b97f4a7c15ull;

	for (uint64_t done = 0; done < bytes; done += sizeof(block)) {
		for (size_t i = 0; i < sizeof(block) / sizeof(block[0]); i++)
			block[i] = state = state * 6364136223846793005ull + 1442695040888963407ull;
		tool_progress("writing a file: %3.0f %%", 100.0 * (double)done / (double)bytes);
		errno = ENOSPC; /* of a short write */
		if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block))
			return -errno;
	}
	return fsync(fd) ? -errno : 0;
}

/* Have a file, which is about to be made, unlinked at the end. Fails if the file exists already:
 * that file belongs to somebody else. */
static int to_be_unlinked(struct bench_machine *machine, const char *path)
{
	int error = access(path, F_OK) == 0 ? -EEXIST
					    : undo_add(machine->undo, UNDO_UNLINK, 0, path, NULL);

	if (error)
		tool_error(TOOL_FAILED, "bench: %s: %s; set TMPDIR to another folder, or give --file",
			   path, strerror(-error));
	return error;
}

int bench_make_file(struct bench_machine *machine, const char *dir, uint64_t bytes)
{
	int fd, error;

	snprintf(machine->made, sizeof(machine->made), "%s/filemap-bench.%d", dir, (int)getpid());
	if (to_be_unlinked(machine, machine->made))
		return -1;
	fd = open(machine->made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		tool_error(TOOL_FAILED, "bench: %s: %s; set TMPDIR to another folder, or give --file",
			   machine->made, strerror(errno));
		return -1;
	}
	error = write_file(fd, bytes);
	close(fd);
	if (error)
		tool_error(TOOL_FAILED, "bench: %s: %s; set TMPDIR to a folder with enough room, "
			   "or give --size or --file", machine->made, strerror(-error));
	machine->path = machine->made;
	machine->file_bytes = bytes;
	return error ? -1 : 0;
}

/* Make the scratch file. The file's blocks are written once beforehand, so that no way pays for
 * their allocation. */
int bench_make_scratch(struct bench_machine *machine, const char *dir, uint64_t bytes)
{
	int fd, error;

	if (machine->scratch_bytes >= bytes)
		return 0;
	if (!machine->scratch[0]) {
		snprintf(machine->scratch, sizeof(machine->scratch), "%s/filemap-bench-scratch.%d",
			 dir, (int)getpid());
		if (to_be_unlinked(machine, machine->scratch))
			return -1;
	}
	fd = open(machine->scratch, O_RDWR | O_CREAT | O_NOFOLLOW | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		tool_error(TOOL_FAILED, "bench: %s: %s; set TMPDIR to another folder",
			   machine->scratch, strerror(errno));
		return -1;
	}
	error = write_file(fd, bytes);
	close(fd);
	if (error)
		tool_error(TOOL_FAILED, "bench: %s: %s; set TMPDIR to another folder",
			   machine->scratch, strerror(-error));
	else
		machine->scratch_bytes = bytes;
	return error ? -1 : 0;
}

/* ------------------------------------------------------------------ a cold cache */

/* Return how many bytes of the file are in the page cache, or -1 if the kernel does not tell. */
static int64_t cached_bytes(int fd, uint64_t len)
{
	static unsigned char residency[65536];
	int64_t cached = 0;
	void *map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -1;
	for (uint64_t at = 0; at < len; at += sizeof(residency) * BENCH_PAGE) {
		uint64_t left = len - at, pages;

		if (left > sizeof(residency) * BENCH_PAGE)
			left = sizeof(residency) * BENCH_PAGE;
		pages = (left + BENCH_PAGE - 1) / BENCH_PAGE;
		if (mincore((char *)map + at, left, residency)) {
			cached = -1;
			break;
		}
		for (uint64_t i = 0; i < pages; i++)
			cached += residency[i] & 1 ? BENCH_PAGE : 0;
	}
	munmap(map, len);
	return cached;
}

static bool still_cached(int fd, uint64_t len)
{
	return cached_bytes(fd, len) > (int64_t)(len / 256);
}

/* Give the file's pages back at once. */
void bench_forget(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

/* Drop the file's pages. If the file stays cached, drop all clean pages of the machine, which root
 * may do. */
void bench_drop(struct bench_machine *machine, const char *path, uint64_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	fdatasync(fd); /* dirty pages cannot be dropped */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (still_cached(fd, bytes)) {
		machine_write_text("/proc/sys/vm/drop_caches", "1");
		if (still_cached(fd, bytes) && !machine->warned) {
			machine->warned = true;
			tool_error(TOOL_OK, "bench: %s: the file stays in the page cache, so the kernel's ways "
				   "begin with a warm cache; close other programs that use the file%s",
				   path, geteuid() ? ", or run as root" : "");
		}
	}
	close(fd);
}

/* ------------------------------------------------------------------ warm memory */

/*
 * In a virtual machine, memory that is free for a second or two may go back to the host. The next
 * touch of that memory costs some milliseconds for each MiB, so a way would pay for the cells
 * before. So the memory that the next cell may need is held until the cell begins. The memory is
 * held again as soon as the cell has ended.
 */
void bench_hold_memory(struct bench_machine *machine, uint64_t bytes)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		return;
	machine->held = mem;
	machine->held_bytes = bytes;
	madvise(mem, bytes, MADV_DONTFORK);
	madvise(mem, bytes, MADV_HUGEPAGE);
	for (uint64_t at = 0; at < bytes; at += BENCH_PAGE)
		((volatile char *)mem)[at] = 1;
}

void bench_release_memory(struct bench_machine *machine)
{
	if (machine->held)
		munmap(machine->held, machine->held_bytes);
	machine->held = NULL;
}

/* ------------------------------------------------------------------ a short readahead */

static void find_readahead(struct bench_machine *machine)
{
	unsigned disk_major, disk_minor;
	FILE *in;

	if (machine_find_disk(machine->path, &disk_major, &disk_minor)) {
		snprintf(machine->no_readahead, BENCH_WHY, "%.100s: the file is not on a disk whose "
			 "readahead can be set", machine->path);
		return;
	}
	snprintf(machine->readahead_path, sizeof(machine->readahead_path),
		 "/sys/dev/block/%u:%u/queue/read_ahead_kb", disk_major, disk_minor);
	in = fopen(machine->readahead_path, "re");
	if (!in || fscanf(in, "%31s", machine->readahead_text) != 1)
		snprintf(machine->no_readahead, BENCH_WHY, "%.100s: cannot be read", machine->readahead_path);
	else if (access(machine->readahead_path, W_OK))
		snprintf(machine->no_readahead, BENCH_WHY, "needs root, which may write to %.100s",
			 machine->readahead_path);
	else
		undo_add(machine->undo, UNDO_WRITE, 0, machine->readahead_path, machine->readahead_text);
	if (in)
		fclose(in);
}

/* An open file keeps the readahead that its disk had when the file was opened. */
int bench_open_128k(struct bench_machine *machine)
{
	int fd = -1;

	if (machine->no_readahead[0])
		return -1;
	if (machine_write_text(machine->readahead_path, SHORT_READAHEAD)) {
		snprintf(machine->no_readahead, BENCH_WHY, "%.100s: cannot be written", machine->readahead_path);
		return -1;
	}
	fd = open(machine->path, O_RDONLY | O_CLOEXEC);
	machine_write_text(machine->readahead_path, machine->readahead_text);
	return fd;
}

/* ------------------------------------------------------------------ a memory cgroup */

static void make_cgroup(struct bench_machine *machine)
{
	char hierarchy[100];

	if (geteuid()) {
		snprintf(machine->no_cgroup, BENCH_WHY, "needs root, which may make a memory cgroup");
		return;
	}
	if (!machine_find_hierarchy("memory", hierarchy, sizeof(hierarchy))) {
		snprintf(machine->no_cgroup, BENCH_WHY,
			 "no cgroup version 1 hierarchy with the memory controller is mounted here");
		return;
	}
	snprintf(machine->cgroup, sizeof(machine->cgroup), "%s/filemap-bench.%d", hierarchy,
		 (int)getpid());
	undo_add(machine->undo, UNDO_RMDIR, 0, machine->cgroup, NULL);
	if (mkdir(machine->cgroup, 0755)) {
		snprintf(machine->no_cgroup, BENCH_WHY, "%.100s: %s", machine->cgroup, strerror(errno));
		machine->cgroup[0] = 0;
	}
}

int bench_limit_cgroup(struct bench_machine *machine, uint64_t bytes)
{
	char path[300], text[32];
	int error;

	snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", machine->cgroup);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)(bytes + PROCESS_BYTES));
	error = machine_write_text(path, text);
	if (error)
		snprintf(machine->no_cgroup, BENCH_WHY, "%.150s: %s", path, strerror(-error));
	return error;
}

void bench_machine_open(struct bench_machine *machine)
{
	find_readahead(machine);
	make_cgroup(machine);
}
