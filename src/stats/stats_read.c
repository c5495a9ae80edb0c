/* SPDX-License-Identifier: MIT */
/*
 * The reader's side of the stats page. Finds the memfds of another process in /proc/PID/fd, or a thread's, and copies
 * them with pread(): no mapping, so that a file that only looks like a stats page and is cut short
 * under us gives a short read and no SIGBUS. Nothing that is found is believed before it has been
 * checked: kind, size, magic, version, pid. Takes no lock, of ours or of that process.
 * May call: the kernel (not signal-safe), stats_layout.h.
 */
#include "stats/stats.h"
#include "stats/stats_layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char link_text[] = "/memfd:" STATS_MEMFD_NAME " (deleted)";

/* The process's pid as it sees itself: the last of NSpid. A page carries that one. */
static int own_pid(int pid)
{
	char path[48], line[256];
	int result = pid;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "re");
	if (!status)
		return pid;
	while (fgets(line, sizeof(line), status)) {
		if (strncmp(line, "NSpid:", 6) == 0) {
			const char *last = strrchr(line, '\t');

			if (last)
				result = atoi(last + 1);
			break;
		}
	}
	fclose(status);
	return result;
}

static bool names_stats_page(int dir_fd, const char *name)
{
	char target[sizeof(link_text) + 1];
	ssize_t len = readlinkat(dir_fd, name, target, sizeof(target));

	return len == sizeof(link_text) - 1 && memcmp(target, link_text, (size_t)len) == 0;
}

static bool page_sound(const struct stats_page *page)
{
	return page->magic == STATS_MAGIC && page->version == stats_version() &&
	       page->size_bytes == sizeof(*page);
}

/* 0, -EPROTO when this is no page of our version, or why it cannot be read; -ENOENT also of one that is just being made. */
static int copy_page(int dir_fd, const char *name, struct stats_page *ret_copy)
{
	struct stat st;
	ssize_t len;
	int fd;

	/* Before the open: opening what is not a file can have effects. */
	if (fstatat(dir_fd, name, &st, 0) < 0)
		return -errno;
	if (S_ISREG(st.st_mode) && !st.st_size)
		return -ENOENT;
	if (!S_ISREG(st.st_mode) || st.st_size != (off_t)sizeof(*ret_copy))
		return -EPROTO;
	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	len = pread(fd, ret_copy, sizeof(*ret_copy), 0);
	if (len < 0)
		len = -errno;
	close(fd);
	if (len < 0)
		return (int)len;
	if (len != (ssize_t)sizeof(*ret_copy) || !page_sound(ret_copy))
		return len == (ssize_t)sizeof(*ret_copy) && !ret_copy->magic ? -ENOENT : -EPROTO;
	ret_copy->trap[sizeof(ret_copy->trap) - 1] = '\0';
	ret_copy->install[sizeof(ret_copy->install) - 1] = '\0';
	return 0;
}

/* Pages inherited by fork() are not this process's and are not counted. */
static int find_page(DIR *dir, int pid, unsigned nth, struct stats_page *copy)
{
	struct dirent *entry;
	int error;

	while ((entry = readdir(dir))) {
		if (!names_stats_page(dirfd(dir), entry->d_name))
			continue;
		error = copy_page(dirfd(dir), entry->d_name, copy);
		if (error == -ENOENT || (!error && copy->pid != (uint32_t)pid))
			continue;
		if (nth-- == 0)
			return error;
	}
	return -ENOENT;
}

static bool dir_is_empty(DIR *dir)
{
	struct dirent *entry;
	bool empty = true;

	while (empty && (entry = readdir(dir)))
		empty = entry->d_name[0] == '.';
	rewinddir(dir);
	return empty;
}

/* A thread's descriptors, if it has some. */
static DIR *open_thread(int pid, const char *tid)
{
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/fd", pid, tid);
	dir = opendir(path);
	if (dir && dir_is_empty(dir)) {
		closedir(dir);
		dir = NULL;
	}
	return dir;
}

/* The descriptors of a process whose main thread has ended by pthread_exit(): /proc/PID/fd is empty then, and the other threads
 * have them. NULL: no thread has any. */
static DIR *open_any_thread(int pid)
{
	struct dirent *entry;
	char path[48];
	DIR *tasks, *dir = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && !dir && (entry = readdir(tasks)))
		if (entry->d_name[0] != '.')
			dir = open_thread(pid, entry->d_name);
	if (tasks)
		closedir(tasks);
	return dir;
}

/* The descriptors of a process; NULL, and errno says why. */
static DIR *open_descriptors(int pid)
{
	char path[48];
	DIR *dir, *other;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	other = dir && dir_is_empty(dir) ? open_any_thread(pid) : NULL;
	if (other)
		closedir(dir);
	return other ? other : dir;
}

int stats_read_process(int pid, unsigned nth, struct stats_page *ret_copy)
{
	struct stats_page *copy;
	DIR *dir;
	int error;

	if (pid <= 0)
		return -ESRCH;
	dir = open_descriptors(pid);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	copy = malloc(sizeof(*copy));
	error = copy ? find_page(dir, own_pid(pid), nth, copy) : -ENOMEM;
	if (!error)
		memcpy(ret_copy, copy, sizeof(*copy));
	free(copy);
	closedir(dir);
	return error;
}
