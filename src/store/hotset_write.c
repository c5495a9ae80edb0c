/* SPDX-License-Identifier: MIT */
/*
 * Hot sets: writing a hot set, under another name first. No lock, no state except a number for
 * file names. May call: store.h, libc.
 */
#include "store/hotset.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/fds_give.h"
#include "os/fds_numbers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OBJECT_LEN (3 * PATH_MAX + 64) /* a path with every byte escaped */

/* ------------------------------------------------------------------ the target */

static int refuse(const char *path, int error, char *why, size_t why_len)
{
	return store_say(error, why, why_len, "record %s: cannot be written: %s", path, strerror(-error));
}

int hotset_target_open(const char *path, const char *uri, char *why, size_t why_len,
		       struct hotset_target *ret_target)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char folder[PATH_MAX] = ".", *object;
	struct stat st;
	int error;

	if (strlen(path) >= PATH_MAX || strlen(name) > NAME_MAX - 32)
		return refuse(path, -ENAMETOOLONG, why, why_len);
	if (!*name)
		return refuse(path, *path ? -EISDIR : -ENOENT, why, why_len);
	if (slash) /* "/" itself keeps its slash */
		snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	int fd = os_fd_open(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0 || faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
		error = fd < 0 ? fd : -errno;
		if (fd >= 0)
			close(fd);
		return refuse(path, error, why, why_len);
	}
	if (fstatat(fd, name, &st, 0) == 0 && !S_ISREG(st.st_mode)) {
		close(fd);
		return refuse(path, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, why, why_len);
	}
	object = calloc(1, OBJECT_LEN);
	error = object ? store_uri_name(uri, object, OBJECT_LEN) : -ENOMEM;
	if (error) {
		free(object);
		close(fd);
		return refuse(path, error, why, why_len);
	}
	ret_target->dir_fd = os_fd_give(fd);
	if (os_fds_apart())
		close(fd);
	if (ret_target->dir_fd < 0) {
		free(object);
		return refuse(path, ret_target->dir_fd, why, why_len);
	}
	strcpy(ret_target->name, name);
	ret_target->uri = object;
	return 0;
}

void hotset_target_close(struct hotset_target *target)
{
	os_fd_close_own(target->dir_fd);
	free(target->uri);
}

/* ------------------------------------------------------------------ each byte once */

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

/* Find the index of the value in the sorted points; the value is there. */
static size_t place_of(const uint64_t *point, size_t points, uint64_t value)
{
	size_t low = 0, high = points;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (point[middle] < value)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Find the first piece from `i` on that no range has taken. */
static size_t next_untaken(uint32_t *next, size_t i)
{
	size_t end = i;

	while (next[end] != end)
		end = next[end];
	while (next[i] != end) { /* makes the path shorter the next time */
		size_t step = next[i];
		next[i] = (uint32_t)end;
		i = step;
	}
	return end;
}

/*
 * Give each byte to one range only. All starts and ends cut the ranges into pieces; each piece
 * goes to the first range that contains the piece. `out` is called with the rest of each range,
 * in the order of the ranges. `point` and `next` have room for 2 * count (+ 1).
 */
static void each_once(const struct hotset_range *range, size_t count, uint64_t *point,
		      uint32_t *next, void (*out)(void *arg, uint64_t start, uint64_t end),
		      void *arg)
{
	size_t points = 0;

	for (size_t i = 0; i < count; i++) {
		point[2 * i] = range[i].start;
		point[2 * i + 1] = range[i].start + range[i].count;
	}
	qsort(point, 2 * count, sizeof(*point), by_value);
	for (size_t i = 0; i < 2 * count; i++)
		if (!points || point[points - 1] != point[i])
			point[points++] = point[i];
	for (size_t i = 0; i <= points; i++)
		next[i] = (uint32_t)i;
	for (size_t i = 0; i < count; i++) {
		size_t last = place_of(point, points, range[i].start + range[i].count);
		size_t at = next_untaken(next, place_of(point, points, range[i].start));
		while (at < last) {
			size_t from = at;
			for (; at < last && next[at] == at; at++)
				next[at] = (uint32_t)at + 1;
			out(arg, point[from], point[at]);
			at = next_untaken(next, at);
		}
	}
}

struct tally {
	FILE *f; /* NULL: count only */
	uint64_t ranges;
};

static void put_range(void *arg, uint64_t start, uint64_t end)
{
	struct tally *tally = arg;

	tally->ranges++;
	if (tally->f)
		fprintf(tally->f, "%llu %llu\n", (unsigned long long)start, (unsigned long long)(end - start));
}

static int print(FILE *f, const struct hotset_target *target, const struct hotset_about *about,
		 const struct hotset_range *range, size_t count)
{
	uint64_t *point = calloc(2 * count + 1, sizeof(*point));
	uint32_t *next = calloc(2 * count + 1, sizeof(*next));
	struct tally tally = {NULL, 0};

	if (point && next) {
		each_once(range, count, point, next, put_range, &tally);
		fprintf(f,
			"filemap-hotset 1\nuri %s\nsize %llu\nversion %llu\npage %llu\nranges "
			"%llu\nlost %llu\n",
			target->uri, (unsigned long long)about->size_bytes,
			(unsigned long long)about->version, (unsigned long long)about->page_size,
			(unsigned long long)tally.ranges, (unsigned long long)about->lost);
		tally.f = f;
		each_once(range, count, point, next, put_range, &tally);
	}
	bool no_memory = !point || !next;
	free(point);
	free(next);
	return no_memory ? -ENOMEM : 0;
}

static int save(const struct hotset_target *target, const struct hotset_about *about,
		const struct hotset_range *range, size_t count)
{
	static uint32_t last; /* atomic */
	char name[NAME_MAX + 64];
	int error;

	/* Other users may write to the folder too: the name is new, and cannot be another
	 * user's link. */
	snprintf(name, sizeof(name), ".%s.%d-%u", target->name, (int)getpid(), atomic_add(&last, 1u));
	int fd = os_fd_open(target->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0666);
	if (fd < 0)
		return fd;
	FILE *f = fdopen(fd, "w");
	if (!f) {
		close(fd);
		error = -ENOMEM;
	} else {
		error = print(f, target, about, range, count);
		errno = 0;
		bool bad = fflush(f) != 0 || ferror(f);
		if (!error && bad)
			error = errno ? -errno : -EIO;
		if (fclose(f) != 0 && !error)
			error = -EIO;
	}
	if (!error && renameat(target->dir_fd, name, target->dir_fd, target->name) < 0)
		error = -errno;
	if (error)
		unlinkat(target->dir_fd, name, 0);
	return error;
}

struct saving {
	const struct hotset_target *target;
	const struct hotset_about *about;
	const struct hotset_range *range;
	size_t count;
};

static long saving_call(void *arg)
{
	const struct saving *saving = arg;

	return save(saving->target, saving->about, saving->range, saving->count);
}

int hotset_save(const struct hotset_target *target, const struct hotset_about *about,
		const struct hotset_range *range, size_t count)
{
	/* Save in a thread of the library: that thread knows the folder's descriptor. */
	return (int)os_fds_call(saving_call, &(struct saving){target, about, range, count});
}
