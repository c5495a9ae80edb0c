/* SPDX-License-Identifier: MIT */
/*
 * The reader's side of the stats page. Finds the memfds of another process in
 * /proc/PID/task/TID/fd of the thread that holds them (os/fds.c) and copies them with pread(),
 * not through a mapping. A file that only looks like a stats page and is cut short meanwhile
 * gives a short read and no SIGBUS. Every file is checked before its bytes are used: kind, size,
 * magic, version, pid.
 * Takes no lock, of the library or of that process. May call: the kernel (not signal-safe),
 * stats_layout.h.
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

/* Return the pid as the process itself sees the number: the last entry of NSpid. The page carries
 * this pid. */
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

/* Copy a page. Returns 0, -EPROTO if the file is no page of this version, or the read error.
 * -ENOENT also stands for a page that is just being made. */
static int copy_page(int dir_fd, const char *name, struct stats_page *ret_copy)
{
	struct stat st;
	ssize_t len;
	int fd;

	/* Check before the open: opening a special file can have effects. */
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

/* ------------------------------------------------------------------ where the pages are */

#define HOLDER_NAME "fm-fds\n" /* the name that os/fds.c gives the thread */
#define TASKS_MOST 4096u
#define PAGES_MOST 256u

struct search {
	int pid;      /* the pid as the process itself sees the number */
	unsigned found;
	stats_page_fn fn;
	void *arg;
	struct stats_page *copy;
};

/* Look for stats pages in one descriptor table. Pages inherited by fork() belong to another
 * process and are not counted. Returns false when the search is over. */
static bool look_in(struct search *search, DIR *dir)
{
	struct dirent *entry;

	while ((entry = readdir(dir))) {
		if (!names_stats_page(dirfd(dir), entry->d_name))
			continue;
		int error = copy_page(dirfd(dir), entry->d_name, search->copy);
		if (error == -ENOENT || (!error && search->copy->pid != (uint32_t)search->pid))
			continue;
		if (!search->fn(search->arg, error, search->copy) || ++search->found == PAGES_MOST)
			return false;
	}
	return true;
}

static bool is_holder(int task_fd, const char *tid)
{
	char path[32], name[16] = "";
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "%.20s/comm", tid);
	fd = openat(task_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	len = read(fd, name, sizeof(name) - 1);
	close(fd);
	return len > 0 && strcmp(name, HOLDER_NAME) == 0;
}

static DIR *open_table(int task_fd, const char *tid)
{
	char path[32];
	int fd;
	DIR *dir;

	snprintf(path, sizeof(path), "%.20s/fd", tid);
	fd = openat(task_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (fd >= 0 && !dir)
		close(fd);
	return dir;
}

/* Search the table of each thread that holds the library's descriptors. Returns the number of
 * these threads, or negative errno. */
static int look_at_holders(struct search *search, DIR *tasks)
{
	struct dirent *entry;
	int holders = 0;

	for (unsigned n = 0; n < TASKS_MOST && (entry = readdir(tasks));) {
		if (entry->d_name[0] == '.')
			continue;
		n++;
		if (!is_holder(dirfd(tasks), entry->d_name))
			continue;
		DIR *dir = open_table(dirfd(tasks), entry->d_name);
		if (!dir)
			return -errno;
		bool on = look_in(search, dir);
		closedir(dir);
		holders++;
		if (!on)
			break;
	}
	return holders;
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

/* Search the process's ordinary table, if no thread holds a table of the library's own. Uses the
 * first thread that still has a table, since the main thread may have ended by pthread_exit(). */
static int look_at_first(struct search *search, DIR *tasks)
{
	struct dirent *entry;
	int error = -ESRCH;
	DIR *dir = NULL;

	rewinddir(tasks);
	for (unsigned n = 0; !dir && n < TASKS_MOST && (entry = readdir(tasks));) {
		if (entry->d_name[0] == '.')
			continue;
		n++;
		dir = open_table(dirfd(tasks), entry->d_name);
		if (!dir && errno != ENOENT)
			error = -errno;
		if (dir && dir_is_empty(dir)) {
			closedir(dir);
			dir = NULL;
			error = 0;
		}
	}
	if (!dir)
		return error;
	look_in(search, dir);
	closedir(dir);
	return 0;
}

int stats_read_all(int pid, stats_page_fn fn, void *arg)
{
	struct search search = {.fn = fn, .arg = arg};
	char path[48];
	DIR *tasks;
	int error;

	if (pid <= 0)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	if (!tasks)
		return errno == ENOENT ? -ESRCH : -errno;
	search.pid = own_pid(pid);
	search.copy = malloc(sizeof(*search.copy));
	error = search.copy ? look_at_holders(&search, tasks) : -ENOMEM;
	if (error == 0)
		error = look_at_first(&search, tasks);
	free(search.copy);
	closedir(tasks);
	return error < 0 ? error : 0;
}

struct nth {
	unsigned left;
	int error;
	struct stats_page *copy;
};

static bool take_nth(void *arg, int error, struct stats_page *page)
{
	struct nth *nth = arg;

	if (nth->left--)
		return true;
	nth->error = error;
	if (!error)
		memcpy(nth->copy, page, sizeof(*page));
	return false;
}

int stats_read_process(int pid, unsigned nth, struct stats_page *ret_copy)
{
	struct nth which = {.left = nth, .error = -ENOENT, .copy = ret_copy};
	int error = stats_read_all(pid, take_nth, &which);

	return error ? error : which.error;
}
